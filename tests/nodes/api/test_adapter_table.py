"""The table agrees with a plain filter and sort over all rows, whatever is asked, and asks the disk for no more than
it shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders.errors import SafetensorsLoadError
from warmstack.lora.cache.cache_stats import AdapterView, CacheSnapshot, CacheStats
from warmstack.lora.library.file import LoraFile
from warmstack.nodes.api.adapter_query import SORTS, STATES, AdapterQuery
from warmstack.nodes.api.adapter_table import AdapterTable
from warmstack.prefetch.status import AdapterStatus, JobStatus, PageStatus, PrefetchStatus

NO_STATS = CacheStats(0, 0, 0, 0.0, 0.0, 0, 0, 0, 0, {})


def a_file(name: str, size_bytes: int = 10, category: str = "", problem: str = "") -> LoraFile:
    return LoraFile(name, f"/loras/{name}", size_bytes, 1, category=category, problem=problem)


def a_view(file: LoraFile, state: Any) -> AdapterView:
    return AdapterView(
        key=file.key, name=file.name, nbytes=file.size_bytes, state=state, storage="private", leases=1, waiting=0,
        pinned=True, hits=7, last_used_s=5.0, next_use=None,
    )  # fmt: skip


def a_cache(*views: AdapterView) -> CacheSnapshot:
    return CacheSnapshot(1, 100, 10, 10, views, NO_STATS)


def a_queue(*jobs: tuple[str, ...]) -> PrefetchStatus:
    queue = tuple(
        JobStatus(str(n), n == 0, tuple(AdapterStatus(name, "cold", None, 10) for name in names))
        for n, names in enumerate(jobs)
    )
    return PrefetchStatus(1, True, 0, 0, 0, 0.0, 0.0, None, 0, PageStatus(), False, (), len(queue), queue)


def test_a_name_is_found_however_its_accents_are_written() -> None:
    apart, whole = "cafe\u0301.safetensors", "caf\u00e9.safetensors"
    table = AdapterTable([a_file(apart), a_file(whole)], a_cache(), a_queue(), lambda _path: 0)
    for written in ("cafe\u0301", "CAF\u00c9"):
        assert {row["name"] for row in table.page(AdapterQuery(search=written))["adapters"]} == {apart, whole}


files = st.lists(
    st.builds(
        a_file,
        st.text("abXY/", min_size=1, max_size=4),
        st.integers(1, 3),
        st.sampled_from(["", "styles", "characters"]),
        st.sampled_from(["", "", "broken"]),
    ),
    unique_by=lambda file: file.name,
    max_size=12,
)
queries = st.builds(
    AdapterQuery,
    search=st.sampled_from(["", "a", "x", "/"]),
    state=st.sampled_from(["", *STATES]),
    sort=st.sampled_from(SORTS),
    descending=st.booleans(),
    offset=st.integers(0, 8),
    limit=st.integers(1, 6),
)


@given(files, queries, st.data())
def test_any_page_is_a_slice_of_the_whole(library: list[LoraFile], query: AdapterQuery, data: st.DataObject) -> None:
    states = {file.name: data.draw(st.sampled_from(["ready", "loading", None])) for file in library}
    views = [a_view(file, states[file.name]) for file in library if states[file.name]]
    table = AdapterTable(
        library, a_cache(*views), a_queue(tuple(f.name for f in library[:3])), lambda path: len(path) % 2 * 10
    )
    whole = table.page(AdapterQuery(limit=1000))["adapters"]
    assert len(whole) == len(library)
    wanted = [
        row for row in whole if query.search.casefold() in row["name"].casefold() and query.state in ("", row["state"])
    ]
    key = {"size": "bytes"}.get(query.sort, query.sort)
    wanted.sort(key=lambda row: (row[key], row["name"]), reverse=query.descending)
    page = table.page(query)
    assert page["total"] == len(wanted)
    assert page["adapters"] == wanted[query.offset : query.offset + query.limit]


def test_only_the_rows_that_are_shown_cost_a_system_call() -> None:
    asked: list[str] = []
    library = [a_file(f"{n:03d}") for n in range(100)]
    table = AdapterTable(library, a_cache(), a_queue(), lambda path: asked.append(path) or 0)
    assert len(table.page(AdapterQuery(offset=20, limit=5))["adapters"]) == len(asked) == 5


@pytest.mark.parametrize("error", [OSError(2, "gone"), SafetensorsLoadError("/loras/a", "gone")])
def test_a_file_that_has_gone_is_cold(error: Exception) -> None:
    def gone(_path: str) -> int:
        raise error

    (row,) = AdapterTable([a_file("a")], a_cache(), a_queue(), gone).page(AdapterQuery())["adapters"]
    assert row["state"] == "cold"


def test_a_row_joins_the_cache_and_the_queue() -> None:
    used, cold = a_file("used"), a_file("cold", problem="no header")
    table = AdapterTable(
        [used, cold], a_cache(a_view(used, "ready")), a_queue(("used",), ("used", "used")), lambda _: None
    )
    second, first = table.page(AdapterQuery(sort="uses"))["adapters"]
    assert (first["name"], first["state"], first["uses"], first["hits"], first["pinned"]) == (
        "used",
        "ready",
        2,
        7,
        True,
    )
    assert (second["state"], second["problem"], second["uses"]) == ("failed", "no header", 0)
