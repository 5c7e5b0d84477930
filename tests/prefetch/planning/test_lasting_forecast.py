"""What is read and written when: never on the loop, never over a past that is not known yet, the newest last."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstack.lora.library.catalog import LoraCatalog
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.planning.habit_memory import HabitMemory
from warmstack.prefetch.planning.habits import NamedLora, Run
from warmstack.prefetch.planning.lasting_forecast import KEEP_EVERY_S, LastingForecast
from warmstack.prefetch.settings import PrefetchSettings

from ..world import ManualPool
from .test_plan import job, lora

GUESSING = PrefetchSettings(predict=True)


class Session:
    """One start of a process whose chores wait until the test runs them."""

    def __init__(self, folder: Path) -> None:
        self.chores = ManualPool()
        self.now_s = 0.0
        self.found = 0
        machine = Machine(state_folder=folder, clock=lambda: self.now_s)
        catalog = LoraCatalog(lambda: [str(folder)])
        self.forecast = LastingForecast(catalog, machine, self.chores, lambda call: call(), self.count_found)

    def count_found(self) -> None:
        self.found += 1

    def use(self, name: str) -> None:
        self.forecast.record(job(name, (lora(name), False)))

    def run_chores(self) -> None:
        while self.chores.waiting:
            self.chores.run_next()


def kept(folder: Path) -> list[str]:
    return [name.removesuffix(".safetensors") for run in HabitMemory(folder).recall() for name in run.names]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one job of an earlier session."""
    HabitMemory(tmp_path).keep([Run((NamedLora("past", "page"),), 1)])
    return tmp_path


def test_who_does_not_let_it_guess_reads_and_writes_nothing(folder: Path) -> None:
    session = Session(folder)
    session.forecast.follow(PrefetchSettings(predict=False))
    session.forecast.keep()
    assert not session.chores.waiting


def test_an_end_before_the_past_is_known_keeps_the_past(folder: Path) -> None:
    session = Session(folder)
    session.use("a")
    session.forecast.follow(GUESSING)
    session.forecast.keep()
    session.run_chores()
    assert kept(folder) == ["past"]
    assert session.found == 1
    session.forecast.keep()
    session.run_chores()
    assert kept(folder) == ["past", "a"]


def test_short_jobs_are_written_together_and_the_end_writes_the_rest(folder: Path) -> None:
    session = Session(folder)
    session.forecast.follow(GUESSING)
    session.run_chores()
    session.use("a")
    session.forecast.follow(GUESSING)
    session.use("b")
    session.forecast.follow(GUESSING)
    assert len(session.chores.waiting) == 1
    session.run_chores()
    session.now_s += KEEP_EVERY_S
    session.forecast.follow(GUESSING)
    session.forecast.follow(GUESSING)
    assert len(session.chores.waiting) == 1
    session.run_chores()
    assert kept(folder) == ["past", "a", "b"]
    session.now_s += KEEP_EVERY_S
    session.forecast.follow(GUESSING)
    assert not session.chores.waiting
    session.use("c")
    session.forecast.keep()
    session.run_chores()
    assert kept(folder) == ["past", "a", "b", "c"]


def test_of_two_writes_the_newest_stays_whichever_comes_last(folder: Path) -> None:
    session = Session(folder)
    session.forecast.follow(GUESSING)
    session.run_chores()
    for name in "ab":
        session.use(name)
        session.forecast.keep()
    session.chores.waiting.rotate()
    session.run_chores()
    assert kept(folder) == ["past", "a", "b"]


def test_a_job_without_loras_is_no_reason_to_write(folder: Path) -> None:
    session = Session(folder)
    session.forecast.follow(GUESSING)
    session.run_chores()
    session.forecast.record(job("1"))
    session.forecast.follow(GUESSING)
    assert not session.chores.waiting
