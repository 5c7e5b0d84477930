"""While the headers of a large library are read: names answer at once, and whoever needs a header waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.lora.errors import AmbiguousLoraError
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.stacks.stack import parse_stack

from ..conftest import WriteLora
from .scan_kit import FILES, held_scan

STYLE = {"modelspec.tags": "style"}


@pytest.fixture
def library(tmp_path: Path, write_lora: WriteLora) -> Path:
    for number in range(FILES):
        write_lora(tmp_path / f"{number}.safetensors")
    return tmp_path


def make(library: Path, index: Path | None = None) -> LoraCatalog:
    return LoraCatalog(lambda: [str(library)], index_path=index)


def test_a_category_that_the_header_tells_is_waited_for(library: Path, write_lora: WriteLora) -> None:
    write_lora(library / "ink.safetensors", metadata=STYLE)
    catalog = make(library)
    text = '{"category_weights": {"styles": 0.5}, "models": ["ink"]}'
    with held_scan(catalog) as scan:
        stack, waited = scan.ask(lambda: parse_stack(text, category_of=catalog.category_of))
    assert [row.strength_model for row in stack] == [0.5]
    assert waited


def test_what_no_header_decides_does_not_wait(library: Path, write_lora: WriteLora) -> None:
    write_lora(library / "people/mia.safetensors", metadata=STYLE)
    catalog = make(library)
    with held_scan(catalog) as scan:
        assert scan.ask(lambda: catalog.find("3").name) == ("3.safetensors", False)
        assert scan.ask(lambda: catalog.find("mia", "styles").name) == ("people/mia.safetensors", False)
        assert scan.ask(lambda: catalog.category_of("mia")) == ("people", False)


def test_the_headers_that_are_known_wait_for_no_others(
    library: Path, tmp_path_factory: pytest.TempPathFactory, write_lora: WriteLora
) -> None:
    lone = tmp_path_factory.mktemp("other")
    write_lora(lone / "ink.safetensors", metadata=STYLE)
    index = lone / "index.json"
    make(lone, index).refresh()
    catalog = LoraCatalog(lambda: [str(library), str(lone)], index_path=index)
    with held_scan(catalog) as scan:
        assert scan.ask(lambda: catalog.category_of("ink")) == ("styles", False)


@pytest.mark.parametrize(
    ("names", "metadata", "asked"),
    [
        (("a", "b"), {"ss_output_name": "Ink"}, ("Ink", "")),
        (("a", "b"), {"sshs_model_hash": "ab" * 32}, ("ab" * 4, "")),
        (("x.safetensors", "x.sft", "people/x.safetensors"), STYLE, ("x", "styles")),
    ],
    ids=["alias", "hash", "category"],
)
def test_no_header_that_is_known_decides_before_the_others(
    library: Path,
    write_lora: WriteLora,
    names: tuple[str, ...],
    metadata: dict[str, str],
    asked: tuple[str, str],
) -> None:
    first, *others = (library / (name if "." in name else f"{name}.safetensors") for name in names)
    write_lora(first, metadata=metadata)
    hidden = [path.rename(path.with_suffix(".later")) for path in library.glob("[0-9]*.safetensors")]
    index = library / "index.json"
    make(library, index).refresh()
    for path in hidden:
        path.rename(path.with_suffix(".safetensors"))
    for path in others:
        write_lora(path, metadata=metadata)
    catalog = make(library, index)
    with held_scan(catalog) as scan, pytest.raises(AmbiguousLoraError):
        scan.ask(lambda: catalog.find(*asked))


def test_a_library_without_metadata_is_read_to_its_end(library: Path) -> None:
    catalog = make(library)
    with held_scan(catalog) as scan:
        assert scan.ask(lambda: catalog.category_of("3")) == ("", True)
    assert not catalog.snapshot.unread
    before = catalog.snapshot.revision
    catalog.refresh()
    assert catalog.snapshot.revision == before
