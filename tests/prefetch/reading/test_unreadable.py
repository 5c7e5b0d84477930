from __future__ import annotations

import math

import pytest

from warmstack.lora.library.file import AdapterKey
from warmstack.prefetch.reading.reading import Outcome
from warmstack.prefetch.reading.unreadable import RETRY_S, Unreadable
from warmstack.prefetch.rest import LONGEST_REST_S, REST_SHARE

KEY = AdapterKey("/loras/a.safetensors", 1, 1)


@pytest.mark.parametrize(
    ("took_s", "rests_s"), [(0.0, RETRY_S), (1.0, RETRY_S), (3.0, 3 * REST_SHARE), (60.0, LONGEST_REST_S)]
)
def test_what_took_long_rests_long_and_every_time_alike(took_s: float, rests_s: float) -> None:
    unreadable, now_s = Unreadable(), 100.0
    for _ in range(3):
        unreadable.note(
            KEY, Outcome("unavailable", problem="Input/output error", seconds=1000.0, last_chunk_s=took_s), now_s
        )
        assert unreadable.retry_at_s == now_s + rests_s
        now_s = unreadable.retry_at_s
        unreadable.retry(now_s - 0.001)
        assert KEY in unreadable.problems, "before its time"
        unreadable.retry(now_s)
        assert KEY not in unreadable.problems
        assert unreadable.retry_at_s == math.inf


def test_what_a_further_try_has_read_does_not_count_unless_it_is_all() -> None:
    unreadable, failed, read = Unreadable(), Outcome("unavailable", 10), Outcome("ready", 20)
    assert unreadable.counts(KEY, failed)
    assert not unreadable.counts(KEY, Outcome("unavailable", 0))
    for _ in range(2):
        unreadable.note(KEY, failed, 0.0)
        unreadable.retry(RETRY_S)
        assert not unreadable.counts(KEY, failed)
    assert unreadable.counts(KEY, read)


def test_what_the_file_is_to_blame_for_is_never_tried_again() -> None:
    unreadable = Unreadable()
    unreadable.note(KEY, Outcome("failed", problem="not a safetensors file"), 0.0)
    assert unreadable.retry_at_s == math.inf
    unreadable.retry(math.inf)
    assert unreadable.problems == {KEY: "not a safetensors file"}
