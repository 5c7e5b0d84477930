"""How much memory there is: the machine's, or the container's where that is less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil


class Memory(NamedTuple):
    """What one limit allows: the machine itself, or a cgroup."""

    total_bytes: int
    available_bytes: int
    """What can still be allocated without swapping. The page cache counts as available: the kernel gives it up."""


def available_bytes() -> int:
    """Bytes that this process can still allocate without swapping or being killed."""
    return measure_memory().available_bytes


def measure_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> Memory:
    """The tightest limit that holds for this process. `proc` and `cgroups` are the mount points of the system."""
    machine = psutil.virtual_memory()
    limits = [Memory(machine.total, machine.available), *_cgroup_limits(proc, cgroups)]
    return Memory(*(min(values) for values in zip(*limits, strict=True)))


def _cgroup_limits(proc: Path, cgroups: Path) -> Iterator[Memory]:
    """Every group that this process is in, up to the root: each one's limit holds."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            yield from _walk(cgroups, group, "memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            yield from _walk(cgroups / "memory", group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


def _walk(root: Path, group: str, limit: str, used: str, prefix: str) -> Iterator[Memory]:
    """A container without a cgroup namespace sees the host's path, which its own mount lacks, but does see the root."""
    folder = root / group.strip("/")
    while True:
        with suppress(OSError, ValueError):
            yield _read(folder, limit, used, prefix)
        if folder == root:
            return
        folder = folder.parent


def _read(folder: Path, limit: str, used: str, prefix: str) -> Memory:
    """Raises ValueError for `max`, which is no number."""
    limit_bytes = int((folder / limit).read_text(encoding="ascii"))
    used_bytes = int((folder / used).read_text(encoding="ascii"))
    counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    pages_bytes = sum(int(counts.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return Memory(limit_bytes, max(0, limit_bytes - used_bytes + pages_bytes))
