from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from safetensors.torch import save_file

from warmstack.loaders import (
    LoadRequest,
    LoadResult,
    SafetensorsCache,
    SafetensorsLoadError,
    SpareMemory,
    cached,
    load_safetensors_cached,
)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were really read."""
    seen: list[str] = []
    load_request = cached.load_request

    def noting(request, strategy) -> LoadResult:
        seen.append(request.paths[0])
        return load_request(request, strategy)

    monkeypatch.setattr(cached, "load_request", noting)
    return seen


def test_reads_once(saved, state_dict, same_tensors, loads):
    cache = SafetensorsCache(1 << 20)
    first = load_safetensors_cached(saved, cache=cache)
    second = load_safetensors_cached(saved, cache=cache)
    same_tensors(second, state_dict)
    assert loads == [saved]
    assert first["conv"] is second["conv"]
    first.clear()
    assert load_safetensors_cached(saved, cache=cache)


def test_a_changed_file_is_never_served_stale(saved, loads):
    cache = SafetensorsCache(1 << 20)
    load_safetensors_cached(saved, cache=cache)
    before_ns = os.stat(saved).st_mtime_ns
    save_file({"new": torch.ones(2)}, saved)
    os.utime(saved, ns=(before_ns + 1, before_ns + 1))
    assert load_safetensors_cached(saved, cache=cache).keys() == {"new"}


def test_another_request_for_the_file_is_another_load(saved, loads):
    cache = SafetensorsCache(1 << 20)
    plain = load_safetensors_cached(saved, cache=cache)
    cast = load_safetensors_cached(saved, cache=cache, dtype=torch.float64)
    part = load_safetensors_cached(saved, cache=cache, device_map={"ints": "disk"})
    assert plain["conv"].dtype == torch.float32
    assert cast["conv"].dtype == torch.float64
    assert len(part) < len(plain)
    assert len(loads) == 3


def test_where_the_memory_comes_from_makes_no_other_load(saved, loads):
    cache, request = SafetensorsCache(1 << 20), LoadRequest((saved,))
    first = cache.load(request, "eager")
    assert cache.load(replace(request, spare=SpareMemory(0)), "eager") is first
    assert len(loads) == 1


def test_what_does_not_fit_is_handed_out_and_not_kept(saved, loads):
    cache = SafetensorsCache(100)
    assert load_safetensors_cached(saved, cache=cache)
    assert load_safetensors_cached(saved, cache=cache)
    assert cache.used_bytes == 0
    assert len(loads) == 2


def files_of_100_bytes(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.safetensors" for number in range(count)]
    for path in paths:
        save_file({"half": torch.zeros(50, dtype=torch.float16)}, path)
    return paths


def test_what_does_not_fit_puts_nothing_out(tmp_path, saved, loads):
    cache = SafetensorsCache(100)
    (small,) = files_of_100_bytes(tmp_path, 1)
    for path in (small, saved, small):
        load_safetensors_cached(path, cache=cache)
    assert loads == [str(small), saved]


def test_the_least_recently_used_goes_first(tmp_path, loads):
    cache = SafetensorsCache(200)
    one, two, three = files_of_100_bytes(tmp_path, 3)
    for path in (one, two, one, three, one, two):
        load_safetensors_cached(path, cache=cache)
    assert loads == [str(path) for path in (one, two, three, two)]


def test_what_was_cast_counts_as_what_it_is_now(tmp_path, loads):
    cache = SafetensorsCache(200)
    (path,) = files_of_100_bytes(tmp_path, 1)
    load_safetensors_cached(path, cache=cache, dtype=torch.float64)
    assert cache.used_bytes == 0
    load_safetensors_cached(path, cache=cache, dtype=torch.float32)
    assert cache.used_bytes == 200


def test_what_one_tensor_keeps_in_memory_counts(tmp_path):
    """The bytes that another one was cast from stand in the same buffer, and cannot go without it."""
    path = tmp_path / "a.safetensors"
    save_file({"kept": torch.zeros(6 << 20, dtype=torch.uint8), "cast": torch.zeros(1 << 20)}, path)
    expected_bytes = (6 << 20) + (4 << 20) + (8 << 20)
    caches = [SafetensorsCache(limit_bytes) for limit_bytes in (expected_bytes, expected_bytes - 1)]
    for cache in caches:
        load_safetensors_cached(path, cache=cache, dtype=torch.float64, strategy="eager")
    assert [cache.used_bytes for cache in caches] == [expected_bytes, 0]


def test_a_buffer_counts_once_however_many_types_share_it(saved, state_dict):
    cache = SafetensorsCache(1 << 20)
    load_safetensors_cached(saved, cache=cache, strategy="eager")
    assert cache.used_bytes == sum(tensor.nbytes for tensor in state_dict.values())


def test_two_files_count_both(tmp_path):
    cache = SafetensorsCache(1 << 20)
    for path in files_of_100_bytes(tmp_path, 2):
        load_safetensors_cached(path, cache=cache)
    assert cache.used_bytes == 200


def test_a_failure_is_not_kept(tmp_path, saved):
    cache = SafetensorsCache(1 << 20)
    path = tmp_path / "later.safetensors"
    path.write_bytes(b"junk")
    with pytest.raises(SafetensorsLoadError):
        load_safetensors_cached(path, cache=cache)
    with pytest.raises(SafetensorsLoadError):
        load_safetensors_cached(path, cache=cache)
    path.write_bytes(Path(saved).read_bytes())
    assert load_safetensors_cached(path, cache=cache)


@pytest.mark.parametrize("fails", [False, True])
def test_one_load_in_flight_and_every_waiter_wakes(saved, monkeypatch, fails: bool):
    cache = SafetensorsCache(1 << 20)
    load_request = cached.load_request
    entered, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    def held(request, strategy) -> LoadResult:
        calls.append(1)
        entered.set()
        go_on.wait()
        if fails:
            raise SafetensorsLoadError(saved, "broken on purpose")
        return load_request(request, strategy)

    monkeypatch.setattr(cached, "load_request", held)
    outcomes: list[object] = []

    def ask() -> None:
        try:
            outcomes.append(load_safetensors_cached(saved, cache=cache)["conv"])
        except SafetensorsLoadError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    threads[0].start()
    entered.wait()
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 5
    # A waiter that comes after the flight has landed starts its own when that one failed.
    assert len(calls) == 1 or fails
    assert all(isinstance(outcome, SafetensorsLoadError) == fails for outcome in outcomes)


class CacheMachine(RuleBasedStateMachine):
    """Loads of files that keep being rewritten: always the present content, never more than the limit."""

    folder: Path
    limit_bytes = 4000

    def __init__(self) -> None:
        super().__init__()
        self.cache = SafetensorsCache(self.limit_bytes)
        self.content: dict[int, int] = {}
        self.version = 0

    @rule(name=st.integers(0, 3), size=st.sampled_from([0, 1, 1500, 2500, 4000, 4001]))
    def write(self, name: int, size: int) -> None:
        self.version += 1
        path = self.folder / f"{name}.safetensors"
        save_file({"a": torch.full((size,), self.version % 251, dtype=torch.uint8)}, path)
        os.utime(path, ns=(self.version, self.version))
        self.content[name] = self.version % 251

    @rule(name=st.integers(0, 3))
    def load(self, name: int) -> None:
        if name in self.content:
            loaded = load_safetensors_cached(self.folder / f"{name}.safetensors", cache=self.cache)["a"]
            assert (loaded == self.content[name]).all()

    @rule()
    def clear(self) -> None:
        self.cache.clear()

    @invariant()
    def within_the_limit(self) -> None:
        assert self.cache.used_bytes <= self.limit_bytes


def test_cache_machine(tmp_path: Path):
    machine = type("Machine", (CacheMachine,), {"folder": tmp_path})
    run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))
