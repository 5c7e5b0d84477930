from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.library.file import LoraFile
from warmstack.lora.library.name_index import Ambiguous, Found, Missing, NameIndex

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


def test_spaces_around_a_name_count_where_a_file_has_them() -> None:
    names = index(" ink.safetensors", "ink.safetensors", "wash.safetensors")
    for written, meant in (
        (" ink.safetensors", " ink.safetensors"),
        (" ink", " ink.safetensors"),
        ("ink.safetensors", "ink.safetensors"),
        ("ink.safetensors ", "ink.safetensors"),
        (" wash ", "wash.safetensors"),
    ):
        match = names.resolve(written)
        assert isinstance(match, Found), written
        assert match.file.name == meant
    assert isinstance(names.resolve("  "), Missing)


@pytest.mark.parametrize("space", [" ", "\u3000"])
def test_spaces_before_a_folder_or_a_path_change_no_meaning(space: str) -> None:
    for name in ("styles/wash.safetensors", "/loras/styles/wash.safetensors", "b/twin", "x/nowhere/twin", "wash_v2"):
        assert LIBRARY.resolve(space + name) == LIBRARY.resolve(name)
        assert LIBRARY.resolve(name + space) == LIBRARY.resolve(name)


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


def decomposed(text: str) -> str:
    """As macOS writes it: a letter, then its accent."""
    return unicodedata.normalize("NFD", text)


class TestSpellingsOfUnicode:
    NAME = "stile/Übergröße é.safetensors"

    @pytest.mark.parametrize(
        ("query", "how"),
        [
            (NAME, "unicode"),
            ("stile\\Übergröße é.safetensors", "unicode"),
            ("stile/Übergröße é", "unicode"),
            ("stile/Übergröße é.pt", "unicode"),
            ("Übergröße é", "unicode"),
            ("/loras/stile/Übergröße é.safetensors", "unicode"),
            ("ÜBERGRÖSSE É", "case"),
        ],
    )
    @pytest.mark.parametrize("of_file", ["NFC", "NFD"])
    def test_composed_and_decomposed_are_one_name(self, query: str, how: str, of_file: str) -> None:
        name = unicodedata.normalize(of_file, self.NAME)
        asked = decomposed(query) if of_file == "NFC" else query
        match = index(name, "ink.safetensors").resolve(asked)
        assert isinstance(match, Found)
        assert (match.file.name, match.how) == (name, how)

    def test_an_alias_too(self) -> None:
        names = NameIndex([file("ink.safetensors", alias="Größe")])
        match = names.resolve(decomposed("Größe"))
        assert isinstance(match, Found)
        assert match.how == "alias"

    def test_two_files_that_differ_in_nothing_else_are_told_apart_by_their_own_spelling_alone(self) -> None:
        composed, apart = "a/ǖ.safetensors", decomposed("a/ǖ.safetensors")
        between = "a/\u00fc\u0304.safetensors"
        names = index(composed, apart)
        for own in (composed, apart):
            for spelling in (own, own.removesuffix(".safetensors"), own.removeprefix("a/")):
                match = names.resolve(spelling)
                assert isinstance(match, Found)
                assert match.file.name == own
        assert names.resolve(between) == Ambiguous(between, tuple(sorted((composed, apart))))
        assert isinstance(names.resolve("Ǖ"), Ambiguous)

    def test_folders_count(self) -> None:
        names = index("é/x.safetensors", "e/x.safetensors")
        match = names.resolve(decomposed("é/x"))
        assert isinstance(match, Found)
        assert match.file.name == "é/x.safetensors"

    def test_letters_that_merely_look_alike_are_others(self) -> None:
        assert isinstance(index("ａ.safetensors").resolve("a"), Missing)
        assert isinstance(index("é.safetensors").resolve("e"), Missing)

    def test_suggestions(self) -> None:
        match = index("größe v2.safetensors").resolve(decomposed("größe v3"))
        assert isinstance(match, Missing)
        assert match.suggestions == ("größe v2.safetensors",)


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
