"""The weight files that the loaders offer: listed cheaply, found safely."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.nodes.models import model_files as module
from warmstack.nodes.models.model_files import ModelFileError, ModelFiles


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "unet", tmp_path / "diffusion_models"
    for name in ("a.safetensors", "flux/b.gguf", "notes.txt", "flux/b.yaml", ".git/c.safetensors"):
        touch(first / name)
    for name in (
        "a.safetensors",
        "big/m.safetensors.index.json",
        "big/m-00001-of-00002.safetensors",
        "other-1-of-2.sft",
    ):
        touch(second / name)
    return first, second


@pytest.fixture
def files(folders: tuple[Path, Path], tmp_path: Path) -> ModelFiles:
    return ModelFiles(lambda: [str(folder) for folder in (*folders, tmp_path / "not there")])


def test_it_lists_what_can_be_loaded_and_a_model_in_shards_once(files: ModelFiles) -> None:
    expected = ["a.safetensors", "big/m.safetensors.index.json", "flux/b.gguf", "other-1-of-2.sft"]
    assert files.names() == [name.replace("/", os.sep) for name in expected]


def test_shards_without_an_index_are_listed(tmp_path: Path) -> None:
    touch(tmp_path / "m-00001-of-00002.safetensors")
    assert ModelFiles(lambda: [str(tmp_path)]).names() == ["m-00001-of-00002.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_offered(tmp_path: Path) -> None:
    touch(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.gguf").symlink_to("/dev/zero")
    files = ModelFiles(lambda: [str(tmp_path)])
    assert files.names() == ["model.safetensors"]
    with pytest.raises(ModelFileError, match="no such file"):
        files.find("pipe.safetensors")


def test_it_walks_only_when_a_folder_has_changed(
    files: ModelFiles, folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, walks, walk = files.names(), [], os.walk

    def counted(*arguments: object, **options: object) -> object:
        walks.append(arguments)
        return walk(*arguments, **options)

    monkeypatch.setattr(os, "walk", counted)
    assert files.names() == before and not walks
    for path in (folders[0] / "flux/new.gguf", folders[1] / "new/folder.sft", tmp_path / "not there/late.gguf"):
        touch(path)
        assert any(path.name in name for name in files.names()), path
    assert walks


def test_links_in_a_circle_end(files: ModelFiles, folders: tuple[Path, Path]) -> None:
    (folders[0] / "flux/again").symlink_to(folders[0], target_is_directory=True)
    assert [name for name in files.names() if "b.gguf" in name] == [os.path.join("flux", "b.gguf")]


def test_the_first_folder_wins_and_either_separator_is_understood(
    files: ModelFiles, folders: tuple[Path, Path]
) -> None:
    assert files.find("a.safetensors") == str(folders[0] / "a.safetensors")
    assert files.find("flux\\b.gguf") == files.find("flux/b.gguf") == str(folders[0] / "flux/b.gguf")


@pytest.mark.skipif(os.name == "nt", reason="a backslash is no letter there")
def test_a_backslash_of_a_files_own_name_is_no_separator(files: ModelFiles, folders: tuple[Path, Path]) -> None:
    touch(folders[1] / "flux\\b.gguf")
    assert files.find("flux\\b.gguf") == str(folders[1] / "flux\\b.gguf")
    assert files.find("flux/b.gguf") == str(folders[0] / "flux/b.gguf")


def test_whatever_is_listed_is_found(files: ModelFiles, folders: tuple[Path, Path]) -> None:
    if os.name != "nt":
        for name in ("flux:q4.gguf", "a:/b:c.sft", "back\\slash.gguf", "..\\dots.gguf"):
            touch(folders[1] / name)
    names = files.names()
    assert len(names) > 4 and "..\\dots.gguf" not in names
    assert {os.path.basename(files.find(name)) for name in names} == {os.path.basename(name) for name in names}


@pytest.mark.parametrize(
    "name", ["../unet/a.safetensors", "flux/../a.safetensors", "..\\unet\\a.safetensors", "notes.txt", ""]
)
def test_nothing_else_is_opened(files: ModelFiles, name: str) -> None:
    with pytest.raises(ModelFileError, match="weight file below"):
        files.find(name)


@pytest.mark.parametrize("name", ["C:a.gguf", "C:/a.gguf", "flux/C:a.gguf", "flux\\C:\\a.gguf"])
def test_where_there_are_drives_a_name_leads_to_none(
    files: ModelFiles, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HAS_DRIVES", True)
    with pytest.raises(ModelFileError, match="weight file below"):
        files.find(name)


def test_an_absolute_name_is_refused(files: ModelFiles, folders: tuple[Path, Path]) -> None:
    with pytest.raises(ModelFileError, match="weight file below"):
        files.find(str(folders[0] / "a.safetensors"))


def test_a_misspelt_name_is_told_what_comes_close(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="did you mean") as caught:
        files.find("flux/bb.gguf")
    assert os.path.join("flux", "b.gguf") in str(caught.value) and str(tmp_path) not in str(caught.value)
