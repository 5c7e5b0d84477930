"""What the user changed survives a restart; what cannot be read or written never stops the pack."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from warmstack.nodes.server.settings_file import SettingsFile
from warmstack.prefetch.settings import PrefetchSettings


def test_only_what_was_changed_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "__warmstack"
    assert SettingsFile(folder).keep({"enabled": False})
    assert SettingsFile(folder).keep({"budget_bytes": 5})
    assert json.loads((folder / "settings.json").read_text()) == {"enabled": False, "budget_bytes": 5}
    again = SettingsFile(folder).applied_to(PrefetchSettings(concurrency=3))
    assert again == PrefetchSettings(enabled=False, budget_bytes=5, concurrency=3)
    assert os.listdir(folder) == ["settings.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"enabled": "perhaps"}', '{"colour": 1}', "\x00"])
def test_a_damaged_file_is_left_out_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    assert SettingsFile(tmp_path).applied_to(PrefetchSettings()) == PrefetchSettings()
    assert len(caplog.records) == 1
    assert SettingsFile(tmp_path).keep({"enabled": False})
    assert not SettingsFile(tmp_path).applied_to(PrefetchSettings()).enabled


def test_without_a_place_to_write_nothing_is_kept(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert not SettingsFile(blocked / "__warmstack").keep({"enabled": False})
    assert not SettingsFile(None).keep({"enabled": False})
    assert SettingsFile(None).applied_to(PrefetchSettings()) == PrefetchSettings()
