"""kernel: where memory may be marked as the kernel's to take. What loads do with it is tests/loaders/memory's, which
skip where it may not: so the answer is held here."""

from __future__ import annotations

import mmap
import os
import sys
from types import SimpleNamespace

import pytest

from warmstack.loaders.system import kernel


@pytest.mark.skipif(not (sys.platform.startswith("linux") and hasattr(mmap, "MADV_FREE")), reason="Linux is asked")
@pytest.mark.parametrize(
    ("release", "limit", "promises", "can"),
    [
        ("6.18.44", -1, False, True),
        ("5.18.0-13-amd64", -1, False, True),
        ("5.17.15", -1, False, False),
        ("4.19", -1, False, False),
        ("unheard of", -1, False, False),
        ("6.18.44", 1 << 40, False, False),
        ("6.18.44", -1, True, False),
    ],
)
def test_memory_may_be_reclaimable_where_that_is_safe_and_costs_nobody_anything(
    monkeypatch: pytest.MonkeyPatch, release: str, limit: int, promises: bool, can: bool
):
    import resource

    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, -1))
    monkeypatch.setattr(kernel, "_counts_promises", lambda: promises)
    assert kernel.can_reclaim() is can
