"""Schedule: on every disk the nearest needs, as many at a time as it takes; and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from warmstack.loaders.disk_kind import Disk
from warmstack.lora.file import LoraFile
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.queue.need import Tier
from warmstack.prefetch.reading.reading import Reading
from warmstack.prefetch.reading.schedule import MOST_PAUSED, THREADS, Schedule
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


class Begun(Reading):
    """A read that its thread has picked up, without the thread."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__(fetch, lambda: None)
        self._has_begun = True


class Fixture:
    def __init__(self, **changes: Any) -> None:
        self.disks = FakeDisks()
        self.kept_off: set[Disk | None] = set()
        self.begun: list[Begun] = []
        self.schedule = Schedule(self.disks, self.begin, self.kept_off.__contains__)  # type: ignore[arg-type]
        self.schedule.settings = PrefetchSettings(**changes)

    def begin(self, fetch: Fetch) -> Reading:
        self.begun.append(Begun(fetch))
        return self.begun[-1]

    def end(self, reading: Reading) -> None:
        self.schedule.ended(reading)
        self.schedule.balance()

    def going(self, disk: Disk | None = None) -> list[Reading]:
        """Reads that may read."""
        readings = [r for r in self.schedule.readings if not r.is_paused and not (r.is_cancelled and r.stopped_idle)]
        return [r for r in readings if disk in (None, self.disks.under(r.fetch.file.path))]

    def names(self) -> list[str]:
        return [r.fetch.file.name for r in self.going() if not r.is_cancelled]


def fetch(index: int, position: int = 1, tier: Tier = "page") -> Fetch:
    return Fetch(FILES[index], tier, position)


def test_each_disk_has_its_own_readers_and_they_read_side_by_side() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(i) for i in range(10)])
    assert sorted(fixture.names()) == ["0", "1", "2", "4"]


def test_a_number_set_by_the_user_rules_over_all_disks_in_one_order() -> None:
    fixture = Fixture(concurrency=2)
    fixture.schedule.follow([fetch(i) for i in (1, 3, 0)])
    assert fixture.names() == ["1", "3"]


def test_a_nearer_file_pauses_the_read_that_is_going_on_which_then_goes_on() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1), fetch(3)])
    fixture.schedule.follow([fetch(5), fetch(1), fetch(3)])
    overtaken, nearer = fixture.begun
    assert (overtaken.is_paused, overtaken.is_cancelled, fixture.names()) == (True, False, ["5"])
    fixture.end(nearer)
    assert fixture.names() == ["1"], "the same read, not another one"
    assert len(fixture.begun) == 2


def test_what_has_not_begun_is_cancelled_and_not_paused() -> None:
    fixture = Fixture()
    fixture.begin = lambda f: Reading(f, lambda: None)  # type: ignore[method-assign]
    fixture.schedule = Schedule(fixture.disks, fixture.begin, lambda _: False)  # type: ignore[arg-type]
    fixture.schedule.follow([fetch(1)])
    fixture.schedule.follow([fetch(3), fetch(1)])
    assert [(r.fetch.file.name, r.is_cancelled) for r in fixture.schedule.readings] == [("1", True), ("3", False)]


def test_a_nearer_file_that_lacks_room_gets_that_of_the_read_it_has_paused() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1, 3, "resident")])
    near = fetch(3, 1, "resident")
    fixture.schedule.follow([near, fetch(1, 3, "resident")])
    paused, refused = fixture.begun
    assert paused.is_paused
    fixture.schedule.ended(refused)
    assert fixture.schedule.make_room(near.key)
    assert paused.is_cancelled
    fixture.schedule.follow([near, fetch(1, 3, "resident")])
    assert len(fixture.begun) == 2, "its room is not given back yet"
    fixture.end(paused)
    assert fixture.names() == ["3"]
    assert not fixture.schedule.make_room(near.key), "there is nobody left to give room"


def test_a_farther_file_that_lacks_room_takes_it_from_nobody() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1, 1, "resident"), fetch(0, 2, "resident")])
    fixture.kept_off.add(SPINNING)
    fixture.schedule.balance()
    assert fixture.begun[0].is_paused or fixture.begun[1].is_paused
    assert not fixture.schedule.make_room(fetch(0, 2, "resident").key)


def test_files_of_later_jobs_keep_off_the_disk_that_the_running_job_reads() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1, 0), fetch(3), fetch(0), fetch(2)])
    assert sorted(fixture.names()) == ["0", "1", "2"]
    fixture.kept_off.update({SPINNING, FLASH})
    fixture.schedule.balance()
    assert fixture.names() == ["1"], "its own file goes on"
    assert fixture.schedule.is_yielding
    fixture.end(fixture.going()[0])
    assert fixture.names() == []
    fixture.kept_off.clear()
    fixture.schedule.balance()
    assert not fixture.schedule.is_yielding
    assert sorted(fixture.names()) == ["0", "2", "3"]


def test_a_file_that_would_be_late_does_not_keep_off() -> None:
    fixture = Fixture()
    late = {FILES[3].path}
    fixture.schedule = Schedule(  # type: ignore[arg-type]
        fixture.disks, fixture.begin, fixture.kept_off.__contains__, lambda fetch: fetch.file.path in late
    )
    fixture.kept_off.update({SPINNING, FLASH})
    fixture.schedule.follow([fetch(1), fetch(3), fetch(0)])
    assert fixture.names() == ["3"]
    assert fixture.schedule.is_yielding
    late.add(FILES[0].path)
    fixture.schedule.balance()
    assert fixture.names() == ["3", "0"]


def test_a_read_that_a_job_waits_for_comes_before_everything() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1)])
    fixture.schedule.follow([fetch(3), fetch(1)])
    late, nearer = fixture.begun
    assert (late.is_paused, nearer.is_paused) == (True, False)
    late.gate.is_demanded = True
    for kept_off in ([], [SPINNING]):
        fixture.kept_off.update(kept_off)
        fixture.schedule.balance()
        assert (late.is_paused, nearer.is_paused) == (False, True)


def test_only_so_many_are_kept_for_later() -> None:
    fixture = Fixture()
    due: list[Fetch] = []
    for i in range(1, 20, 2):
        due.insert(0, fetch(i))
        fixture.schedule.follow(due)
    assert sum(r.is_paused for r in fixture.begun) == MOST_PAUSED
    assert [r.is_cancelled for r in fixture.begun] == [True] * 5 + [False] * 5


def test_what_was_read_while_it_waited_for_its_turn_is_not_read_again() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(16)])
    fixture.schedule.follow([fetch(i) for i in (0, 2, 4, 16)])
    paused, *nearer = fixture.begun
    assert paused.is_paused, "and yet its last chunk may have been the one it was in"
    for reading in (paused, *nearer):
        fixture.end(reading)
    assert (len(fixture.begun), fixture.schedule.has_placed_all) == (4, True)


def test_a_measurement_makes_way_for_what_is_due_on_its_disk_only() -> None:
    fixture = Fixture()
    fixture.disks.measuring = SPINNING
    fixture.schedule.follow([fetch(0)])
    assert (fixture.names(), fixture.disks.stops) == (["0"], 0)
    fixture.schedule.follow([fetch(0), fetch(1)])
    assert (fixture.names(), fixture.disks.stops) == (["0"], 1)
    fixture.disks.measuring = None
    fixture.schedule.balance()
    assert fixture.names() == ["0", "1"]


class ScheduleMachine(RuleBasedStateMachine):
    """Any order of plans, ends, refusals, demands and pauses for the job, on two disks."""

    def __init__(self) -> None:
        super().__init__()
        self.fixture = Fixture()
        self.due: list[Fetch] = []
        self.read: set[str] = set()

    @property
    def schedule(self) -> Schedule:
        return self.fixture.schedule

    @rule(
        chosen=st.lists(st.sampled_from(range(len(FILES))), unique=True, max_size=12),
        resident=st.booleans(),
        running=st.integers(0, 2),
    )
    def plan(self, chosen: list[int], resident: bool, running: int) -> None:
        tier: Tier = "resident" if resident else "page"
        self.follow([Fetch(FILES[i], tier, 0 if n < running else n) for n, i in enumerate(chosen)])

    @precondition(lambda self: self.due)
    @rule(index=st.sampled_from(range(len(FILES))))
    def put_in_front(self, index: int) -> None:
        self.follow([fetch(index, 0), *(f for f in self.due if f.file is not FILES[index])])

    @precondition(lambda self: self.fixture.going())
    @rule(data=st.data(), outcome=st.sampled_from(["ready", "no_room", "failed"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        reading = data.draw(st.sampled_from(self.fixture.going()))
        self.finish(reading, outcome)

    @precondition(lambda self: any(r.is_cancelled for r in self.schedule.readings))
    @rule()
    def what_was_cancelled_ends(self) -> None:
        for reading in self.schedule.readings:
            if reading.is_cancelled:
                self.finish(reading, "cancelled")

    @precondition(lambda self: self.schedule.readings)
    @rule(data=st.data())
    def a_plan_drops_a_read(self, data: st.DataObject) -> None:
        reading = data.draw(st.sampled_from(self.schedule.readings))
        reading.cancel()
        self.follow([f for f in self.due if f.key != reading.fetch.key])

    @precondition(lambda self: self.schedule.readings)
    @rule(data=st.data())
    def demand(self, data: st.DataObject) -> None:
        reading = data.draw(st.sampled_from(self.schedule.readings))
        if not reading.is_cancelled:
            reading.gate.is_demanded = True
            self.schedule.balance()

    @rule(disks=st.sets(st.sampled_from([SPINNING, FLASH])))
    def the_job_reads(self, disks: set[Disk]) -> None:
        self.fixture.kept_off.clear()
        self.fixture.kept_off.update(disks)
        self.schedule.balance()

    def follow(self, due: list[Fetch]) -> None:
        self.due = due
        self.schedule.follow(due)

    def finish(self, reading: Reading, outcome: str) -> None:
        """As the warmer does; what the cache has refused is not asked for again."""
        self.schedule.ended(reading)
        wants_again = outcome == "no_room" and self.schedule.make_room(reading.fetch.key)
        if outcome == "cancelled" or wants_again:
            self.schedule.follow(self.due)
            return
        self.read.add(reading.fetch.file.name)
        self.due = [f for f in self.due if f.key != reading.fetch.key]
        self.schedule.balance()

    @invariant()
    def never_more_than_the_disk_takes(self) -> None:
        for disk, readers in READERS.items():
            going = [r for r in self.fixture.going(disk) if not r.is_demanded]
            assert len(going) <= readers

    @invariant()
    def nearest_first(self) -> None:
        """Nobody reads while something nearer on the same disk could. Out of threads, it waits for one to come back."""
        if len(self.schedule.readings) >= THREADS:
            return
        turns = {f.key: turn for turn, f in enumerate(self.due)}
        giving = any(r.gives_room for r in self.schedule.readings)
        held = self.fixture.kept_off
        for disk in READERS:
            going = {r.fetch.key for r in self.fixture.going(disk)}
            stopping = {r.fetch.key for r in self.schedule.readings if r.is_cancelled}
            free = [r for r in self.fixture.going(disk) if not r.is_cancelled and not r.is_demanded]
            last = max((turns.get(r.fetch.key, 1 << 30) for r in free), default=-1)
            for f in self.due:
                if self.fixture.disks.under(f.file.path) != disk or f.key in going | stopping:
                    continue
                may_read = (disk not in held or f.position == 0) and not (giving and f.tier == "resident")
                assert not may_read or giving or turns[f.key] > last

    @invariant()
    def later_jobs_keep_off(self) -> None:
        own = {f.key for f in self.due if f.position == 0}
        for reading in self.fixture.going():
            if not reading.is_demanded and not reading.is_cancelled and reading.fetch.key not in own:
                assert self.fixture.disks.under(reading.fetch.file.path) not in self.fixture.kept_off

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """With the job quiet, a disk on which something is due or paused is being read, or about to be given back."""
        if self.fixture.kept_off or any(r.is_cancelled for r in self.schedule.readings):
            return
        for disk in READERS:
            pending = [f for f in self.due if self.fixture.disks.under(f.file.path) == disk]
            paused = [r for r in self.schedule.readings if self.fixture.disks.under(r.fetch.file.path) == disk]
            assert not (pending or paused) or self.fixture.going(disk)

    def teardown(self) -> None:
        """The job goes quiet: every gate opens in the end and everything that is due is read."""
        self.the_job_reads(set())
        wanted = {f.file.name for f in self.due}
        for _ in range(200):
            stopped = [r for r in self.schedule.readings if r.is_cancelled]
            reading = next(iter(stopped or self.fixture.going()), None)
            if reading is None:
                break
            self.finish(reading, "cancelled" if reading.is_cancelled else "ready")
        assert not self.schedule.readings
        assert not self.due
        assert wanted <= self.read


TestSchedule = ScheduleMachine.TestCase
TestSchedule.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
