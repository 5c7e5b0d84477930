"""Schedule: which of the due files are being read now: on every disk the nearest need first, as many as it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from ..loaders.disk_kind import Disk
from .disks import Disks
from .plan import Fetch, FetchKey
from .reading import Reading
from .settings import PrefetchSettings

Line = Disk | None
"""Files that are read in one order: those of one disk, or all of them where the user has set how many."""

THREADS = 16
"""Reads that are going on or paused. Each holds a thread, and one that waited for a thread behind those that wait for
it would wait for ever."""
MOST_PAUSED = 4
"""Reads of one line that are kept for later: a paused read holds memory."""
DEMANDED = -1
LAST = 1 << 30
"""The turn of a read that no due fetch asks for any more."""


class Schedule:
    """Owned by the event loop.

    A read that a nearer need overtakes is paused between two chunks and goes on afterwards, so that no byte is read
    twice. What it had reserved stays reserved; if the nearer file lacks that room, it is given up after all.
    """

    def __init__(
        self, disks: Disks, begin: Callable[[Fetch], Reading], keeps_off: Callable[[Disk | None], bool]
    ) -> None:
        """`begin` starts to read a file. `keeps_off(disk)`: files of later jobs leave the disk alone just now."""
        self.settings = PrefetchSettings()
        self.is_yielding = False
        """Something waits because the running job reads the same disk."""
        self._disks = disks
        self._begin = begin
        self._keeps_off = keeps_off
        self._due: dict[FetchKey, tuple[int, Fetch]] = {}
        self._lines: dict[Line, deque[Fetch]] = {}
        self._awaits_disks = False
        """Something is due of which the disk is not known yet: it starts with the plan that follows."""
        self._readings: dict[FetchKey, Reading] = {}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every read that has not ended, told to stop or not."""
        return tuple(self._readings.values())

    @property
    def is_idle(self) -> bool:
        return not (self._readings or self._awaits_disks or any(self._lines.values()))

    def line_of(self, path: str) -> Line:
        return None if self.settings.concurrency is not None else self._disks.under(path)

    def beside(self, reading: Reading) -> int:
        """How many share the disk of `reading`, itself included."""
        line = self.line_of(reading.fetch.file.path)
        others = (other for other in self._readings.values() if other is not reading and not other.is_paused)
        return 1 + sum(self.line_of(other.fetch.file.path) == line for other in others)

    def follow(self, due: Sequence[Fetch]) -> None:
        """Takes the place of what was due before."""
        self._due = {fetch.key: (turn, fetch) for turn, fetch in enumerate(due)}
        self._lines, self._awaits_disks = {}, False
        self._disks.locate(fetch.file.path for fetch in due)
        for fetch in due:
            self._place(fetch)
        self.balance()

    def ended(self, reading: Reading) -> None:
        del self._readings[reading.fetch.key]

    def make_room(self, key: FetchKey) -> bool:
        """The cache had no room for this one: gives up a read that is paused for later. False when there is none."""
        turn = self._due[key][0] if key in self._due else LAST
        held = [r for r in self._readings.values() if r.is_paused and r.fetch.tier == "resident"]
        victim = max(held, key=self._turn, default=None)
        if victim is None or self._turn(victim) <= turn:
            return False
        victim.gives_room = True
        victim.cancel()
        return True

    def clear(self) -> None:
        """Stops everything."""
        self._lines, self._awaits_disks = {}, False
        for reading in self._readings.values():
            reading.cancel()

    def balance(self) -> None:
        """Starts, pauses and resumes, so that on every disk the nearest needs are being read."""
        self.is_yielding = False
        readings: dict[Line, list[Reading]] = {line: [] for line, waiting in self._lines.items() if waiting}
        for reading in self._readings.values():
            readings.setdefault(self.line_of(reading.fetch.file.path), []).append(reading)
        for line, its in readings.items():
            self._balance_line(line, its)

    def _place(self, fetch: Fetch) -> None:
        if fetch.key in self._readings:
            return
        line = self.line_of(fetch.file.path)
        if line is None and self.settings.concurrency is None:
            self._awaits_disks = True
        else:
            self._lines.setdefault(line, deque()).append(fetch)

    def _balance_line(self, line: Line, readings: list[Reading]) -> None:
        going = deque(sorted((r for r in readings if not r.is_cancelled), key=self._turn))
        # What was told to stop may still be inside a chunk.
        free = self._readers(line) - sum(r.is_cancelled and not r.stopped_idle for r in readings)
        paused: list[Reading] = []
        takes_more = True
        while free > 0:
            fetch = self._next(line) if takes_more else None
            if fetch is not None and (not going or self._due[fetch.key][0] < self._turn(going[0])):
                takes_more = self._start(line, fetch)
                if not takes_more:
                    continue
            elif going:
                reading = going.popleft()
                if self._must_yield(reading.fetch) and not reading.is_demanded:
                    paused.append(reading)
                    continue
                reading.resume()
            else:
                break
            free -= 1
        for reading in (paused := [*paused, *going]):
            reading.pause()
        for reading in paused[MOST_PAUSED:]:
            reading.cancel()

    def _readers(self, line: Line) -> int:
        measuring = self._disks.measuring
        if measuring is not None and line in (None, measuring):
            self._disks.stop_measuring()
            return 0
        if line is None:
            return self.settings.concurrency or 1
        return self._disks.readers(line, self.settings)

    def _next(self, line: Line) -> Fetch | None:
        """The nearest that waits in the line and may start."""
        for fetch in self._lines.get(line, ()):
            if fetch.tier == "resident" and any(reading.gives_room for reading in self._readings.values()):
                return None
            if not self._must_yield(fetch):
                return fetch
        return None

    def _start(self, line: Line, fetch: Fetch) -> bool:
        """False when every thread is taken: the read that is paused for longest gives its own back."""
        if len(self._readings) >= THREADS:
            paused = [r for r in self._readings.values() if r.is_paused]
            if paused:
                max(paused, key=self._turn).cancel()
            return False
        self._lines[line].remove(fetch)
        self._readings[fetch.key] = reading = self._begin(fetch)
        reading.beside = self.beside(reading)
        return True

    def _must_yield(self, fetch: Fetch) -> bool:
        """A file of the running job goes on whatever that job reads."""
        if fetch.key in self._due and self._due[fetch.key][1].position == 0:
            return False
        if not self._keeps_off(self._disks.under(fetch.file.path)):
            return False
        self.is_yielding = True
        return True

    def _turn(self, reading: Reading) -> int:
        if reading.is_demanded:
            return DEMANDED
        return self._due[reading.fetch.key][0] if reading.fetch.key in self._due else LAST
