from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

import pytest

from warmstack.lora.stacks import vocabulary

BROWSER = Path(__file__).resolve().parents[3] / "web" / "lib" / "stack_text.js"


@pytest.mark.parametrize(
    ("constant", "words"),
    [
        ("NAMES", vocabulary.NAME_FIELDS),
        ("MODEL", vocabulary.MODEL_FIELDS),
        ("CLIP", vocabulary.CLIP_FIELDS),
        ("SWITCHES", vocabulary.SWITCH_FIELDS),
        ("ON", vocabulary.ON),
        ("OFF", vocabulary.OFF),
    ],
)
def test_the_stack_editor_reads_rows_by_the_same_words(constant: str, words: Collection[str]) -> None:
    written = re.search(rf"^const {constant} = (?:new Set\()?(\[.*?\])", BROWSER.read_text("utf-8"), re.MULTILINE)
    assert written is not None
    assert sorted(json.loads(written[1].replace("'", '"'))) == sorted(words)
