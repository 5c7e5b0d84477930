"""replace_text: the old file or the new one, and no drafts."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from warmstack.lora.atomic_file import replace_text


def test_a_file_is_made_with_its_folder_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    for text in ("first", "für später"):
        replace_text(path, text)
        assert path.read_text("utf-8") == text
    assert os.listdir(path.parent) == ["state.json"]


def test_what_cannot_be_put_in_place_leaves_the_old_file_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    replace_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("warmstack.lora.atomic_file.os.replace", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_text(path, "new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["state.json"])


def test_on_windows_a_file_that_is_looked_at_just_then_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    replace_text(path, "old")
    really, refusals = os.replace, [PermissionError(13, "being used by another process")] * 2

    def busy(*paths: str) -> None:
        if refusals:
            raise refusals.pop()
        really(*paths)

    monkeypatch.setattr("warmstack.lora.atomic_file.os.replace", busy)
    with pytest.raises(PermissionError):
        replace_text(path, "new")  # elsewhere a folder that one may not write into stays so
    monkeypatch.setattr("warmstack.lora.atomic_file._IS_WINDOWS", True)
    replace_text(path, "new")
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["state.json"])
    refusals += [PermissionError(13, "being used by another process")] * 9
    with pytest.raises(PermissionError):
        replace_text(path, "newer")
    assert (path.read_text(), os.listdir(tmp_path)) == ("new", ["state.json"])


def test_writers_at_the_same_time_leave_one_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    texts = [str(number) * 50_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: replace_text(path, text), texts))
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["state.json"]
