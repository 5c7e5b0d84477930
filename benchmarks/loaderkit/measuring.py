"""Measuring: the contenders of one workload take turns, on a warm or on a cold page cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from warmstack.loaders import drop_file, resident_bytes, warm_file

from .contender import Contender, ContenderError, Running
from .contenders import CONTENDERS
from .workloads import Workload

STATES = ("warm", "cold")
_FLOORS = {"warm": "floor: memcpy", "cold": "floor: direct"}
FIGURES = ("returned_s", "touched_s", "read_bytes")


def measure(
    workload: Workload, states: Sequence[str], rounds: int, peers: str, begin: Callable[[], None]
) -> dict[str, dict[str, Any]]:
    """state -> `{"samples": contender -> figure -> [value of each round], "peak_bytes": contender -> bytes,
    "absent": contender -> why it does not run here}`; the figures are `returned_s`, `touched_s` and `read_bytes`.

    In every other round the order is reversed, so that nobody always follows the same. `begin` is called between the
    start of the processes and the first clock."""
    found: dict[str, dict[str, Any]] = {state: {"samples": {}, "peak_bytes": {}, "absent": {}} for state in states}
    with ExitStack() as stack:
        running, absent = _start(workload, peers, stack)
        begin()
        for state, measured in found.items():
            measured["absent"] = absent
            taking_part = [process for process in running if _takes_part(process.contender, state)]
            for turn in range(rounds):
                for process in taking_part if turn % 2 == 0 else taking_part[::-1]:
                    prepare(workload, state)
                    _note(measured["samples"], process.contender.name, process.load(workload))
                print(f"{workload.name} {state}: round {turn + 1} of {rounds}", file=sys.stderr)
        print("timed part over", file=sys.stderr, flush=True)
        for process in running if "warm" in found else ():
            prepare(workload, "warm")
            if _takes_part(process.contender, "warm"):
                found["warm"]["peak_bytes"][process.contender.name] = process.peak_bytes(workload)
    return found


def _start(workload: Workload, peers: str, stack: ExitStack) -> tuple[list[Running], dict[str, str]]:
    """The processes of those that run here, each after a first load: that one imports, and grows the heap that the
    later ones find. And why the others do not."""
    running, absent = [], {}
    prepare(workload, "warm")
    for contender in CONTENDERS:
        if workload.name not in contender.workloads:
            continue
        try:
            process = Running(contender, peers)
            stack.callback(process.close)
            _check(process.load(workload), workload, contender)
            running.append(process)
        except ContenderError as error:
            absent[contender.name] = str(error)
    return running, absent


def _note(samples: dict[str, dict[str, list[float]]], name: str, answer: dict[str, Any]) -> None:
    figures = samples.setdefault(name, {figure: [] for figure in FIGURES})
    for figure in FIGURES:
        figures[figure].append(answer[figure])


def prepare(workload: Workload, state: str) -> None:
    """Bring all of its files into the page cache, or out of it, and see to it that this has worked."""
    for path in workload.files:
        if state == "cold":
            drop_file(path)
        elif resident_bytes(path) != os.path.getsize(path):
            warm_file(path, cancelled=lambda: False)
        left_bytes = resident_bytes(path)
        if left_bytes != (0 if state == "cold" else os.path.getsize(path)):
            raise SystemExit(f"{path}: {left_bytes} bytes are in the page cache; nothing {state} can be measured here")


def _takes_part(contender: Contender, state: str) -> bool:
    """Memory is the floor of a warm load, the disk that of a cold one."""
    return contender.memory != "floor" or contender.name.startswith(_FLOORS[state])


def _check(answer: dict[str, Any], workload: Workload, contender: Contender) -> None:
    """That it loaded what it was told to, before its time counts for anything."""
    slack_bytes = 1 << 20
    if contender.memory != "floor" and abs(answer["bytes"] - workload.wanted_bytes) > slack_bytes:
        raise ContenderError(f"loaded {answer['bytes']} of {workload.wanted_bytes} bytes")
