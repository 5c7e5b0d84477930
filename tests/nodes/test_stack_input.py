"""What nodes read from their inputs, and what they refuse before anything runs."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from warmstack.lora.errors import AmbiguousLoraError, LoraError, LoraNotFoundError, LoraSyntaxError
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.lora.library.file import LoraFile
from warmstack.lora.stacks.row import LoraRow
from warmstack.lora.stacks.stack import LoraStack
from warmstack.nodes.stack_input import check, file_states, read_stack, with_file_names

from ..lora.library.scan_kit import FILES, held_scan
from .plain_host import write_lora


class _Names:
    """A catalog of three files, two of which answer to `ink`."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.files = {
            name: LoraFile(name, f"/{name}", 10, 20, category=name.split("/")[0])
            for name in ("styles/ink.safetensors", "people/ink.safetensors", "styles/oil.safetensors")
        }

    def find(self, name: str, category: str = "") -> LoraFile:
        self.threads.add(threading.get_ident())
        found = [file for file in self.files.values() if name in (file.name, file.name.split("/")[1].split(".")[0])]
        found = [file for file in found if category in ("", file.category)]
        if not found:
            raise LoraNotFoundError(name, ["styles/oil.safetensors"])
        if len(found) > 1:
            raise AmbiguousLoraError(name, [file.name for file in found])
        return found[0]

    def category_of(self, name: str, category: str = "") -> str:
        try:
            return self.find(name, category).category
        except LoraError:
            return ""


@pytest.fixture
def names() -> _Names:
    return _Names()


def test_rows_of_an_earlier_stack_come_first(names: _Names) -> None:
    stack = read_stack(names, '[{"name": "oil", "strength": 0.5}]', [("x", 1.0, 0.5)])
    assert stack.rows == (LoraRow("x", 1.0, 0.5), LoraRow("oil", 0.5, 0.5))


@pytest.mark.parametrize("text", ["", "  \n", None])
def test_blank_text_adds_nothing(names: _Names, text: str | None) -> None:
    assert read_stack(names, text).rows == ()
    assert read_stack(names, text, (("x", 1.0, 1.0),)).rows == (LoraRow("x"),)


def test_a_bare_name_is_one_row(names: _Names) -> None:
    assert read_stack(names, "styles/oil.safetensors\n").rows == (LoraRow("styles/oil.safetensors"),)


def test_per_category_weights_of_a_request_know_the_category_of_a_file(names: _Names) -> None:
    request = {"lora": {"enabled": True, "category_weights": {"styles": 0.5}, "models": ["oil", "nothing"]}}
    assert read_stack(names, json.dumps(request)).rows == (LoraRow("oil", 0.5, 0.5), LoraRow("nothing"))


def test_weights_per_category_wait_for_the_header_that_tells_it(tmp_path: Path) -> None:
    for number in range(FILES):
        write_lora(tmp_path, f"{number}.safetensors")
    write_lora(tmp_path, "ink.safetensors", metadata={"modelspec.tags": "style"})
    catalog = LoraCatalog(lambda: [str(tmp_path)])
    with held_scan(catalog) as scan:
        assert scan.ask(lambda: read_stack(catalog, '{"models": ["ink"]}').rows) == ((LoraRow("ink"),), False)
        text = '{"category_weights": {"styles": 0.5}, "models": ["ink"]}'
        assert scan.ask(lambda: read_stack(catalog, text).rows) == ((LoraRow("ink", 0.5, 0.5),), True)


def test_a_target_has_no_effect_here_and_is_told(names: _Names) -> None:
    text = '["oil", {"name": "ink", "target": "transformer_2"}, {"name": "off", "target": "x", "strength": 0}]'
    stack = read_stack(names, text)
    assert stack.rows == (LoraRow("oil"), LoraRow("ink"), LoraRow("off", 0.0, 0.0))
    told, _ = stack.warnings
    assert "'transformer_2'" in told and "'ink'" in told


def test_what_is_no_stack_is_refused(names: _Names) -> None:
    with pytest.raises(LoraSyntaxError, match="LORA_STACK"):
        read_stack(names, "", {"a": 1})
    with pytest.raises(LoraSyntaxError):
        read_stack(names, "[{]")


async def test_a_category_settles_an_ambiguous_name(names: _Names) -> None:
    stack = read_stack(names, "<lora:ink:1>", category="people")
    assert [row.name for row in with_file_names(names, stack)] == ["people/ink.safetensors"]
    assert "people/ink.safetensors" in file_states(names, stack, changes=None)
    assert await check(names, lambda: stack) is True


def test_other_packs_get_full_names_and_no_idle_rows(names: _Names) -> None:
    stack = LoraStack((LoraRow("oil", 0.5, 0.25), LoraRow("nowhere", 0.0, 0.0)))
    assert with_file_names(names, stack).to_tuples() == [("styles/oil.safetensors", 0.5, 0.25)]


@pytest.mark.parametrize("asked", ["{second}/styles/ink.safetensors", "link/ink.safetensors"])
def test_a_file_that_another_hides_from_other_packs_is_refused(tmp_path: Path, asked: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        write_lora(folder, "styles/ink.safetensors")
    write_lora(second, "styles/oil.safetensors")
    (second / "link").symlink_to(second / "styles")
    catalog = LoraCatalog(lambda: [str(first), str(second)])
    name = asked.format(second=second)
    assert catalog.find(name).path == str(second / "styles/ink.safetensors")
    with pytest.raises(LoraError, match=r"'styles/ink\.safetensors'.* hidden .* earlier folder") as refused:
        with_file_names(catalog, LoraStack((LoraRow(name),)))
    assert str(tmp_path) not in str(refused.value)
    plain = LoraStack(
        tuple(LoraRow(str(path)) for path in (first / "styles/ink.safetensors", second / "styles/oil.safetensors"))
    )
    assert [row.name for row in with_file_names(catalog, plain)] == ["styles/ink.safetensors", "styles/oil.safetensors"]


async def test_a_good_stack_passes_and_the_catalog_is_asked_off_the_loop(names: _Names) -> None:
    assert await check(names, lambda: read_stack(names, "<lora:oil:1>")) is True
    assert names.threads and threading.get_ident() not in names.threads


async def test_bad_names_fail_with_their_candidates_all_at_once(names: _Names) -> None:
    problem = await check(names, lambda: read_stack(names, '["nothing", "ink", "oil"]'))
    assert isinstance(problem, str)
    for part in ("nothing", "styles/oil.safetensors", "styles/ink.safetensors", "people/ink.safetensors"):
        assert part in problem


async def test_a_row_without_strength_may_name_anything(names: _Names) -> None:
    assert await check(names, lambda: read_stack(names, '[{"name": "nothing", "strength": 0}]')) is True


async def test_a_text_that_cannot_be_read_fails_with_the_reason(names: _Names) -> None:
    assert "JSON" in str(await check(names, lambda: read_stack(names, '[{"name": ')))


async def test_a_broken_file_fails_before_the_prompt_runs(names: _Names) -> None:
    oil = names.files["styles/oil.safetensors"]
    names.files[oil.name] = replace(oil, problem="the header ends early; download it again")
    problem = await check(names, lambda: read_stack(names, "<lora:oil:1>"))
    assert "styles/oil.safetensors" in str(problem) and "download it again" in str(problem)


def test_file_states_change_with_the_file_and_with_its_existence(names: _Names) -> None:
    stack = LoraStack((LoraRow("oil"), LoraRow("nothing")))
    before = file_states(names, stack, changes=None)
    assert before == file_states(names, stack, changes=None)
    oil = names.files["styles/oil.safetensors"]
    seen = {before}
    for change in ({"mtime_ns": 21}, {"size_bytes": 11}):
        names.files[oil.name] = replace(oil, **change)
        seen.add(file_states(names, stack, changes=None))
    del names.files[oil.name]
    seen.add(file_states(names, stack, changes=None))
    assert len(seen) == 4


def test_over_a_link_changes_of_what_was_loaded_count(names: _Names) -> None:
    stack = LoraStack((LoraRow("oil"),))
    constant, before, after = (file_states(names, stack, changes=changes) for changes in (None, 0, 1))
    assert before == file_states(names, stack, changes=0)
    assert len({constant, before, after}) == 3


@pytest.mark.parametrize("strengths", [{"strength_model": 0.5}, {"strength_clip": 0.5}])
def test_file_states_change_with_a_strength_that_the_text_does_not_show(
    names: _Names, strengths: dict[str, float]
) -> None:
    before, after = LoraRow("oil"), replace(LoraRow("oil"), **strengths)
    states = [file_states(names, LoraStack((row,)), changes=None) for row in (before, after)]
    assert states[0] != states[1]
