"""LinkedNames: files whose names the host does not tell before a node runs, and whether they are still the same."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from ..lora.catalog import Found, LoraCatalog
from ..lora.errors import LoraError
from ..lora.file import AdapterKey
from ..lora.row import LoraRow

_MOST_NAMES = 4096
"""More than a sweep over a library has: to forget one counts as a change, and would run all of it again each time."""

_LINKS_ANSWER = frozenset({"exact", "separators", "extension"})
"""Rungs of the ladder of names that know links; the others know a file by its own name alone."""

State = TypeVar("State")


class WrittenName(NamedTuple):
    """As somebody wrote it. `category` decides between several LoRAs; models have none."""

    name: str
    category: str = ""


class LinkedNames(Generic[State]):
    """The names that nodes loaded lately, however these came. A fingerprint sees constants only: of a name over a link,
    `changes` tells that some file was replaced, which is all that it takes to run the node again. To look at the whole
    library would run it again for every download, and take seconds on a network drive. Thread-safe."""

    def __init__(self, look: Callable[[WrittenName, State | None], State | None]) -> None:
        """`look(name, known)`: the present state of the file that `name` means, None without one. It blocks; `known` is
        the state that the name had when it was loaded, None where that is now."""
        self._look = look
        self._lock = threading.Lock()
        self._known: dict[WrittenName, State] = {}
        """The state of its file when a name was first loaded, the one loaded last at the end."""
        # From 0 in every process, a cache that outlives this one would take a file replaced meanwhile for the same.
        self._changes = secrets.randbits(48)

    def note(self, names: Iterable[LoraRow | WrittenName]) -> None:
        """A node loads the files of `names`. Those without a file are left out: its error is no result to keep."""
        written_names = dict.fromkeys(WrittenName(one.name, one.category) for one in names)
        states = [(written, self._look(written, None)) for written in written_names]
        with self._lock:
            for written, state in states:
                if state is not None:
                    # The first state stays: what one node loads anew, another still has from before.
                    self._known[written] = self._known.pop(written, state)
            while len(self._known) > _MOST_NAMES:
                del self._known[next(iter(self._known))]
                self._changes += 1

    def changes(self) -> int:
        """Another number than before when a name that was loaded has come to mean another file, or another state of
        it; and in another process. Blocks: one look for each name."""
        with self._lock:
            known = dict(self._known)
        gone = [written for written, state in known.items() if self._look(written, state) != state]
        with self._lock:
            for written in gone:
                if self._known.get(written) == known[written]:
                    del self._known[written]
                    self._changes += 1
            return self._changes


def lora_state(catalog: LoraCatalog, written: WrittenName, known: AdapterKey | None) -> AdapterKey | None:
    """For `LinkedNames`. What is `known` costs a stat, and one for each folder before its own.

    A file that came since and fits a short name better is thus left to the next scan: to look for it would cost a stat
    for every way to spell the name, and of an alias or a hash, all headers."""
    if known is not None:
        match = catalog.resolve(*written)
        if not isinstance(match, Found) or match.file.path != known.path:
            return None
        full = catalog.resolve(match.file.name)
        # Otherwise a name that a link may have, which can lead elsewhere, or of a file that another one shadows.
        if match.how not in _LINKS_ANSWER and isinstance(full, Found) and full.file.path == known.path:
            written = WrittenName(full.file.name)
    try:
        return catalog.find(*written).key
    except LoraError:
        return None
