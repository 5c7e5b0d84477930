"""HabitMemory: the habits of earlier sessions, in a file of names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from ..queue.need import Tier
from ..state_file import StateFile
from .habits import Habits, NamedLora, Run


class HabitMemory:
    """Blocking, one user at a time. `folder` None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file = StateFile(folder, "habits.json", 1, "What past jobs used")

    def recall(self) -> Habits:
        return self._file.read(_habits, Habits())

    def keep(self, runs: Iterable[Run]) -> None:
        self._file.replace({"runs": [{"jobs": run.jobs, "loras": run.loras} for run in runs]})


def _habits(document: dict[str, Any]) -> Habits:
    return Habits(_run(entry) for entry in document["runs"])


def _run(entry: dict[str, Any]) -> Run:
    loras, jobs = tuple(NamedLora(*pair) for pair in entry["loras"]), entry["jobs"]
    right = all(isinstance(name, str) and tier in get_args(Tier) for name, tier in loras)
    if not right or not isinstance(jobs, int):
        raise TypeError("not a run")
    return Run(loras, jobs)
