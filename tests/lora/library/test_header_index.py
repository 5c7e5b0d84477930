from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from warmstack.lora.library.file import AdapterKey
from warmstack.lora.library.header_facts import HeaderFacts
from warmstack.lora.library.header_index import HeaderIndex

KEY = AdapterKey("/loras/ink.safetensors", 10, 20)
FACTS = HeaderFacts("styles", "why", "sdxl", "why", "Ink", ("ab12cd34",), 16, "")


def saved(path: Path) -> Path:
    index = HeaderIndex(path)
    index.remember(KEY, FACTS)
    index.save()
    return path


def test_facts_outlive_the_process(tmp_path: Path) -> None:
    path = saved(tmp_path / "new/folder/index.json")
    assert HeaderIndex(path).get(KEY) == FACTS
    assert os.listdir(path.parent) == ["index.json"]


@pytest.mark.parametrize("field", ["path", "size_bytes", "mtime_ns"])
def test_another_size_or_time_is_another_file(tmp_path: Path, field: str) -> None:
    index = HeaderIndex(saved(tmp_path / "index.json"))
    assert index.get(KEY._replace(**{field: "other" if field == "path" else 11})) is None


ENTRY = [*KEY, {}]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        json.dumps({"version": -1, "files": [ENTRY]}).encode(),
        json.dumps({"version": 2, "files": None}).encode(),
        json.dumps({"version": 2, "files": [[1, 2, 3, {}]]}).encode(),
        json.dumps({"version": 2, "files": [[*KEY]]}).encode(),
        json.dumps({"version": 2, "files": [[*KEY, None]]}).encode(),
        json.dumps({"version": 2, "files": [[*KEY, {"rank": "8"}]]}).encode(),
        json.dumps({"version": 2, "files": [[*KEY, {"alias": 8}]]}).encode(),
        json.dumps({"version": 2, "files": [[*KEY, {"hashes": [1]}]]}).encode(),
        json.dumps({"version": 2, "files": [[*KEY, {"hashes": 1}]]}).encode(),
    ],
)
def test_a_damaged_index_is_an_empty_one_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(content)
    index = HeaderIndex(path)
    assert index.get(KEY) is None
    index.remember(KEY, FACTS)
    index.save()
    assert HeaderIndex(path).get(KEY) == FACTS


def test_a_save_that_fails_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "index.json")
    before = path.read_bytes()

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    index = HeaderIndex(path)
    index.remember(KEY._replace(size_bytes=11), FACTS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        index.save()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["index.json"]
    index.save()
    assert HeaderIndex(path).get(KEY._replace(size_bytes=11)) == FACTS


def test_an_unwritable_place_costs_one_warning_and_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"")
    index = HeaderIndex(place / "index.json")
    index.remember(KEY, FACTS)
    for _ in range(2):
        index.save()
    assert caplog.text.count("cannot be saved") == 1
    place.unlink()
    index.save()
    assert HeaderIndex(place / "index.json").get(KEY) == FACTS


def test_what_is_unchanged_is_not_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "index.json")
    inode = path.stat().st_ino
    index = HeaderIndex(path)
    index.retain(lambda key: True)
    index.save()
    assert path.stat().st_ino == inode
    index.retain(lambda key: False)
    index.save()
    assert HeaderIndex(path).get(KEY) is None


def test_a_passing_failure_is_not_remembered() -> None:
    index = HeaderIndex(None)
    index.remember(KEY, HeaderFacts(problem="disk", is_lasting=False))
    assert index.get(KEY) is None
