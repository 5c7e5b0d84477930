"""Spellings of one name: with either slash, accents composed or not (macOS writes e + ´ for é), in either case."""

from __future__ import annotations

import unicodedata


def with_slashes(name: str) -> str:
    """`name` with `/` alone, without empty and `.` components."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Without regard to case or to how accents are written."""
    # Folding takes some composed letters apart.
    return composed(composed(text).casefold())
