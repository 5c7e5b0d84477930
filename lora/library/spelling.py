"""Spellings of names and hashes: slashes, accents composed or not (macOS writes e + ´ for é), case."""

from __future__ import annotations

import re
import unicodedata

_HASH = re.compile(r"(?:0x)?([0-9a-f]{8,64})")


def with_slashes(name: str) -> str:
    """`name` with `/` alone, without empty and `.` components."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Without regard to case or to how accents are written."""
    # Folding takes some composed letters apart.
    return composed(composed(text).casefold())


def hex_digits(text: str) -> str:
    """Of a hash or its beginning, in lower case; "" for what is none."""
    match = _HASH.fullmatch(text.lower())
    return match[1] if match else ""
