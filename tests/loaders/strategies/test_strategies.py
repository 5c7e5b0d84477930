"""One contract for every strategy, then what each is for."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from warmstack.loaders import (
    DeviceMap,
    LazyLoadingStrategy,
    LoadCancelledError,
    LoadRequest,
    NoCapableLoaderError,
    Pace,
    ParallelLoadingStrategy,
    SafetensorsLoadError,
    SafetensorsValidationError,
    StrategyRegistry,
    StreamedPiece,
    StreamingLoadingStrategy,
    choose_strategy,
    drop_file,
    read_header,
    read_tensors,
    resident_bytes,
    warm_file,
)
from warmstack.loaders.reading.direct import READERS
from warmstack.loaders.reading.private import MOST_COPIERS
from warmstack.loaders.reading.selection import read_selected
from warmstack.loaders.strategies import streaming
from warmstack.loaders.strategies.gathering import Gathering

REGISTRY = StrategyRegistry.default()
needs_fadvise = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise to drop pages")


@pytest.fixture(params=REGISTRY.strategies)
def strategy(request: pytest.FixtureRequest):
    return REGISTRY.strategies[request.param]


@pytest.fixture
def opened(audited: list[str]) -> list[str]:
    audited.clear()
    return audited


def shards(folder: Path, tensors: dict[str, torch.Tensor], count: int) -> tuple[str, ...]:
    paths = []
    for index in range(count):
        path = folder / f"model-{index + 1:05}-of-{count:05}.safetensors"
        save_file(dict(list(tensors.items())[index::count]), path)
        paths.append(str(path))
    return tuple(paths)


def paths_for(strategy, saved: str, state_dict: dict[str, torch.Tensor]) -> tuple[str, ...]:
    """As many files as the strategy takes: two where it can."""
    return (saved,) if strategy.constraints.max_files == 1 else shards(Path(saved).parent, state_dict, 2)


class TestEveryStrategy:
    def test_loads_the_tensors(self, strategy, saved, state_dict, same_tensors):
        result = strategy.load(LoadRequest(paths_for(strategy, saved, state_dict)))
        same_tensors(result.tensors, state_dict)
        assert result.metrics.strategy == strategy.name
        assert result.metrics.tensors == len(state_dict)
        assert result.metrics.loaded_bytes == sum(tensor.nbytes for tensor in state_dict.values())

    def test_says_how_long_each_stage_took(self, strategy, saved, state_dict):
        metrics = strategy.load(LoadRequest(paths_for(strategy, saved, state_dict))).metrics
        reading = "map" if strategy.name == "lazy" else "read"
        assert list(metrics.stages_s) == ["header", reading, "place"]
        assert 0 < sum(metrics.stages_s.values()) <= metrics.duration_s

    def test_result_fills_a_model(self, strategy, tmp_path):
        source, target = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
        save_file(source.state_dict(), tmp_path / "linear.safetensors")
        target.load_state_dict(strategy.load(LoadRequest((str(tmp_path / "linear.safetensors"),))))
        assert torch.equal(target.weight, source.weight)

    def test_casts_only_floating_point(self, strategy, saved, state_dict):
        result = strategy.load(LoadRequest((saved,), dtype=torch.float32))
        for key, tensor in state_dict.items():
            expected = tensor.to(torch.float32) if tensor.is_floating_point() else tensor
            assert result[key].dtype == expected.dtype
            assert torch.equal(result[key], expected), key

    def test_places_by_the_device_map(self, strategy, saved):
        rules = DeviceMap.of({"block": "meta", "": "cpu"})
        result = strategy.load(LoadRequest((saved,), device_map=rules))
        assert {key: tensor.device.type for key, tensor in result.items()} == {
            key: "meta" if key.startswith("block") else "cpu" for key in result
        }

    def test_metadata(self, strategy, saved):
        assert strategy.load(LoadRequest((saved,))).metadata["ss_output_name"] == "ink"

    def test_a_lying_file_is_named(self, strategy, write_raw):
        path = write_raw({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 1]}}, b"a")
        with pytest.raises(SafetensorsValidationError, match="needs 2 bytes") as caught:
            strategy.load(LoadRequest((path,)))
        assert caught.value.path == path

    def test_a_missing_file_is_named(self, strategy, tmp_path):
        with pytest.raises(SafetensorsLoadError, match="No such file"):
            strategy.load(LoadRequest((str(tmp_path / "absent.safetensors"),)))

    def test_stops_when_cancelled(self, strategy, large):
        with pytest.raises(LoadCancelledError):
            strategy.load(LoadRequest((large[0],), pace=Pace(cancelled=lambda: True)))

    def test_stops_between_two_chunks(self, strategy, large):
        path, tensors = large
        arrived: list[int] = []
        pace = Pace(cancelled=lambda: bool(arrived), reached=lambda path, nbytes, at: arrived.append(nbytes))
        with pytest.raises(LoadCancelledError):
            # On another device, since mapped tensors that stay where they are are never read.
            strategy.load(LoadRequest((path,), device="meta", pace=pace))
        assert 0 < sum(arrived) < sum(tensor.nbytes for tensor in tensors.values())

    def test_a_file_that_changes_meanwhile_is_refused(self, strategy, saved, state_dict):
        """But for `lazy`, whose views show the file."""
        pace = Pace(reached=lambda path, nbytes, at: os.utime(path, ns=(1, 1)))
        request = LoadRequest(paths_for(strategy, saved, state_dict), pace=pace)
        if strategy.name == "lazy":
            assert strategy.load(request)
            return
        with pytest.raises(SafetensorsLoadError, match="changed while"):
            strategy.load(request)

    @pytest.mark.parametrize("choice", [{"dtype": torch.float16}, {"device": "meta"}], ids=str)
    def test_copies_are_never_of_two_files(self, strategy, tmp_path, choice):
        tensors = {f"{number}": torch.zeros(1 << 20) for number in range(4)}
        (saved,) = shards(tmp_path, tensors, 1)
        paths = paths_for(strategy, saved, tensors)
        new = {path: b"\1" * os.path.getsize(path) for path in paths}

        def rewrite(path: str, nbytes: int, at: object) -> None:
            with open(path, "r+b") as file:
                file.write(new[path])

        with pytest.raises(SafetensorsLoadError, match="changed while"):
            strategy.load(LoadRequest(paths, pace=Pace(reached=rewrite), **choice))

    def test_opens_a_file_once_for_its_header_and_once_for_its_tensors(self, strategy, large, opened):
        for _ in ("warm", "cold"):
            opened.clear()
            strategy.load(LoadRequest((large[0],)))
            assert opened.count(large[0]) <= 2
            drop_file(large[0])

    def test_a_device_that_is_not_there_is_an_ordinary_error(self, strategy, saved):
        with pytest.raises(SafetensorsLoadError, match="cannot go to cuda:77"):
            strategy.load(LoadRequest((saved,), device="cuda:77"))

    @pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".gguf"])
    def test_refuses_other_formats_with_the_reason(self, strategy, suffix):
        paths = (f"/models/a{suffix}",) * strategy.constraints.min_files
        reason = strategy.constraints.refusal(LoadRequest(paths))
        assert reason == f"reads safetensors, not {suffix}"

    def test_reports_the_peak_it_holds(self, strategy, saved):
        request = LoadRequest((saved,))
        plain_bytes = sum(tensor.nbytes for tensor in load_file(saved).values())
        peak_bytes = strategy.load(request).metrics.peak_bytes
        if strategy.name == "lazy":
            assert peak_bytes == 0
        else:
            assert plain_bytes <= peak_bytes <= 1.1 * plain_bytes
        assert strategy.load(replace(request, dtype=torch.float64)).metrics.peak_bytes > peak_bytes


@pytest.mark.parametrize("name", [n for n, s in REGISTRY.strategies.items() if s.constraints.max_files is None])
def test_a_key_in_two_files_is_refused(name: str, tmp_path: Path):
    for file in ("a", "b"):
        save_file({"same": torch.ones(1)}, tmp_path / f"{file}.safetensors")
    with pytest.raises(SafetensorsValidationError, match="'same': stands in two") as caught:
        REGISTRY.strategies[name].load(LoadRequest((str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors"))))
    assert caught.value.path.endswith("b.safetensors")


class TestLazy:
    def test_tensors_on_disk_are_not_loaded(self, saved, state_dict, same_tensors):
        rules = DeviceMap.of({"": "disk", "ints": "cpu"})
        result = REGISTRY.strategies["lazy"].load(LoadRequest((saved,), device_map=rules))
        same_tensors(result.tensors, {key: tensor for key, tensor in state_dict.items() if key.startswith("ints")})

    @needs_fadvise
    def test_reads_only_what_is_touched(self, large):
        path, tensors = large
        drop_file(path)
        result = REGISTRY.strategies["lazy"].load(LoadRequest((path,)))
        assert torch.equal(result["layer_5.weight"][7:9], tensors["layer_5.weight"][7:9])
        read_bytes = resident_bytes(path)
        assert read_bytes is not None and read_bytes < os.path.getsize(path) / 3

    @needs_fadvise
    def test_populating_brings_in_what_is_wanted_and_nothing_else(self, large, same_tensors):
        path, tensors = large
        drop_file(path)
        wanted = {key: tensors[key] for key in ("layer_2.weight", "layer_3.weight")}
        rules = DeviceMap.of({"": "disk"} | dict.fromkeys(wanted, "cpu"))
        steps: list[int] = []
        request = LoadRequest((path,), device_map=rules, pace=Pace(reached=lambda _, nbytes, at: steps.append(nbytes)))
        result = LazyLoadingStrategy(populate=True).load(request)
        wanted_bytes = sum(tensor.nbytes for tensor in wanted.values())
        assert sum(steps) == wanted_bytes
        # The kernel's read-ahead goes on behind what it was told to read, by 8 MiB where that is its setting.
        assert wanted_bytes <= (resident_bytes(path) or 0) < os.path.getsize(path) / 2
        same_tensors(result.tensors, wanted)
        assert result.metrics.peak_bytes == 0


class TestFastSingleFile:
    @pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")
    def test_a_cold_file_leaves_the_page_cache_to_others(self, large, same_tensors):
        path, tensors = large
        drop_file(path)
        same_tensors(REGISTRY.strategies["fast_single_file"].load(LoadRequest((path,))).tensors, tensors)
        assert (resident_bytes(path) or 0) < os.path.getsize(path) / 10


class TestRegistry:
    def test_a_refusal_says_why(self, saved):
        request = LoadRequest((saved, saved), device_map=DeviceMap.of({"": "disk"}))
        assert REGISTRY.refusals(request) == {
            "eager": "reads whole files and the device map leaves tensors on disk",
            "fast_single_file": "loads at most 1 file, not 2",
            "parallel": "reads whole files and the device map leaves tensors on disk",
        }
        with pytest.raises(NoCapableLoaderError, match="loads at most 1 file") as caught:
            REGISTRY.require("fast_single_file", request)
        assert caught.value.refusals.keys() == {"fast_single_file"}

    def test_an_unknown_name_lists_the_known_ones(self, saved):
        with pytest.raises(ValueError, match=r"no strategy 'warp'; there are eager, lazy, .*, auto"):
            REGISTRY.require("warp", LoadRequest((saved,)))

    def test_no_files_are_nobodys_job(self):
        with pytest.raises(NoCapableLoaderError, match="wants at least 1 files, not 0"):
            choose_strategy(REGISTRY, LoadRequest(()))


class TestStreaming:
    def test_a_cast_checkpoint_is_never_in_memory_twice(self, large):
        path, tensors = large
        whole_bytes = sum(tensor.nbytes for tensor in tensors.values())
        largest_bytes = max(tensor.nbytes for tensor in tensors.values())
        request = LoadRequest((path,), device="meta")
        streamed = StreamingLoadingStrategy(max_bytes=largest_bytes).load(request)
        assert streamed.metrics.peak_bytes <= 2 * largest_bytes
        assert REGISTRY.strategies["eager"].load(request).metrics.peak_bytes == whole_bytes

    def test_what_is_read_ahead_counts(self, saved, monkeypatch):
        def stream(wanted, pace, **_):
            for header, keys in wanted:
                yield StreamedPiece(header, {keys[0]: torch.zeros(10)}, size_bytes=40, waiting_bytes=140)

        monkeypatch.setattr(streaming, "stream_pieces", stream)
        result = StreamingLoadingStrategy().load(LoadRequest((saved,), device="meta"))
        assert result.metrics.peak_bytes == 140


class TestParallel:
    def test_a_broken_shard_stops_the_others(self, tmp_path, state_dict, monkeypatch):
        paths = shards(tmp_path, state_dict, 4)

        def read(header, pace, **_):
            """The first shard is broken; another one takes until somebody stops it."""
            if header.path == paths[0]:
                raise SafetensorsLoadError(header.path, "broken on purpose")
            while True:
                pace.allow(header.path, 1)

        monkeypatch.setattr("warmstack.loaders.strategies.parallel.read_fast", read)
        with pytest.raises(SafetensorsLoadError, match="broken on purpose"):
            ParallelLoadingStrategy(workers=2).load(LoadRequest(paths))

    def test_shards_wait_until_their_bytes_have_room(self, tmp_path):
        tensors = {f"{index}": torch.full((1000,), float(index)) for index in range(6)}
        request = LoadRequest(shards(tmp_path, tensors, 6), device="meta")
        assert ParallelLoadingStrategy(workers=4).load(request).metrics.peak_bytes == (4 + 1) * 4000
        assert ParallelLoadingStrategy(workers=4, max_bytes=9000).load(request).metrics.peak_bytes == 2 * 4000
        assert ParallelLoadingStrategy(workers=4, max_bytes=1).load(request).metrics.peak_bytes == 4000

    def test_the_next_shard_is_read_while_one_finds_its_place(self, tmp_path, monkeypatch):
        paths = shards(tmp_path, {"a": torch.zeros(1000), "b": torch.ones(1000)}, 2)
        reached, add = threading.Event(), Gathering.add

        def read(header, pace, **_):
            if header.path == paths[1]:
                reached.set()
            return read_tensors(header.path, header=header)

        def place(gathering, path, *arguments, **named):
            assert reached.wait(30), "the second shard is not even begun"
            add(gathering, path, *arguments, **named)

        monkeypatch.setattr("warmstack.loaders.strategies.parallel.read_fast", read)
        monkeypatch.setattr(Gathering, "add", place)
        assert set(ParallelLoadingStrategy().load(LoadRequest(paths))) == {"a", "b"}

    @pytest.mark.parametrize("workers", [1, 3])
    def test_the_order_is_that_of_the_files(self, tmp_path, state_dict, same_tensors, workers: int):
        paths = shards(tmp_path, state_dict, 5)
        result = ParallelLoadingStrategy(workers=workers).load(LoadRequest(paths))
        same_tensors(result.tensors, state_dict)
        assert list(result) == [key for path in paths for key in read_header(path).tensors]
        assert result.metrics.files == 5


class TestParallelAsyncLazy:
    def test_reads_only_the_selected_bytes(self, large, same_tensors):
        path, tensors = large
        arrived: list[int] = []
        pace = Pace(reached=lambda path, nbytes, at: arrived.append(nbytes))
        rules = DeviceMap.of({"": "disk", "layer_2": "cpu", "layer_6": "cpu", "layer_3": "cpu"})
        result = REGISTRY.strategies["parallel_async_lazy"].load(LoadRequest((path,), device_map=rules, pace=pace))
        chosen = {key: tensors[key] for key in ("layer_2.weight", "layer_3.weight", "layer_6.weight")}
        same_tensors(result.tensors, chosen)
        chosen_bytes = sum(tensor.nbytes for tensor in chosen.values())
        assert sum(arrived) <= 1.05 * chosen_bytes
        assert result.metrics.peak_bytes <= 1.05 * chosen_bytes

    def test_tensors_stay_as_aligned_as_in_the_file(self, write_raw):
        ends = {"a": 7, "hole": 8011, "c": 8024, "doubles": 8040}
        starts = dict(zip(ends, [0, *ends.values()], strict=False))
        layout = {
            key: {"dtype": "U8", "shape": [ends[key] - starts[key]], "data_offsets": [starts[key], ends[key]]}
            for key in ends
        }
        layout["doubles"] |= {"dtype": "F64", "shape": [2]}
        selected = read_selected(read_header(write_raw(layout, bytes(8040))), ["a", "c", "doubles"], Pace())
        assert selected.tensors["doubles"].data_ptr() % 8 == 0
        assert selected.nbytes < 300

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12), data=st.data())
    def test_any_selection(self, tmp_path: Path, same_tensors, sizes: list[int], data: st.DataObject):
        kinds = data.draw(
            st.lists(
                st.sampled_from([torch.uint8, torch.float16, torch.float64]), min_size=len(sizes), max_size=len(sizes)
            )
        )
        tensors = {f"{i}": torch.arange(size).to(kind) for i, (size, kind) in enumerate(zip(sizes, kinds, strict=True))}
        keys = data.draw(st.lists(st.sampled_from(sorted(tensors)), unique=True))
        save_file(tensors, tmp_path / "any.safetensors")
        header = read_header(tmp_path / "any.safetensors")
        for cold in (False, True):
            if cold:
                drop_file(header.path)
            selected = read_selected(header, keys, Pace(), readers=2, copiers=2)
            same_tensors(selected.tensors, {key: tensors[key] for key in keys})
            assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in selected.tensors.values())

    @pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        sizes=st.lists(st.one_of(st.integers(0, 9000), st.integers(400_000, 500_000)), min_size=1, max_size=8),
        data=st.data(),
    )
    def test_any_selection_of_large_tensors_past_the_page_cache(
        self, tmp_path: Path, same_tensors, sizes: list[int], data: st.DataObject
    ):
        tensors = {f"{i}": torch.randint(0, 255, (size,), dtype=torch.uint8) for i, size in enumerate(sizes)}
        keys = data.draw(st.lists(st.sampled_from(sorted(tensors)), unique=True))
        save_file(tensors, tmp_path / "any.safetensors")
        header = read_header(tmp_path / "any.safetensors")
        drop_file(header.path)
        read: list[int] = []
        pace = Pace(reached=lambda _, nbytes, at: read.append(nbytes))
        selected = read_selected(header, keys, pace, readers=2, copiers=2)
        same_tensors(selected.tensors, {key: tensors[key] for key in keys})

    @pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")
    def test_a_cold_part_leaves_the_page_cache_to_others(self, large, same_tensors):
        path, tensors = large
        header = read_header(path)
        drop_file(path)
        keys = ["layer_1.weight", "layer_4.weight"]
        selected = read_selected(header, keys, Pace(), readers=4, copiers=1)
        same_tensors(selected.tensors, {key: tensors[key] for key in keys})
        assert (resident_bytes(path) or 0) < selected.nbytes / 10


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")
@pytest.mark.parametrize("strategy", ["fast_single_file", "parallel_async_lazy"])
def test_loads_at_once_share_the_readers_that_one_has_alone(large, strategy: str):
    drop_file(large[0])
    readers: set[int] = set()
    pace = Pace(reached=lambda *_: readers.add(threading.get_ident()))
    loading = StrategyRegistry.default().strategies[strategy]
    loading.load(LoadRequest((large[0],), pace=pace, at_once=4))
    # Where the file stays in memory, as on a tmpfs, it is copied instead, by as many as have a core.
    copiers = min(MOST_COPIERS, (os.cpu_count() or 1) // 4)
    assert 1 <= len(readers) <= max(READERS // 4, copiers)


@pytest.mark.parametrize("strategy", ["fast_single_file", "parallel_async_lazy"])
def test_one_thread_copies_where_the_process_was_given_one_core(large, monkeypatch, strategy: str):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0}, raising=False)
    warm_file(large[0], cancelled=lambda: False)
    copiers: set[int] = set()
    pace = Pace(reached=lambda *_: copiers.add(threading.get_ident()))
    StrategyRegistry.default().strategies[strategy].load(LoadRequest((large[0],), pace=pace))
    assert len(copiers) == 1
