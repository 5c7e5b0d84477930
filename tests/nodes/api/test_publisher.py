"""Open pages get each change once, at most twice a second, and an unwatched server builds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from warmstack.nodes.api.publisher import StatusPublisher


class Stage:
    """What the publisher looks at, with a clock that the test turns."""

    def __init__(self) -> None:
        self.revision = 1
        self.now_s = 100.0
        self.pages = 1
        self.built = 0
        self.sent: list[int] = []
        self.publisher = StatusPublisher(
            lambda: self.revision,
            self._status,
            self._send,
            lambda: self.pages > 0,
            interval_s=0.5,
            clock=lambda: self.now_s,
        )

    def _status(self) -> Mapping[str, Any]:
        self.built += 1
        return {"revision": self.revision}

    def _send(self, event: str, status: Mapping[str, Any]) -> None:
        assert event == "warmstack.status"
        self.sent.append(status["revision"])

    def change(self) -> None:
        self.revision += 1


async def test_a_revision_is_sent_once() -> None:
    stage = Stage()
    assert await stage.publisher.publish()
    stage.now_s += 10
    assert not await stage.publisher.publish()
    stage.change()
    assert await stage.publisher.publish()
    assert stage.sent == [1, 2]


async def test_nothing_is_built_for_nobody() -> None:
    stage = Stage()
    stage.pages = 0
    assert not await stage.publisher.publish()
    stage.publisher.offer("warmstack.status", {"revision": 7})
    assert (stage.built, stage.sent) == (0, [])
    stage.pages = 1
    assert await stage.publisher.publish()


async def test_changes_within_the_interval_are_sent_together() -> None:
    stage = Stage()
    await stage.publisher.publish()
    for _ in range(20):
        stage.change()
        stage.now_s += 0.02
        assert not await stage.publisher.publish()
        stage.publisher.offer("warmstack.status", {"revision": stage.revision})
    stage.now_s += 0.1
    assert await stage.publisher.publish()
    assert stage.sent == [1, 21]


async def test_an_action_is_shown_at_once_when_it_is_not_too_soon() -> None:
    stage = Stage()
    stage.publisher.offer("warmstack.status", {"revision": 1})
    stage.publisher.offer("warmstack.status", {"revision": 1})
    assert stage.sent == [1]


async def test_the_loop_outlives_a_status_that_cannot_be_built() -> None:
    built: list[int] = []
    sent = asyncio.Event()

    def status() -> Mapping[str, Any]:
        built.append(1)
        if len(built) == 1:
            raise RuntimeError("half built")
        return {"revision": 1}

    publisher = StatusPublisher(lambda: 1, status, lambda *_: sent.set(), lambda: True, interval_s=0.001)
    running = asyncio.create_task(publisher.run())
    await sent.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(built) == 2
