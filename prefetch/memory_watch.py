"""MemoryWatch: what the machine has left, and the resident budget that follows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ..lora.library.file import AdapterKey
from .machine import Machine
from .models.plan import Room
from .pressure import next_limit_bytes, page_budget_bytes
from .settings import PrefetchSettings

if TYPE_CHECKING:
    from ..lora.cache.cache import AdapterCache


class _Seen(NamedTuple):
    available_bytes: int
    machine_headroom_bytes: int
    is_changed: bool
    """The resident budget was."""


class MemoryWatch:
    """Owned by the event loop."""

    def __init__(
        self,
        cache: AdapterCache,
        machine: Machine,
        offload: Callable[[Callable[[], Any]], Awaitable[Any]],
        default_budget_bytes: int | None = None,
    ) -> None:
        """`offload` runs a blocking call in a thread, one at a time; `default_budget_bytes` is the budget when no
        setting names one, None: what the cache was built with."""
        self._cache = cache
        self._machine = machine
        self._offload = offload
        built_bytes = cache.snapshot().limit_bytes
        self._default_budget_bytes = built_bytes if default_budget_bytes is None else default_budget_bytes
        self._available_bytes = 0
        self._machine_headroom_bytes = 0
        self._looked = False
        self._looked_at_s = float("-inf")

    @property
    def has_looked(self) -> bool:
        return self._looked

    def take_turn(self, every_s: float) -> bool:
        """True, once in that time, when it is time to look again."""
        now_s = self._machine.clock()
        if now_s - self._looked_at_s < every_s:
            return False
        self._looked_at_s = now_s
        return True

    def hurry(self) -> None:
        """The next turn is now."""
        self._looked_at_s = float("-inf")

    async def look(self, settings: PrefetchSettings) -> bool:
        """True when the resident budget was changed."""
        seen: _Seen = await self._offload(partial(self._follow, settings))
        self._available_bytes, self._machine_headroom_bytes = seen.available_bytes, seen.machine_headroom_bytes
        self._looked = True
        return seen.is_changed

    def _follow(self, settings: PrefetchSettings) -> _Seen:
        """In a thread, and all at once: another look may wait for its turn there."""
        # What was evicted for a load has been taken by that load, or is not needed.
        self._cache.release_spare()
        available_bytes, machine_headroom_bytes = self._machine.available_bytes(), self._machine.headroom_bytes()
        cached = self._cache.snapshot()
        limit_bytes = next_limit_bytes(
            self._default_budget_bytes if settings.budget_bytes is None else settings.budget_bytes,
            cached.limit_bytes,
            cached.used_bytes,
            available_bytes,
            _headroom_bytes(settings, machine_headroom_bytes),
        )
        # What was in use, or still being read, when the limit fell could not go then.
        if limit_bytes != cached.limit_bytes or cached.used_bytes > limit_bytes:
            self._cache.resize(limit_bytes)
        return _Seen(available_bytes, machine_headroom_bytes, limit_bytes != cached.limit_bytes)

    def _headroom_bytes(self, settings: PrefetchSettings) -> int:
        return _headroom_bytes(settings, self._machine_headroom_bytes)

    def is_short(self, settings: PrefetchSettings) -> bool:
        return self._looked and self._available_bytes < self._headroom_bytes(settings)

    def page_bytes(self, settings: PrefetchSettings) -> int:
        """How much page cache may be filled ahead."""
        return page_budget_bytes(settings.page_budget_bytes, self._available_bytes, self._headroom_bytes(settings))

    def room_beside(self, pages: Iterable[AdapterKey], settings: PrefetchSettings) -> Room:
        """What models may fill beside the LoRAs `pages`."""
        lora_bytes = sum(key.size_bytes for key in pages)
        free_bytes = self._available_bytes - self._headroom_bytes(settings)
        return Room(self.page_bytes(settings) - lora_bytes, free_bytes - lora_bytes)


def _headroom_bytes(settings: PrefetchSettings, machine_bytes: int) -> int:
    return machine_bytes if settings.headroom_bytes is None else settings.headroom_bytes
