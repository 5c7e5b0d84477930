from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.file import LoraFile
from warmstack.lora.names import Ambiguous, Found, Missing, NameIndex

DIGEST = "0123456789abcdef" * 4


def file(name: str, *, alias: str = "", hashes: tuple[str, ...] = ()) -> LoraFile:
    return LoraFile(name, f"/loras/{name}", 1, 1, alias=alias, hashes=hashes)


def index(*names: str) -> NameIndex:
    return NameIndex([file(name) for name in names])


LIBRARY = NameIndex(
    [
        file("ink.safetensors", alias="InkStyle", hashes=(DIGEST,)),
        file("styles/wash.safetensors", alias="wash_v2"),
        file("styles/deep/Pencil v1.5.safetensors"),
        file("characters/mia.pt"),
        file("a/twin.safetensors", alias="same", hashes=("feedface00",)),
        file("b/twin.safetensors", alias="same", hashes=("feedface11",)),
        file("c/Case.safetensors"),
        file("d/case.safetensors"),
        file("one/pytorch_lora_weights.safetensors"),
        file("deadbeef.safetensors"),
    ]
)


@pytest.mark.parametrize(
    ("name", "found", "how"),
    [
        ("ink.safetensors", "ink.safetensors", "exact"),
        ("styles/wash.safetensors", "styles/wash.safetensors", "exact"),
        ("styles\\wash.safetensors", "styles/wash.safetensors", "separators"),
        ("./styles//wash.safetensors", "styles/wash.safetensors", "separators"),
        ("styles/wash", "styles/wash.safetensors", "extension"),
        ("styles\\wash.pt", "styles/wash.safetensors", "extension"),
        ("characters/mia.safetensors", "characters/mia.pt", "extension"),
        ("wash", "styles/wash.safetensors", "stem"),
        ("wash.safetensors", "styles/wash.safetensors", "stem"),
        ("Pencil v1.5", "styles/deep/Pencil v1.5.safetensors", "stem"),
        ("deep/Pencil v1.5", "styles/deep/Pencil v1.5.safetensors", "stem"),
        ("elsewhere/wash", "styles/wash.safetensors", "stem"),
        ("x/a/twin", None, ""),
        ("a/twin", "a/twin.safetensors", "extension"),
        ("Case", "c/Case.safetensors", "stem"),
        ("case", "d/case.safetensors", "stem"),
        ("WASH", "styles/wash.safetensors", "case"),
        ("STYLES/WASH.SAFETENSORS", "styles/wash.safetensors", "case"),
        ("wash_v2", "styles/wash.safetensors", "alias"),
        ("inkstyle", "ink.safetensors", "alias"),
        (DIGEST[:10], "ink.safetensors", "hash"),
        (DIGEST[:12].upper(), "ink.safetensors", "hash"),
        (DIGEST, "ink.safetensors", "hash"),
        (f"0x{DIGEST}", "ink.safetensors", "hash"),
        ("feedface1", "b/twin.safetensors", "hash"),
        ("deadbeef", "deadbeef.safetensors", "extension"),
        ("/loras/styles/wash.safetensors", "styles/wash.safetensors", "exact"),
        ("\\loras\\styles\\wash.safetensors", "styles/wash.safetensors", "exact"),
    ],
)
def test_ladder(name: str, found: str | None, how: str) -> None:
    match = LIBRARY.resolve(name)
    if found is None:
        assert isinstance(match, Ambiguous)
    else:
        assert isinstance(match, Found)
        assert (match.file.name, match.how) == (found, how)


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("twin", ("a/twin.safetensors", "b/twin.safetensors")),
        ("z/twin.safetensors", ("a/twin.safetensors", "b/twin.safetensors")),
        ("CASE", ("c/Case.safetensors", "d/case.safetensors")),
        ("same", ("a/twin.safetensors", "b/twin.safetensors")),
        ("feedface", ("a/twin.safetensors", "b/twin.safetensors")),
    ],
)
def test_several_answers_on_one_rung_are_refused(name: str, candidates: tuple[str, ...]) -> None:
    assert LIBRARY.resolve(name) == Ambiguous(name, candidates)
    for candidate in candidates:
        match = LIBRARY.resolve(candidate)
        assert isinstance(match, Found)
        assert match.file.name == candidate


@pytest.mark.parametrize(
    "name",
    [
        "",
        "in",
        "nk",
        "ash.safetensors",
        DIGEST[:7],
        DIGEST[1:11],
        "other/pytorch_lora_weights.safetensors",
        "../loras/ink.safetensors",
        "styles/../ink.safetensors",
        "styles\\..\\ink.safetensors",
        "/loras/styles/../ink.safetensors",
        "/etc/ink.safetensors",
        "/ink.safetensors",
        "C:\\ComfyUI\\models\\loras\\ink.safetensors",
        "ink.safetensors\0",
        "x" * 100_000,
        ".",
        "/",
    ],
)
def test_no_substring_no_escape_no_guess(name: str) -> None:
    assert isinstance(LIBRARY.resolve(name), Missing)


def test_two_formats_of_one_name_are_ambiguous_without_the_extension() -> None:
    names = index("x.pt", "x.safetensors")
    assert names.resolve("x") == Ambiguous("x", ("x.pt", "x.safetensors"))
    assert isinstance(names.resolve("x.pt"), Found)


def test_suggestions_look_alike() -> None:
    match = LIBRARY.resolve("styles/wosh.safetensors")
    assert isinstance(match, Missing)
    assert match.suggestions[0] == "styles/wash.safetensors"


PARTS = st.lists(st.sampled_from(["a", "b", "ink", "Ink", "ink.v1"]), min_size=1, max_size=3).map("/".join)
ENDS = st.sampled_from([".safetensors", ".pt"])
TREES = st.lists(st.builds(str.__add__, PARTS, ENDS), min_size=1, max_size=8, unique=True)


@given(TREES, st.data())
def test_every_exact_name_is_found_and_every_answer_is_earned(names: list[str], data: st.DataObject) -> None:
    catalog = index(*names)
    for name in names:
        for spelling, how in ((name, "exact"), (f"/loras/{name}", "exact"), (f".//{name}", "separators")):
            match = catalog.resolve(spelling)
            assert isinstance(match, Found)
            assert (match.file.name, match.how) == (name, how)
    query = data.draw(PARTS | st.builds(str.__add__, PARTS, ENDS) | st.text(max_size=6))
    match = catalog.resolve(query)
    stem = query.rpartition("/")[2].removesuffix(".safetensors").removesuffix(".pt").casefold()
    answers = [name for name in names if stem == _stem(name)]
    if isinstance(match, Found):
        assert match.file.name in answers
    elif isinstance(match, Ambiguous):
        assert len(match.candidates) > 1
        assert set(match.candidates) <= set(answers)
    else:
        assert not answers


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".safetensors").removesuffix(".pt").casefold()
