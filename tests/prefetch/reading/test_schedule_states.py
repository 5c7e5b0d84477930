"""Schedule, whatever comes in which order: nearest first on every disk, nothing twice, nobody for ever."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from warmstack.loaders.system.disk_kind import Disk
from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.queue.need import Tier
from warmstack.prefetch.reading.schedule import THREADS, Schedule

from .lanes import FILES, FLASH, READERS, SPINNING, Fixture, Lane, fetch


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
