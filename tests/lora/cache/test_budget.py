"""ByteBudget: never above its limit, and bytes come back exactly when their holder is gone."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.cache.budget import ByteBudget, Reservation


class Buffer:
    """Something that can be weakly referred to, as an mmap is."""


@given(st.integers(0, 100), st.lists(st.tuples(st.sampled_from(["reserve", "release", "resize"]), st.integers(0, 60))))
def test_what_is_reserved_never_passes_the_limit(limit_bytes: int, steps: list[tuple[str, int]]) -> None:
    budget = ByteBudget(limit_bytes)
    held: list[Reservation] = []
    peak_bytes = 0
    for step, number in steps:
        before_bytes = budget.used_bytes
        if step == "reserve":
            reservation = budget.try_reserve(number)
            assert (reservation is not None) == (before_bytes + number <= limit_bytes)
            held += [] if reservation is None else [reservation]
        elif step == "release" and held:
            held.pop(number % len(held)).release()
        elif step == "resize":
            limit_bytes = number
            budget.resize(number)
        used_bytes = sum(reservation.nbytes for reservation in held)
        peak_bytes = max(peak_bytes, used_bytes)
        assert (budget.used_bytes, budget.limit_bytes, budget.peak_bytes) == (used_bytes, limit_bytes, peak_bytes)


def test_a_reservation_lives_as_long_as_its_buffer() -> None:
    budget, buffer = ByteBudget(100), Buffer()
    reservation = budget.try_reserve(60)
    assert reservation is not None
    reservation.release_with(buffer)
    del reservation
    assert budget.used_bytes == 60
    assert budget.try_reserve(60) is None
    del buffer
    assert budget.used_bytes == 0


def test_a_reservation_that_is_dropped_comes_back() -> None:
    budget = ByteBudget(100)
    assert budget.try_reserve(60) is not None
    assert budget.used_bytes == 0


def test_releasing_twice_gives_back_once() -> None:
    budget = ByteBudget(100)
    first, second = budget.try_reserve(40), budget.try_reserve(40)
    assert first is not None and second is not None
    first.release()
    first.release()
    assert budget.used_bytes == 40
    with pytest.raises(RuntimeError, match="already released"):
        first.release_with(Buffer())
    del first
    assert budget.used_bytes == 40


def test_a_buffer_may_die_in_a_thread_that_holds_the_lock() -> None:
    """As when the garbage collector runs inside a budget operation: the int subclass dies in the middle of one."""
    budget, held = ByteBudget(100), [Buffer()]
    reservation = budget.try_reserve(10)
    assert reservation is not None
    reservation.release_with(held[0])

    class Number(int):
        def __radd__(self, other: int) -> int:
            held.clear()
            return other + int(self)

    thread = threading.Thread(target=budget.try_reserve, args=(Number(1),), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "the finalizer waits for the lock that its own thread holds"
    assert held == []
    assert budget.used_bytes == 0


def test_numbers_of_bytes_are_not_negative() -> None:
    with pytest.raises(ValueError, match="-1"):
        ByteBudget(-1)
    with pytest.raises(ValueError, match="-1"):
        ByteBudget(1).try_reserve(-1)
