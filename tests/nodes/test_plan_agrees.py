"""What a plan tells of our nodes is what they read when they run: files, and both strengths to the last bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.errors import LoraError
from warmstack.nodes.runtime import Runtime
from warmstack.nodes.stack_input import read_stack

from ..lora.library.scan_kit import FILES, held_scan
from .plain_host import PlainHost, write_lora

NAMES = ("ink", "styles/ink", "oil", "mia", "untold", "plain", "gone")
CATEGORIES = ("styles", "people", "People\\Anime", "concepts")
WEIGHTS = st.one_of(st.sampled_from([0, 0.5, 1]), st.floats(-3, 3))
ROWS = st.one_of(
    st.sampled_from(NAMES),
    st.tuples(st.sampled_from(NAMES), WEIGHTS, WEIGHTS).map(list),
    st.fixed_dictionaries(
        {"name": st.sampled_from(NAMES)}, optional={"weight": WEIGHTS, "category": st.sampled_from(CATEGORIES)}
    ),
)
REQUESTS = st.fixed_dictionaries(
    {"models": st.lists(ROWS, max_size=4)},
    optional={
        "global_weight": WEIGHTS,
        "category_weights": st.dictionaries(st.sampled_from(CATEGORIES), WEIGHTS, max_size=3),
    },
)
TEXTS = st.one_of(REQUESTS, st.lists(ROWS, max_size=4)).map(json.dumps)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("library")
    for name in ("styles/ink", "people/ink", "styles/oil", "people/anime/mia", "plain"):
        write_lora(folder / "loras", f"{name}.safetensors")
    write_lora(folder / "loras", "untold.safetensors", metadata={"modelspec.tags": "concept"})
    runtime = Runtime(PlainHost(folder))
    runtime.catalog.refresh()
    yield runtime
    runtime.close()


def planned(runtime: Runtime, text: str, category: str = "") -> dict[str, Any]:
    """Of a stack for a loader with a clip: without one, rows of model strength 0 load nothing."""
    stack = {"class_type": "WarmStackLoraStack", "inputs": {"loras": text, "category": category}}
    loader = {"class_type": "WarmStackLoadLoraStack", "inputs": {"loras": "", "lora_stack": ["1", 0], "clip": ["4", 1]}}
    return dict(runtime.plan({"1": stack, "2": loader}))


@given(TEXTS, st.sampled_from(["", *CATEGORIES]))
def test_files_and_strengths_are_those_of_the_run(runtime: Runtime, text: str, category: str) -> None:
    plan = planned(runtime, text, category)
    told = [(row["file"], row["strength_model"], row["strength_clip"]) for row in plan["loras"]]
    try:
        rows = read_stack(runtime.catalog, text, category=category).active
        read = [
            (runtime.catalog.find(row.name, row.category).name, row.strength_model, row.strength_clip) for row in rows
        ]
    except LoraError:
        assert plan["unknown"] or any(row["state"] != "found" for row in plan["loras"])
    else:
        assert (told, plan["unknown"]) == (read, [])


def test_no_strength_is_told_of_a_row_whose_weight_only_its_file_would_tell(runtime: Runtime) -> None:
    text = json.dumps({"category_weights": {"styles": 0.5}, "models": ["gone", "ink", {"name": "x", "category": "a"}]})
    rows = planned(runtime, text)["loras"]
    assert [(row["state"], row["strength_model"], row["strength_clip"]) for row in rows] == [
        ("missing", None, None),
        ("ambiguous", None, None),
        ("missing", 1.0, 1.0),
    ]


def test_nor_of_a_file_whose_header_is_still_to_be_read(tmp_path: Path) -> None:
    for number in range(FILES):
        write_lora(tmp_path / "loras", f"{number}.safetensors")
    for name in ("ink", "styles/oil"):
        write_lora(tmp_path / "loras", f"{name}.safetensors", metadata={"modelspec.tags": "style"})
    runtime = Runtime(PlainHost(tmp_path))
    text = '{"category_weights": {"styles": 0.5}, "models": ["ink", "oil"]}'
    with held_scan(runtime.catalog) as scan:
        (early, _) = scan.ask(lambda: planned(runtime, text)["loras"])
    assert [row["strength_model"] for row in early] == [None, 0.5]
    assert [row["strength_model"] for row in planned(runtime, text)["loras"]] == [0.5, 0.5]
    runtime.close()
