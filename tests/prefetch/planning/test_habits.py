"""Habits are bounded, and what is kept of them teaches what they taught."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.prefetch.planning.habit_memory import HabitMemory
from warmstack.prefetch.planning.habits import MAX_ALIKE, MAX_CHARACTERS, MAX_JOBS, Habits, NamedLora, Run
from warmstack.prefetch.planning.predictor import LoRAPrefetchPredictor
from warmstack.prefetch.state_file import MAX_BYTES

LORAS = st.builds(NamedLora, st.text(max_size=12), st.sampled_from(["resident", "page"]))
RUNS = st.builds(Run, st.lists(LORAS, max_size=4).map(tuple), st.integers(0, MAX_ALIKE + 5))


def run(*names: str, jobs: int = 1) -> Run:
    return Run(tuple(NamedLora(name, "page") for name in names), jobs)


@given(st.lists(RUNS, max_size=12))
def test_what_is_kept_comes_back_the_same(tmp_path_factory: pytest.TempPathFactory, runs: list[Run]) -> None:
    folder = tmp_path_factory.mktemp("state")
    habits = Habits(runs)
    HabitMemory(folder).keep(habits)
    recalled = HabitMemory(folder).recall()
    assert list(recalled) == list(habits)
    before, after = LoRAPrefetchPredictor(), LoRAPrefetchPredictor()
    before.learn(habits.stacks())
    after.learn(recalled.stacks())
    assert (before.predict_next_loras(), before.stats()) == (after.predict_next_loras(), after.stats())


@given(st.lists(LORAS.map(lambda lora: (lora,)) | st.just(()), max_size=MAX_ALIKE))
def test_every_job_is_taught_in_its_order(jobs: list[tuple[NamedLora, ...]]) -> None:
    habits = Habits(Run(loras, 1) for loras in jobs)
    assert list(habits.stacks()) == [tuple(lora.name for lora in loras) for loras in jobs if loras]


def test_the_oldest_are_forgotten() -> None:
    habits = Habits(run(str(number)) for number in range(MAX_JOBS + 10))
    assert [entry.names for entry in habits] == [(str(number),) for number in range(10, MAX_JOBS + 10)]
    habits = Habits(run(str(number), "x" * 1000) for number in range(1000))
    assert sum(entry.characters for entry in habits) <= MAX_CHARACTERS
    assert list(habits)[-1].names[0] == "999"
    habits.add(run("x" * (MAX_CHARACTERS + 1)))
    assert not list(habits)


def test_a_long_batch_pushes_nothing_out() -> None:
    habits = Habits([run("ink"), run("sketch")])
    for _ in range(5 * MAX_JOBS):
        habits.add(run("batch"))
    assert [(entry.names, entry.jobs) for entry in habits] == [
        (("ink",), 1),
        (("sketch",), 1),
        (("batch",), MAX_ALIKE),
    ]


@pytest.mark.parametrize("letter", ["a", "\N{GRINNING FACE}", "\x00", "\udcff"])
def test_the_largest_history_is_no_larger_than_a_file_that_is_read(tmp_path: Path, letter: str) -> None:
    """As long as names may be, in letters that JSON writes at length; a lone surrogate is an undecodable byte."""
    length = MAX_CHARACTERS // MAX_JOBS
    habits = Habits(run(f"{number:05}" + letter * (length - 5)) for number in range(2 * MAX_JOBS))
    memory = HabitMemory(tmp_path)
    memory.keep(habits)
    assert (tmp_path / "habits.json").stat().st_size < MAX_BYTES
    assert list(memory.recall()) == list(habits)
    assert [path.name for path in tmp_path.iterdir()] == ["habits.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 1, "runs": {"a": 1}}',
        '{"version": 1, "runs": [{"jobs": 1, "loras": [["a"]]}]}',
        '{"version": 1, "runs": [{"jobs": 1, "loras": [["a", "tape"]]}]}',
        '{"version": 1, "runs": [{"jobs": 1, "loras": [[1, "page"]]}]}',
        '{"version": 1, "runs": [{"jobs": 1, "loras": [["a", ["page"]]]}]}',
        '{"version": 1, "runs": [{"jobs": "many", "loras": [["a", "page"]]}]}',
        '{"version": 1, "runs": ' + "[" * 100_000,
        '{"version": 1, "runs": []}' + " " * MAX_BYTES,
    ],
)
def test_a_damaged_file_costs_nothing_but_what_it_held(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "habits.json").write_text(text)
    memory = HabitMemory(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert list(memory.recall()) == []
    assert len(caplog.records) == 1
    assert str(tmp_path) not in caplog.text
    memory.keep([run("a")])
    assert list(memory.recall()) == [run("a")]


def test_a_file_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    HabitMemory(tmp_path).keep([run("a")])
    document = json.loads((tmp_path / "habits.json").read_text())
    (tmp_path / "habits.json").write_text(json.dumps({**document, "version": 2}))
    assert list(HabitMemory(tmp_path).recall()) == []


def test_without_a_folder_or_with_one_that_cannot_be_written_nothing_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    HabitMemory(None).keep([run("a")])
    (tmp_path / "file").write_text("")
    memory = HabitMemory(tmp_path / "file")
    memory.keep([run("a")])
    assert "lasts until the restart" in caplog.text
    assert list(HabitMemory(None).recall()) == list(memory.recall()) == []
