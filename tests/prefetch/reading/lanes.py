"""Two disks and the threads that read them, without disks and threads: the test says when a read ends and when the loop
hears of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from warmstack.loaders.system.disk_kind import Disk
from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.queue.need import Tier
from warmstack.prefetch.reading.lane import Ended
from warmstack.prefetch.reading.reading import Outcome, Reading
from warmstack.prefetch.reading.schedule import Schedule
from warmstack.prefetch.settings import PrefetchSettings

SPINNING, FLASH = Disk("8:0", "rotating"), Disk("9:0", "flash")
READERS = {SPINNING: 1, FLASH: 3}
FILES = [LoraFile(f"{i}", f"/{'slow' if i % 2 else 'fast'}/{i}", 100, 0) for i in range(24)]


class FakeDisks:
    """Two disks, told apart by the folder; located when the test says so."""

    def __init__(self) -> None:
        self.measuring: Disk | None = None
        self.stops = 0
        self.asked: set[str] = set()

    def under(self, path: str) -> Disk | None:
        return SPINNING if path.startswith("/slow") else FLASH

    def readers(self, disk: Disk, _settings: PrefetchSettings) -> int:
        return READERS[disk]

    def locate(self, paths: Iterable[str]) -> None:
        self.asked.update(paths)

    def stop_measuring(self) -> None:
        self.stops += 1


class Lane:
    """A thread that reads, without the thread."""

    def __init__(self, first: Reading, ahead: deque[Reading]) -> None:
        self.reading: Reading | None = None
        self._ahead = ahead
        self._begin(first)

    def end(self, outcome: str) -> Ended:
        """Ends its read and begins the next one, which nobody has been told of yet."""
        reading = self.reading
        assert reading is not None
        self._begin(self._ahead.popleft() if self._ahead and outcome != "no_room" else None)
        return Ended(reading, Outcome(outcome), self.reading)

    def _begin(self, reading: Reading | None) -> None:
        self.reading = reading
        if reading is not None:
            reading._has_begun = True


class Fixture:
    def __init__(self, **changes: Any) -> None:
        self.disks = FakeDisks()
        self.kept_off: set[Disk | None] = set()
        self.late: set[str] = set()
        self.made: list[Reading] = []
        self.lanes: list[Lane] = []
        self.untold: deque[Ended] = deque()
        self.schedule = Schedule(
            self.disks,
            self.make,
            lambda first, ahead: self.lanes.append(Lane(first, ahead)),
            self.kept_off.__contains__,
            lambda fetch: fetch.file.path in self.late,
        )
        self.schedule.settings = PrefetchSettings(**changes)

    def make(self, fetch: Fetch) -> Reading:
        self.made.append(Reading(fetch, lambda: None))
        return self.made[-1]

    @property
    def begun(self) -> list[Reading]:
        """In the order in which they were made."""
        return [reading for reading in self.made if reading._has_begun]

    def end_in_thread(self, reading: Reading, outcome: str = "ready") -> None:
        """The loop is not told yet."""
        lane = next(lane for lane in self.lanes if lane.reading is reading)
        self.untold.append(lane.end(outcome))
        self.lanes = [lane for lane in self.lanes if lane.reading is not None]

    def tell(self) -> Ended:
        ended = self.untold.popleft()
        self.schedule.ended(ended.reading, ended.follower)
        self.schedule.go_on(ended.reading, ended.follower)
        return ended

    def end(self, reading: Reading) -> None:
        self.end_in_thread(reading)
        self.tell()

    def going(self, disk: Disk | None = None) -> list[Reading]:
        """Reads that may read."""
        readings = [lane.reading for lane in self.lanes if lane.reading is not None]
        readings = [r for r in readings if not r.is_paused and not (r.is_cancelled and r.stopped_idle)]
        return [r for r in readings if disk in (None, self.disks.under(r.fetch.file.path))]

    def names(self) -> list[str]:
        return [r.fetch.file.name for r in self.going() if not r.is_cancelled]


def fetch(index: int, position: int = 1, tier: Tier = "page") -> Fetch:
    return Fetch(FILES[index], tier, position)
