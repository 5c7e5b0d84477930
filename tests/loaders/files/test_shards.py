from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    ModelLoader,
    SafetensorsLoadError,
    SafetensorsValidationError,
    check_shards,
    read_index,
)

TENSORS = {"a": torch.ones(2), "b": torch.zeros(3), "c": torch.tensor(5)}


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A checkpoint of two shards with its index; the path of the index."""
    save_file({"a": TENSORS["a"], "b": TENSORS["b"]}, tmp_path / "model-1.safetensors")
    save_file({"c": TENSORS["c"]}, tmp_path / "model-2.safetensors")
    return write_index(tmp_path, {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"})


def write_index(folder: Path, weight_map: object, **more: object) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 28}, "weight_map": weight_map, **more}))
    return path


def check(index_path: Path):
    index = read_index(index_path)
    return check_shards(index.files, index)


def test_an_honest_index(sharded: Path):
    assert [os.path.basename(path) for path in check(sharded)] == ["model-1.safetensors", "model-2.safetensors"]


def test_shards_without_an_index(sharded: Path):
    paths = [str(sharded.parent / name) for name in ("model-2.safetensors", "model-1.safetensors")]
    assert list(check_shards(paths)) == paths


def test_a_hub_cache_links_its_shards_elsewhere(sharded: Path, tmp_path_factory: pytest.TempPathFactory):
    blobs = tmp_path_factory.mktemp("blobs")
    for name in ("model-1.safetensors", "model-2.safetensors"):
        (sharded.parent / name).rename(blobs / name)
        (sharded.parent / name).symlink_to(blobs / name)
    assert len(check(sharded)) == 2


def test_shards_through_a_linked_folder_are_those_of_the_index(sharded: Path, tmp_path_factory: pytest.TempPathFactory):
    link = tmp_path_factory.mktemp("links") / "model"
    link.symlink_to(sharded.parent, target_is_directory=True)
    names = ("model-1.safetensors", "model-2.safetensors")
    result = ModelLoader().load_shards([link / name for name in names], sharded)
    assert result.keys() == TENSORS.keys()
    assert len(check_shards([str(sharded.parent / name) for name in names], read_index(link / sharded.name))) == 2


@pytest.mark.parametrize("name", ["a\0.safetensors", "a\ud800.safetensors", "a" * 5000])
def test_a_name_that_no_file_can_have(name: str):
    with pytest.raises(SafetensorsLoadError, match="cannot be read"):
        check_shards([name])


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("again", ["model-1.safetensors", "./model-1.safetensors", "link.safetensors"])
def test_a_file_that_is_named_twice_is_refused_unread(sharded: Path, again: str, indexed: bool):
    first = sharded.parent / "model-1.safetensors"
    (sharded.parent / "link.safetensors").symlink_to(first)
    first.write_bytes(b"whoever reads this complains of something else")
    files = [str(first), str(sharded.parent / "model-2.safetensors"), f"{sharded.parent}/{again}"]
    with pytest.raises(SafetensorsLoadError, match="is named twice") as caught:
        ModelLoader().load_shards(files, sharded if indexed else None)
    assert caught.value.path == files[-1]


@pytest.mark.parametrize(
    ("weight_map", "reason", "key"),
    [
        ({"a": "model-1.safetensors", "c": "model-3.safetensors"}, "model-3.safetensors, which is missing", "c"),
        ({"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-1.safetensors"}, "in no shard", "c"),
        (
            {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"},
            "is in model-1.safetensors and not in model-2.safetensors",
            "a",
        ),
        (
            {"a": "model-1.safetensors", "c": "model-2.safetensors"},
            "is in model-1.safetensors and not in the index",
            "b",
        ),
    ],
    ids=["missing shard", "key in no shard", "wrong shard", "key not listed"],
)
def test_an_index_that_lies(sharded: Path, weight_map: dict[str, str], reason: str, key: str):
    with pytest.raises(SafetensorsValidationError, match=reason) as caught:
        check(write_index(sharded.parent, weight_map))
    assert caught.value.key == key
    assert caught.value.path == str(sharded)


@pytest.mark.parametrize("name", ["folder.safetensors", ".", "loop.safetensors"])
def test_a_shard_that_is_no_file(sharded: Path, name: str):
    (sharded.parent / "folder.safetensors").mkdir()
    (sharded.parent / "loop.safetensors").symlink_to("loop.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": name}
    with pytest.raises(SafetensorsValidationError, match="which is missing") as caught:
        check(write_index(sharded.parent, weight_map))
    assert caught.value.key == "c"


@pytest.mark.parametrize("name", ["model-2.bin", "model-2.gguf"])
def test_shards_of_another_format_are_called_what_they_are(sharded: Path, name: str):
    (sharded.parent / "model-2.safetensors").rename(sharded.parent / name)
    weight_map = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": name}
    with pytest.raises(SafetensorsValidationError, match="convert it to safetensors") as caught:
        check(write_index(sharded.parent, weight_map))
    assert (caught.value.key, caught.value.path) == ("c", str(sharded))
    with pytest.raises(SafetensorsLoadError, match="convert it to safetensors"):
        check_shards([str(sharded.parent / name)])


def test_an_index_is_compared_wherever_the_caller_stands(sharded: Path, monkeypatch: pytest.MonkeyPatch):
    index = read_index(sharded)
    monkeypatch.chdir(sharded.parent)
    assert len(check_shards(["./model-1.safetensors", "model-2.safetensors"], index)) == 2
    assert len(check_shards(index.files, read_index(sharded.name))) == 2


def test_a_key_in_two_shards(sharded: Path):
    save_file({"c": TENSORS["c"], "b": TENSORS["b"]}, sharded.parent / "model-2.safetensors")
    with pytest.raises(SafetensorsValidationError, match=r"'b': stands in model-1\.safetensors too"):
        check(sharded)


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/etc/x.safetensors",
        "a/../../x",
        "..\\x",
        "C:\\x",
        "C:x",
        "\\\\host\\x",
        "",
        "x\0",
        "x\ud800",
        3,
        None,
    ],
)
def test_a_shard_outside_the_folder_is_refused_unopened(tmp_path: Path, name: object):
    with pytest.raises(SafetensorsValidationError, match=r"outside the folder|names no file") as caught:
        read_index(write_index(tmp_path, {"a": name}))
    assert caught.value.key == "a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": "x", "a": "y"}}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_what_is_no_index(tmp_path: Path, text: str):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(SafetensorsValidationError, match="index"):
        read_index(path)


INDEX_BOMBS = {
    "brackets": '{"weight_map": {"a": "x"}, "more": [' + "[]," * (3 << 20) + "0]}",
    "texts": '{"weight_map": {' + ",".join(f'"{key:x}":""' for key in range(600_000)) + "}}",
}


@pytest.mark.parametrize("text", INDEX_BOMBS.values(), ids=INDEX_BOMBS)
def test_a_wide_index_is_refused_in_little_memory(tmp_path: Path, text: str):
    """As Python objects it would take twenty times its text."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    tracemalloc.start()
    try:
        with pytest.raises(SafetensorsValidationError, match="more than 500,000 tensors, or is no index"):
            read_index(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * path.stat().st_size
    finally:
        tracemalloc.stop()


def test_numbers_of_an_index_are_counted_as_they_come(tmp_path: Path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "x"}, "more": [' + "7," * 2_200_000 + "7]}")
    with pytest.raises(SafetensorsValidationError, match="too many numbers"):
        read_index(path)


def test_a_key_that_stands_twice_in_an_index(tmp_path: Path):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "x", "b": "x", "b": "y"}}')
    with pytest.raises(SafetensorsValidationError, match="'b'") as caught:
        read_index(path)
    assert caught.value.key == "b"


def test_a_missing_index(tmp_path: Path):
    with pytest.raises(SafetensorsLoadError, match="No such file"):
        read_index(tmp_path / "absent.index.json")
