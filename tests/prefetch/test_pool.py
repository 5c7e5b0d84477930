from __future__ import annotations

from warmstack.prefetch.pool import join_all


class Threads:
    """`stuck` threads, each of which is waited for, and others that need `needs` looks to end."""

    def __init__(self, stuck: int, needs: int = 1) -> None:
        self.stuck = stuck
        self.needs = needs
        self.now_s = 0.0

    def join(self, timeout_s: float) -> bool:
        self.needs -= 1
        self.now_s += self.stuck * timeout_s
        return self.stuck == 0 and self.needs <= 0


def test_however_many_threads_are_stuck_the_end_waits_once() -> None:
    stuck, others = Threads(16), Threads(0, needs=3)
    assert not join_all([stuck, others], 0.5, lambda: stuck.now_s)
    assert stuck.now_s < 0.6
    assert others.needs <= 0, "the others were waited for all the same"


def test_who_ends_in_time_is_waited_for_no_longer() -> None:
    slow = Threads(0, needs=5)
    assert join_all([Threads(0), slow], 0.5, lambda: 0.0)
    assert slow.needs == 0
