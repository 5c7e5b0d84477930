from __future__ import annotations

import threading
import time

import pytest

from warmstack.loaders.system.breather import Breather


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that moves 0.6 ms with each look at it, and what was slept."""
    naps: list[float] = []
    ticks = iter(range(1000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks) * 0.0006)
    monkeypatch.setattr(time, "sleep", naps.append)
    return naps


def work() -> None:
    breather = Breather()
    for _ in range(20):
        breather.breathe()


def test_a_background_thread_pauses_once_a_millisecond(slept: list[float]):
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert 5 <= len(slept) <= 10
    assert all(0 < nap < 0.001 for nap in slept)


def test_the_main_thread_never_pauses(slept: list[float]):
    assert threading.current_thread() is threading.main_thread()
    work()
    assert slept == []
