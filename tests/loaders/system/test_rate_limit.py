from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders import RateLimit


class FakeTime:
    """A clock that moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now_s += seconds


def limit(bytes_per_s: float, time: FakeTime) -> RateLimit:
    return RateLimit(bytes_per_s, clock=time.clock, sleep=time.sleep)


@given(sizes=st.lists(st.integers(0, 10_000), max_size=20), rate=st.floats(1e3, 1e6))
def test_the_mean_rate_is_the_limit(sizes: list[int], rate: float):
    time = FakeTime()
    spender = limit(rate, time)
    for size in sizes:
        spender.spend(size)
    assert time.now_s - 100.0 == pytest.approx(sum(sizes) / rate)


def test_idle_time_is_not_saved_up():
    time = FakeTime()
    spender = limit(1000.0, time)
    time.now_s += 50.0
    spender.spend(1000)
    assert time.now_s == pytest.approx(151.0)


def test_a_cancelled_wait_ends_and_gives_back_what_was_not_waited_for():
    time = FakeTime()
    spender = limit(1000.0, time)
    spender.spend(10_000, lambda: time.now_s >= 102.0)
    assert time.now_s == pytest.approx(102.0, abs=0.1)
    spender.spend(1000)
    assert time.now_s == pytest.approx(103.0, abs=0.1)


def test_two_readers_share_one_limit():
    time = FakeTime()
    spender = limit(1000.0, time)
    threads = [threading.Thread(target=spender.spend, args=(500,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.now_s >= 100.0 + 8 * 0.5 - 1e-9


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_limit_of_nothing_is_refused(rate: float):
    with pytest.raises(ValueError, match="above 0"):
        RateLimit(rate)
