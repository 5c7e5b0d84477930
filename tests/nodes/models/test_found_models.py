"""Model names of a graph -> files: the host's order, shards, and no way out of its folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import torch

from warmstack.nodes.models.found_models import found_models
from warmstack.prefetch.models.file import ModelFile

from ..model_writer import write_shards

Find: TypeAlias = Callable[[str, str], tuple[ModelFile, ...]]


def write(path: Path, nbytes: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(nbytes))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "first/a.safetensors", 10)
    write(tmp_path / "second/a.safetensors", 20)
    write(tmp_path / "second/flux/b.gguf", 30)
    write(tmp_path / "secret.safetensors", 40)
    write(tmp_path / "second/notes.txt")
    write(tmp_path / "second/old.ckpt", 50)
    return tmp_path


@pytest.fixture
def find(root: Path) -> Find:
    folders = {"checkpoints": [str(root / "first"), str(root / "second"), str(root / "gone")], "vae": []}
    return partial(found_models, folders.__getitem__)


def test_the_first_folder_that_has_the_name_wins_as_it_does_for_the_host(find: Find, root: Path) -> None:
    (file,) = find("checkpoints", "a.safetensors")
    stat = os.stat(root / "first/a.safetensors")
    assert (file.kind, file.name, file.path) == ("checkpoints", "a.safetensors", str(root / "first/a.safetensors"))
    assert (file.size_bytes, file.mtime_ns) == (10, stat.st_mtime_ns) == file.key[1:]


def test_either_separator_is_understood_and_names_leave_with_one(find: Find) -> None:
    assert find("checkpoints", "flux\\b.gguf") == find("checkpoints", "flux/b.gguf")
    assert [(file.name, file.is_pickle) for file in find("checkpoints", "flux\\b.gguf")] == [("flux/b.gguf", False)]


def test_a_pickle_is_found_and_says_so(find: Find) -> None:
    assert [file.is_pickle for file in find("checkpoints", "old.ckpt")] == [True]


@pytest.mark.parametrize("folder", ["", "big"])
def test_an_index_stands_for_its_shards(find: Find, root: Path, folder: str) -> None:
    write_shards(root / "second" / folder, {f"w{i}": torch.ones(64) for i in range(4)})
    prefix = f"{folder}/" if folder else ""
    files = find("checkpoints", f"{prefix}model.safetensors.index.json")
    assert len(files) > 1
    for file in files:
        assert file.name.startswith(f"{prefix}model-0") and file.path == str(root / "second" / file.name)
        assert file.size_bytes == os.path.getsize(file.path)


def test_a_broken_index_or_a_missing_shard_is_no_model(find: Find, root: Path) -> None:
    (root / "first/broken.safetensors.index.json").write_text("{")
    (root / "first/half.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    (root / "first/out.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    for name in ("broken", "half", "out"):
        assert find("checkpoints", f"{name}.safetensors.index.json") == ()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "flux/../../secret.safetensors",
        "..\\secret.safetensors",
        "C:secret.safetensors",
        "notes.txt",
        "flux",
        "",
        "gone.safetensors",
        "a\0.safetensors",
    ],
)
def test_no_way_out_of_the_folders(find: Find, name: str) -> None:
    assert find("checkpoints", name) == ()


def test_an_absolute_name_and_a_kind_that_the_host_lacks_find_nothing(find: Find, root: Path) -> None:
    assert find("checkpoints", str(root / "first/a.safetensors")) == ()
    assert find("checkpoints", str(root / "secret.safetensors")) == ()
    assert find("nonsense", "a.safetensors") == ()
    assert find("vae", "a.safetensors") == ()
