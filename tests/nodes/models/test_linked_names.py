"""Files behind names that the host does not tell before a node runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.file import AdapterKey
from warmstack.lora.stacks.row import LoraRow
from warmstack.nodes.models import linked_names as module
from warmstack.nodes.models.linked_names import LinkedNames, WrittenName, lora_state
from warmstack.nodes.models.model_files import ModelFiles
from warmstack.nodes.models.model_weights import model_state

from ...lora.library.scan_kit import FILES, held_scan
from ..model_writer import write_shards
from ..plain_host import write_lora


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a moment fails no test."""
    monkeypatch.setattr(module, "_PATIENCE_S", 30.0)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    for name in ("one.safetensors", "two.safetensors"):
        write_lora(folder, name)
    return folder


@pytest.fixture
def catalog(library: Path, tmp_path: Path) -> LoraCatalog:
    return LoraCatalog(lambda: [str(tmp_path / "first"), str(library)])


@pytest.fixture
def linked(catalog: LoraCatalog) -> LinkedNames[AdapterKey]:
    return LinkedNames(partial(lora_state, catalog))


def replace_file(path: Path) -> None:
    written_ns = path.stat().st_mtime_ns
    os.utime(path, ns=(written_ns, written_ns + 10**9))


def test_what_nobody_loaded_may_change(library: Path, linked: LinkedNames[AdapterKey]) -> None:
    linked.note([LoraRow("one")])
    before = linked.changes()
    replace_file(library / "two.safetensors")
    write_lora(library, "three.safetensors")
    assert linked.changes() == before


def test_each_change_counts_once(library: Path, linked: LinkedNames[AdapterKey]) -> None:
    start, seen = linked.changes(), []
    for _ in range(3):
        # As the host does: the fingerprint, and the node if it is another one.
        seen += [linked.changes() - start, linked.changes() - start]
        linked.note([LoraRow("one"), LoraRow("two")])
        replace_file(library / "one.safetensors")
    assert seen == [0, 0, 1, 1, 2, 2]


def test_what_is_loaded_anew_hides_no_change_from_who_loaded_before(
    library: Path, linked: LinkedNames[AdapterKey]
) -> None:
    linked.note([LoraRow("one")])
    before = linked.changes()
    replace_file(library / "one.safetensors")
    linked.note([LoraRow("one")])
    assert linked.changes() == before + 1


def test_a_file_that_goes_or_is_overtaken_has_changed(
    library: Path, tmp_path: Path, linked: LinkedNames[AdapterKey]
) -> None:
    linked.note([LoraRow("one"), LoraRow("two.safetensors"), LoraRow("to come")])
    before = linked.changes()
    write_lora(library, "to come.safetensors")
    assert linked.changes() == before
    (library / "one.safetensors").unlink()
    assert linked.changes() == before + 1
    write_lora(tmp_path / "first", "two.safetensors")
    assert linked.changes() == before + 2


def test_a_name_that_a_scan_gives_to_another_file_has_changed(
    library: Path, catalog: LoraCatalog, linked: LinkedNames[AdapterKey]
) -> None:
    write_lora(library, "styles/ink.safetensors")
    linked.note([LoraRow("ink"), LoraRow("one")])
    before = linked.changes()
    write_lora(library, "ink.safetensors")
    catalog.refresh()
    assert linked.changes() == before + 1


@pytest.mark.parametrize("name", ["latest.safetensors", "latest", "current/one.safetensors", "current\\one"])
def test_a_link_that_leads_elsewhere_has_changed(
    library: Path, tmp_path: Path, linked: LinkedNames[AdapterKey], name: str
) -> None:
    for version in ("v1", "v2"):
        write_lora(library, f"{version}/one.safetensors")
    (library / "latest.safetensors").symlink_to(library / "one.safetensors")
    (library / "current").symlink_to(library / "v1")
    linked.note([LoraRow(name)])
    before = linked.changes()
    for link, target in (("latest.safetensors", "two.safetensors"), ("current", "v2")):
        (tmp_path / "next").symlink_to(library / target)
        (tmp_path / "next").replace(library / link)
    assert linked.changes() == before + 1


def test_a_file_that_only_its_path_reaches_stays_the_same(
    library: Path, tmp_path: Path, linked: LinkedNames[AdapterKey]
) -> None:
    write_lora(tmp_path / "first", "one.safetensors", rank=8)
    linked.note([LoraRow(str(library / "one.safetensors"))])
    before = linked.changes()
    replace_file(tmp_path / "first/one.safetensors")
    assert linked.changes() == before
    replace_file(library / "one.safetensors")
    assert linked.changes() == before + 1


def test_a_name_that_is_forgotten_may_have_changed(
    library: Path, linked: LinkedNames[AdapterKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_NAMES", 2)
    linked.note([LoraRow("one"), LoraRow("two")])
    linked.note([LoraRow("one")])
    before = linked.changes()
    write_lora(library, "three.safetensors")
    linked.note([LoraRow("three")])
    assert linked.changes() == before + 1
    replace_file(library / "two.safetensors")
    assert linked.changes() == before + 1
    replace_file(library / "one.safetensors")
    assert linked.changes() == before + 2, "of two, the one loaded last is known"


def test_a_sweep_over_a_library_is_no_change(library: Path, linked: LinkedNames[AdapterKey]) -> None:
    names = [f"{number}.safetensors" for number in range(300)]
    for name in names:
        write_lora(library, name, rank=1)
    before = linked.changes()
    for _ in range(2):
        linked.note(LoraRow(name) for name in names)
        assert linked.changes() == before


WRITTEN = {
    "full": WrittenName("styles/ink.safetensors"),
    "stem": WrittenName("ink"),
    "no extension": WrittenName("styles/ink"),
    "another separator": WrittenName("styles\\ink.safetensors"),
    "category": WrittenName("twin", "styles"),
    "alias": WrittenName("Ink Style"),
    "hash": WrittenName("0123456789ab"),
}


def write_known_by_all_names(library: Path) -> None:
    metadata = {"ss_output_name": "Ink Style", "sshs_model_hash": "0123456789abcdef"}
    write_lora(library, "styles/ink.safetensors", metadata=metadata)
    for folder in ("styles", "characters"):
        write_lora(library, f"{folder}/twin.safetensors")


@pytest.mark.parametrize("how", WRITTEN)
def test_a_look_costs_a_stat_in_each_folder_up_to_the_file(
    library: Path, linked: LinkedNames[AdapterKey], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    write_known_by_all_names(library)
    linked.note([WRITTEN[how]])
    before = linked.changes()
    asked, stat = [], os.stat

    def counted(path: str, **options: bool) -> os.stat_result:
        asked.append(path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", counted)
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path) or False)
    assert linked.changes() == before
    monkeypatch.undo()
    assert len(asked) == 2, asked
    replace_file(library / "styles" / ("twin.safetensors" if how == "category" else "ink.safetensors"))
    assert linked.changes() == before + 1


def test_a_look_waits_for_no_scan(library: Path, catalog: LoraCatalog, linked: LinkedNames[AdapterKey]) -> None:
    write_known_by_all_names(library)
    linked.note(WRITTEN.values())
    before = linked.changes()
    for number in range(FILES):
        write_lora(library, f"{number}.safetensors")
    with held_scan(catalog) as scan:
        assert scan.ask(linked.changes) == (before, False)


class Share:
    """Files of the folder `share`, which is a device of its own. While `is_gone`, whoever looks at one waits."""

    def __init__(self, catalog: LoraCatalog) -> None:
        self._catalog = catalog
        self.is_gone = False
        self.back = threading.Event()
        self.hung: list[str] = []

    def look(self, written: WrittenName, known: AdapterKey | None) -> AdapterKey | None:
        if self.is_gone and known is not None and self.device_of(known.path):
            self.hung.append(written.name)
            assert self.back.wait(60)
        return lora_state(self._catalog, written, known)

    @staticmethod
    def device_of(path: str) -> int:
        return int("share" in Path(path).parts)


@pytest.fixture
def share(library: Path, catalog: LoraCatalog) -> Iterator[Share]:
    for name in ("far.safetensors", "further.safetensors"):
        write_lora(library / "share", name)
    share = Share(catalog)
    yield share
    share.back.set()


def test_a_share_that_is_gone_holds_up_no_job_with_files_elsewhere(
    library: Path, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = LinkedNames(share.look, share.device_of)
    linked.note([LoraRow("far"), LoraRow("one"), LoraRow("further")])
    before = linked.changes()
    share.is_gone = True
    monkeypatch.setattr(module, "_PATIENCE_S", 2.0)
    assert linked.changes() == before + 2, "what may have changed has"
    monkeypatch.setattr(module, "_PATIENCE_S", 30.0)
    assert linked.changes() == before + 2
    linked.note([LoraRow("further")])
    assert linked.changes() == before + 3, "nor is that waited for"
    assert share.hung == ["far"]
    replace_file(library / "one.safetensors")
    assert linked.changes() == before + 4, "what lies elsewhere is watched as before"


def test_a_share_that_is_back_is_watched_again(library: Path, share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    linked = LinkedNames(share.look, share.device_of)
    linked.note([LoraRow("far")])
    share.is_gone = True
    with monkeypatch.context() as patch:
        patch.setattr(module, "_PATIENCE_S", 0.01)
        linked.changes()
    share.is_gone = False
    share.back.set()
    for thread in threading.enumerate():
        if thread.name.startswith("warmstack-look"):
            thread.join(30)
    linked.note([LoraRow("far")])
    before = linked.changes()
    assert linked.changes() == before
    replace_file(library / "share/far.safetensors")
    assert linked.changes() == before + 1


def test_no_process_counts_as_another_does(linked: LinkedNames[AdapterKey], catalog: LoraCatalog) -> None:
    assert linked.changes() == linked.changes()
    assert linked.changes() != LinkedNames(partial(lora_state, catalog)).changes()


def test_a_model_changes_with_its_files_and_with_no_other(tmp_path: Path) -> None:
    write_shards(tmp_path / "big", {"a": torch.ones(2), "b": torch.ones(2)})
    write_lora(tmp_path, "small.safetensors")
    models = LinkedNames(partial(model_state, ModelFiles(lambda: [str(tmp_path)])))
    models.note([WrittenName("big/model.safetensors.index.json"), WrittenName("to come.gguf")])
    before = models.changes()
    for name in ("to come.gguf", "big/download.safetensors"):
        (tmp_path / name).write_bytes(b"more and more")
        replace_file(tmp_path / "small.safetensors")
        assert models.changes() == before
    replace_file(tmp_path / "big/model-00002-of-00002.safetensors")
    assert models.changes() == before + 1
    models.note([WrittenName("small.safetensors")])
    (tmp_path / "small.safetensors").unlink()
    assert models.changes() == before + 2
