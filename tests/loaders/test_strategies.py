"""One contract for every strategy, then what each is for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from warmstack.loaders import (
    DeviceMap,
    LoadCancelledError,
    LoadRequest,
    NoCapableLoaderError,
    Pace,
    SafetensorsLoadError,
    SafetensorsValidationError,
    StrategyRegistry,
    choose_strategy,
    drop_file,
    resident_bytes,
)

REGISTRY = StrategyRegistry.default()


@pytest.fixture(params=REGISTRY.strategies)
def strategy(request: pytest.FixtureRequest):
    return REGISTRY.strategies[request.param]


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

    def test_a_device_that_is_not_there_is_an_ordinary_error(self, strategy, saved):
        with pytest.raises(SafetensorsLoadError, match="cannot go to cuda:77"):
            strategy.load(LoadRequest((saved,), device="cuda:77"))

    @pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".gguf"])
    def test_refuses_other_formats_with_the_reason(self, strategy, suffix):
        reason = strategy.constraints.refusal(LoadRequest((f"/models/a{suffix}",)))
        assert reason == f"reads safetensors, not {suffix}"

    def test_reports_the_peak_it_holds(self, strategy, saved):
        request = LoadRequest((saved,))
        private_bytes = 0 if strategy.name == "lazy" else sum(tensor.nbytes for tensor in load_file(saved).values())
        assert strategy.load(request).metrics.peak_bytes == private_bytes
        cast = strategy.load(replace(request, dtype=torch.float64)).metrics.peak_bytes
        assert cast > private_bytes


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

    @pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise to drop pages")
    def test_reads_only_what_is_touched(self, large):
        path, tensors = large
        drop_file(path)
        result = REGISTRY.strategies["lazy"].load(LoadRequest((path,)))
        assert torch.equal(result["layer_5.weight"][7:9], tensors["layer_5.weight"][7:9])
        read_bytes = resident_bytes(path)
        assert read_bytes is not None and read_bytes < os.path.getsize(path) / 3


class TestFastSingleFile:
    @pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system has no direct reads")
    def test_a_cold_file_leaves_the_page_cache_to_others(self, large, same_tensors):
        path, tensors = large
        drop_file(path)
        same_tensors(REGISTRY.strategies["fast_single_file"].load(LoadRequest((path,))).tensors, tensors)
        assert (resident_bytes(path) or 0) < os.path.getsize(path) / 10

    def test_falls_back_where_direct_reads_are_refused(self, large, same_tensors, monkeypatch):
        path, tensors = large
        drop_file(path)
        refused: list[str] = []

        def refuse(path: str, flags: int) -> int:
            refused.append(path)
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr("warmstack.loaders.direct._open_direct", refuse)
        same_tensors(REGISTRY.strategies["fast_single_file"].load(LoadRequest((path,))).tensors, tensors)
        assert refused == [path]


class TestRegistry:
    def test_a_refusal_says_why(self, saved):
        request = LoadRequest((saved, saved), device_map=DeviceMap.of({"": "disk"}))
        assert REGISTRY.refusals(request) == {
            "eager": "reads whole files and the device map leaves tensors on disk",
            "fast_single_file": "loads at most 1 file, not 2",
        }
        with pytest.raises(NoCapableLoaderError, match="loads at most 1 file") as caught:
            REGISTRY.require("fast_single_file", request)
        assert caught.value.refusals.keys() == {"fast_single_file"}

    def test_an_unknown_name_lists_the_known_ones(self, saved):
        with pytest.raises(ValueError, match="no strategy 'warp'; there are eager, lazy, fast_single_file, auto"):
            REGISTRY.require("warp", LoadRequest((saved,)))

    def test_no_files_are_nobodys_job(self):
        with pytest.raises(NoCapableLoaderError, match="wants at least 1 files, not 0"):
            choose_strategy(REGISTRY, LoadRequest(()))


class TestAuto:
    def choose(self, request: LoadRequest, free_bytes: int = 1 << 40) -> tuple[str, str]:
        choice = choose_strategy(REGISTRY, request, free_bytes=lambda: free_bytes)
        return choice.strategy.name, choice.reasons[0]

    def test_parts_on_disk(self, saved):
        request = LoadRequest((saved,), device_map=DeviceMap.of({"ints": "disk"}))
        assert self.choose(request) == ("lazy", "the device map leaves tensors on disk")

    def test_short_of_memory(self, large):
        name, reason = self.choose(LoadRequest((large[0],)), free_bytes=70 << 20)
        assert name == "lazy"
        assert "do not fit" in reason

    def test_one_large_file(self, large):
        assert self.choose(LoadRequest((large[0],)))[0] == "fast_single_file"

    def test_one_small_file(self, saved):
        assert self.choose(LoadRequest((saved,)))[0] == "eager"

    def test_several_files(self, large, saved):
        assert self.choose(LoadRequest((large[0], saved)))[0] == "eager"

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(SafetensorsLoadError, match="No such file"):
            self.choose(LoadRequest((str(tmp_path / "absent.safetensors"),)))

    def test_when_nothing_can_every_refusal_is_listed(self):
        with pytest.raises(NoCapableLoaderError) as caught:
            self.choose(LoadRequest(("/models/a.pt",)))
        assert caught.value.refusals.keys() == REGISTRY.strategies.keys()

    def test_takes_what_is_left_when_the_preferred_ones_refuse(self, large):
        registry = StrategyRegistry.of(REGISTRY.strategies["lazy"])
        choice = choose_strategy(registry, LoadRequest((large[0],)), free_bytes=lambda: 1 << 40)
        assert (choice.strategy.name, choice.reasons) == ("lazy", ("the preferred ones refused",))
