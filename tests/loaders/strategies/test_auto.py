"""Which strategy is taken for which files, on which disk, with how much memory, and what reason is given."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    DeviceMap,
    LoadRequest,
    NoCapableLoaderError,
    SafetensorsLoadError,
    StrategyRegistry,
    Surroundings,
    choose_strategy,
)
from warmstack.loaders.robust import load_request

REGISTRY = StrategyRegistry.default()


class TestAuto:
    def choose(
        self, request: LoadRequest, free_bytes: int = 1 << 40, kind: str = "flash", cached_bytes: int | None = 0
    ) -> tuple[str, str]:
        surroundings = Surroundings(lambda: free_bytes, lambda path: kind, lambda path: cached_bytes)
        choice = choose_strategy(REGISTRY, request, surroundings)
        self.reasons = choice.reasons
        return choice.strategy.name, choice.reasons[0]

    def test_short_of_memory_on_the_cpu(self, large):
        name, reason = self.choose(LoadRequest((large[0],)), free_bytes=70 << 20)
        assert name == "lazy"
        assert "are more than 80% of" in reason

    @pytest.mark.parametrize(
        ("rules", "name"),
        [
            ({"": "meta"}, "streaming"),
            ({"layer_1": "cpu", "": "meta"}, "lazy"),
            ({"layer_1": "meta"}, "lazy"),
            ({"layer_1": "disk", "": "meta"}, "streaming"),
        ],
    )
    def test_short_of_memory_beside_a_device(self, large, rules: dict[str, str], name: str):
        request = LoadRequest((large[0],), device_map=DeviceMap.of(rules))
        assert self.choose(request, free_bytes=1 << 20)[0] == name
        assert self.choose(LoadRequest((large[0],), device="meta"), free_bytes=1 << 20)[0] == "streaming"

    def test_low_memory(self, saved):
        request = LoadRequest((saved,), low_memory=True)
        assert self.choose(request)[0] == "eager"
        assert self.choose(replace(request, dtype=torch.float16))[0] == "streaming"
        assert self.choose(replace(request, device="meta"))[0] == "streaming"

    def test_parts_on_disk(self, saved):
        request = LoadRequest((saved,), device_map=DeviceMap.of({"ints": "disk"}))
        assert self.choose(request) == ("parallel_async_lazy", "the device map leaves tensors on disk")

    def test_copies_count_as_memory(self, large, saved, state_dict):
        size_bytes = os.path.getsize(large[0])
        assert self.choose(LoadRequest((large[0],)), free_bytes=2 * size_bytes)[0] == "fast_single_file"
        part_bytes = sum(tensor.nbytes for key, tensor in state_dict.items() if key.startswith("block"))
        floats = LoadRequest((saved,), dtype=torch.float64, device_map=DeviceMap.of({"": "disk", "block": "cpu"}))
        # The one that is float64 already is copied too, so that the memory of the others can go.
        copied_bytes = 8 * sum(tensor.numel() for key, tensor in state_dict.items() if key.startswith("block"))
        enough_bytes = int((part_bytes + copied_bytes) / 0.8) + 2
        assert self.choose(floats, free_bytes=enough_bytes)[0] == "parallel_async_lazy"
        assert self.choose(floats, free_bytes=enough_bytes - 20)[0] == "lazy"
        assert str(part_bytes + copied_bytes) in self.reasons[0]

    def test_a_cast_that_does_not_fit_twice_streams(self, tmp_path):
        save_file({"a": torch.ones(1000), "b": torch.ones(1000)}, tmp_path / "floats.safetensors")
        request = LoadRequest((str(tmp_path / "floats.safetensors"),), dtype=torch.float16)
        assert self.choose(request, free_bytes=20_000)[0] == "eager"
        assert self.choose(request, free_bytes=12_000)[0] == "streaming"
        assert self.choose(replace(request, dtype=torch.float32), free_bytes=9000)[0] == "lazy"

    def test_one_large_file(self, large):
        assert self.choose(LoadRequest((large[0],)))[0] == "fast_single_file"

    @pytest.mark.parametrize("kind", ["rotating", "network"])
    def test_one_large_file_on_a_slow_disk(self, large, kind: str):
        request, size_bytes = LoadRequest((large[0],)), os.path.getsize(large[0])
        assert self.choose(request, kind=kind)[0] == "eager"
        assert self.choose(request, kind=kind, cached_bytes=size_bytes)[0] == "fast_single_file"

    def test_the_reasons_say_what_the_disk_is_and_what_is_cached(self, large):
        request, size_bytes = LoadRequest((large[0],)), os.path.getsize(large[0])
        self.choose(request, cached_bytes=size_bytes // 4)
        assert self.reasons == (f"one file of {size_bytes} bytes", "25% of it in the page cache", "flash disk")
        self.choose(request, kind="network", cached_bytes=None)
        assert self.reasons[1:] == ("an unknown share of it in the page cache", "network disk")

    def test_one_small_file(self, saved):
        assert self.choose(LoadRequest((saved,)))[0] == "eager"

    @pytest.mark.parametrize(
        ("kind", "name"), [("flash", "parallel"), ("unknown", "parallel"), ("rotating", "eager"), ("network", "eager")]
    )
    def test_several_files(self, large, saved, kind: str, name: str):
        assert self.choose(LoadRequest((large[0], saved)), kind=kind)[0] == name
        assert self.choose(LoadRequest((large[0], saved)), kind=kind, cached_bytes=None)[0] == name

    def test_a_slow_disk_does_not_matter_to_cached_files(self, large, saved):
        request = LoadRequest((large[0], saved))
        half_bytes = os.path.getsize(large[0]) // 2
        assert self.choose(request, kind="rotating", cached_bytes=half_bytes)[0] == "parallel"
        assert self.choose(request, kind="rotating", cached_bytes=half_bytes // 2)[0] == "eager"

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(SafetensorsLoadError, match="No such file"):
            self.choose(LoadRequest((str(tmp_path / "absent.safetensors"),)))

    def test_when_nothing_can_every_refusal_is_listed(self):
        with pytest.raises(NoCapableLoaderError) as caught:
            self.choose(LoadRequest(("/models/a.pt",)))
        assert caught.value.refusals.keys() == REGISTRY.strategies.keys()

    def test_takes_what_is_left_when_the_preferred_one_is_not_there(self, large):
        registry = StrategyRegistry.of(REGISTRY.strategies["lazy"])
        choice = choose_strategy(registry, LoadRequest((large[0],)), Surroundings(lambda: 1 << 40))
        assert choice.strategy.name == "lazy"
        assert choice.reasons[-1] == "fast_single_file refused: not registered"

    def test_the_result_says_why(self, saved):
        assert load_request(LoadRequest((saved,)), "auto").reasons[0].startswith("only ")
        assert load_request(LoadRequest((saved,)), "eager").reasons == ()
