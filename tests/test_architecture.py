"""docs/architecture.md names the tests that hold each invariant: the names must not outlive the tests, nor the ways in
which `make breaks` sees them fail the code that it breaks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from break_invariants import misplaced
from invariant_breaks import BREAKS

ROOT = Path(__file__).resolve().parent.parent
_PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
_ROWS = re.findall(r"^\| (\d) \| (.+) \| (`tests/.+) \|$", _PAGE, re.MULTILINE)
NAMED = {invariant: re.findall(r"`(tests/[\w/.:]+)`", tests) for _, invariant, tests in _ROWS}
BROKEN = {invariant: [test for broken in breaks for test in broken.tests] for invariant, breaks in BREAKS.items()}
TESTS = sorted({test for tests in (*NAMED.values(), *BROKEN.values()) for test in tests})


def test_every_invariant_names_a_test() -> None:
    assert {number for number, _, _ in _ROWS} == set("1234567")
    assert len(NAMED) == len(_ROWS) and all(NAMED.values())


@pytest.mark.parametrize("test", TESTS)
def test_the_named_tests_exist(test: str) -> None:
    file, _, names = test.partition("::")
    name = names.rpartition("::")[2]
    text = (ROOT / file).read_text("utf-8")
    wanted = rf"^ *(async )?def {name}\(" if name else r"^def test_|^Test\w+ = \w+\.TestCase"
    assert re.search(wanted, text, re.MULTILINE)


def test_what_is_broken_on_purpose_is_there() -> None:
    assert misplaced(ROOT) == []


def test_every_named_test_has_a_break_that_it_must_notice() -> None:
    assert set(BROKEN) == set(NAMED)
    spared = [
        test
        for invariant, tests in NAMED.items()
        for test in tests
        if not any(broken == test or broken.startswith(f"{test}::") for broken in BROKEN[invariant])
    ]
    assert spared == []
