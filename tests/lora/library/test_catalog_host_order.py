"""A name means the file that the host opens now: what was put in front of the known one since the last scan counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.lora.errors import AmbiguousLoraError
from warmstack.lora.library import catalog as catalog_module
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.scan import Listing, list_files

from ..conftest import WriteLora


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [tmp_path / "first", tmp_path / "second", tmp_path / "third"]


@pytest.fixture
def catalog(folders: list[Path]) -> LoraCatalog:
    return LoraCatalog(lambda: [str(folder) for folder in folders])


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry per scan."""
    found: list[int] = []

    def listed(paths: list[str]) -> Listing:
        found.append(1)
        return list_files(paths)

    monkeypatch.setattr(catalog_module, "list_files", listed)
    return found


@pytest.mark.parametrize(
    "asked",
    [
        ("styles/ink.safetensors", ""),
        ("styles\\ink.safetensors", ""),
        ("./styles/ink", ""),
        ("styles/ink.pt", ""),
        ("ink", ""),
        ("INK", ""),
        ("twin", "styles"),
        ("Title", ""),
    ],
    ids=str,
)
def test_an_earlier_folder_comes_first(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, asked: tuple[str, str]
) -> None:
    first, second, third = folders
    file = "styles/twin.safetensors" if asked[0] == "twin" else "styles/ink.safetensors"
    write_lora(third / "people/twin.safetensors")
    for folder in (third, second, first):
        path = write_lora(folder / file, metadata={"ss_output_name": "Title"})
        assert catalog.find(*asked).path == str(path)
        assert catalog.find(*asked).alias == "Title"
    path.unlink()
    assert catalog.find(*asked).path == str(second / file)


@pytest.mark.parametrize(
    ("new", "asked"),
    [
        ("people/ink.safetensors", "people/ink.safetensors"),
        ("people/ink.safetensors", "people\\ink.safetensors"),
        ("people/ink.safetensors", "people/ink"),
        ("people/ink.safetensors", "people/ink.pt"),
        ("people/ink.pt", "people/ink"),
        ("ink.safetensors", "ink"),
        ("people/INK.safetensors", "people/INK.safetensors"),
        ("styles/ink.pt", "styles/ink.pt"),
        ("styles/ink.pt", ".\\styles\\ink.pt"),
    ],
)
def test_a_file_that_the_whole_name_fits_comes_before_one_that_a_part_fits(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, new: str, asked: str
) -> None:
    known = write_lora(folders[0] / "styles/ink.safetensors")
    assert catalog.find(asked).path == str(known)
    path = write_lora(folders[1] / new)
    assert catalog.find(asked).path == str(path)


def test_a_link_means_what_it_leads_to_now(catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora) -> None:
    _, second, third = folders
    write_lora(second / "a/ink.safetensors")
    other = write_lora(third / "b/ink.safetensors")
    link = second / "link"
    link.symlink_to(second / "a")
    assert catalog.find("link/ink.safetensors").path == str(second / "a/ink.safetensors")
    link.unlink()
    link.symlink_to(third / "b")
    assert Path(catalog.find("link/ink.safetensors").path).samefile(other)


@pytest.mark.parametrize("name", ["latest.safetensors", "latest", "latest.pt", ".\\latest", "linked/ink"])
def test_a_link_to_a_file_means_what_it_leads_to_now(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, name: str
) -> None:
    second = folders[1]
    targets = [write_lora(second / f"{run}/ink.safetensors") for run in ("1", "2")]
    for target in (*targets, targets[0]):
        for link, leads_to in ((second / "latest.safetensors", target), (second / "linked", target.parent)):
            link.unlink(missing_ok=True)
            link.symlink_to(leads_to)
        assert Path(catalog.find(name).path).samefile(target)


def test_what_the_last_scan_has_seen_costs_no_other(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, scans: list[int]
) -> None:
    first, second, third = folders
    for folder in (first, third):
        write_lora(folder / "ink.safetensors")
    write_lora(second / "a/oil.safetensors")
    (third / "link").symlink_to(second / "a")
    (third / "again.safetensors").symlink_to(second / "a/oil.safetensors")
    write_lora(first / "x.safetensors", metadata={"modelspec.tags": "style"})
    write_lora(first / "x.sft", metadata={"modelspec.tags": "character"})
    catalog.refresh()
    scans.clear()
    names = [
        "ink.safetensors",
        "oil",
        "elsewhere/oil",
        "OIL",
        "a/oil.safetensors",
        "link/oil.safetensors",
        "again.safetensors",
        "again",
        "again.pt",
        "link/oil",
    ]
    for name in (*names, str(third / "ink.safetensors"), str(second / "a/oil.safetensors")):
        catalog.find(name)
    for category in ("styles", "characters"):
        assert catalog.find("x", category).category == category
    assert scans == []
    assert catalog.find(str(third / "ink.safetensors")).path == str(third / "ink.safetensors")


def test_a_second_answer_to_a_short_name_counts_from_the_next_scan(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora
) -> None:
    known = write_lora(folders[0] / "styles/ink.safetensors")
    catalog.refresh()
    write_lora(folders[0] / "people/ink.safetensors")
    assert catalog.find("ink").path == str(known)
    catalog.refresh()
    with pytest.raises(AmbiguousLoraError):
        catalog.find("ink")


def test_what_no_scan_can_list_costs_one(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, scans: list[int]
) -> None:
    write_lora(folders[1] / "styles/ink.safetensors")
    catalog.refresh()
    folders[0].mkdir()
    (folders[0] / "ink").write_bytes(b"a file of that name, and no LoRA")
    for _ in range(3):
        assert catalog.find("ink").name == "styles/ink.safetensors"
    assert len(scans) == 2


def test_what_came_after_its_folder_was_listed_counts_the_next_time(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = folders
    write_lora(second / "ink.safetensors")

    def listed(paths: list[str]) -> Listing:
        listing = list_files(paths)
        write_lora(first / "ink.safetensors")
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(catalog_module, "list_files", listed)
        assert catalog.find("ink.safetensors").path == str(second / "ink.safetensors")
    assert catalog.find("ink.safetensors").path == str(first / "ink.safetensors")


def test_what_no_scan_can_list_costs_one_beside_a_file_that_came_meanwhile(
    catalog: LoraCatalog, folders: list[Path], write_lora: WriteLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = folders
    write_lora(second / "styles/ink.safetensors")
    catalog.refresh()
    first.mkdir()
    (first / "ink").write_bytes(b"a file of that name, and no LoRA")

    def listed(paths: list[str]) -> Listing:
        listing = list_files(paths)
        write_lora(second / "ink.safetensors")
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(catalog_module, "list_files", listed)
        assert catalog.find("ink").name == "styles/ink.safetensors"
    assert catalog.find("ink").name == "ink.safetensors"
