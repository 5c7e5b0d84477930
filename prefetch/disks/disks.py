"""Disks: which disk every file lies on, and how many readers each disk takes."""

from __future__ import annotations

import heapq
import logging
import os
import shutil
import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple, TypeVar

from ...loaders.system.disk_kind import STORAGE_VARIABLE, Disk, storage_problems
from ...loaders.system.disk_probe import readers_that_pay
from ...lora.library.file import LoraFile
from ..machine import Machine
from ..pool import Pool
from ..settings import PrefetchSettings
from .disk_memory import DiskMemory, Measurement

logger = logging.getLogger(__name__)

T = TypeVar("T")
Places = Mapping[str, Disk]

SAMPLES = 8
"""Files that a measurement reads from, the largest ones."""
LOCATES = 4
"""Folders that may hang at a time, each in a thread."""
ANSWER_S = 10.0
"""A folder that has answered is not asked again for so long before what lies below it is."""
LATE_S = 10.0
"""A measurement that takes so long hangs; others take half a second."""


class Group(NamedTuple):
    """Files that are located one after the other: those of a folder, or links that lead into one."""

    folder: str
    is_linked: bool = False


Groups = dict[Group, list[str]]

NOWHERE = Disk("", "unknown")
NO_RATES: tuple[float, ...] = ()


class Disks:
    """Owned by the event loop; what blocks runs in `chores`."""

    def __init__(
        self,
        machine: Machine,
        chores: Pool,
        call_soon: Callable[[Callable[[], None]], None],
        found: Callable[[], None],
    ) -> None:
        """`found` is called on the loop when files have been located or a measurement has ended."""
        self._machine = machine
        self._chores = chores
        self._call_soon = call_soon
        self._found = found
        self._memory = DiskMemory(machine.state_folder)
        self._places: dict[str, Disk] = {}
        self._seen: set[Disk] = set()
        """Disks that something was ever found on."""
        self._asked: set[str] = set()
        self._waiting: Groups = {}
        """Of `_asked` what a thread may turn to next."""
        self._locating: dict[str, Groups] = {}
        """Folders that are being asked -> what waits for the answer."""
        self._answered_at_s: dict[str, float] = {}
        self._library: Sequence[LoraFile] | None = None
        self._unasked: Iterator[Sequence[str]] = iter(())
        """Of `_library` and `_places`, by folder; what they were holds until the answer comes."""
        self._samples: Mapping[Disk, tuple[str, ...]] | None = None
        """What measurements of its disks read; None after files have been located."""
        self._labels: dict[Disk, str] = {}
        """Names each disk over restarts."""
        self._measured: dict[Disk, int] = {}
        self._under_way: dict[Disk, tuple[float, threading.Event]] = {}
        """Measurements that have not ended: when each began, and what ends it."""
        for entry in storage_problems():
            logger.warning("%s: %r is ignored; write /mnt/nas=network", STORAGE_VARIABLE, entry)

    @property
    def measuring(self) -> Disk | None:
        """The disk that a measurement has to itself just now; not one where it hangs."""
        late_s = self._machine.clock() - LATE_S
        return next((disk for disk, (began_s, _) in self._under_way.items() if began_s > late_s), None)

    @property
    def is_one(self) -> bool:
        """All that `locate` was asked for lies on one disk."""
        return len(self._seen) <= 1 and not self._asked

    def under(self, path: str) -> Disk | None:
        """The disk that a file lies on; None before `locate` has found it."""
        return self._places.get(path)

    def readers(self, disk: Disk, settings: PrefetchSettings) -> int:
        """How many files may be read from it at a time."""
        if disk.kind == "rotating":
            return settings.readers_rotating or 1
        if disk.kind == "network":
            return settings.readers_network or 1
        return settings.readers_flash or self._measured.get(disk, 1)

    def locate(self, paths: Iterable[str]) -> None:
        """Finds out where these lie, each folder by itself, after those above it: on a share that is gone it may take
        for ever, and what lies below waits for it."""
        self._ask(path for path in paths if path not in self._places)

    def survey(
        self,
        files: Sequence[LoraFile],
        settings: PrefetchSettings,
        *,
        measures: bool = True,
        busy: Container[Disk | None] = (),
    ) -> None:
        """For a moment in which nobody reads: gets to know the disks of the library, one folder at a time. When it has
        changed, so for all that was ever located: a share that is mounted again is another disk. Without `measures`,
        how many readers they take is left for another time, and so it is for disks that are `busy`."""
        if files is not self._library:
            self._library, self._samples = files, None
            known = dict.fromkeys(chain((file.path for file in files), self._places))
            self._unasked = (tuple(paths) for _, paths in groupby(known, os.path.dirname))
        if (paths := next(self._unasked, None)) is not None:
            self._ask(paths)
        elif measures and settings.readers_flash is None and settings.concurrency is None and self.measuring is None:
            self._measure_next(busy)

    def stop_measuring(self) -> None:
        """Somebody needs the disk: the measurement ends within a block and is made up for another time."""
        for _, stop in self._under_way.values():
            stop.set()

    def _measure_next(self, busy: Container[Disk | None]) -> None:
        if self._samples is None:
            self._samples = _samples(self._library or (), self._places)
        for disk, paths in self._samples.items():
            if disk in self._labels and not (disk in self._measured or disk in self._under_way or disk in busy):
                self.stop_measuring()  # what hangs elsewhere has nothing to tell any more
                self._under_way[disk] = self._machine.clock(), (stop := threading.Event())
                probe = partial(self._machine.probe, paths, cancelled=stop.is_set)
                self._run(probe, partial(self._take_rates, disk), NO_RATES)
                return

    def _take_rates(self, disk: Disk, rates: tuple[float, ...]) -> None:
        _, stop = self._under_way.pop(disk)
        if rates or not stop.is_set():
            readers = self._measured[disk] = readers_that_pay(rates)
            if rates:
                keep = partial(self._memory.keep, self._labels[disk], readers, rates)
                self._run(keep, lambda _: None, None)
        self._found()

    def _ask(self, paths: Iterable[str]) -> None:
        fresh = [path for path in paths if path not in self._asked]
        if fresh:
            self._asked.update(fresh)
            _add(self._waiting, _by_folder(fresh))
            self._locate_next()

    def _locate_next(self) -> None:
        while self._waiting and len(self._locating) < LOCATES:
            group = next(iter(self._waiting))
            folder = self._first_to_ask(group.folder)
            if folder in self._locating:
                _add(self._locating[folder], {group: self._waiting.pop(group)})
                continue
            self._locating[folder] = {}
            its = group if folder == group.folder else Group(folder)
            paths = self._waiting.pop(its, [])
            locate = partial(_locate, its, paths, self._machine.disk_under, self._hand_over)
            self._run(locate, partial(self._on_located, folder, paths), None)

    def _first_to_ask(self, folder: str) -> str:
        """It, or the topmost folder above it that has not answered lately: where one hangs, so does all below it."""
        first, fresh_s = folder, self._machine.clock() - ANSWER_S
        while (above := os.path.dirname(folder)) != folder:
            folder = above
            if self._answered_at_s.get(folder, float("-inf")) <= fresh_s:
                first = folder
        return first

    def _hand_over(self, places: Places) -> None:
        """In a thread."""
        self._call_soon(partial(self._take_places, places))
        for disk, path in {disk: path for path, disk in places.items() if disk not in self._labels}.items():
            with suppress(OSError):
                # Device numbers are dealt out anew at every boot; with its size a disk is hardly taken for another.
                label = f"{disk.device} {shutil.disk_usage(path).total}"
                self._call_soon(partial(self._recognise, disk, label, self._memory.recall().get(label)))

    def _recognise(self, disk: Disk, label: str, known: Measurement | None) -> None:
        self._labels[disk] = label
        if known is not None:
            self._measured.setdefault(disk, known.readers)
            self._found()

    def _on_located(self, folder: str, paths: Iterable[str], links: Groups | None) -> None:
        """`links`: what is left, by the folders that they lead into; None when the files could not be located."""
        _add(self._waiting, self._locating.pop(folder))
        self._answered_at_s[folder] = self._machine.clock()
        if links is None and paths:
            self._take_places({path: self._places.get(path, NOWHERE) for path in paths if path in self._asked})
        _add(self._waiting, links or {})
        self._locate_next()

    def _take_places(self, places: Places) -> None:
        self._places |= places
        self._seen.update(places.values())
        self._asked -= places.keys()
        self._samples = None
        self._found()

    def _run(self, call: Callable[[], T], then: Callable[[T], None], otherwise: T) -> None:
        """`then` on the loop with the result, or with `otherwise` when the call failed."""

        def landed(future: Future[T]) -> None:
            self._call_soon(lambda: then(otherwise if future.exception() else future.result()))

        with suppress(RuntimeError):  # the end has come, and nobody waits for it any more
            self._chores.submit(call).add_done_callback(landed)


def _by_folder(paths: Iterable[str]) -> Groups:
    groups: Groups = {}
    for path in paths:
        groups.setdefault(Group(os.path.dirname(path)), []).append(path)
    return groups


def _add(groups: Groups, more: Groups) -> None:
    for group, paths in more.items():
        groups.setdefault(group, []).extend(paths)


def _locate(
    group: Group, paths: Iterable[str], disk_under: Callable[[str], Disk], found: Callable[[Places], None]
) -> Groups:
    """A stat per folder, even without `paths`. Linked files, which may lie elsewhere, are left, and have one each when
    it is their turn."""
    if group.is_linked:
        for path in paths:
            found({path: disk_under(path)})
        return {}
    beside: list[str] = []
    links: Groups = {}
    for path in paths:
        if os.path.islink(path):
            target = os.path.join(group.folder, os.readlink(path))
            links.setdefault(Group(os.path.dirname(target), is_linked=True), []).append(path)
        else:
            beside.append(path)
    disk = disk_under(group.folder)
    if beside:
        found(dict.fromkeys(beside, disk))
    return links


def _samples(files: Iterable[LoraFile], places: Places) -> Mapping[Disk, tuple[str, ...]]:
    """Of each disk that a measurement can say something about."""
    by_disk: dict[Disk, list[LoraFile]] = {}
    for file in files:
        disk = places.get(file.path)
        if disk is not None and disk.kind in ("flash", "unknown"):
            by_disk.setdefault(disk, []).append(file)
    largest = {disk: heapq.nlargest(SAMPLES, its, key=lambda file: file.size_bytes) for disk, its in by_disk.items()}
    return {disk: tuple(file.path for file in its) for disk, its in largest.items()}
