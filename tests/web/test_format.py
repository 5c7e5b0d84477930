"""Numbers, times and names as people read them: web/lib/format.js in a bare page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("formatBytes(1536)", "1.5 KiB"),
        ("formatBytes(0)", "0 B"),
        ("formatBytes(null)", "–"),
        ("formatBytes(1024 ** 4 * 3)", "3.0 TiB"),
        ("formatSeconds(0.0421)", "42 ms"),
        ("formatSeconds(59.96)", "1 min 0 s"),
        ("formatSeconds(3725)", "1 h 2 min"),
        ("formatSeconds(NaN)", "–"),
        ("formatAge(0.4)", "0 s"),
        ("formatAge(400)", "6 min"),
        ("formatAge(90000)", "25 h"),
        ("formatShare(0.9999)", "99%"),
        ("formatShare(1)", "100%"),
        ("formatShare(0.29)", "29%"),
        ("formatBytesOf(1024 ** 3 / 2, 15 * 1024 ** 3).join()", "0.5,15.0 GiB"),
        ("splitName('a/b/ink.v2.safetensors').stem", "ink.v2"),
    ],
)
def test_numbers_for_people(formats: Callable[[str], str], call: str, text: str) -> None:
    assert formats(call) == text


@pytest.fixture(scope="module")
def formats(browser: Any) -> Callable[[str], str]:
    """Evaluates a call of web/lib/format.js, in a bare page: the module needs nothing else."""
    source = (Path(__file__).resolve().parents[2] / "web" / "lib" / "format.js").read_text("utf-8")
    page = browser.new_page()

    def call(expression: str) -> str:
        module = f"{source}\nexport const result = {expression}"
        result: str = page.evaluate(
            "(module) => import('data:text/javascript,' + encodeURIComponent(module)).then((m) => m.result)", module
        )
        return result

    return call
