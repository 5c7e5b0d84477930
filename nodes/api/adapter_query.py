"""AdapterQuery: which rows of the adapter table a client asks for, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .request_body import MAX_NAME_CHARACTERS, RequestError, one_of, only

SORTS = ("name", "size", "category", "base_model", "state", "uses")
STATES = ("ready", "loading", "page", "cold", "failed")
MAX_LIMIT = 1000

_DEFAULT_LIMIT = 100
_TEXTS = ("category", "base_model", "search", "state", "sort")


@dataclass(frozen=True, slots=True)
class AdapterQuery:
    """Empty texts filter nothing. `search` is a case-insensitive part of the name."""

    category: str = ""
    base_model: str = ""
    search: str = ""
    state: str = ""
    sort: str = "name"
    descending: bool = False
    offset: int = 0
    limit: int = _DEFAULT_LIMIT


def parse_query(query: Mapping[str, str]) -> AdapterQuery:
    """From a query string; `sort=-size` sorts downwards. Raises RequestError for what is unknown or out of bounds."""
    only(query, *_TEXTS, "offset", "limit")
    if any(len(value) > MAX_NAME_CHARACTERS for value in query.values()):
        raise RequestError("invalid_value", f"a filter is longer than {MAX_NAME_CHARACTERS} characters")
    sort = query.get("sort", "name")
    return AdapterQuery(
        category=query.get("category", ""),
        base_model=query.get("base_model", ""),
        search=query.get("search", ""),
        state=one_of(query.get("state", ""), "state", ("", *STATES)),
        sort=one_of(sort.removeprefix("-"), "sort", SORTS),
        descending=sort.startswith("-"),
        offset=_bounded(query.get("offset", "0"), "offset", 0, 10**9),
        limit=_bounded(query.get("limit", str(_DEFAULT_LIMIT)), "limit", 1, MAX_LIMIT),
    )


def _bounded(text: str, key: str, lowest: int, highest: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and lowest <= int(text) <= highest):
        raise RequestError("invalid_value", f"`{key}` must be a whole number from {lowest} to {highest}")
    return int(text)
