"""The examples of the loaders run, and show what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.table import Table
from safetensors.torch import load_file

from warmstack.loaders import ModelLoader, StrategyRegistry
from warmstack.worker.cli import LOADER_EXAMPLES, main
from warmstack.worker.loader_examples import EXAMPLES, Sample, make_sample

MIB = 8


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return make_sample(tmp_path_factory.mktemp("sample"), MIB)


def rows(table: Table) -> list[list[str]]:
    columns = [list(map(str, column.cells)) for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def test_the_sample_is_one_model_in_two_forms(sample: Sample) -> None:
    whole, shards = load_file(sample.single), ModelLoader("eager").load_checkpoint(sample.index)
    assert whole.keys() == shards.keys() == dict(sample.empty_model().named_parameters()).keys()
    assert all(torch.equal(whole[key], shards[key]) for key in whole)
    assert sum(tensor.nbytes for tensor in whole.values()) == MIB << 20


def test_compare_shows_every_strategy_twice_and_why_one_refuses(sample: Sample) -> None:
    shown = rows(EXAMPLES["compare"](sample))
    assert [row[1] for row in shown] == 2 * list(StrategyRegistry.default().strategies)
    refused = {(row[0], row[1]): row[5] for row in shown if row[5]}
    assert refused.keys() == {("one", "parallel"), ("shards", "fast_single_file")}
    assert all(0 < float(row[3]) >= float(row[2]) for row in shown if not row[5])


def test_auto_shows_what_it_takes_and_why(sample: Sample) -> None:
    shown = {row[0]: row[1:3] for row in rows(EXAMPLES["auto"](sample))}
    assert {wish: strategy for wish, (strategy, _) in shown.items()} == {
        "one file": "eager",
        "shards": "eager",
        "a part of it": "parallel_async_lazy",
        "cast, with little memory": "streaming",
    }
    assert all(reason for _, reason in shown.values())


def test_advanced_shows_each_feature(sample: Sample) -> None:
    shown = dict(rows(EXAMPLES["advanced"](sample)))
    assert shown["device map"] == f"blocks.0.weight of 8 tensors, {MIB / 8:.1f} MiB read"
    assert shown["dtype"] == "torch.bfloat16"
    assert shown["progress"].endswith("to 100%")
    assert shown["max_memory"].startswith("refused: needs") and shown["cancelled"].startswith("stopped: cancelled")
    assert "event loop turned" in shown["awaited"]


def test_memory_shows_that_streaming_holds_little_beyond_the_result(sample: Sample) -> None:
    beyond = {row[0]: float(row[3]) for row in rows(EXAMPLES["memory"](sample))}
    assert beyond["eager, as stored"] == beyond["lazy, as stored (mapped)"] == 0
    assert beyond["streaming, cast"] <= 2 < beyond["eager, cast"] == MIB


def test_streaming_shows_every_tensor_and_its_bound(sample: Sample) -> None:
    table = EXAMPLES["streaming"](sample)
    shown = rows(table)
    assert sorted(row[0] for row in shown) == [f"blocks.{index}.weight" for index in range(8)]
    assert all(float(row[3]) <= 1 for row in shown)
    assert table.caption == "model filled: 0 missing, 0 left on meta"


@pytest.mark.parametrize("example", LOADER_EXAMPLES)
def test_the_command_prints_the_table(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loaders", "--example", example, "--size-mib", "1"]) == 0
    assert example in capsys.readouterr().out


def test_every_example_can_be_named() -> None:
    assert tuple(EXAMPLES) == LOADER_EXAMPLES


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "warmstack.worker", "loaders", "--example", "auto", "--size-mib", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100, check=False)
    assert done.returncode == 0 and "eager" in done.stdout, done.stderr
