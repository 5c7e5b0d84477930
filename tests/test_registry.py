"""What the Comfy registry shows of the pack, as its command line reads it from pyproject.toml."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import pytest

from warmstack.nodes.server.host_version import OLDEST

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, COMFY = PYPROJECT["project"], PYPROJECT["tool"]["comfy"]
PUBLISH = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")


def test_every_field_is_filled_in() -> None:
    assert [key for key in ("PublisherId", "DisplayName", "Icon", "Banner", "requires-comfyui") if not COMFY[key]] == []
    assert {"Repository", "Documentation", "Issues"} <= set(PROJECT["urls"])
    assert COMFY["requires-comfyui"] == f">={OLDEST}"
    assert f"ComfyUI {OLDEST} is the oldest" in (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")


def test_the_version_is_semantic_and_the_tag_that_publishes_it() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", PROJECT["version"])
    assert 'tags: ["v[0-9]+.[0-9]+.[0-9]+"]' in PUBLISH
    assert "Comfy-Org/publish-node-action@" in PUBLISH and "secrets.REGISTRY_ACCESS_TOKEN" in PUBLISH


def test_the_classifiers_are_those_that_the_registry_knows() -> None:
    systems = [entry for entry in PROJECT["classifiers"] if entry.startswith("Operating System :: ")]
    assert systems == ["Operating System :: OS Independent"]
    assert [entry for entry in PROJECT["classifiers"] if entry.startswith("Environment :: ")] == [], "CPU, CUDA or any"


@pytest.mark.parametrize(("key", "widest", "shape"), [("Icon", 400, 1.0), ("Banner", 4000, 21 / 9)])
def test_the_pictures_are_in_the_repository_in_the_size_that_is_asked_for(key: str, widest: int, shape: float) -> None:
    path = ROOT / COMFY[key].partition("/main/")[2]
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    assert width <= widest
    assert width / height == pytest.approx(shape, abs=0.02)
