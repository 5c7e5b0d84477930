"""Schedule: on every disk the nearest needs, as many at a time as it takes; and nothing waits for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from warmstack.loaders.disk_kind import Disk
from warmstack.lora.file import LoraFile
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.queue.need import Tier
from warmstack.prefetch.reading.lane import Ended
from warmstack.prefetch.reading.reading import Outcome, Reading
from warmstack.prefetch.reading.schedule import AHEAD, MOST_PAUSED, THREADS, Schedule
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
        return Ended(reading, Outcome(outcome), self.reading)  # type: ignore[arg-type]  # one of them

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
            self.disks,  # type: ignore[arg-type]  # all of it that is asked
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


def test_a_thread_goes_on_with_the_next_files_by_itself() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(i) for i in range(1, 24, 2)])
    for _ in range(AHEAD + 1):
        assert len(fixture.going()) == 1
        fixture.end_in_thread(fixture.going()[0])
    assert not fixture.going(), "it had no more to go on with, and the loop is busy elsewhere"
    while fixture.untold:
        fixture.tell()
    assert fixture.names() == [FILES[2 * AHEAD + 3].name]
    assert len(fixture.lanes) == 1


def test_a_thread_that_is_told_of_in_time_never_stops() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(i) for i in range(1, 24, 2)])
    lane = fixture.lanes[0]
    for i in range(1, 23, 2):
        assert fixture.names() == [f"{i}"]
        fixture.end(fixture.going()[0])
        assert fixture.lanes == [lane]
    assert len(fixture.made) == 12


def test_a_nearer_file_comes_before_what_a_thread_was_to_go_on_with() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1), fetch(3), fetch(5)])
    fixture.schedule.follow([fetch(1), fetch(7), fetch(3), fetch(5)])
    order = []
    while fixture.going():
        order += fixture.names()
        fixture.end(fixture.going()[0])
    assert order == ["1", "7", "3", "5"]
    assert len(fixture.made) == 4, "what was handed out and not begun is not made anew"


def test_what_a_thread_has_just_taken_is_neither_lost_nor_read_twice() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1), fetch(3), fetch(5)])
    fixture.end_in_thread(fixture.going()[0])
    fixture.schedule.follow([fetch(7), fetch(3), fetch(5)])
    fixture.tell()
    assert fixture.names() == ["7"], "the disk takes one"
    fixture.end(fixture.going()[0])
    assert fixture.names() == ["3"], "the same read, which was paused"
    assert [r.fetch.file.name for r in fixture.begun] == ["1", "3", "7"]


def test_what_a_thread_was_to_go_on_with_is_not_begun_once_nobody_wants_it() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1), fetch(3), fetch(5)])
    fixture.schedule.keep(lambda key: key.key.path == FILES[5].path)
    assert fixture.names() == []
    fixture.end_in_thread(fixture.going()[0], "cancelled")
    assert [r.is_cancelled for r in fixture.made] == [True, True, False]
    fixture.tell()
    fixture.schedule.follow([fetch(5)])
    while fixture.going():
        fixture.end(fixture.going()[0])
    begun = [(r.fetch.file.name, r.is_cancelled) for r in fixture.begun]
    assert begun == [("1", True), ("3", True), ("5", False)], "a cancelled one ends before it opens its file"


def test_a_thread_does_not_go_on_while_the_running_job_reads_or_a_demand_waits() -> None:
    for hold in ("job", "demand"):
        fixture = Fixture()
        fixture.schedule.follow([fetch(1, 0), fetch(3), fetch(5)])
        if hold == "job":
            fixture.kept_off.add(SPINNING)
        else:
            fixture.begun[0].gate.is_demanded = True
        fixture.schedule.balance()
        fixture.end_in_thread(fixture.going()[0])
        assert not fixture.going()


def test_what_has_not_begun_is_cancelled_and_not_paused() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1)])
    fixture.made[0]._has_begun = False
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
    fixture.lanes = [lane for lane in fixture.lanes if lane.reading is not refused]
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
    fixture.late.add(FILES[3].path)
    fixture.kept_off.update({SPINNING, FLASH})
    fixture.schedule.follow([fetch(1), fetch(3), fetch(0)])
    assert fixture.names() == ["3"]
    assert fixture.schedule.is_yielding
    fixture.late.add(FILES[0].path)
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
        """The loop is told before, or long after."""
        reading = data.draw(st.sampled_from(self.fixture.going()))
        self.fixture.end_in_thread(reading, "cancelled" if reading.is_cancelled else outcome)

    @precondition(lambda self: self.fixture.untold)
    @rule()
    def the_loop_is_told(self) -> None:
        """As the warmer does; what the cache has refused is not asked for again."""
        reading, outcome, follower = self.fixture.untold.popleft()
        self.schedule.ended(reading, follower)
        wants_again = outcome.state == "no_room" and self.schedule.make_room(reading.fetch.key)
        self.schedule.go_on(reading, follower)
        if outcome.state == "cancelled" or wants_again:
            self.schedule.follow(self.due)
            return
        self.read.add(reading.fetch.file.name)
        self.due = [f for f in self.due if f.key != reading.fetch.key]

    @rule()
    def what_was_cancelled_ends(self) -> None:
        for lane in tuple(self.fixture.lanes):
            if lane.reading is not None and lane.reading.is_cancelled:
                self.fixture.end_in_thread(lane.reading, "cancelled")

    @precondition(lambda self: self.due)
    @rule(data=st.data())
    def a_plan_drops_a_file(self, data: st.DataObject) -> None:
        dropped = data.draw(st.sampled_from(self.due)).key
        self.schedule.keep(lambda key: key != dropped)
        self.follow([f for f in self.due if f.key != dropped])

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

    @invariant()
    def never_more_than_the_disk_takes(self) -> None:
        """A plan that comes before the loop is told is put right when it is."""
        if self.fixture.untold:
            return
        for disk, readers in READERS.items():
            going = [r for r in self.fixture.going(disk) if not r.is_demanded]
            assert len(going) <= readers

    @invariant()
    def nothing_is_read_by_two(self) -> None:
        keys = [r.fetch.key for r in self.fixture.going() if not r.is_cancelled]
        assert len(keys) == len(set(keys))

    @invariant()
    def nearest_first(self) -> None:
        """Nobody reads while something nearer on the same disk could. Out of threads, it waits for one to come back."""
        if len(self.schedule.readings) >= THREADS or self.fixture.untold:
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
        if self.fixture.untold:
            return
        own = {f.key for f in self.due if f.position == 0}
        for reading in self.fixture.going():
            if not reading.is_demanded and not reading.is_cancelled and reading.fetch.key not in own:
                assert self.fixture.disks.under(reading.fetch.file.path) not in self.fixture.kept_off

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """With the job quiet, a disk on which something is due or paused is being read, or about to be given back."""
        if self.fixture.kept_off or self.fixture.untold or any(r.is_cancelled for r in self.schedule.readings):
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
            while self.fixture.untold:
                self.the_loop_is_told()
            reading = next((lane.reading for lane in self.fixture.lanes if lane.reading in self.fixture.going()), None)
            stopped = next((lane.reading for lane in self.fixture.lanes if _is_cancelled(lane)), None)
            ending = stopped or reading
            if ending is None:
                break
            self.fixture.end_in_thread(ending, "cancelled" if ending.is_cancelled else "ready")
        assert not self.schedule.readings
        assert not self.due
        assert wanted <= self.read


def _is_cancelled(lane: Lane) -> bool:
    return lane.reading is not None and lane.reading.is_cancelled


TestSchedule = ScheduleMachine.TestCase
TestSchedule.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
