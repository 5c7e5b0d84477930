from __future__ import annotations

import math

from warmstack.lora.file import AdapterKey
from warmstack.prefetch.reading.unreadable import LONGEST_RETRY_S, RETRY_S, Unreadable

KEY = AdapterKey("/loras/a.safetensors", 1, 1)


def rest_s(unreadable: Unreadable, now_s: float) -> float:
    unreadable.note_unavailable(KEY, "Input/output error", now_s)
    assert KEY in unreadable.problems
    return unreadable.retry_at_s - now_s


def test_each_failure_doubles_the_rest_up_to_the_longest() -> None:
    unreadable, now_s, rests_s = Unreadable(), 100.0, []
    for _ in range(7):
        rests_s.append(rest_s(unreadable, now_s))
        now_s = unreadable.retry_at_s
        unreadable.retry(now_s - 0.001)
        assert KEY in unreadable.problems, "before its time"
        unreadable.retry(now_s)
        assert KEY not in unreadable.problems
        assert unreadable.retry_at_s == math.inf
    assert rests_s == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S] + [LONGEST_RETRY_S] * 3


def test_a_file_that_could_be_read_begins_anew() -> None:
    unreadable = Unreadable()
    rest_s(unreadable, 0.0)
    unreadable.retry(RETRY_S)
    assert rest_s(unreadable, RETRY_S) == 2 * RETRY_S
    unreadable.retry(3 * RETRY_S)
    unreadable.note_read(KEY)
    assert rest_s(unreadable, 3 * RETRY_S) == RETRY_S


def test_what_the_file_is_to_blame_for_is_never_tried_again() -> None:
    unreadable = Unreadable()
    unreadable.note_failed(KEY, "not a safetensors file")
    assert unreadable.retry_at_s == math.inf
    unreadable.retry(math.inf)
    assert unreadable.problems == {KEY: "not a safetensors file"}
