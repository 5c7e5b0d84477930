"""The rule that says which models are read ahead."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from warmstack.prefetch.models.file import ModelFile
from warmstack.prefetch.models.plan import JobModels, ModelPlan, Room, needed_models, plan_models
from warmstack.prefetch.queue.job import JobKey

PLENTY = Room(1000, 1000)


def file(name: str, size_bytes: int = 10) -> ModelFile:
    return ModelFile("checkpoints", name, f"/m/{name}", size_bytes, 1)


A, B, C = (file(f"{name}.safetensors") for name in "abc")


def job(job_id: str, *files: ModelFile, running: bool = False) -> JobModels:
    return JobModels(JobKey(job_id, 0), running, files)


def planned(jobs: list[JobModels], room: Room, *, held: frozenset = frozenset(), **known: Any) -> ModelPlan:
    return plan_models(needed_models(jobs, held), room, **known)


def fetched(plan: ModelPlan) -> list[tuple[ModelFile, int]]:
    return [(fetch.file, fetch.position) for fetch in plan.fetches]


def test_what_is_needed_first_is_read_first_and_each_file_once() -> None:
    jobs = [job("1", A, running=True), job("2", B, A), job("3", C, B)]
    assert fetched(planned(jobs, PLENTY)) == [(B, 1), (C, 2)]


def test_models_of_the_running_job_and_those_that_the_host_still_has_are_left_alone() -> None:
    assert fetched(planned([job("1", A, running=True), job("2", A)], PLENTY)) == []
    assert fetched(planned([job("2", A, B)], PLENTY, held=frozenset({A.key}))) == [(B, 0)]


def test_a_model_that_does_not_fit_leaves_its_place_to_what_does() -> None:
    big = file("big.safetensors", 91)
    made = planned([job("1", A, big, B)], Room(100, 1000))
    assert fetched(made) == [(A, 0), (B, 0)]
    assert made.wanted == {A.key, B.key}


def test_the_memory_of_the_running_job_is_not_taken_from_it() -> None:
    jobs = [job("1", file("huge.safetensors", 95), running=True), job("2", A)]
    assert fetched(planned(jobs, Room(100, 100))) == []
    assert fetched(planned(jobs, Room(100, 105))) == [(A, 1)]


def test_what_is_warm_counts_but_is_not_read_and_what_failed_or_would_be_unpickled_is_neither() -> None:
    pickle = file("c.ckpt")
    made = planned([job("1", A, B, pickle, C)], Room(20, 1000), warm=frozenset({A.key}), failed=frozenset({B.key}))
    assert fetched(made) == [(C, 0)]
    assert made.wanted == {A.key, C.key}


def test_what_is_not_known_yet_is_not_waited_for() -> None:
    running, queued = (JobModels(JobKey(job_id, 0), job_id == "1", (A,), is_whole=False) for job_id in "12")
    assert fetched(planned([running, queued, job("3", A, B)], PLENTY)) == [(B, 2)]
    assert fetched(planned([queued, job("3", B)], PLENTY)) == [(A, 0), (B, 1)]


def test_no_further_than_the_depth() -> None:
    jobs = [job("1", running=True), job("2", A), job("3", B)]
    assert fetched(planned(jobs, PLENTY, depth_jobs=1)) == [(A, 1)]
    assert fetched(planned(jobs, PLENTY, depth_jobs=0)) == []


FILES = [file(f"{i}.safetensors", size) for i, size in enumerate((1, 2, 3, 5, 8, 13, 21, 34))] + [file("p.ckpt", 4)]
KEYS = st.frozensets(st.sampled_from([f.key for f in FILES]), max_size=3)


@st.composite
def queues(draw: st.DrawFn) -> list[JobModels]:
    files = st.lists(st.sampled_from(FILES), max_size=4, unique=True).map(tuple)
    count = draw(st.integers(0, 6))
    running = draw(st.integers(0, min(1, count)))
    return [JobModels(str(i), i < running, draw(files)) for i in range(count)]


@given(queues(), st.integers(-5, 90), st.integers(-5, 120), KEYS, KEYS, KEYS)
def test_every_plan_keeps_the_rules(
    jobs: list[JobModels], spare: int, free: int, held: frozenset, warm: frozenset, failed: frozenset
) -> None:
    made = planned(jobs, Room(spare, free), held=held, warm=warm, failed=failed)
    in_use = {f.key for j in jobs if j.running for f in j.files}
    size = {f.key: f.size_bytes for f in FILES}
    wanted_bytes = sum(size[key] for key in made.wanted)
    assert wanted_bytes <= max(0, spare)
    assert wanted_bytes + sum(size[key] for key in in_use) <= free or not made.wanted
    assert not made.wanted & (in_use | held | failed)
    assert not any(fetch.file.is_pickle for fetch in made.fetches)
    assert [fetch.file.key for fetch in made.fetches] == list(dict.fromkeys(f.file.key for f in made.fetches))
    assert {fetch.file.key for fetch in made.fetches} == made.wanted - warm
    assert [fetch.position for fetch in made.fetches] == sorted(fetch.position for fetch in made.fetches)
    left = min(spare, free - sum(size[key] for key in in_use))
    for position, queued in enumerate(jobs):
        for f in () if queued.running else queued.files:
            first = next(p for p, j in enumerate(jobs) if not j.running and f in j.files)
            if f.key in made.wanted:
                left -= f.size_bytes if first == position else 0
                assert all(fetch.position == first for fetch in made.fetches if fetch.file == f)
            else:
                # Left out: nothing that comes later may have taken what it needed.
                assert f.key in in_use | held | failed or f.is_pickle or f.size_bytes > left
