"""Sizes mean the same wherever they are written."""

from __future__ import annotations

import math

import pytest

from warmstack.loaders.sizes import parse_bytes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (7, 7),
        (1.5e3, 1500),
        ("0", 0),
        ("512", 512),
        ("9B", 9),
        ("6GB", 6_000_000_000),
        ("6g", 6_000_000_000),
        ("2kb", 2000),
        ("512M", 512_000_000),
        (" 1TB ", 10**12),
        ("6 GiB", 6 << 30),
        ("1.5 gib", 3 << 29),
        ("3kib", 3072),
        ("2tib", 2 << 40),
    ],
)
def test_sizes(size: float | str, expected: int) -> None:
    assert parse_bytes(size) == expected


@pytest.mark.parametrize(
    "size",
    [
        "",
        "many",
        "-1",
        "1x",
        "1 GiB 2",
        "0x10",
        "iB",
        "6iB",
        "9" * 400,
        "9" * 300 + " TiB",
        -1,
        True,
        None,
        math.nan,
        math.inf,
    ],
)
def test_wrong_sizes(size: object) -> None:
    with pytest.raises(ValueError, match="no number of bytes"):
        parse_bytes(size)  # type: ignore[arg-type]
