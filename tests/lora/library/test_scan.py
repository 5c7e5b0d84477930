from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.lora.library.scan import list_files


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(*folders: Path) -> list[str]:
    return [file.name for file in list_files(map(str, folders)).files]


def test_lists_what_the_host_lists(tmp_path: Path) -> None:
    for name in (
        "a.safetensors",
        "b.SFT",
        "c.pt",
        "d.pth",
        "e.bin",
        "f.ckpt",
        "g.pkl",
        "h.pt2",
        "sub/deep/i.safetensors",
    ):
        touch(tmp_path / name)
    for name in ("notes.txt", "a.safetensors.tmp", "safetensors", ".git/objects/x.bin"):
        touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    expected = [
        "a.safetensors",
        "b.SFT",
        "c.pt",
        "d.pth",
        "e.bin",
        "f.ckpt",
        "g.pkl",
        "h.pt2",
        "sub/deep/i.safetensors",
    ]
    assert names(tmp_path) == expected


def test_first_folder_wins_and_the_other_file_is_kept_aside(tmp_path: Path) -> None:
    first, second = touch(tmp_path / "one/x.pt"), touch(tmp_path / "two/x.pt")
    listing = list_files([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [file.path for file in listing.files] == [str(first)]
    assert [file.path for file in listing.shadowed] == [str(second)]


def test_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "lib/styles/x.pt")
    (tmp_path / "lib/self").symlink_to(tmp_path / "lib")
    (tmp_path / "lib/styles/up").symlink_to("..")
    (tmp_path / "lib/broken.pt").symlink_to("broken.pt")
    (tmp_path / "lib/dangling.pt").symlink_to("nowhere.pt")
    assert names(tmp_path / "lib") == ["styles/x.pt"]


def test_links_between_many_folders_do_not_multiply(tmp_path: Path) -> None:
    for index in range(12):
        touch(tmp_path / f"d{index}/x.pt")
    for index in range(12):
        for other in range(12):
            (tmp_path / f"d{index}/to{other}").symlink_to(tmp_path / f"d{other}")
    listing = list_files([str(tmp_path)])
    assert len(listing.files) == 12
    assert len(listing.folder_links) == 144


def test_the_real_name_is_kept_of_a_file_that_is_reachable_twice(tmp_path: Path) -> None:
    touch(tmp_path / "real/x.pt")
    (tmp_path / "a_link").symlink_to("real")
    (tmp_path / "b.pt").symlink_to("real/x.pt")
    assert names(tmp_path) == ["real/x.pt"]


def test_links_lead_out_of_the_folder(tmp_path: Path) -> None:
    touch(tmp_path / "store/x.pt")
    touch(tmp_path / "store/file.pt")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/linked").symlink_to(tmp_path / "store")
    (tmp_path / "lib/one.pt").symlink_to(tmp_path / "elsewhere.pt")
    touch(tmp_path / "elsewhere.pt", b"four")
    listing = list_files([str(tmp_path / "lib")])
    assert [file.name for file in listing.files] == ["linked/file.pt", "linked/x.pt", "one.pt"]
    assert listing.files[2].size_bytes == 4


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_nested_folders_hold_each_file_once(tmp_path: Path, order: tuple[int, int]) -> None:
    touch(tmp_path / "lib/styles/x.pt")
    folders = [tmp_path / "lib", tmp_path / "lib/styles"]
    assert len(names(*(folders[index] for index in order))) == 1


def test_a_folder_that_is_not_there_is_reported_and_no_error(tmp_path: Path) -> None:
    touch(tmp_path / "lib/x.pt")
    listing = list_files([str(tmp_path / "gone"), str(tmp_path / "lib")])
    assert [file.name for file in listing.files] == ["x.pt"]
    assert listing.absent_folders == (str(tmp_path / "gone"),)


def test_a_link_that_leads_nowhere_is_reported_and_no_error(tmp_path: Path) -> None:
    touch(tmp_path / "lib/x.pt")
    (tmp_path / "lib/linked").symlink_to(tmp_path / "gone")
    (tmp_path / "lib/notes").symlink_to(touch(tmp_path / "notes.txt"))
    listing = list_files([str(tmp_path / "lib")])
    assert [file.name for file in listing.files] == ["x.pt"]
    assert listing.absent_folders == (str(tmp_path / "lib/linked"),)


def test_an_unchanged_tree_lists_equal(tmp_path: Path) -> None:
    touch(tmp_path / "x.pt")
    before = list_files([str(tmp_path)])
    assert list_files([str(tmp_path)]) == before
    touch(tmp_path / "x.pt", b"longer")
    assert list_files([str(tmp_path)]) != before
