"""Files behind names that the host does not tell before a node runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.lora.catalog import LoraCatalog
from warmstack.lora.row import LoraRow
from warmstack.nodes import linked_names as module
from warmstack.nodes.linked_names import LinkedNames

from .plain_host import write_lora


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in ("one.safetensors", "two.safetensors"):
        write_lora(tmp_path, name)
    return tmp_path


@pytest.fixture
def linked(library: Path) -> LinkedNames:
    return LinkedNames(LoraCatalog(lambda: [str(library)]))


def replace_file(path: Path) -> None:
    written_ns = path.stat().st_mtime_ns
    os.utime(path, ns=(written_ns, written_ns + 10**9))


def test_what_nobody_loaded_may_change(library: Path, linked: LinkedNames) -> None:
    linked.note([LoraRow("one")])
    replace_file(library / "two.safetensors")
    write_lora(library, "three.safetensors")
    assert linked.changes() == 0


def test_each_change_counts_once(library: Path, linked: LinkedNames) -> None:
    seen = []
    for _ in range(3):
        # As the host does: the fingerprint, and the node if it is another one.
        seen += [linked.changes(), linked.changes()]
        linked.note([LoraRow("one"), LoraRow("two")])
        replace_file(library / "one.safetensors")
    assert seen == [0, 0, 1, 1, 2, 2]


def test_what_is_loaded_anew_hides_no_change_from_who_loaded_before(library: Path, linked: LinkedNames) -> None:
    linked.note([LoraRow("one")])
    replace_file(library / "one.safetensors")
    linked.note([LoraRow("one")])
    assert linked.changes() == 1


def test_a_file_that_goes_or_is_overtaken_has_changed(library: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    first = tmp_path_factory.mktemp("first")
    linked = LinkedNames(LoraCatalog(lambda: [str(first), str(library)]))
    linked.note([LoraRow("one"), LoraRow("two.safetensors"), LoraRow("to come")])
    write_lora(library, "to come.safetensors")
    assert linked.changes() == 0
    (library / "one.safetensors").unlink()
    assert linked.changes() == 1
    write_lora(first, "two.safetensors")
    assert linked.changes() == 2


def test_a_name_that_is_forgotten_may_have_changed(
    library: Path, linked: LinkedNames, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_NAMES", 2)
    linked.note([LoraRow("one"), LoraRow("two")])
    linked.note([LoraRow("one")])
    write_lora(library, "three.safetensors")
    linked.note([LoraRow("three")])
    assert linked.changes() == 1
    replace_file(library / "two.safetensors")
    assert linked.changes() == 1
    replace_file(library / "one.safetensors")
    assert linked.changes() == 2, "of two, the one loaded last is known"
