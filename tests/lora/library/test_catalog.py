from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from warmstack.lora.errors import AmbiguousLoraError, LoraNotFoundError
from warmstack.lora.library import catalog as catalog_module
from warmstack.lora.library.catalog import Found, LoraCatalog
from warmstack.lora.library.header_facts import HeaderFacts, read_facts
from warmstack.lora.library.scan import EXTENSIONS, Listing, list_files

from ..conftest import WriteLora

_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


@pytest.fixture(scope="session")
def opens() -> Callable[[], object]:
    """`with opens() as paths` collects every path that the process opens, by whatever function."""
    sys.addaudithook(_audit)

    @contextmanager
    def collect() -> Iterator[list[str]]:
        global _opened
        _opened = found = []
        try:
            yield found
        finally:
            _opened = None

    return collect


def make(*folders: Path, index: Path | None = None) -> LoraCatalog:
    return LoraCatalog(lambda: [str(folder) for folder in folders], index_path=index)


def test_a_file_is_known_by_stat_and_header(tmp_path: Path, write_lora: WriteLora) -> None:
    metadata = {"ss_output_name": "Ink", "ss_base_model_version": "sd_v1", "sshs_model_hash": "AB" * 32}
    path = write_lora(tmp_path / "styles/ink.safetensors", metadata=metadata)
    (file,) = make(tmp_path).refresh().files
    assert (file.name, file.path, file.size_bytes) == ("styles/ink.safetensors", str(path), path.stat().st_size)
    assert file.mtime_ns == path.stat().st_mtime_ns
    assert (file.category, file.category_evidence) == ("styles", "folder styles/")
    assert (file.base_model, file.alias, file.hashes, file.rank) == ("sd15", "Ink", ("ab" * 32,), 4)
    assert not file.problem


def test_metadata_gives_the_category_where_no_folder_does(tmp_path: Path, write_lora: WriteLora) -> None:
    for name in ("x.safetensors", "mine/x.safetensors"):
        write_lora(tmp_path / name, metadata={"modelspec.tags": "style"})
    assert [file.category for file in make(tmp_path).refresh().files] == ["mine", "styles"]


def test_a_broken_file_is_listed_with_its_problem_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)
    (file,) = make(tmp_path).refresh().files
    assert file.problem
    assert "\n" not in file.problem
    assert str(tmp_path) not in file.problem


def test_pickles_are_listed_and_never_opened(tmp_path: Path, opens: Callable[[], object]) -> None:
    for end in sorted(EXTENSIONS - {".safetensors", ".sft"}):
        (tmp_path / f"x{end}").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    catalog = make(tmp_path)
    with opens() as paths:
        files = catalog.refresh().files
        catalog.find("x.pt")
    assert len(files) == 6
    assert all(file.is_pickle for file in files)
    assert not [path for path in paths if path.startswith(str(tmp_path))]


def test_headers_are_read_only_once(tmp_path: Path, write_lora: WriteLora, opens: Callable[[], object]) -> None:
    for number in range(100):
        write_lora(tmp_path / f"lib/{number}.safetensors")
    index = tmp_path / "index.json"
    before = make(tmp_path / "lib", index=index).refresh()
    again = make(tmp_path / "lib", index=index)
    with opens() as paths:
        after = again.refresh()
        again.refresh()
    assert after.files == before.files
    assert [path for path in paths if path.startswith(str(tmp_path))] == [str(index)]


@pytest.mark.slow
def test_ten_thousand_files_with_a_warm_index_open_nothing(
    tmp_path: Path, write_lora: WriteLora, opens: Callable[[], object]
) -> None:
    original = write_lora(tmp_path / "original.safetensors")
    for number in range(10_000):
        target = tmp_path / f"lib/{number % 40}/{number}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, target)
    index = tmp_path / "index.json"
    make(tmp_path / "lib", index=index).refresh()
    catalog = make(tmp_path / "lib", index=index)
    with opens() as paths:
        assert len(catalog.refresh().files) == 10_000
    assert [path for path in paths if path.startswith(str(tmp_path))] == [str(index)]


def test_a_changed_file_alone_is_read_again(tmp_path: Path, write_lora: WriteLora, opens: Callable[[], object]) -> None:
    for name in "abc":
        write_lora(tmp_path / f"{name}.safetensors")
    catalog = make(tmp_path)
    catalog.refresh()
    changed = write_lora(tmp_path / "b.safetensors", metadata={"ss_base_model_version": "flux1"})
    with opens() as paths:
        files = catalog.refresh().files
    assert [path for path in paths if path.startswith(str(tmp_path))] == [str(changed)]
    assert [file.base_model for file in files] == ["", "flux", ""]


def test_revision_changes_with_the_files_and_only_then(tmp_path: Path, write_lora: WriteLora) -> None:
    absent = tmp_path.with_name(f"{tmp_path.name} absent")
    catalog = make(tmp_path, absent)
    assert [catalog.snapshot.revision, catalog.refresh().revision] == [0, 1]
    steps: list[Callable[[], object]] = [
        lambda: write_lora(tmp_path / "a.safetensors"),
        lambda: os.utime(tmp_path / "a.safetensors", ns=(1, 1)),
        lambda: (tmp_path / "a.safetensors").rename(tmp_path / "b.safetensors"),
        lambda: (tmp_path / "link").symlink_to(tmp_path),
        lambda: (tmp_path / "b.safetensors").unlink(),
    ]
    for step in steps:
        before = catalog.refresh()
        assert catalog.refresh() is before
        (tmp_path / "notes.txt").write_text("not a LoRA")
        shutil.rmtree(absent) if absent.exists() else absent.mkdir()
        assert catalog.refresh() is before
        step()
        assert catalog.refresh().revision == before.revision + 1


def test_names_are_published_before_many_headers(
    tmp_path: Path, write_lora: WriteLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(catalog_module._NAMES_FIRST_FILES + 1):
        write_lora(tmp_path / f"{number}.safetensors", metadata={"ss_base_model_version": "sd_v1"})
    catalog = make(tmp_path)
    known: list[object] = []
    read = catalog_module.read_facts

    def watched(path: str) -> object:
        known.append(catalog.resolve("3"))
        return read(path)

    monkeypatch.setattr(catalog_module, "read_facts", watched)
    catalog.refresh()
    assert all(isinstance(match, Found) and not match.file.base_model for match in known)
    assert catalog.find("3").base_model == "sd15"


def test_a_file_that_cannot_be_read_now_is_tried_again(tmp_path: Path, write_lora: WriteLora) -> None:
    store = write_lora(tmp_path / "store/x.safetensors", metadata={"ss_base_model_version": "sd_v1"})
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/x.safetensors").symlink_to(store)
    catalog = make(tmp_path / "lib", index=tmp_path / "index.json")
    listing = list_files([str(tmp_path / "lib")])
    away = store.rename(tmp_path / "away")
    with pytest.MonkeyPatch.context() as patch:
        # The disk answers the listing and then fails the read.
        patch.setattr(catalog_module, "list_files", lambda folders: listing)
        assert catalog.refresh().files[0].problem
    away.rename(store)
    assert catalog.find("x").base_model == "sd15"
    assert not catalog.refresh().files[0].problem


def test_only_what_could_not_be_opened_is_in_doubt(
    tmp_path: Path, write_lora: WriteLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = str(write_lora(tmp_path / "away.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 20)

    def read(path: str) -> HeaderFacts:
        return HeaderFacts(problem="cannot be opened", is_lasting=False) if path == away else read_facts(path)

    catalog = make(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(catalog_module, "read_facts", read)
        before = catalog.refresh()
        assert [before.is_doubtful(file) for file in before.files] == [True, False]
        assert catalog.find("cut").problem
        assert catalog.snapshot is before
    after = catalog.refresh()
    assert after.revision > before.revision
    assert not any(after.is_doubtful(file) for file in (*before.files, *after.files))


@pytest.mark.parametrize("folder", ["disk", "lib"])
def test_an_absent_folder_is_no_error_and_its_headers_stay_known(
    tmp_path: Path, write_lora: WriteLora, opens: Callable[[], object], folder: str
) -> None:
    write_lora(tmp_path / "disk/x.safetensors")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/linked").symlink_to(tmp_path / "disk")
    index = tmp_path / "index.json"
    catalog = make(tmp_path / folder, index=index)
    catalog.refresh()
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    assert catalog.refresh().files == ()
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    fresh = make(tmp_path / folder, index=index)
    with opens() as paths:
        assert len(fresh.refresh().files) == 1
    assert [path for path in paths if path.startswith(str(tmp_path))] == [str(index)]


def test_beside_an_absent_folder_files_that_are_gone_are_forgotten(
    tmp_path: Path, write_lora: WriteLora, opens: Callable[[], object]
) -> None:
    """Though their names begin as that of the folder."""
    library, index = tmp_path / "lib", tmp_path / "index.json"
    path = write_lora(library / "disk.safetensors")
    (library / "disk").symlink_to(tmp_path / "unplugged")
    make(library, index=index).refresh()
    path.rename(tmp_path / "kept")
    make(library, index=index).refresh()
    (tmp_path / "kept").rename(path)
    with opens() as paths:
        make(library, index=index).refresh()
    assert str(path) in paths


def test_find_gives_a_replaced_file_its_new_key(tmp_path: Path, write_lora: WriteLora) -> None:
    path = write_lora(tmp_path / "x.safetensors", metadata={"ss_base_model_version": "sd_v1"})
    catalog = make(tmp_path)
    before = catalog.find("x")
    write_lora(path, {"y.lora_down.weight": [8, 16]}, {"ss_base_model_version": "flux1"})
    after = catalog.find("x")
    assert after.key != before.key
    assert (after.size_bytes, after.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert (before.base_model, after.base_model) == ("sd15", "flux")


def test_find_sees_a_new_file_and_a_vanished_one(tmp_path: Path, write_lora: WriteLora) -> None:
    catalog = make(tmp_path)
    with pytest.raises(LoraNotFoundError):
        catalog.find("ink")
    path = write_lora(tmp_path / "ink.safetensors")
    assert catalog.find("ink").path == str(path)
    path.unlink()
    with pytest.raises(LoraNotFoundError):
        catalog.find("ink")


def test_find_refuses_with_candidates_or_suggestions_and_no_path(tmp_path: Path, write_lora: WriteLora) -> None:
    for name in ("a/twin", "b/twin", "styles/wash"):
        write_lora(tmp_path / f"{name}.safetensors")
    catalog = make(tmp_path)
    with pytest.raises(AmbiguousLoraError) as ambiguous:
        catalog.find("twin")
    assert ambiguous.value.candidates == ("a/twin.safetensors", "b/twin.safetensors")
    with pytest.raises(LoraNotFoundError) as missing:
        catalog.find("wosh")
    assert missing.value.suggestions == ("styles/wash.safetensors",)
    assert str(tmp_path) not in f"{ambiguous.value}{missing.value}"


def test_paths_count_only_inside_the_folders(tmp_path: Path, write_lora: WriteLora) -> None:
    first = write_lora(tmp_path / "one/x.safetensors")
    second = write_lora(tmp_path / "two/x.safetensors")
    outside = write_lora(tmp_path / "three/x.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "two")
    catalog = make(tmp_path / "one", tmp_path / "link")
    assert catalog.find("x.safetensors").path == str(first)
    assert os.path.samefile(catalog.find(str(tmp_path / "link/x.safetensors")).path, second)
    assert os.path.samefile(catalog.find(str(second)).path, second)
    assert catalog.find(str(first).replace("/", "\\")).path == str(first)
    for name in (str(outside), f"{tmp_path}/one/../three/x.safetensors", "../three/x.safetensors"):
        with pytest.raises(LoraNotFoundError):
            catalog.find(name)


def test_select_combines_filters(tmp_path: Path, write_lora: WriteLora) -> None:
    for name, base in (
        ("styles/Ink v1", "sd_v1"),
        ("styles/deep/ink v2", "flux1"),
        ("characters/mia", "sd_v1"),
        ("styles2/ink", "sd_v1"),
    ):
        write_lora(tmp_path / f"{name}.safetensors", metadata={"ss_base_model_version": base})
    catalog = make(tmp_path)
    catalog.refresh()

    def selected(**filters: str) -> list[str]:
        return [file.name.removesuffix(".safetensors") for file in catalog.select(**filters)]

    assert len(selected()) == 4
    assert selected(category="Styles") == ["styles/Ink v1", "styles/deep/ink v2"]
    assert selected(category="styles/deep") == ["styles/deep/ink v2"]
    assert selected(base_model="SD15") == ["characters/mia", "styles/Ink v1", "styles2/ink"]
    assert selected(pattern="ink*") == ["styles/Ink v1", "styles/deep/ink v2", "styles2/ink"]
    assert selected(pattern="ink*.safetensors") == ["styles/Ink v1", "styles/deep/ink v2", "styles2/ink"]
    assert selected(pattern="styles/*") == ["styles/Ink v1", "styles/deep/ink v2"]
    assert selected(pattern="styles\\ink*") == ["styles/Ink v1"]
    assert selected(category="styles", base_model="flux", pattern="*V2") == ["styles/deep/ink v2"]
    assert selected(pattern="in") == []


def test_select_takes_accents_however_they_are_written(tmp_path: Path, write_lora: WriteLora) -> None:
    names = ["cafe\N{COMBINING ACUTE ACCENT}/a.safetensors", "x/e\N{COMBINING ACUTE ACCENT}clair.safetensors"]
    for name in names:
        write_lora(tmp_path / name)
    catalog = make(tmp_path)
    catalog.refresh()
    e_acute = "\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert [file.name for file in catalog.select(category=f"caf{e_acute}")] == names[:1]
    assert [file.name for file in catalog.select(pattern=f"{e_acute.upper()}clair")] == names[1:]


def test_category_of_a_name(tmp_path: Path, write_lora: WriteLora) -> None:
    for name in ("styles/ink", "a/twin", "b/twin"):
        write_lora(tmp_path / f"{name}.safetensors")
    catalog = make(tmp_path)
    catalog.refresh()
    assert [catalog.category_of(name) for name in ("ink", "twin", "gone")] == ["styles", "", ""]


def test_a_category_decides_between_files_of_one_name(tmp_path: Path, write_lora: WriteLora) -> None:
    names = [f"{folder}/twin.safetensors" for folder in ("a", "b/c", "b/d")]
    for name in names:
        write_lora(tmp_path / name)
    catalog = make(tmp_path)
    assert catalog.find("twin", "A").name == names[0]
    assert catalog.find("twin", "b/c").name == names[1]
    for category, left in (("b", names[1:]), ("", names), ("elsewhere", names)):
        with pytest.raises(AmbiguousLoraError) as caught:
            catalog.find("twin", category)
        assert list(caught.value.candidates) == left
        assert ("none of them is in category 'elsewhere'" in str(caught.value)) == (category == "elsewhere")
    assert catalog.find("b/d/twin", "a").name == names[2], "a name that means one file needs no category"


def test_waiting_refreshes_share_one_that_began_after_them(
    tmp_path: Path, write_lora: WriteLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lora(tmp_path / "a.safetensors")
    catalog = make(tmp_path)
    entered, go_on = threading.Event(), threading.Event()
    listings: list[int] = []

    def slow(folders: list[str]) -> Listing:
        listings.append(1)
        listing = list_files(folders)
        if len(listings) == 1:
            entered.set()
            assert go_on.wait(30)
        return listing

    monkeypatch.setattr(catalog_module, "list_files", slow)
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(catalog.refresh)
        assert entered.wait(30)
        # The first listing is over and has missed this file: whoever asks from now on must see it.
        write_lora(tmp_path / "b.safetensors")
        arrived = threading.Barrier(9)
        later = [threads.submit(lambda: (arrived.wait(30), catalog.refresh())[1]) for _ in range(8)]
        arrived.wait(30)
        go_on.set()
        assert len(first.result(30).files) in (1, 2)
        assert all(len(future.result(30).files) == 2 for future in later)
    assert 2 <= len(listings) <= 9


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_listed_and_what_became_one_does_not_block(
    tmp_path: Path, write_lora: WriteLora
) -> None:
    ink = write_lora(tmp_path / "ink.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    catalog = LoraCatalog(lambda: [str(tmp_path)])
    assert [file.name for file in catalog.refresh().files] == ["ink.safetensors"]
    os.unlink(ink)
    os.mkfifo(ink)
    assert read_facts(str(ink)).problem.startswith("is no regular file")
    with pytest.raises(LoraNotFoundError):
        catalog.find("ink")
