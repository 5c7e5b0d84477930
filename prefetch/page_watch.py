"""PageWatch: whether what was warmed for the next jobs is warm still; the kernel may take it back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from .machine import Machine
from .models.reading import negligible_bytes
from .models.tier import ModelTier
from .queue.need import JobNeeds
from .reading.reading import no_longer_resident
from .reading.warmer import Warmer

RECHECKED_JOBS = 3


class PageWatch:
    """Owned by the event loop."""

    def __init__(
        self,
        warmer: Warmer,
        models: ModelTier,
        machine: Machine,
        offload: Callable[[Callable[[], Any]], Awaitable[Any]],
        changed: Callable[[], None],
    ) -> None:
        """`offload` runs a blocking call in a thread; `changed()` is called when something has to be read again."""
        self._warmer = warmer
        self._models = models
        self._machine = machine
        self._offload = offload
        self._changed = changed
        self._is_looking = False

    async def look(self, jobs: Sequence[JobNeeds]) -> None:
        """Forgets what of the first `jobs` is not whole any more. One look at a time: on a share that is gone it may
        take for ever, and each takes a thread."""
        if self._is_looking:
            return
        keys = [need.key for job in jobs[:RECHECKED_JOBS] for need in job.needs]
        least_bytes = {key: key.size_bytes for key in keys if key is not None and self._warmer.pages.get(key)}
        for key in self._models.warm_keys(RECHECKED_JOBS):
            least_bytes[key] = key.size_bytes - negligible_bytes(key.size_bytes)
        if not least_bytes:
            return
        self._is_looking = True
        try:
            gone = await self._offload(partial(no_longer_resident, least_bytes, self._machine.resident_bytes))
        finally:
            self._is_looking = False
        if gone:
            self._warmer.forget_pages(gone)
            self._models.forget_pages(gone)
            self._changed()
