"""The words that the host translates itself: the same keys in every language, and all of them in use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh", "ja")


def words(language: str, file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "locales" / language / file).read_text("utf-8"))
    return loaded


@pytest.mark.parametrize("file", ["settings.json", "commands.json"])
def test_every_language_has_every_key(file: str) -> None:
    keys = {language: {(k, *sorted(v)) for k, v in words(language, file).items()} for language in LANGUAGES}
    assert keys["zh"] == keys["en"]
    assert keys["ja"] == keys["en"]


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
