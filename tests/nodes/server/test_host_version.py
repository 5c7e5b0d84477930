"""A ComfyUI that is too old gets one line in place of a pack that is half there."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType

import pytest

from warmstack import comfy_entrypoint


class _ReachedError(Exception):
    pass


@pytest.fixture(autouse=True)
def _no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after the version, and needs a host."""

    class Extension(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise _ReachedError

    monkeypatch.setitem(sys.modules, "warmstack.nodes.extension", Extension("warmstack.nodes.extension"))


@pytest.mark.parametrize("version", ["0.3.48", "0.9.2", "0.13.0", "0.15.0", "0.15"])
def test_too_old(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    _set_version(monkeypatch, version)
    with pytest.raises(RuntimeError, match=rf"needs ComfyUI 0\.15\.1 or newer, and this is {version}: update"):
        asyncio.run(comfy_entrypoint())


@pytest.mark.parametrize("version", ["0.15.1", "0.33.0", "0.100.0", "1.0", "1.0.0-beta", "nightly", None])
def test_new_enough_or_unknown(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    _set_version(monkeypatch, version)
    with pytest.raises(_ReachedError):
        asyncio.run(comfy_entrypoint())


def _set_version(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    module = ModuleType("comfyui_version")
    if version is not None:
        module.__version__ = version
    monkeypatch.setitem(sys.modules, "comfyui_version", module)
