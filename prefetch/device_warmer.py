"""DeviceWarmer: resident adapters of the next jobs onto the device, in queue order, as far as its budget reaches."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from ..lora.library.file import AdapterKey
from .device_status import device_status
from .machine import Machine
from .queue.need import JobNeeds
from .settings import PrefetchSettings
from .status import PrefetchStatus

if TYPE_CHECKING:
    from ..lora.cache.cache import AdapterCache
    from ..lora.device.device_shelf import DeviceShelf, ShelfOutcome

_NO_SHELF = "nothing here keeps adapters on a device"


class DeviceWarmer:
    """Owned by the event loop; uploads run one at a time in a thread of their own. Without a shelf it only tells why:
    `refusal`."""

    def __init__(
        self,
        cache: AdapterCache,
        shelf: DeviceShelf | None,
        refusal: str,
        machine: Machine,
        wake: Callable[[], None],
    ) -> None:
        """`wake`, from any thread, makes the loop look again."""
        self._cache = cache
        self._shelf = shelf
        self._refusal = refusal or _NO_SHELF
        self._wake = wake
        self._pool = machine.make_pool(1, "warmstack-device")
        self._enabled = False
        self._limit_bytes: int | None = None
        self._jobs: Sequence[JobNeeds] = ()
        self._next_uses: dict[AdapterKey, int] = {}
        self._wanted: tuple[AdapterKey, ...] = ()
        self._refused: set[AdapterKey] = set()
        self._sending: AdapterKey | None = None
        self._future: Future[ShelfOutcome] | None = None

    @property
    def futures(self) -> tuple[Future[Any], ...]:
        """The upload that has not ended, told to stop or not."""
        return () if self._future is None else (self._future,)

    def follow(self, settings: PrefetchSettings, jobs: Sequence[JobNeeds], resident: Container[AdapterKey]) -> None:
        """Looks at the queue again. `jobs` is the same object while it is unchanged."""
        if self._shelf is None:
            return
        self._apply(self._shelf, settings)
        if not self._enabled:
            return
        if jobs is not self._jobs:
            self._jobs = jobs
            self._plan(self._shelf)
        self._start(self._shelf, resident)

    def shown(self, settings: PrefetchSettings, status: PrefetchStatus) -> PrefetchStatus:
        """`status` with what is on the device. Both revisions only grow, and so does their sum."""
        enabled = _is_on(settings)
        if self._shelf is None:
            return status._replace(device=device_status(enabled, self._refusal, None))
        there = self._shelf.snapshot()
        device = device_status(enabled, self._refusal, there)
        return status._replace(revision=status.revision + there.revision, device=device)

    def stop(self) -> None:
        """Tells the upload to stop and takes no more."""
        self._wanted = ()
        self._sending = None
        self._pool.close()

    def join(self, timeout_s: float) -> bool:
        return self._pool.join(timeout_s)

    def _apply(self, shelf: DeviceShelf, settings: PrefetchSettings) -> None:
        enabled = _is_on(settings)
        if self._enabled and not enabled:
            self._wanted, self._sending, self._jobs = (), None, ()
            shelf.clear()
        self._enabled = enabled
        limit_bytes = settings.device_budget_bytes
        if enabled and limit_bytes is not None and limit_bytes != self._limit_bytes:
            self._limit_bytes = limit_bytes
            shelf.resize(limit_bytes)

    def _plan(self, shelf: DeviceShelf) -> None:
        self._refused.clear()
        next_uses: dict[AdapterKey, int] = {}
        for position, job in enumerate(self._jobs):
            for use in job.uses:
                if use.via_cache:
                    next_uses.setdefault(use.key, position)
        if next_uses != self._next_uses:
            self._next_uses = next_uses
            shelf.plan_uses(next_uses)
        self._wanted = tuple(self._in_reach(shelf.limit_bytes))
        if self._sending not in self._wanted:
            self._sending = None

    def _in_reach(self, limit_bytes: int) -> Iterator[AdapterKey]:
        """What running jobs use stays where it is; what does not fit beside what comes before it ends the reach."""
        sizes = {use.key: use.file.size_bytes for job in self._jobs for use in job.uses if use.via_cache}
        running = {use.key for job in self._jobs if job.job.running for use in job.uses}
        left_bytes = limit_bytes
        for key in self._next_uses:
            if sizes[key] > limit_bytes:
                continue
            left_bytes -= sizes[key]
            if left_bytes < 0:
                return
            if key not in running:
                yield key

    def _start(self, shelf: DeviceShelf, resident: Container[AdapterKey]) -> None:
        if self._future is not None:
            return
        for key in self._wanted:
            if key in resident and key not in self._refused and not shelf.holds(key):
                self._sending = key
                self._future = self._pool.submit(partial(self._send, shelf, key, self._next_uses[key]))
                self._future.add_done_callback(partial(self._ended, key))
                return

    def _send(self, shelf: DeviceShelf, key: AdapterKey, next_use: int) -> ShelfOutcome:
        """In the thread of uploads."""
        lease = self._cache.borrow(key)
        if lease is None:
            return "cancelled"
        with lease:
            return shelf.prefetch(lease.adapter, next_use, cancelled=lambda: self._sending != key)

    def _ended(self, key: AdapterKey, future: Future[ShelfOutcome]) -> None:
        """In the thread of uploads, or in whichever cancelled it."""
        failed = future.cancelled() or future.exception() is not None
        if failed or future.result() in ("no_room", "unfit", "failed"):
            # Until the queue moves: then something else may have gone.
            self._refused.add(key)
        self._future = None
        self._wake()


def _is_on(settings: PrefetchSettings) -> bool:
    return settings.enabled and settings.device_tier
