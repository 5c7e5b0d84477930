from __future__ import annotations

import json

import pytest

from warmstack.lora.library.categories import covers, folder_category, metadata_category


def test_the_whole_folder_path_is_the_category() -> None:
    assert folder_category("characters/anime/mia.safetensors") == ("characters/anime", "folder characters/anime/")
    assert folder_category("mia.safetensors") == ("", "")


@pytest.mark.parametrize(
    ("metadata", "category"),
    [
        ({"modelspec.tags": "anime, Style"}, "styles"),
        ({"ss_tag_frequency": json.dumps({"10_ink style": {"1girl": 9}})}, "styles"),
        ({"ss_tag_frequency": json.dumps({"mia_character": {}, "mia character close": {}})}, "characters"),
        ({"ss_output_name": "InkWash_style_v2"}, "styles"),
        ({"modelspec.title": "Standing pose"}, "poses"),
        ({"modelspec.tags": "anime", "modelspec.title": "A concept"}, "concepts"),
    ],
)
def test_metadata_evidence(metadata: dict[str, str], category: str) -> None:
    found = metadata_category(metadata)
    assert found.name == category
    assert found.evidence.startswith("metadata ")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"modelspec.tags": "style, character"},
        {"ss_tag_frequency": json.dumps({"10_mia": {"character": 9, "white background": 9, "solo": 9}})},
        {"ss_output_name": "stylish_lifestyle"},
        {"ss_tag_frequency": "{broken"},
        {"ss_tag_frequency": "[" * 50_000},
        {"ss_tag_frequency": "[1]"},
    ],
)
def test_no_real_evidence_is_no_category(metadata: dict[str, str]) -> None:
    assert metadata_category(metadata) == ("", "")


@pytest.mark.parametrize(
    ("category", "other", "expected"),
    [
        ("characters", "characters", True),
        ("characters", "Characters/Anime", True),
        ("characters\\anime/", "characters/anime/90s", True),
        ("./characters//anime", "characters/anime", True),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "Cafe\N{COMBINING ACUTE ACCENT}/x", True),
        ("cafe\N{COMBINING ACUTE ACCENT}", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", True),
        ("characters", "characters2", False),
        ("characters/anime", "characters", False),
        ("", "anything", True),
        ("styles", "", False),
    ],
)
def test_a_category_covers_what_lies_below_it(category: str, other: str, expected: bool) -> None:
    assert covers(category, other) is expected
