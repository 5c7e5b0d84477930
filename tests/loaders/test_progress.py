from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from warmstack.loaders import LoadProgress, ModelLoader, drop_file, read_header, shown_on
from warmstack.loaders.progress import ProgressMeter


@pytest.fixture
def header(tmp_path: Path):
    save_file({"a": torch.zeros(10), "b": torch.zeros(20), "c": torch.zeros(5)}, tmp_path / "abc.safetensors")
    return read_header(tmp_path / "abc.safetensors")


def test_a_chunk_is_named_after_the_tensor_in_which_it_ends(header):
    seen: list[LoadProgress] = []
    meter = ProgressMeter(140, [(header, header.tensors)], seen.append)
    for nbytes, end in ((39, 39), (1, 40), (1, 41), (79, 120), (20, 140), (100, 240)):
        meter.add(header.path, nbytes, header.data_start + end)
    assert "".join(progress.tensor for progress in seen) == "aabbcc"
    assert [progress.done_bytes for progress in seen] == [39, 40, 41, 120, 140, 140]


def test_what_is_not_loaded_is_not_named(header):
    seen: list[LoadProgress] = []
    meter = ProgressMeter(60, [(header, ["a", "c"])], seen.append)
    for end in (40, 41, 120, 121, 140):
        meter.add(header.path, 1, header.data_start + end)
    assert "".join(progress.tensor for progress in seen) == "aaacc"


def test_a_tensor_without_numbers_is_not_named_for_the_one_at_its_place(tmp_path: Path):
    save_file({"a": torch.zeros(10), "b": torch.zeros(0), "c": torch.zeros(5)}, tmp_path / "a.safetensors")
    seen: list[LoadProgress] = []
    header = read_header(tmp_path / "a.safetensors")
    meter = ProgressMeter(60, [(header, header.tensors)], seen.append)
    for end in (40, 41, 60):
        meter.add(header.path, 1, header.data_start + end)
    assert "".join(progress.tensor for progress in seen) == "acc"


def test_a_read_past_the_page_cache_names_what_it_was_for(large):
    drop_file(large[0])
    loader = ModelLoader("parallel_async_lazy", device_map={"": "disk", "layer_1": "cpu", "layer_4": "cpu"})
    seen: list[LoadProgress] = []
    loader.load_checkpoint(large[0], progress=seen.append)
    assert {progress.tensor for progress in seen} - {""} == {"layer_1.weight", "layer_4.weight"}


def test_the_end_is_said_of_the_file_that_was_read_last(header):
    seen: list[LoadProgress] = []
    meter = ProgressMeter(140, [(header, header.tensors)], seen.append)
    meter.finish("only.safetensors")
    meter.add(header.path, 1, header.data_start + 1)
    meter.finish("only.safetensors")
    assert [(progress.path, progress.done_bytes) for progress in seen] == [
        ("only.safetensors", 140),
        (header.path, 140),
        (header.path, 140),
    ]


def test_a_tqdm_bar(large):
    path, tensors = large
    total_bytes = sum(tensor.nbytes for tensor in tensors.values())
    with tqdm(unit="B", unit_scale=True, file=io.StringIO()) as bar:
        ModelLoader("parallel_async_lazy").load_checkpoint(path, progress=shown_on(bar))
        assert (bar.n, bar.total) == (total_bytes, total_bytes)


@pytest.mark.parametrize("strategy", ["eager", "fast_single_file", "lazy", "parallel_async_lazy", "streaming"])
def test_a_bar_that_cannot_be_drawn_is_not_taken_for_a_file_that_cannot_be_read(saved, strategy: str):
    def show(progress: LoadProgress) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        ModelLoader(strategy).load_checkpoint(saved, progress=show)


class HostBar:
    """ComfyUI's ProgressBar."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def update_absolute(self, value: int, total: int | None = None, preview: object = None) -> None:
        self.steps.append((value, total or 0))


def test_the_bar_of_comfyui(large):
    bar = HostBar()
    ModelLoader("streaming").load_checkpoint(large[0], progress=lambda progress: bar.update_absolute(*progress[:2]))
    assert bar.steps[-1][0] == bar.steps[-1][1] > 0
    assert len(bar.steps) > 2


def test_tensors_are_named_in_shards_read_side_by_side(tmp_path: Path):
    weight_map = {}
    for shard in range(3):
        save_file({f"layer_{shard}": torch.zeros(1000)}, tmp_path / f"{shard}.safetensors")
        weight_map[f"layer_{shard}"] = f"{shard}.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    seen: list[LoadProgress] = []
    ModelLoader("parallel").load_checkpoint(tmp_path, progress=seen.append)
    assert {(Path(progress.path).name, progress.tensor) for progress in seen if progress.tensor} == {
        (f"{shard}.safetensors", f"layer_{shard}") for shard in range(3)
    }
