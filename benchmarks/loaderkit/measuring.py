"""Measuring: the contenders of one workload take turns, on a warm or on a cold page cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from warmstack.loaders import drop_file, resident_bytes, warm_file

from .contender import Contender, ContenderError, Running
from .contenders import CONTENDERS
from .workloads import Workload

STATES = ("warm", "cold")


def measure(workload: Workload, state: str, rounds: int, peers: str) -> dict[str, Any]:
    """`{"samples": contender -> [answer of each round], "peak_bytes": contender -> bytes, "absent": contender -> why}`.

    In every other round the order is reversed, so that nobody always follows the same."""
    found: dict[str, Any] = {"samples": {}, "peak_bytes": {}, "absent": {}}
    with ExitStack() as stack:
        running = []
        for contender in _contenders(workload, state):
            try:
                process = Running(contender, peers)
                stack.callback(process.close)
                prepare(workload, state)
                # The first load imports, and grows the heap that the later ones find.
                _check(process.load(workload), workload, contender)
                running.append(process)
            except ContenderError as error:
                found["absent"][contender.name] = str(error)
        for turn in range(rounds):
            for process in running if turn % 2 == 0 else running[::-1]:
                prepare(workload, state)
                found["samples"].setdefault(process.contender.name, []).append(process.load(workload))
            print(f"{workload.name} {state}: round {turn + 1} of {rounds}", file=sys.stderr)
        for process in running if state == "warm" else ():
            prepare(workload, state)
            found["peak_bytes"][process.contender.name] = process.peak_bytes(workload)
    return found


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


def _contenders(workload: Workload, state: str) -> Sequence[Contender]:
    floor = "floor: memcpy" if state == "warm" else "floor: direct"
    return [
        contender
        for contender in CONTENDERS
        if workload.name in contender.workloads and (contender.memory != "floor" or contender.name.startswith(floor))
    ]


def _check(answer: dict[str, Any], workload: Workload, contender: Contender) -> None:
    """That it loaded what it was told to, before its time counts for anything."""
    slack_bytes = 1 << 20
    if contender.memory != "floor" and abs(answer["bytes"] - workload.wanted_bytes) > slack_bytes:
        raise ContenderError(f"loaded {answer['bytes']} of {workload.wanted_bytes} bytes")
