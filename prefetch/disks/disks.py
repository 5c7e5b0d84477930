"""Disks: which disk every file lies on, and how many readers each disk takes."""

from __future__ import annotations

import heapq
import logging
import os
import shutil
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

from ...loaders.disk_kind import STORAGE_VARIABLE, Disk, storage_problems
from ...loaders.disk_probe import readers_that_pay
from ...lora.file import LoraFile
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
"""Groups that may hang at a time, each in a thread."""


class Group(NamedTuple):
    """Files that are located one after the other: those of a folder, or links that lead into one."""

    folder: str
    is_linked: bool = False


Groups = dict[Group, list[str]]


class Survey(NamedTuple):
    """What a look at all the files of the library found."""

    places: Places
    samples: Mapping[Disk, tuple[str, ...]]
    labels: Mapping[Disk, str]
    """Names each disk over restarts."""
    known: Mapping[str, Measurement]


NOWHERE = Disk("", "unknown")
EMPTY = Survey({}, {}, {}, {})
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
        self._asked: set[str] = set()
        self._waiting: Groups = {}
        """Of `_asked` what is not being located yet."""
        self._locating: set[Group] = set()
        self._surveyed: Sequence[LoraFile] | None = None
        self._is_surveying = False
        self._samples: Mapping[Disk, tuple[str, ...]] = {}
        self._labels: Mapping[Disk, str] = {}
        self._measured: dict[Disk, int] = {}
        self._measuring: Disk | None = None
        self._stop = threading.Event()
        for entry in storage_problems():
            logger.warning("%s: %r is ignored; write /mnt/nas=network", STORAGE_VARIABLE, entry)

    @property
    def measuring(self) -> Disk | None:
        """The disk that a measurement has to itself just now."""
        return self._measuring

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
        """Finds out where these lie, each folder by itself: on a share that is gone it may take for ever."""
        fresh = [path for path in paths if path not in self._places and path not in self._asked]
        if fresh:
            self._asked.update(fresh)
            self._wait(_by_folder(fresh))
            self._locate_next()

    def survey(
        self,
        files: Sequence[LoraFile],
        settings: PrefetchSettings,
        *,
        measures: bool = True,
        busy: Container[Disk | None] = (),
    ) -> None:
        """For a moment in which nobody reads: gets to know the disks of the library, one step at a time. Without
        `measures`, how many readers they take is left for another time, and so it is for disks that are `busy`."""
        if self._is_surveying or self._measuring is not None:
            return
        if files is not self._surveyed:
            self._surveyed, self._is_surveying = files, True
            self._run(partial(_survey, files, self._machine.disk_under, self._memory), self._take_survey, EMPTY)
        elif measures and settings.readers_flash is None and settings.concurrency is None:
            self._measure_next(busy)

    def stop_measuring(self) -> None:
        """Somebody needs the disk: the measurement ends within a block and is made up for another time."""
        self._stop.set()

    def _measure_next(self, busy: Container[Disk | None]) -> None:
        for disk, paths in self._samples.items():
            if disk.kind in ("flash", "unknown") and disk not in self._measured and disk not in busy:
                self._measuring = disk
                self._stop.clear()
                probe = partial(self._machine.probe, paths, cancelled=self._stop.is_set)
                self._run(probe, partial(self._take_rates, disk), NO_RATES)
                return

    def _take_rates(self, disk: Disk, rates: tuple[float, ...]) -> None:
        self._measuring = None
        if rates or not self._stop.is_set():
            readers = self._measured[disk] = readers_that_pay(rates)
            if rates:
                keep = partial(self._memory.keep, self._labels[disk], readers, rates)
                self._run(keep, lambda _: None, None)
        self._found()

    def _locate_next(self) -> None:
        for group in [group for group in self._waiting if group not in self._locating]:
            if len(self._locating) == LOCATES:
                return
            self._locating.add(group)
            paths = self._waiting.pop(group)
            locate = partial(_locate, group, paths, self._machine.disk_under, self._hand_over)
            self._run(locate, partial(self._on_located, group, paths), None)

    def _wait(self, groups: Groups) -> None:
        for group, paths in groups.items():
            self._waiting.setdefault(group, []).extend(paths)

    def _hand_over(self, places: Places) -> None:
        """In a thread."""
        self._call_soon(partial(self._take_places, places))

    def _on_located(self, group: Group, paths: Iterable[str], links: Groups | None) -> None:
        """`links`: what is left, by the folders that they lead into; None when the files could not be located."""
        self._locating.discard(group)
        if links is None:
            self._take_places({path: NOWHERE for path in paths if path not in self._places})
        else:
            self._wait(links)
        self._locate_next()

    def _take_places(self, places: Places) -> None:
        self._places |= places
        self._asked -= places.keys()
        self._found()

    def _take_survey(self, survey: Survey) -> None:
        self._is_surveying = False
        self._samples, self._labels = survey.samples, survey.labels
        for disk, label in survey.labels.items():
            if label in survey.known:
                self._measured.setdefault(disk, survey.known[label].readers)
        self._take_places(survey.places)

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


def _locate(
    group: Group, paths: Iterable[str], disk_under: Callable[[str], Disk], found: Callable[[Places], None]
) -> Groups:
    """A stat per folder. Linked files, which may lie elsewhere, are left, and have one each when it is their turn."""
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
    if beside:
        found(dict.fromkeys(beside, disk_under(group.folder)))
    return links


def _survey(files: Sequence[LoraFile], disk_under: Callable[[str], Disk], memory: DiskMemory) -> Survey:
    places: dict[str, Disk] = {}
    for group, paths in _by_folder(file.path for file in files).items():
        for links in _locate(group, paths, disk_under, places.update).items():
            _locate(*links, disk_under, places.update)
    by_disk: dict[Disk, list[LoraFile]] = {}
    for file in files:
        by_disk.setdefault(places[file.path], []).append(file)
    samples: dict[Disk, tuple[str, ...]] = {}
    labels: dict[Disk, str] = {}
    for disk, its in by_disk.items():
        largest = heapq.nlargest(SAMPLES, its, key=lambda file: file.size_bytes)
        with suppress(OSError):
            # Device numbers are dealt out anew at every boot; with its size a disk is hardly taken for another.
            labels[disk] = f"{disk.device} {shutil.disk_usage(os.path.dirname(largest[0].path)).total}"
            samples[disk] = tuple(file.path for file in largest)
    return Survey(places, samples, labels, memory.recall())
