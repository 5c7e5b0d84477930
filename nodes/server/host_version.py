"""Which ComfyUI this pack needs."""

from __future__ import annotations

import importlib
import re

OLDEST = "0.15.1"
"""Nodes need schemas of 0.11, the prefetch 0.14's `on_load` (without it nothing would be warmed, in silence), and the
loaders an option that packs which wrap the host's must not see before 0.15.1. pyproject.toml says the same."""


def require_host() -> None:
    """RuntimeError in a ComfyUI that is too old: the host logs one line and goes on without this pack."""
    try:
        version = str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):  # a fork that does not say
        return
    numbers = _numbers(version)
    if numbers and numbers < _numbers(OLDEST):
        raise RuntimeError(f"WarmStack needs ComfyUI {OLDEST} or newer, and this is {version}: update ComfyUI")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
