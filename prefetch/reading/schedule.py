"""Schedule: which of the due files are being read now: on every disk the nearest need first, as many as it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from ...loaders.system.disk_kind import Disk
from ..disks.disks import NOWHERE, Disks
from ..planning.plan import Fetch, FetchKey
from ..settings import MOST_READERS, PrefetchSettings
from .lane import taken
from .reading import Reading

Line = Disk | None
"""Files that are read in one order: those of one disk. Where the user has set how many, those of all disks but the ones
on which a read stands still."""

THREADS = 2 * MOST_READERS
"""Reads that are going on or paused. Each holds a thread, and one that waited for a thread behind those that wait for
it would wait for ever. One disk can take half of them for ever."""
AHEAD = 4
"""Reads that the threads of a line may go on with by themselves, so that no file waits for a busy event loop."""
MOST_PAUSED = 4
"""Reads of one line that are kept for later: a paused read holds memory."""
DEMANDED = -1
LAST = 1 << 30
"""The turn of a read that no due fetch asks for any more."""


class Place(NamedTuple):
    """A fetch in the order of what is due."""

    turn: int
    fetch: Fetch


class Schedule:
    """Owned by the event loop.

    A read that a nearer need overtakes is paused between two chunks and goes on afterwards, so that no byte is read
    twice. What it had reserved stays reserved; if the nearer file lacks that room, it is given up after all.
    """

    def __init__(
        self,
        disks: Disks,
        make: Callable[[Fetch], Reading],
        launch: Callable[[Reading, deque[Reading]], None],
        keeps_off: Callable[[Disk | None], bool],
        is_urgent: Callable[[Fetch], bool] = lambda _: False,
    ) -> None:
        """`launch` starts a thread with a reading of `make`, and with what it may go on with. `keeps_off(disk)`: files
        of later jobs leave the disk alone just now, but for those that are `is_urgent`."""
        self.settings = PrefetchSettings()
        self.stalled: Sequence[str] = ()
        """Paths of reads that stand still: they take no place of other disks. Whoever changes it has a plan follow."""
        self.is_yielding = False
        """Something waits because the running job reads the same disk."""
        self._disks = disks
        self._make = make
        self._launch = launch
        self._keeps_off = keeps_off
        self._is_urgent = is_urgent
        self._due: Sequence[Fetch] = ()
        self._placed = 0
        """How many of `_due` stand in their lines. The others follow when a line runs dry: most plans are replaced by
        the next one long before."""
        self._lines: dict[Line, deque[Place]] = {}
        self._places: dict[FetchKey, Place] = {}
        """Where the reads stand that are going on, paused, or ended since the plan came."""
        self._awaits_disks = False
        """Something is due of which the disk is not known yet: it starts with the plan that follows."""
        self._readings: dict[FetchKey, Reading] = {}
        self._ahead: dict[Line, deque[Reading]] = {}
        """What the threads of each line go on with, shared with them: they take from the left."""
        self._handed: dict[FetchKey, Reading] = {}
        """What was put there and not taken back, until a thread tells that it has begun."""
        self._taken_back: dict[FetchKey, Reading] = {}
        """What nobody took: made already, in case it comes to its turn after all."""
        self._calm: set[Line] = set()
        """Lines in which nothing has to be decided when a read ends."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every read that is known to have begun and has not ended, told to stop or not."""
        return tuple(self._readings.values())

    @property
    def has_placed_all(self) -> bool:
        """Nothing that is due still waits for its turn."""
        return self._placed >= len(self._due) and not self._handed and not any(self._lines.values())

    def is_dry(self, line: Line) -> bool:
        """Nothing that is due in the line still waits for its turn. To be asked after an end there."""
        return self._placed >= len(self._due) and not (self._lines.get(line) or self._ahead.get(line))

    @property
    def is_idle(self) -> bool:
        """Nothing is due or being read; what was told to stop may hang for ever, and does not count."""
        is_reading = any(not reading.is_cancelled for reading in self._readings.values())
        return self.has_placed_all and not (is_reading or self._awaits_disks)

    def line_of(self, path: str) -> Line:
        disk = self._disks.under(path)
        if self.settings.concurrency is None:
            return disk
        return disk or NOWHERE if disk in map(self._disks.under, self.stalled) else None

    def beside(self, reading: Reading) -> int:
        """How many share the disk of `reading`, itself included."""
        if len(self._readings) < 2:
            return 1
        line = self.line_of(reading.path)
        others = (other for other in self._readings.values() if other is not reading and not other.is_paused)
        return 1 + sum(self.line_of(other.path) == line for other in others)

    def keep(self, wanted: Callable[[FetchKey], bool]) -> None:
        """Stops everything else."""
        for key, reading in (*self._readings.items(), *self._handed.items()):
            if not wanted(key):
                reading.cancel()

    def follow(self, due: Sequence[Fetch]) -> None:
        """Takes the place of what was due before."""
        paths = [fetch.file.path for fetch in due]
        self._disks.locate(paths)
        lines = dict.fromkeys(map(self.line_of, paths))  # in the order of need, whatever the hashes
        self._awaits_disks = None in lines and self.settings.concurrency is None
        self._take_back()
        self._due, self._placed = due, 0
        self._lines = {line: deque() for line in lines}
        self._places = {}
        if self._readings:
            under_way = self._readings.keys() | self._handed.keys()
            read = {key.key for key in under_way}
            places = [Place(turn, fetch) for turn, fetch in enumerate(due) if fetch.file.key in read]
            self._places = {place.fetch.key: place for place in places if place.fetch.key in under_way}
        self.balance()

    def ended(self, reading: Reading, follower: Reading | None = None) -> None:
        """A thread has ended `reading`, and goes on with `follower`."""
        del self._readings[reading.fetch.key]
        if follower is not None:
            del self._handed[follower.fetch.key]
            self._readings[follower.fetch.key] = follower
            follower.beside = self.beside(follower)

    def go_on(self, reading: Reading, follower: Reading | None) -> None:
        """After an end: the thread gets more to go on with, unless there is something to decide."""
        line = self.line_of(reading.path)
        if follower is None or line not in self._calm:
            self.balance()
        else:
            self._hand_out(line)

    def make_room(self, key: FetchKey) -> bool:
        """The cache had no room for this one: gives up a read that is paused for later. False when there is none."""
        turn = self._places[key].turn if key in self._places else LAST
        held = [r for r in self._readings.values() if r.is_paused and r.fetch.tier == "resident"]
        victim = max(held, key=self._turn, default=None)
        if victim is None or self._turn(victim) <= turn:
            return False
        victim.gives_room = True
        victim.cancel()
        return True

    def clear(self) -> None:
        """Stops everything."""
        self._take_back()
        self._taken_back.clear()
        self._due, self._placed, self._lines, self._awaits_disks = (), 0, {}, False
        self.keep(lambda _: False)

    def balance(self) -> None:
        """Starts, pauses and resumes, so that on every disk the nearest needs are being read."""
        self.is_yielding = False
        self._take_back()
        readings: dict[Line, list[Reading]] = {line: [] for line in self._lines}
        for reading in self._readings.values():
            readings.setdefault(self.line_of(reading.path), []).append(reading)
        for line, its in readings.items():
            self._balance_line(line, its)
        self._taken_back.clear()

    def _balance_line(self, line: Line, readings: list[Reading]) -> None:
        if not readings:
            self._fill(line)
            return
        going = deque(sorted((r for r in readings if not r.is_cancelled), key=self._turn))
        # What was told to stop may still be inside a chunk.
        free = self._readers(line) - sum(r.is_cancelled and not r.stopped_idle for r in readings)
        paused: list[Reading] = []
        takes_more = True
        while free > 0:
            waiting = self._next(line) if takes_more else None
            if waiting is not None and (not going or waiting.turn < self._turn(going[0])):
                takes_more = self._start(line, waiting)
                if not takes_more:
                    continue
            elif going:
                reading = going.popleft()
                if not reading.is_demanded and self._must_yield(self._place_of(reading).fetch):
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
        if not (paused or any(reading.is_cancelled or reading.is_demanded for reading in readings)):
            self._hand_out(line)

    def _fill(self, line: Line) -> None:
        """The usual case: nothing is being read there, so that nobody can be overtaken."""
        readers = self._readers(line)
        for _ in range(readers):
            waiting = self._next(line)
            if waiting is None or not self._start(line, waiting):
                return
        if readers:
            self._hand_out(line)

    def _hand_out(self, line: Line) -> None:
        """Nothing in the line has to give way: its threads may go on with the nearest by themselves."""
        self._calm.add(line)
        ahead = self._ahead.setdefault(line, deque())
        for place in tuple(islice(self._waiting(line), AHEAD - len(ahead))):
            fetch = place.fetch
            if self._keeps_off(self._disks.under(fetch.file.path)):
                return
            self._leave_line(line, place)
            reading = self._handed[fetch.key] = self._reading(fetch)
            ahead.append(reading)

    def _take_back(self) -> None:
        """Whatever no thread has taken yet stands in its line again. What one has, it will tell."""
        self._calm.clear()
        for line, ahead in self._ahead.items():
            while (reading := taken(ahead.pop)) is not None:
                key = reading.fetch.key
                self._taken_back[key] = self._handed.pop(key)
                self._lines.setdefault(line, deque()).appendleft(self._places.pop(key))

    def _readers(self, line: Line) -> int:
        measuring = self._disks.measuring
        if measuring is not None and line in (None, measuring):
            self._disks.stop_measuring()
            return 0
        if line is None or self.settings.concurrency is not None:
            return self.settings.concurrency or 1
        return self._disks.readers(line, self.settings)

    def _next(self, line: Line) -> Place | None:
        """The nearest that waits in the line and may start."""
        if line == (None if self.settings.concurrency is None else NOWHERE):
            return None  # not until it is known what disk these lie on
        gives_room = any(reading.gives_room for reading in self._readings.values())
        for waiting in self._waiting(line):
            if waiting.fetch.tier == "resident" and gives_room:
                return None
            if not self._must_yield(waiting.fetch):
                return waiting
        return None

    def _waiting(self, line: Line) -> Iterator[Place]:
        """The line, nearest first, and after it what has not been placed yet."""
        yield from self._lines.get(line, ())
        while self._placed < len(self._due):
            place = Place(self._placed, self._due[self._placed])
            self._placed += 1
            if place.fetch.key in self._places:
                continue  # was being read when the plan came, and may have ended since
            its_line = self.line_of(place.fetch.file.path)
            self._lines.setdefault(its_line, deque()).append(place)
            if its_line == line:
                yield place

    def _start(self, line: Line, place: Place) -> bool:
        """False when every thread is taken: the read that is paused for longest gives its own back."""
        if len(self._readings) >= THREADS:
            paused = [r for r in self._readings.values() if r.is_paused]
            if paused:
                max(paused, key=self._turn).cancel()
            return False
        self._leave_line(line, place)
        reading = self._readings[place.fetch.key] = self._reading(place.fetch)
        reading.beside = self.beside(reading)
        self._launch(reading, self._ahead.setdefault(line, deque()))
        return True

    def _leave_line(self, line: Line, place: Place) -> None:
        self._lines[line].remove(place)
        self._places[place.fetch.key] = place

    def _reading(self, fetch: Fetch) -> Reading:
        taken_back = self._taken_back.pop(fetch.key, None)
        return self._make(fetch) if taken_back is None or taken_back.is_cancelled else taken_back

    def _must_yield(self, fetch: Fetch) -> bool:
        """A file of the running job goes on whatever that job reads. So does one that would be late: short jobs that
        each read a cold file would keep the reader away from the next one's for ever."""
        if fetch.position == 0 or not self._keeps_off(self._disks.under(fetch.file.path)) or self._is_urgent(fetch):
            return False
        self.is_yielding = True
        return True

    def _turn(self, reading: Reading) -> int:
        return DEMANDED if reading.is_demanded else self._place_of(reading).turn

    def _place_of(self, reading: Reading) -> Place:
        fetch = reading.fetch
        return self._places.get(fetch.key) or Place(LAST, fetch._replace(position=LAST))
