"""Waiting for a host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hostkit.client import HostClient


def until(client: HostClient, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 30) -> dict[str, Any]:
    """The first status for which `holds` is true."""
    deadline = time.monotonic() + timeout_s
    while not holds(status := client.get("/warmstack/v1/status")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so: {status}")
        time.sleep(0.05)
    return status
