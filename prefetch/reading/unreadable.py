"""Unreadable: files that could not be read, and when to try again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice

from ...lora.file import AdapterKey

RETRY_S = 30.0
"""A drive that is gone for a while keeps a thread waiting at each try, and a bad sector the whole disk."""
_MOST_FILES = 4096


class Unreadable:
    """Owned by the event loop."""

    def __init__(self) -> None:
        # Replaced and never changed, so that a picture of the state can keep it.
        self._problems: Mapping[AdapterKey, str] = {}
        self._retry_at_s: dict[AdapterKey, float] = {}

    @property
    def problems(self) -> Mapping[AdapterKey, str]:
        """Files to leave alone -> what was wrong; a changed file has another key."""
        return self._problems

    @property
    def retry_at_s(self) -> float:
        """When `retry` has something to do next."""
        return min(self._retry_at_s.values(), default=math.inf)

    def note(self, key: AdapterKey, problem: str, *, retry_at_s: float = math.inf) -> None:
        """Without a time, the file is to blame, and left alone until it changes."""
        self._problems = {**dict(islice(self._problems.items(), _MOST_FILES)), key: problem}
        if retry_at_s < math.inf:
            self._retry_at_s[key] = retry_at_s

    def retry(self, now_s: float) -> None:
        """Forgets those whose time has come."""
        due = {key for key, at_s in self._retry_at_s.items() if at_s <= now_s}
        if due:
            self._problems = {key: problem for key, problem in self._problems.items() if key not in due}
            self._retry_at_s = {key: at_s for key, at_s in self._retry_at_s.items() if key not in due}
