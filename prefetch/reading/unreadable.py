"""Unreadable: files that could not be read, and when to try again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice

from ...lora.library.file import AdapterKey
from ..rest import rest_s
from .reading import Outcome

RETRY_S = 30.0
"""A drive that is gone for a while keeps a thread waiting at each try."""
_MOST_FILES = 4096
_NEVER_S = math.inf


class Unreadable:
    """Owned by the event loop."""

    def __init__(self) -> None:
        # Replaced and never changed, so that a snapshot can keep it.
        self._problems: Mapping[AdapterKey, str] = {}
        self._retry_at_s: dict[AdapterKey, float] = {}
        """Files that were not to blame; `_NEVER_S` for those that may be read."""

    @property
    def problems(self) -> Mapping[AdapterKey, str]:
        """Files to leave alone -> what was wrong; a changed file has another key."""
        return self._problems

    @property
    def retry_at_s(self) -> float:
        """When `retry` has something to do next."""
        return min(self._retry_at_s.values(), default=_NEVER_S)

    def counts(self, key: AdapterKey, outcome: Outcome) -> bool:
        """Whether what was read counts: at a further try that fails it is what was read, and counted, before. Ask
        before `note`."""
        return outcome.read_bytes > 0 and not (outcome.state == "unavailable" and key in self._retry_at_s)

    def note(self, key: AdapterKey, outcome: Outcome, now_s: float) -> None:
        """A file to blame is left alone until it changes; when something else is, there will be another try."""
        if outcome.state in ("failed", "unavailable"):
            self._problems = {**dict(islice(self._problems.items(), _MOST_FILES)), key: outcome.problem}
        if outcome.state == "unavailable":
            self._retry_at_s[key] = now_s + rest_s(RETRY_S, outcome.last_chunk_s)

    def retry(self, now_s: float) -> None:
        """Forgets those whose time has come."""
        due = {key for key, at_s in self._retry_at_s.items() if at_s <= now_s}
        if due:
            self._problems = {key: problem for key, problem in self._problems.items() if key not in due}
            self._retry_at_s.update(dict.fromkeys(due, _NEVER_S))
