"""PrefetchSettings: one source of truth for environment, host settings and flags."""

from __future__ import annotations

import json
import logging

import pytest

from warmstack.loaders.placing.max_memory import MaxMemory
from warmstack.prefetch.settings import ENVIRONMENT, PrefetchSettings


@pytest.mark.parametrize("size", ["6GB", "6g", "512M", "8 GiB", "512"])
def test_a_size_means_what_it_means_in_max_memory(size: str) -> None:
    assert (
        PrefetchSettings().updated({"budget_bytes": size}).budget_bytes
        == MaxMemory.of({"cpu": size}).limit_bytes["cpu"]
    )


def test_environment() -> None:
    environ = {
        "WARMSTACK_PREFETCH": "off",
        "WARMSTACK_BUDGET": "2 GiB",
        "WARMSTACK_READ_LIMIT": "100M",
        "WARMSTACK_CONCURRENCY": "4",
        "WARMSTACK_PAGE_BUDGET": "auto",
        "WARMSTACK_DEPTH_JOBS": "",
        "OTHER": "1",
    }
    expected = PrefetchSettings(enabled=False, budget_bytes=2 << 30, read_limit_bytes_per_s=100_000_000, concurrency=4)
    assert PrefetchSettings.from_environment(environ) == expected


def test_a_typo_in_the_environment_is_reported_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        settings = PrefetchSettings.from_environment({"WARMSTACK_BUDGET": "lots", "WARMSTACK_PREFETCH": "no"})
    assert settings == PrefetchSettings(enabled=False)
    assert "WARMSTACK_BUDGET" in caplog.text


def test_a_size_beyond_all_numbers_in_the_environment_is_left_out() -> None:
    assert PrefetchSettings.from_environment({"WARMSTACK_BUDGET": "9" * 400}) == PrefetchSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enabled", 1),
        ("enabled", "perhaps"),
        ("enabled", None),
        ("budget_bytes", -1),
        ("budget_bytes", True),
        ("budget_bytes", "1 lightyear"),
        ("budget_bytes", 1.5),
        ("concurrency", 0),
        ("concurrency", 1000),
        ("readers_rotating", 0),
        ("readers_flash", 17),
        ("yield_to_job", None),
        ("read_limit_bytes_per_s", 0),
        ("headroom_bytes", [1]),
        ("colour", "red"),
    ],
)
def test_a_wrong_change_names_its_setting(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        PrefetchSettings().updated({name: value})


def test_changes_make_a_new_object_and_go_through_json() -> None:
    before = PrefetchSettings()
    after = before.updated({"enabled": False, "budget_bytes": 5.0, "headroom_bytes": "2GiB"})
    assert (before.enabled, after.enabled, after.budget_bytes, after.headroom_bytes) == (True, False, 5, 2 << 30)
    assert PrefetchSettings().updated(json.loads(json.dumps(after.as_json()))) == after


def test_every_setting_can_be_set_from_the_environment() -> None:
    assert set(ENVIRONMENT.values()) == set(PrefetchSettings().as_json())
