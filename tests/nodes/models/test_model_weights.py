"""From a model file of any format to a state dict, and one clear line for a file that is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import process_spare
from warmstack.loaders.errors import LoadCancelledError
from warmstack.loaders.progress import LoadProgress
from warmstack.nodes.models.model_files import ModelFileError
from warmstack.nodes.models.model_weights import check_weights, read_weights, strategy_names, weights_state

from ..model_writer import write_gguf, write_shards


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    shapes = {"a.weight": (64, 128), "a.bias": (64,), "b.weight": (32, 64), "b.bias": (32,)}
    return {key: torch.randn(shape, generator=generator).half() for key, shape in shapes.items()}


def same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[key].dtype == tensor.dtype and torch.equal(actual[key], tensor) for key, tensor in expected.items()
    )


@pytest.mark.parametrize("strategy", strategy_names())
def test_every_strategy_loads_one_file_or_shards_or_says_why_not(
    tmp_path: Path, tensors: dict[str, torch.Tensor], strategy: str
) -> None:
    single = tmp_path / "m.safetensors"
    save_file(tensors, single, {"modelspec.title": "m"})
    index = write_shards(tmp_path / "shards", tensors)
    refused = []
    for path in (single, index):
        try:
            check_weights("m", str(path), strategy)
        except ModelFileError as problem:
            refused.append(path)
            with pytest.raises(ModelFileError) as caught:
                read_weights("m", str(path), strategy)
            assert str(caught.value) == str(problem) and str(tmp_path) not in str(problem)
            continue
        weights = read_weights("m", str(path), strategy)
        assert same(weights.tensors, tensors)
        assert weights.report.startswith("m: ") and (strategy == "auto" or strategy in weights.report)
    assert refused == {"parallel": [single], "fast_single_file": [index]}.get(strategy, [])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_gguf_keeps_what_is_plain_and_dequantises_the_rest(
    tmp_path: Path, tensors: dict[str, torch.Tensor], kind: str
) -> None:
    path = tmp_path / "m.gguf"
    worth = write_gguf(path, tensors, kind)
    seen: list[LoadProgress] = []
    check_weights("m", str(path), "parallel")
    weights = read_weights("m", str(path), "parallel", seen.append)
    assert same(weights.tensors, worth)
    assert weights.metadata["general.architecture"] == "flux"
    assert seen[-1].done_bytes == seen[-1].total_bytes and "gguf" in weights.report
    assert {progress.tensor for progress in seen[:-1]} == {*tensors}


def test_a_cancelled_load_says_so(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, tmp_path / "m.safetensors")
    write_gguf(tmp_path / "m.gguf", tensors, "Q8_0")
    for name in ("m.safetensors", "m.gguf"):
        with pytest.raises(LoadCancelledError):
            read_weights("m", str(tmp_path / name), "auto", cancelled=lambda: True)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.safetensors", b"\xff" * 64, "header"),
        ("m.gguf", b"GGUF", "truncated"),
        ("m.gguf", b"no such thing" * 9, "GGUF"),
        ("m.safetensors.index.json", b"[]", "no weight_map"),
        ("m.safetensors.index.json", json.dumps({"weight_map": {"a": "gone.safetensors"}}).encode(), "missing"),
        ("m.safetensors.index.json", json.dumps({"weight_map": {"a": "../m.safetensors"}}).encode(), "outside"),
    ],
    ids=["noise", "cut short", "not gguf", "no index", "missing shard", "outside"],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    for attempt in (check_weights, read_weights):
        with pytest.raises(ModelFileError, match=says) as caught:
            attempt(f"sub/{name}", str(tmp_path / name), "auto")
        line = str(caught.value)
        assert f"sub/{name}" in line and str(tmp_path) not in line and "\n" not in line


def test_the_state_follows_every_shard(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    index = write_shards(tmp_path, tensors)
    shard = tmp_path / "model-00002-of-00002.safetensors"
    before = weights_state(str(index))
    assert before == weights_state(str(index))
    save_file({"c": torch.zeros(3)}, shard)
    assert weights_state(str(index)) != before
    shard.unlink()
    assert weights_state(str(index)) != before


def test_no_memory_of_a_model_is_kept_for_another_load(tmp_path: Path) -> None:
    """The host may have registered it with the driver, and then it must go as the host thinks it does."""
    path = tmp_path / "m.safetensors"
    save_file({"a.weight": torch.ones(8 << 20)}, path)
    process_spare().release()
    for strategy in strategy_names():
        if strategy != "parallel":
            read_weights("m", str(path), strategy)
    assert process_spare().held_bytes == 0
