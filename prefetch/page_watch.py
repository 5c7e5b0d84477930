"""PageWatch: whether what was warmed for the next jobs is warm still; the kernel may take it back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..loaders.system.disk_kind import Disk
from ..lora.library.file import AdapterKey
from .machine import Machine
from .models.reading import negligible_bytes
from .models.tier import ModelTier
from .queue.need import JobNeeds
from .reading.reading import no_longer_resident
from .reading.warmer import Warmer

RECHECKED_JOBS = 3
LOOKS = 4
"""Disks that are looked at at a time, each in a thread: on a share that is gone for ever."""


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
        self._turns = asyncio.Semaphore(LOOKS)
        self._looking: set[Disk | None] = set()

    async def look(self, jobs: Sequence[JobNeeds]) -> None:
        """Forgets what of the first `jobs` is not whole any more. There is one look at a disk at a time, and one that
        hangs holds up no other disk."""
        keys = [need.key for job in jobs[:RECHECKED_JOBS] for need in job.needs]
        least_bytes = {key: key.size_bytes for key in keys if key is not None and self._warmer.pages.get(key)}
        for key in self._models.warm_keys(RECHECKED_JOBS):
            least_bytes[key] = key.size_bytes - negligible_bytes(key.size_bytes)
        by_disk: dict[Disk | None, dict[AdapterKey, int]] = {}
        for key, nbytes in least_bytes.items():
            by_disk.setdefault(self._warmer.disk_of(key.path), {})[key] = nbytes
        await asyncio.gather(*(self._look_at(disk, its) for disk, its in by_disk.items() if disk not in self._looking))

    async def _look_at(self, disk: Disk | None, least_bytes: Mapping[AdapterKey, int]) -> None:
        self._looking.add(disk)
        try:
            async with self._turns:
                gone = await self._offload(partial(no_longer_resident, least_bytes, self._machine.resident_bytes))
        finally:
            self._looking.discard(disk)
        if gone:
            self._warmer.forget_pages(gone)
            self._models.forget_pages(gone)
            self._changed()
