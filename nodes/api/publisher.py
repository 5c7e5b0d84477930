"""StatusPublisher: the status goes to open pages when it changed, and no more often than they can use."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..server.off_loop import ask
from .routes import STATUS_EVENT

logger = logging.getLogger("warmstack")

INTERVAL_S = 0.5

_SLACK = 0.9
"""A look that comes a few milliseconds before its time must not skip a whole interval."""


class StatusPublisher:
    """Looks for a new revision twice a second while some page listens; sends each revision once. Lives on one event
    loop."""

    def __init__(
        self,
        revision: Callable[[], int],
        status: Callable[[], Mapping[str, Any]],
        send: Callable[[str, Mapping[str, Any]], None],
        listening: Callable[[], bool],
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._revision = revision
        self._status = status
        self._send = send
        self._listening = listening
        self._interval_s = interval_s
        self._clock = clock
        self._sent_revision = -1
        self._sent_s = -math.inf

    async def run(self) -> None:
        """Until cancelled. A status that cannot be built is skipped: the panel is never worth the loop."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.publish()
            except Exception:
                logger.debug("the status could not be sent", exc_info=True)

    async def publish(self) -> bool:
        """Send the status if somebody listens and has not seen this revision. Returns whether it was sent.

        Nothing is built for nobody: a page that opens later asks for the status itself.
        """
        if not self._listening() or self._revision() == self._sent_revision or self._is_early():
            return False
        self.offer(STATUS_EVENT, await ask(self._status))
        return True

    def offer(self, event: str, status: Mapping[str, Any]) -> None:
        """Send `status` at once if it is news and not too soon; too soon, the next look sends it."""
        if self._listening() and status["revision"] != self._sent_revision and not self._is_early():
            self._sent_revision = status["revision"]
            self._sent_s = self._clock()
            self._send(event, status)

    def _is_early(self) -> bool:
        return self._clock() - self._sent_s < self._interval_s * _SLACK
