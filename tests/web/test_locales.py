"""The words that the host translates itself: the same keys in every language, and all of them in use."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.transfer import DEFAULT_PINNED_BYTES
from warmstack.prefetch.settings import PrefetchSettings

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh", "ja")


def words(language: str, file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "locales" / language / file).read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("file", ["settings.json", "commands.json", "main.json"])
def test_every_language_has_every_key(file: str) -> None:
    keys = {language: {(k, *sorted(v)) for k, v in words(language, file).items()} for language in LANGUAGES}
    assert keys["zh"] == keys["en"]
    assert keys["ja"] == keys["en"]


def entries() -> str:
    return (ROOT / "web" / "lib" / "settings.js").read_text("utf-8").partition("const ENTRIES")[2]


def test_the_settings_page_has_an_entry_for_every_setting_of_the_server() -> None:
    keys = re.findall(r"'WarmStack\.\w+', '(\w+)'", entries())
    assert len(keys) == len(set(keys))
    assert set(keys) == {field.name for field in dataclasses.fields(PrefetchSettings)}


def test_every_entry_starts_with_the_default_of_the_server() -> None:
    flags = re.findall(r"flag\('[^']+', '[^']+', '(\w+)', (true|false)", entries())
    defaults = PrefetchSettings().as_json()
    assert {key: value == "true" for key, value in flags} == {
        key: value for key, value in defaults.items() if isinstance(value, bool)
    }


def test_every_entry_has_its_help_in_one_line_and_its_group_a_name() -> None:
    for language in LANGUAGES:
        for entry in words(language, "settings.json").values():
            assert entry["name"] and entry["tooltip"] and "\n" not in entry["tooltip"]
    groups = set(re.findall(r"(?:flag|number)\('([^']+)'", entries()))
    assert groups == set(words("en", "main.json")["settingsCategories"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_help_of_the_pinned_memory_tells_its_default(language: str) -> None:
    tooltip = words(language, "settings.json")["WarmStack_PinnedBudget"]["tooltip"]
    assert f"{DEFAULT_PINNED_BYTES >> 20} MiB" in tooltip
    assert language != "en" or f"'{tooltip}'" in entries()


def test_settings_and_commands_are_those_of_the_panel() -> None:
    settings = (ROOT / "web" / "lib" / "settings.js").read_text("utf-8")
    entry = (ROOT / "web" / "warmstack.js").read_text("utf-8")
    assert {f"WarmStack_{name}" for name in re.findall(r"'WarmStack\.(\w+)'", settings)} == set(
        words("en", "settings.json")
    )
    commands = re.findall(r"id: 'WarmStack\.(\w+)'", entry)
    assert {f"WarmStack_{name}" for name in commands} == set(words("en", "commands.json"))


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_node_words_name_nodes_and_inputs_that_exist(language: str) -> None:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "nodes").glob("*.py"))
    nodes = words(language, "nodeDefs.json")
    assert set(nodes) == set(re.findall(r'node_id="(WarmStack\w+)"', source))
    inputs = {name for node in nodes.values() for name in node.get("inputs", {})}
    assert {name for name in inputs if f'"{name}"' not in source} == set()
