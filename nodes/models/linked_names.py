"""LinkedNames: files whose names the host does not tell before a node runs, and whether they are still the same."""

from __future__ import annotations

import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

from ...loaders.system.daemon_pool import DaemonPool
from ...lora.errors import LoraError
from ...lora.library.catalog import Found, LoraCatalog
from ...lora.library.file import AdapterKey
from ...lora.library.name_index import WHOLE_NAMES
from ...lora.stacks.row import LoraRow

_MOST_NAMES = 4096
"""More than a sweep over a library has: to forget one counts as a change, and would run all of it again each time."""

_PATIENCE_S = 8.0
"""How long no name answers before those that are left count as changed: a disk is as good as gone then. One that was
asleep is back sooner, and waiting for it costs less than making finished pictures again."""


class FileState(Protocol):
    """Equal as long as the file is the same."""

    @property
    def path(self) -> str: ...


State = TypeVar("State", bound=FileState)


class WrittenName(NamedTuple):
    """As somebody wrote it. `category` decides between several LoRAs; models have none."""

    name: str
    category: str = ""


class LinkedNames(Generic[State]):
    """The names that nodes loaded lately, however these came. A fingerprint sees constants only: of a name over a link,
    `changes` tells that some file was replaced, which is all that it takes to run the node again. To look at the whole
    library would run it again for every download, and take seconds on a network drive. Thread-safe."""

    def __init__(
        self,
        look: Callable[[WrittenName, State | None], State | None],
        device_of: Callable[[str], int | None] | None = None,
    ) -> None:
        """`look(name, known)`: the present state of the file that `name` means, None without one. It blocks; `known` is
        the state that the name had when it was loaded, None where that is now. `device_of(path)`: names of one device
        are looked up one after another; that of the system by default."""
        self._look = look
        self._device_of = device_of or _device_of
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._known: dict[WrittenName, tuple[State, int | None]] = {}
        """The state of its file when a name was first loaded, and its device; the name loaded last at the end."""
        self._hung: dict[int | None, Future[None]] = {}
        """Device -> the look that it holds up. It gets no second one: there is one thread for each at most."""
        # From 0 in every process, a cache that outlives this one would take a file replaced meanwhile for the same.
        self._changes = secrets.randbits(48)

    def note(self, names: Iterable[LoraRow | WrittenName]) -> None:
        """A node loads the files of `names`. Those without a file are left out: its error is no result to keep. Blocks
        on these files."""
        written_names = dict.fromkeys(WrittenName(one.name, one.category) for one in names)
        states = [(written, self._look(written, None)) for written in written_names]
        found = [(written, (state, self._device_of(state.path))) for written, state in states if state is not None]
        with self._lock:
            for written, one in found:
                # The first state stays: what one node loads anew, another still has from before.
                self._known[written] = self._known.pop(written, one)
            while len(self._known) > _MOST_NAMES:
                del self._known[next(iter(self._known))]
                self._changes += 1

    def changes(self) -> int:
        """Another number than before when a name that was loaded has come to mean another file, or another state of
        it; and in another process. One look for each name, in threads: what does not answer is not waited for and
        counts as changed, since a job that names none of it must not hang."""
        with self._looking:
            with self._lock:
                known = dict(self._known)
            same = self._same(known)
        with self._lock:
            for written in known.keys() - same:
                if self._known.get(written) == known[written]:
                    del self._known[written]
                    self._changes += 1
            return self._changes

    def _same(self, known: Mapping[WrittenName, tuple[State, int | None]]) -> set[WrittenName]:
        """The names that say that they are as they are `known`."""
        self._hung = {device: look for device, look in self._hung.items() if not look.done()}
        asked: dict[int | None, dict[WrittenName, State]] = {}
        for written, (state, device) in known.items():
            if device not in self._hung:
                asked.setdefault(device, {})[written] = state
        answers: queue.SimpleQueue[tuple[WrittenName, bool]] = queue.SimpleQueue()
        threads = DaemonPool(len(asked), "warmstack-look")
        looks = {device: threads.submit(partial(self._answer, names, answers)) for device, names in asked.items()}
        threads.close()
        same, unanswered = _collected(answers, {written for names in asked.values() for written in names})
        self._hung |= {device: look for device, look in looks.items() if unanswered & asked[device].keys()}
        for look in looks.values():
            if look.done():
                look.result()
        return same

    def _answer(self, names: Mapping[WrittenName, State], answers: queue.SimpleQueue[tuple[WrittenName, bool]]) -> None:
        for written, state in names.items():
            answers.put((written, self._look(written, state) == state))


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
        if match.how not in WHOLE_NAMES and isinstance(full, Found) and full.file.path == known.path:
            written = WrittenName(full.file.name)
    try:
        return catalog.find(*written).key
    except LoraError:
        return None


def _collected(
    answers: queue.SimpleQueue[tuple[WrittenName, bool]], asked: set[WrittenName]
) -> tuple[set[WrittenName], set[WrittenName]]:
    """Of the names `asked`, those that are the same and those without an answer."""
    same, unanswered = set(), set(asked)
    while unanswered:
        try:
            written, is_same = answers.get(timeout=_PATIENCE_S)
        except queue.Empty:
            break
        unanswered.discard(written)
        if is_same:
            same.add(written)
    return same, unanswered


def _device_of(path: str) -> int | None:
    """Of the disk or share; None for a file that has just gone."""
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
