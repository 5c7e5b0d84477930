"""make_plan and the small pure parts around it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.planning.horizon import SPILLED_JOBS, make_plan
from warmstack.prefetch.planning.plan import Fetch, Limits, Plan, Warm
from warmstack.prefetch.pressure import next_limit_bytes, page_budget_bytes
from warmstack.prefetch.queue.job import LoraReference, QueuedJob, References
from warmstack.prefetch.queue.need import JobNeeds, Need, Resolution, shown_name
from warmstack.prefetch.reading.page_tally import PageTally

AMPLE = Limits(1000, 1000)


def lora(name: str, size_bytes: int = 10, *, suffix: str = ".safetensors", problem: str = "") -> LoraFile:
    return LoraFile(name + suffix, f"/loras/{name}{suffix}", size_bytes, 1, problem=problem)


def job(job_id: str, *uses: tuple[LoraFile | None, bool], running: bool = False) -> JobNeeds:
    needs = tuple(
        Need(
            LoraReference("?" if file is None else file.name, via_cache=resident),
            Resolution("missing") if file is None else Resolution("found", file),
        )
        for file, resident in uses
    )
    return JobNeeds(QueuedJob(job_id, None, running), References(), needs)


def order(plan: Plan) -> list[tuple[str, str]]:
    return [(fetch.file.name.split(".")[0], fetch.tier) for fetch in plan.fetches]


def test_earliest_need_comes_first_and_each_file_once() -> None:
    a, b, c = lora("a"), lora("b"), lora("c")
    jobs = [job("1", (a, True), running=True), job("2", (b, False), (a, True)), job("3", (c, True), (b, False))]
    plan = make_plan(jobs, AMPLE, Warm())
    assert order(plan) == [("a", "resident"), ("b", "page"), ("c", "resident")]
    assert plan.next_uses == {a.key: 0, c.key: 2}


def test_what_is_warm_or_failed_is_not_fetched_but_still_wanted() -> None:
    a, b, c = lora("a"), lora("b"), lora("c")
    jobs = [job("1", (a, True), (b, False), (c, False))]
    plan = make_plan(jobs, AMPLE, Warm(resident={a.key}, pages={b.key}, failed={c.key}))
    assert plan.fetches == ()
    assert (plan.resident, plan.pages) == ({a.key}, {b.key, c.key})


def test_each_tier_reaches_as_far_as_its_bytes() -> None:
    jobs = [job(str(i), (lora(f"r{i}"), True), (lora(f"p{i}"), False)) for i in range(5)]
    plan = make_plan(jobs, Limits(25, 45), Warm())
    assert order(plan) == [
        ("r0", "resident"),
        ("p0", "page"),
        ("r1", "resident"),
        ("p1", "page"),
        ("r2", "page"),
        ("p2", "page"),
    ]
    assert len(plan.next_uses) == 5


def test_the_next_jobs_get_warm_pages_where_the_resident_tier_ends() -> None:
    """A budget of an adapter and a half, and jobs that need two each: their own and that of the job before."""
    files = [lora(f"r{i}") for i in range(9)]
    jobs = [job(str(i), (file, True), (files[max(i - 1, 0)], True)) for i, file in enumerate(files)]
    plan = make_plan(jobs, Limits(15, 1000), Warm())
    ahead = range(1, SPILLED_JOBS + 1)
    assert order(plan) == [("r0", "resident"), *((f"r{i}", "page") for i in ahead)]
    assert plan.pages == {files[i].key for i in ahead}
    assert order(make_plan(jobs, Limits(15, None), Warm())) == [("r0", "resident")]


def test_our_own_readers_need_no_pages_of_what_is_in_the_cache() -> None:
    ours, stock = lora("ours"), lora("stock")
    jobs = [job("1", (ours, True), (stock, False)), job("2", (stock, True))]
    for limits in (Limits(None, 1000), Limits(5, 1000)):
        assert order(make_plan(jobs, limits, Warm(resident={ours.key, stock.key}))) == [("stock", "page")]


def test_warm_files_use_up_the_depth_too() -> None:
    files = [lora(f"r{i}") for i in range(5)]
    jobs = [job(str(i), (file, True)) for i, file in enumerate(files)]
    assert order(make_plan(jobs, Limits(25, 0), Warm(resident={files[0].key}))) == [("r1", "resident")]


def test_depth_can_be_limited_to_jobs() -> None:
    jobs = [job(str(i), (lora(f"p{i}"), False)) for i in range(5)]
    assert order(make_plan(jobs, Limits(0, 1000, depth_jobs=1), Warm())) == [("p0", "page"), ("p1", "page")]


def test_what_cannot_be_resident_has_its_pages_warmed() -> None:
    huge, refused, fits = lora("huge", 2000), lora("refused"), lora("fits")
    jobs = [job("1", (huge, True), (refused, True), (fits, True))]
    plan = make_plan(jobs, Limits(1000, 5000), Warm(no_room={refused.key}))
    assert order(plan) == [("huge", "page"), ("refused", "page"), ("fits", "resident")]
    assert set(plan.next_uses) == {huge.key, refused.key, fits.key}


def test_a_tier_that_is_off_is_left_alone() -> None:
    jobs = [job("1", (lora("r"), True), (lora("p"), False))]
    assert order(make_plan(jobs, Limits(None, 1000), Warm())) == [("r", "page"), ("p", "page")]
    assert order(make_plan(jobs, Limits(1000, None), Warm())) == [("r", "resident")]


def test_pickles_broken_files_and_missing_names_are_never_read() -> None:
    uses = [(lora("a", suffix=".pt"), True), (lora("b", problem="truncated"), False), (None, True)]
    plan = make_plan([job("1", *uses, running=True)], AMPLE, Warm())
    assert plan == Plan()


def test_the_running_job_is_served_beyond_the_page_budget() -> None:
    jobs = [job("1", (lora("big", 500), False), running=True), job("2", (lora("next"), False))]
    assert order(make_plan(jobs, Limits(0, 100), Warm())) == [("big", "page")]


FILES = [lora(f"f{i}", size) for i, size in enumerate((0, 1, 5, 10, 20, 40))]
QUEUES = st.lists(st.lists(st.tuples(st.sampled_from(FILES), st.booleans()), max_size=4), max_size=8)


@given(QUEUES, st.integers(0, 80), st.integers(0, 80), st.sets(st.sampled_from([f.key for f in FILES])))
def test_plan_invariants(
    queue: Sequence[Sequence[tuple[LoraFile, bool]]], resident: int, pages: int, warm: set[object]
) -> None:
    jobs = [job(str(i), *uses, running=i == 0) for i, uses in enumerate(queue)]
    plan = make_plan(jobs, Limits(resident, pages), Warm(warm, warm))
    keys = [fetch.key for fetch in plan.fetches]
    assert len(set(keys)) == len(keys)
    assert all(plan.wants(key) for key in keys)
    assert not any(fetch.file.key in warm for fetch in plan.fetches)
    assert [f.position for f in plan.fetches] == sorted(f.position for f in plan.fetches)
    for tier, limit in (("resident", resident), ("page", pages)):
        ahead = [f for f in plan.fetches if f.tier == tier and f.position > 0]
        assert sum(f.file.size_bytes for f in ahead) <= limit


def test_fetches_name_their_tier_in_their_key() -> None:
    file = lora("a")
    assert Fetch(file, "page", 0).key != Fetch(file, "resident", 0).key


@pytest.mark.parametrize(
    ("limit", "used", "available", "expected"),
    [
        (800, 800, 50, 750),  # 50 short of headroom: what is used shrinks by 50
        (800, 30, 50, 0),  # nothing left to give
        (800, 800, 150, 800),  # enough, not ample: no swing
        (800, 100, 200, 800),
        (1200, 100, 400, 1000),  # the target has come down
    ],
)
def test_the_budget_shrinks_with_memory(limit: int, used: int, available: int, expected: int) -> None:
    assert next_limit_bytes(1000, limit, used, available, 100) == expected


def test_the_budget_grows_back_by_half_of_the_surplus_and_stops_at_the_target() -> None:
    gib, limit_bytes = 1 << 30, 0
    for grown_bytes in (3 * gib, 6 * gib, 8 * gib, 8 * gib):
        limit_bytes = next_limit_bytes(8 * gib, limit_bytes, 0, 8 * gib, gib)
        assert limit_bytes == grown_bytes


def test_page_budget_is_half_of_what_is_free_beyond_headroom() -> None:
    assert page_budget_bytes(None, 1000, 200) == 400
    assert page_budget_bytes(100, 1000, 200) == 100
    assert page_budget_bytes(5000, 1000, 200) == 400
    assert page_budget_bytes(None, 100, 200) == 0


def test_page_tally_tells_hits_joins_misses_and_waste() -> None:
    a, b, c, d = (lora(name) for name in "abcd")
    tally = PageTally()
    for file in (a, d):
        tally.count_warmed(file.key, 10, 1.5, claimed=False)
    tally.count_demand(a.key, {a.key}, set())
    tally.count_demand(b.key, {a.key}, {b.key})
    tally.count_demand(c.key, {a.key}, {b.key})
    tally.count_warmed(b.key, 10, 1.5, claimed=True)
    tally.count_warmed(c.key, 5, 1.5, claimed=False)
    tally.claim({c.key})
    tally.write_off({a.key}, {b.key})
    status = tally.figures
    assert (status.hits, status.joins, status.misses) == (1, 1, 1)
    assert (status.demand_bytes, status.hit_bytes, status.warmed_bytes, status.wasted_bytes) == (30, 10, 35, 10)
    assert status.hidden_share == pytest.approx(1 / 3)
    assert PageTally().figures.hidden_share is None


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("styles/ink", "styles/ink"),
        ("styles\\ink", "styles\\ink"),
        ("/home/me/loras/ink.safetensors", "ink.safetensors"),
        ("C:\\loras\\ink.safetensors", "ink.safetensors"),
        ("\\\\nas\\loras\\ink.safetensors", "ink.safetensors"),
        ("~/ink.safetensors", "ink.safetensors"),
    ],
)
def test_absolute_paths_are_not_shown(written: str, shown: str) -> None:
    assert shown_name(written) == shown
