"""Reading: one file being warmed by a thread, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ...loaders.cancelling import Cancelled
from ...loaders.errors import LoadCancelledError, SafetensorsLoadError
from ...loaders.system.rate_limit import RateLimit
from ...lora.library.file import AdapterKey
from ..machine import Machine
from ..planning.plan import Fetch
from .gate import Gate

if TYPE_CHECKING:
    from ...lora.cache.cache import AdapterCache
    from ...lora.cache.loading import PrefetchOutcome

PROBLEMS: Mapping[PrefetchOutcome, str] = {
    "failed": "it cannot be loaded",
    "unavailable": "it could not be loaded just now; it is tried again",
}


class Outcome(NamedTuple):
    """How one reading ended. `already`: nothing had to be read. `unavailable`: the file is not to blame."""

    state: PrefetchOutcome
    read_bytes: int = 0
    keeps_pages: bool = True
    """False where the page cache does not show what was just read, so that asking it again means nothing."""
    problem: str = ""
    seconds: float = 0.0
    last_chunk_s: float = 0.0
    """How much of it went by since the last chunk was asked for: where a read has failed, it is the one that did."""


class Read:
    """Made on the event loop, `_timed` in a thread. `cancel` and `pause` take effect within one chunk; a read that was
    paused goes on where it stopped."""

    def __init__(
        self,
        path: str,
        limiter: Callable[[], RateLimit | None],
        clock: Callable[[], float],
        joined: Callable[[], None] = lambda: None,
    ) -> None:
        """`joined` is called in the reading thread when a demand begins to wait for this read."""
        self.path = path
        self.stopped_idle = False
        """It was cancelled while it did not read, so that it does not read any more."""
        self.is_cancelled = False
        self.gate = Gate(limiter, self._must_stop, joined, clock)
        self._clock = clock
        self._has_begun = False

    @property
    def is_paused(self) -> bool:
        return not self.gate.is_open

    def cancel(self) -> None:
        if not self.is_cancelled:
            self.stopped_idle = self.is_paused
        self.is_cancelled = True
        self.gate.is_open = True

    def pause(self) -> None:
        """What has not begun is cancelled: it has nothing to lose, and would hold a thread."""
        if not self._has_begun:
            self.cancel()
            self.stopped_idle = True
        elif not self.is_cancelled:
            self.gate.is_open = False

    def resume(self) -> None:
        self.gate.is_open = True

    def _timed(self, read: Callable[[], Outcome]) -> Outcome:
        self._has_begun = True
        if self.is_cancelled:
            return Outcome("cancelled")
        started_s = self.gate.passed_at_s = self._clock()
        outcome = read()
        ended_s = self._clock()
        return outcome._replace(
            seconds=ended_s - started_s - self.gate.held_s, last_chunk_s=ended_s - self.gate.passed_at_s
        )

    def _must_stop(self) -> bool:
        return self.is_cancelled


class Reading(Read):
    """Of a LoRA."""

    def __init__(
        self,
        fetch: Fetch,
        limiter: Callable[[], RateLimit | None],
        joined: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(fetch.file.path, limiter, clock, joined)
        self.fetch = fetch
        self.gives_room = False
        """It was cancelled for its reservation, which a nearer file needs."""
        self.beside = 1
        """How many shared the disk when it began, itself included."""

    @property
    def is_demanded(self) -> bool:
        """A job waits for it: no gate and no limit holds it any more."""
        return self.gate.is_demanded

    def run(self, cache: AdapterCache, machine: Machine) -> Outcome:
        if self.fetch.tier == "resident":
            return self._timed(partial(self._make_resident, cache))
        size_bytes = self.fetch.file.size_bytes
        return self._timed(partial(warm_pages, self.path, size_bytes, machine, self._must_stop, self.gate))

    def _make_resident(self, cache: AdapterCache) -> Outcome:
        state = cache.prefetch(self.fetch.file, cancelled=self._must_stop, limiter=self.gate)
        read_bytes = self.fetch.file.size_bytes if state == "ready" else 0
        return Outcome(state, read_bytes, problem=PROBLEMS.get(state, ""))


def warm_pages(
    path: str,
    size_bytes: int,
    machine: Machine,
    cancelled: Cancelled,
    gate: Gate,
    *,
    negligible_bytes: int = 0,
) -> Outcome:
    """Brings the file into the page cache, unless all but `negligible_bytes` of it are there. Blocking; `cancelled` is
    asked between two chunks."""
    try:
        if (machine.resident_bytes(path) or 0) >= size_bytes - negligible_bytes:
            return Outcome("already")
        nbytes = machine.warm_file(path, cancelled=cancelled, limiter=gate)
        kept = machine.resident_bytes(path)
    except LoadCancelledError:
        return Outcome("cancelled", gate.done_bytes)
    except (OSError, SafetensorsLoadError) as error:
        is_systems = isinstance(error, OSError) or isinstance(error.__cause__, OSError)
        return Outcome("unavailable" if is_systems else "failed", gate.done_bytes, problem=_reason(error))
    return Outcome("ready", nbytes, keeps_pages=kept is not None and 2 * kept >= size_bytes)


def no_longer_resident(
    least_bytes: Mapping[AdapterKey, int], resident_bytes: Callable[[str], int | None]
) -> set[AdapterKey]:
    """Of which of these files the page cache holds less. Blocking; a file that is gone counts as held."""
    gone = set()
    for key, wanted in least_bytes.items():
        with suppress(OSError, SafetensorsLoadError):
            kept = resident_bytes(key.path)
            if kept is not None and kept < wanted:
                gone.add(key)
    return gone


def _reason(error: OSError | SafetensorsLoadError) -> str:
    """Without the path, which both carry."""
    return error.reason if isinstance(error, SafetensorsLoadError) else error.strerror or type(error).__name__
