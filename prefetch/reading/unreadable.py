"""Unreadable: files that could not be read, and when to try again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice

from ...lora.file import AdapterKey

RETRY_S = 30.0
"""A drive that is gone for a while keeps a thread waiting at each try, and a bad sector the whole disk."""
LONGEST_RETRY_S = 480.0
"""Each try that fails doubles the time to the next, up to this: a drive may come back, a bad sector stays."""
_MOST_FILES = 4096


class Unreadable:
    """Owned by the event loop."""

    def __init__(self) -> None:
        # Replaced and never changed, so that a picture of the state can keep it.
        self._problems: Mapping[AdapterKey, str] = {}
        self._retry_at_s: dict[AdapterKey, float] = {}
        self._rest_s: dict[AdapterKey, float] = {}
        """Files that have not been read since they failed -> how long they were left alone for."""

    @property
    def problems(self) -> Mapping[AdapterKey, str]:
        """Files to leave alone -> what was wrong; a changed file has another key."""
        return self._problems

    @property
    def retry_at_s(self) -> float:
        """When `retry` has something to do next."""
        return min(self._retry_at_s.values(), default=math.inf)

    def note_failed(self, key: AdapterKey, problem: str) -> None:
        """The file is to blame, and left alone until it changes."""
        self._problems = {**dict(islice(self._problems.items(), _MOST_FILES)), key: problem}

    def note_unavailable(self, key: AdapterKey, problem: str, now_s: float) -> None:
        """Something else is to blame, for all that is known: there will be another try."""
        rest_s = min(LONGEST_RETRY_S, 2 * self._rest_s.pop(key, RETRY_S / 2))
        self._rest_s = {**dict(islice(self._rest_s.items(), _MOST_FILES)), key: rest_s}
        self._retry_at_s[key] = now_s + rest_s
        self.note_failed(key, problem)

    def note_read(self, key: AdapterKey) -> None:
        """It could be read: the next failure is a first one."""
        self._rest_s.pop(key, None)

    def retry(self, now_s: float) -> None:
        """Forgets those whose time has come."""
        due = {key for key, at_s in self._retry_at_s.items() if at_s <= now_s}
        if due:
            self._problems = {key: problem for key, problem in self._problems.items() if key not in due}
            self._retry_at_s = {key: at_s for key, at_s in self._retry_at_s.items() if key not in due}
