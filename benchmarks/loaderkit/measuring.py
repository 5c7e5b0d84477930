"""Measuring: the contenders of one workload take turns, on a warm or on a cold page cache."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from warmstack.loaders import drop_file, resident_bytes, warm_file

from .contender import Contender, ContenderError, Running
from .workloads import Workload

STATES = ("warm", "cold")
_TRIES = 5
_WARM_SHARE = 0.999
_LARGE_BYTES = 1 << 30
"""More than that of every process at once would not fit into memory: it is kept for the next load alone."""
_KEPT_BYTES = 2 << 30
"""Nobody keeps more of one load for the next."""
_FLOORS = {"warm": "floor: memcpy", "cold": "floor: direct"}
FIGURES = ("returned_s", "touched_s", "read_bytes")


class Measuring:
    """Contenders in their processes, and what they took so far.

    `found`: workload -> state -> `{"samples": contender -> figure -> [value of each round],
    "peak_bytes": contender -> bytes, "absent": contender -> why it does not run here}`; the figures are `returned_s`,
    `touched_s` and `read_bytes`."""

    def __init__(
        self,
        workloads: Sequence[tuple[Workload, Sequence[str]]],
        contenders: Sequence[Contender],
        peers: str,
        begin: Callable[[], None],
        stack: ExitStack,
    ) -> None:
        """Start those that run here, and load everything once: that checks them, imports what they import late, and
        shows how much memory they take. `begin` is called before each workload, here and in every round."""
        self._workloads = workloads
        self._begin = begin
        begin()
        self._running, absent = _start([workload for workload, _ in workloads], contenders, peers, stack)
        self.found: dict[str, dict[str, dict[str, Any]]] = {}
        for workload, states in workloads:
            begin()
            peaks = self._peaks(workload, absent)
            empty = {"samples": {}, "peak_bytes": peaks, "absent": absent}
            self.found[workload.name] = {state: json.loads(json.dumps(empty)) for state in states}

    def round(self, turn: int) -> None:
        """Every loader on every workload once, in another order each time: who follows one that has just let go of much
        memory finds it there, and who follows an idle stretch may have to wait for the machine to hand some out."""
        shuffle = random.Random(turn).shuffle
        for workload, states in self._workloads:
            for state in states:
                self._begin()
                samples = self.found[workload.name][state]["samples"]
                running = [process for process in self._running if _takes_part(process.contender, workload, state)]
                shuffle(running)
                for process in running:
                    _note(samples, process.contender.name, _load(process, workload, state))
                print(f"round {turn + 1}: {workload.name} {state}", file=sys.stderr, flush=True)

    def _peaks(self, workload: Workload, absent: dict[str, str]) -> dict[str, int]:
        peaks = {}
        for process in list(self._running):
            contender = process.contender
            if workload.name not in contender.workloads:
                continue
            prepare(workload, "warm")
            try:
                peaks[contender.name], answer = process.peak_bytes(workload)
                if workload.wanted_bytes > _LARGE_BYTES:
                    process.give_memory_back()
                _check(answer, workload, contender)
            except ContenderError as error:
                absent[contender.name] = f"{workload.name}: {error}"
                self._running.remove(process)
        return peaks


def _start(
    workloads: Sequence[Workload], contenders: Sequence[Contender], peers: str, stack: ExitStack
) -> tuple[list[Running], dict[str, str]]:
    """The processes of those that can load the smallest of the workloads, and why the others do not."""
    running, absent = [], {}
    for contender in contenders:
        smallest = min(
            (workload for workload in workloads if workload.name in contender.workloads),
            key=lambda workload: workload.wanted_bytes,
            default=None,
        )
        if smallest is None:
            continue
        try:
            process = Running(contender, peers)
            stack.callback(process.close)
            process.load(smallest)
            running.append(process)
        except ContenderError as error:
            absent[contender.name] = str(error)
    return running, absent


def _load(process: Running, workload: Workload, state: str) -> dict[str, Any]:
    """A load in the memory of an earlier one, as far as its process keeps that; of a checkpoint, in fresh memory."""
    if workload.wanted_bytes <= _KEPT_BYTES and process.has_memory_of != workload.name:
        process.load(workload)
    prepare(workload, state)
    return process.load(workload, gives_memory_back=workload.wanted_bytes > _LARGE_BYTES)


def _note(samples: dict[str, dict[str, list[float]]], name: str, answer: dict[str, Any]) -> None:
    figures = samples.setdefault(name, {figure: [] for figure in FIGURES})
    for figure in FIGURES:
        figures[figure].append(answer[figure])


def prepare(workload: Workload, state: str) -> None:
    """Bring all of its files into the page cache, or out of it, and see to it that this has worked."""
    for path in workload.files:
        if not any(_is(path, state) for _ in range(_TRIES)):
            raise SystemExit(f"{path}: {resident_bytes(path)} bytes are in the page cache and cannot be made {state}")


def _is(path: str, state: str) -> bool:
    size_bytes = os.path.getsize(path)
    if state == "cold":
        drop_file(path)
        return resident_bytes(path) == 0
    if resident_bytes(path) != size_bytes:
        warm_file(path, cancelled=lambda: False)
    # The kernel may take a page back at any time.
    return (resident_bytes(path) or 0) >= _WARM_SHARE * size_bytes


def _takes_part(contender: Contender, workload: Workload, state: str) -> bool:
    """Memory is the floor of a warm load, the disk that of a cold one."""
    here = workload.name in contender.workloads
    return here and (contender.memory != "floor" or contender.name.startswith(_FLOORS[state]))


def _check(answer: dict[str, Any], workload: Workload, contender: Contender) -> None:
    """That it loaded what it was told to, before its time counts for anything."""
    slack_bytes = len(workload.paths) << 20
    if contender.memory != "floor" and abs(answer["bytes"] - workload.wanted_bytes) > slack_bytes:
        raise ContenderError(f"loaded {answer['bytes']} of {workload.wanted_bytes} bytes")
