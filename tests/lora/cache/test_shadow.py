"""What a plain LRU cache would have had, and the misses that prefetch is to blame for."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.cache.shadow import ShadowCache
from warmstack.lora.library.file import AdapterKey

from .weightless import make_cache, sparse_file


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60))))
def test_it_is_lru_under_a_limit(demands: list[tuple[int, int]]) -> None:
    """Against a list searched from its end: what was demanded last is there as far as the bytes reach."""
    shadow = ShadowCache()
    held: list[int] = []
    for size, limit_bytes in demands:
        assert shadow.demand(AdapterKey(str(size), size, 0), size, limit_bytes) == (size in held)
        held = [other for other in held if other != size]
        while held and sum(held) + size > limit_bytes:
            held.pop(0)
        held += [size] if size <= limit_bytes else []


def test_only_a_miss_that_prefetch_caused_is_pollution(tmp_path: Path) -> None:
    cache, _ = make_cache(2000)
    a, b, c, d = (sparse_file(tmp_path, name, 1000) for name in "abcd")
    for file in (a, b, c):
        cache.acquire(file).release()
    cache.acquire(a).release()
    assert (cache.stats().misses, cache.stats().pollution) == (4, 0)
    cache.plan_uses({d.key: 1, a.key: 3})
    assert cache.prefetch(d) == "ready"
    cache.acquire(c).release()
    assert cache.stats().pollution == 1
    cache.evict(c.key)
    cache.acquire(c).release()
    cache.clear()
    cache.acquire(c).release()
    assert cache.stats().pollution == 1
