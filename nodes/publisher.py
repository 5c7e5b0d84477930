"""StatusPublisher: the status goes to open pages when it changed, and no more often than they can use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from .routes import STATUS_EVENT

logger = logging.getLogger("warmstack")

INTERVAL_S = 0.5


class StatusPublisher:
    """Looks for a new revision twice a second while some page listens; sends each revision once. Lives on one event
    loop."""

    def __init__(
        self,
        status: Callable[[], Mapping[str, Any]],
        send: Callable[[str, Mapping[str, Any]], None],
        listening: Callable[[], bool],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._status = status
        self._send = send
        self._listening = listening
        self._interval_s = interval_s
        self._sent_revision = -1

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
        if not self._listening():
            return False
        status = await asyncio.to_thread(self._status)
        if status["revision"] == self._sent_revision:
            return False
        self._sent_revision = status["revision"]
        self._send(STATUS_EVENT, status)
        return True
