"""LinkedNames: LoRAs whose names the host does not tell before a node runs, and whether their files are the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..lora.row import LoraRow
from .stack_input import Names, file_state

_MOST_NAMES = 256
"""Each is looked up once per prompt and node."""


class LinkedNames:
    """The names that nodes loaded lately, however these came. A fingerprint sees constants only: of a name over a link,
    `changes` tells that some file was replaced, which is all that it takes to run the node again. To look at the whole
    library would run it again for every download, and take seconds on a network drive. Thread-safe."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[object, ...]] = {}
        """(name, category) -> the state of its file when it was first loaded, the one loaded last at the end."""
        self._changes = 0

    def note(self, rows: Iterable[LoraRow]) -> None:
        """A node loads `rows`. Names without a file are left out: its error is no result to keep. Blocks: a stat for
        each."""
        states = {(row.name, row.category): file_state(self._names, row) for row in rows}
        found = {key: state for key, state in states.items() if state != (key[0],)}
        with self._lock:
            for key, state in found.items():
                # The first state stays: what one node loads anew, another still has from before.
                self._known[key] = self._known.pop(key, state)
            while len(self._known) > _MOST_NAMES:
                del self._known[next(iter(self._known))]
                self._changes += 1

    def changes(self) -> int:
        """How many names of those that were loaded have come to mean another file, or another state of it. Blocks: a
        stat for each."""
        with self._lock:
            known = dict(self._known)
        rows = {key: LoraRow(key[0], category=key[1]) for key in known}
        gone = [key for key, row in rows.items() if file_state(self._names, row) != known[key]]
        with self._lock:
            for key in gone:
                if self._known.get(key) == known[key]:
                    del self._known[key]
                    self._changes += 1
            return self._changes
