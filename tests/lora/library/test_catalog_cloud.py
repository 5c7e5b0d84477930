"""Libraries in the cloud: what lies there alone is listed, and downloaded for a job and not for a scan."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from warmstack.lora.library import catalog as catalog_module
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.header_facts import HeaderFacts, read_facts

from ..conftest import WriteLora


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose headers have been read."""
    names: list[str] = []

    def noted(path: str) -> HeaderFacts:
        names.append(os.path.basename(path))
        return read_facts(path)

    monkeypatch.setattr(catalog_module, "read_facts", noted)
    return names


@pytest.mark.parametrize("attribute", [{"st_file_attributes": 0x400020}, {"st_flags": 0x40000000}])
def test_a_file_that_lies_in_the_cloud_is_listed_and_not_downloaded_for_its_header(
    tmp_path: Path,
    write_lora: WriteLora,
    read: list[str],
    monkeypatch: pytest.MonkeyPatch,
    attribute: dict[str, int],
) -> None:
    write_lora(tmp_path / "styles" / "away.safetensors")
    away = [attribute]

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self._entry = entry

        def __getattr__(self, name: str) -> Any:
            return getattr(self._entry, name)

        def stat(self) -> object:
            found = self._entry.stat()
            return SimpleNamespace(st_size=found.st_size, st_mtime_ns=found.st_mtime_ns, **(away[0] if away else {}))

    @contextmanager
    def scandir(path: str) -> Iterator[Iterator[Entry]]:
        with really(path) as entries:
            yield map(Entry, entries)

    really = os.scandir
    monkeypatch.setattr("warmstack.lora.library.scan.os.scandir", scandir)
    catalog = LoraCatalog(lambda: [str(tmp_path)])
    (file,) = catalog.refresh().files
    assert catalog.category_of("away") == "styles"
    assert (file.name, file.category, file.rank, file.problem) == ("styles/away.safetensors", "styles", None, "")
    assert not read
    away.clear()
    (file,) = catalog.refresh().files
    assert file.rank is not None, "it has come"


def test_the_category_of_a_file_in_the_cloud_is_asked_of_its_header_when_a_stack_needs_it(
    tmp_path: Path, write_lora: WriteLora, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("needed", "other"):
        write_lora(tmp_path / f"{name}.safetensors", metadata={"modelspec.tags": "style"})
    monkeypatch.setattr("warmstack.lora.library.scan._is_in_cloud", lambda _stat: True)
    catalog = LoraCatalog(lambda: [str(tmp_path)])
    assert [file.category for file in catalog.refresh().files] == ["", ""]
    assert catalog.category_of("needed") == "styles"
    assert [file.category for file in catalog.refresh().files] == ["styles", ""]
    assert read == ["needed.safetensors"]
