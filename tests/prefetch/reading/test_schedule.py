"""Schedule: on every disk the nearest needs, as many at a time as it takes; and nothing waits for ever."""

from __future__ import annotations

from warmstack.prefetch.planning.plan import Fetch
from warmstack.prefetch.reading.schedule import AHEAD, MOST_PAUSED
from warmstack.prefetch.settings import PrefetchSettings

from .lanes import FILES, FLASH, SPINNING, Fixture, fetch


def test_each_disk_has_its_own_readers_and_they_read_side_by_side() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(i) for i in range(10)])
    assert sorted(fixture.names()) == ["0", "1", "2", "4"]


def test_a_number_set_by_the_user_rules_over_all_disks_in_one_order() -> None:
    fixture = Fixture(concurrency=2)
    fixture.schedule.follow([fetch(i) for i in (1, 3, 0)])
    assert fixture.names() == ["1", "3"]


def test_a_number_that_the_user_sets_meanwhile_rules_from_the_next_plan_on() -> None:
    fixture = Fixture()
    due = [fetch(i) for i in (1, 3, 5, 0)]
    fixture.schedule.follow(due)
    for concurrency, going in ((1, ["1"]), (2, ["1", "3"]), (None, ["0", "1"])):
        fixture.schedule.settings = PrefetchSettings(concurrency=concurrency)
        fixture.schedule.follow(due)
        assert sorted(fixture.names()) == going
    read = []
    while fixture.going():
        read.append(fixture.going()[0].fetch.file.name)
        fixture.end(fixture.going()[0])
    assert sorted(read) == ["0", "1", "3", "5"]


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
        assert not fixture.schedule.has_placed_all
        fixture.end(fixture.going()[0])
        assert fixture.lanes == [lane]
    assert fixture.schedule.has_placed_all, "the last one has begun"
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


def test_what_nobody_wanted_for_a_moment_is_read_after_all() -> None:
    fixture = Fixture()
    fixture.schedule.follow([fetch(1), fetch(3), fetch(5)])
    fixture.schedule.keep(lambda key: key.key.path == FILES[1].path)
    fixture.schedule.follow([fetch(1), fetch(3), fetch(5)])
    fixture.end(fixture.going()[0])
    assert fixture.names() == ["3"]
    fixture.end(fixture.going()[0])
    assert fixture.names() == ["5"]


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
