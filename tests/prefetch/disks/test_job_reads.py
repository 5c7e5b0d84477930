"""Whether the running job reads: from how its bytes grow, for a bounded time, and only on its own disks."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from warmstack.loaders.model_loader import ModelLoader
from warmstack.loaders.progress import LoadProgress
from warmstack.loaders.system.page_cache import drop_file, resident_bytes
from warmstack.prefetch.disks.disk_use import foreign_read_bytes
from warmstack.prefetch.disks.job_reads import BUSY_BYTES_PER_S, LEAST_S, MOST_S, QUIET_S, JobReads
from warmstack.prefetch.planning.steps import Steps

MIB = 1 << 20
POLL_S = 0.25

needs_counters = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="nobody counts by thread elsewhere")


def cold_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    drop_file(path)
    if resident_bytes(path) != 0:
        pytest.skip("this system keeps its pages")
    return path


def counted() -> int:
    read_bytes = foreign_read_bytes()
    if read_bytes is None:
        pytest.skip("this system hides its counters")
    return read_bytes


def followed(rates: list[float], start_s: float = 0.0) -> tuple[JobReads, list[bool]]:
    """One sample per poll, with these bytes per second between them."""
    reads, total, answers = JobReads(), 0.0, []
    reads.observe(0, start_s)
    for i, rate in enumerate(rates, 1):
        total += rate * POLL_S
        reads.observe(int(total), start_s + i * POLL_S)
        answers.append(reads.wants_disk(start_s + i * POLL_S))
    return reads, answers


def test_a_job_that_reads_wants_the_disk_and_one_that_samples_does_not() -> None:
    assert followed([0, BUSY_BYTES_PER_S * 2, 0, 0, 0])[1] == [False, True, True, True, False]
    assert followed([BUSY_BYTES_PER_S * 0.9] * 5)[1] == [False] * 5


def test_gaps_between_two_files_do_not_count() -> None:
    assert all(followed([BUSY_BYTES_PER_S * 2, 0, BUSY_BYTES_PER_S * 2, 0, 0, BUSY_BYTES_PER_S * 2])[1])


def test_one_that_never_stops_reading_is_yielded_to_for_a_while_only() -> None:
    answers = followed([BUSY_BYTES_PER_S * 2.0] * int(3 * MOST_S / POLL_S))[1]
    assert sum(answers) * POLL_S == pytest.approx(MOST_S)
    assert answers[0]
    assert not any(answers[int(MOST_S / POLL_S) :])


def test_after_a_quiet_moment_it_is_yielded_to_again() -> None:
    burst = [BUSY_BYTES_PER_S * 2.0] * int(MOST_S / POLL_S + 4)
    assert followed([*burst, 0.0, 0.0, 0.0, 0.0, BUSY_BYTES_PER_S * 2.0])[1][-5:] == [False] * 4 + [True]


@given(st.lists(st.floats(0, 4 * BUSY_BYTES_PER_S), max_size=200))
def test_no_stretch_of_yielding_is_longer_than_the_limit(rates: list[float]) -> None:
    longest = stretch = 0
    for answer in followed(rates)[1]:
        stretch = stretch + 1 if answer else 0
        longest = max(longest, stretch)
    assert longest * POLL_S <= MOST_S


def test_a_job_that_waits_for_a_read_of_ours_wants_the_disk_where_nobody_counts() -> None:
    reads = JobReads()
    reads.observe(None, 1.0, waits=True)
    assert reads.wants_disk(1.0)
    assert not reads.wants_disk(1.1 + QUIET_S)


def test_another_job_starts_with_a_clean_sheet() -> None:
    reads, _ = followed([BUSY_BYTES_PER_S * 2])
    reads.forget()
    assert not reads.wants_disk(POLL_S)
    reads.observe(1 << 40, 1.0)
    assert not reads.wants_disk(1.0), "what was read before it began is not its own"


def test_samples_that_lie_too_near_or_too_far_apart_say_nothing() -> None:
    reads = JobReads()
    reads.observe(0, 0.0)
    reads.observe(1 << 40, LEAST_S / 2)
    assert not reads.wants_disk(LEAST_S / 2)
    reads = JobReads()
    reads.observe(0, 0.0)
    reads.observe(1 << 40, 60.0)
    assert not reads.wants_disk(60.0)


@needs_counters
@pytest.mark.parametrize("name", ["read_0", "chore_0", "probe", "asked_0", "headers_0"])
def test_what_our_readers_read_is_not_the_jobs(tmp_path: Path, name: str) -> None:
    ours, theirs = (cold_file(tmp_path / owner, os.urandom(8 * MIB)) for owner in ("ours", "theirs"))
    done, proceed = threading.Event(), threading.Event()

    def read_ours() -> None:
        ours.read_bytes()
        done.set()
        proceed.wait(20)

    before = counted()
    thread = threading.Thread(target=read_ours, name=f"warmstack-{name}", daemon=True)
    thread.start()
    assert done.wait(20)
    between = counted()
    theirs.read_bytes()
    after = counted()
    proceed.set()
    thread.join(20)
    assert between - before < MIB
    assert after - between >= 8 * MIB


@needs_counters
def test_a_model_that_the_job_loads_is_the_jobs(tmp_path: Path) -> None:
    # A file system that compresses reads next to nothing of zeros.
    tensor = torch.frombuffer(bytearray(os.urandom(32 * MIB)), dtype=torch.uint8)
    path = cold_file(tmp_path / "model.safetensors", save({"weight": tensor}))
    before, during = counted(), 0

    def sample(progress: LoadProgress) -> None:
        nonlocal during
        if progress.done_bytes < progress.total_bytes:  # afterwards its threads have ended, and are nobody's
            during = max(during, counted() - before)

    ModelLoader("fast_single_file").load_checkpoint(path, progress=sample)
    assert during >= tensor.nbytes // 2


def test_a_system_that_does_not_count_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmstack.prefetch.disks.disk_use._counted", lambda path: int("hidden"))
    assert foreign_read_bytes() is None
    monkeypatch.setattr(sys, "platform", "win32")
    assert foreign_read_bytes() is None


def test_steps_tell_what_is_left_of_them() -> None:
    steps = Steps()
    assert steps.left_s(0.0) is None
    for step in range(1, 6):
        steps.observe(step / 20, 10.0 + 2 * step)
    assert steps.left_s(20.0) == pytest.approx(15 * 2.0)
    assert steps.left_s(21.0) == pytest.approx(15 * 2.0 - 1.0)
    assert steps.left_s(100.0) == 0.0


def test_the_steps_of_another_piece_of_work_start_anew() -> None:
    steps = Steps()
    for step, now_s in ((0.5, 0.0), (0.9, 1.0), (0.1, 2.0)):
        steps.observe(step, now_s)
    assert steps.left_s(2.0) is None
    steps.observe(0.2, 3.0)
    assert steps.left_s(3.0) == pytest.approx(8.0)
    steps.observe(None, 4.0)
    assert steps.left_s(4.0) is None


def test_a_computer_that_slept_between_two_steps_leaves_the_job_as_short_as_it_is() -> None:
    steps, now_s = Steps(), 0.0
    for step in range(1, 11):
        now_s += 8 * 3600.0 if step == 3 else 4.0
        steps.observe(step / 20, now_s)
    assert steps.left_s(now_s) == pytest.approx(10 * 4.0)


def test_two_looks_right_after_each_other_do_not_make_the_steps_short() -> None:
    steps = Steps()
    for step in range(1, 40):
        steps.observe(step / 100, step - 0.2 * (step % 2))
    assert steps.left_s(39.0) == pytest.approx(61.0, rel=0.15)
