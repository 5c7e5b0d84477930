"""docs/architecture.md names the test that holds each invariant: the names must not outlive the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))


def test_every_invariant_names_a_test() -> None:
    rows = re.findall(r"^\| (\d) \| .*`tests/", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE)
    assert set(rows) == set("1234567")


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_the_named_tests_exist(file: str, function: str) -> None:
    text = (ROOT / file).read_text("utf-8")
    wanted = rf"^ *(async )?def {function}\(" if function else r"^def test_|^Test\w+ = \w+\.TestCase"
    assert re.search(wanted, text, re.MULTILINE)
