"""The disk under a path, and its kind: several readers help a flash disk and hurt a rotating or a distant one.

A kind that the system states wrongly is set right by WARMSTACK_STORAGE, `/mnt/nas=network,/data=flash`: the longest
folder that holds the path counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

DiskKind = Literal["flash", "rotating", "network", "unknown"]
STORAGE_VARIABLE = "WARMSTACK_STORAGE"
_NETWORK_TYPES = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "lustre",
    "nfs", "nfs4", "smb2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip


class Disk(NamedTuple):
    """One disk. Its partitions are one; a file system over several, or one whose disk cannot be told, counts as one."""

    device: str
    """Names the disk among those of this machine until the next boot; "" when the path is not there."""
    kind: DiskKind


def disk_under(path: str, *, root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Disk:
    """The disk that `path` lies on. Blocking: a stat. `root` holds proc/ and sys/."""
    stated = _stated_kind(path, environ)
    try:
        device = os.stat(path).st_dev
    except OSError:
        return Disk("", stated or "unknown")
    number = f"{os.major(device)}:{os.minor(device)}" if hasattr(os, "major") else str(device)
    if _file_system(root, number) in _NETWORK_TYPES:
        return Disk(number, stated or "network")
    node = (root / "sys/dev/block" / number).resolve()
    return Disk(_whole_disk(node) or number, stated or _block_device_kind(node))


def disk_kind(path: str, *, root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> DiskKind:
    """The kind of disk under `path`; "unknown" where the system does not say."""
    return disk_under(path, root=root, environ=environ).kind


def storage_problems(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Entries of WARMSTACK_STORAGE that are not understood, and therefore ignored."""
    return tuple(entry for entry, _, kind in _entries(environ) if kind not in get_args(DiskKind))


def _stated_kind(path: str, environ: Mapping[str, str]) -> DiskKind | None:
    stated: dict[str, DiskKind] = {}
    for _, folder, kind in _entries(environ):
        if kind in get_args(DiskKind) and _is_inside(path, folder):
            stated[os.path.realpath(folder)] = cast(DiskKind, kind)
    return stated[max(stated, key=len)] if stated else None


def _entries(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(as written, folder, kind)."""
    for entry in filter(None, map(str.strip, environ.get(STORAGE_VARIABLE, "").split(","))):
        folder, _, kind = entry.rpartition("=")
        yield entry, folder.strip(), kind.strip().lower() if folder.strip() else ""


def _is_inside(path: str, folder: str) -> bool:
    outer = os.path.normcase(os.path.realpath(folder))
    try:
        return os.path.commonpath((outer, os.path.normcase(os.path.realpath(path)))) == outer
    except ValueError:  # two drives
        return False


def _file_system(root: Path, number: str) -> str:
    """The type of the file system with that device number, from /proc/self/mountinfo."""
    try:
        lines = (root / "proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fields = (line.split() for line in lines)
    return next((line[line.index("-") + 1] for line in fields if line[2] == number and "-" in line), "")


def _whole_disk(node: Path) -> str:
    """The device number of the disk of which `node` is a partition; "" when it is none."""
    try:
        return (node.parent / "dev").read_text().strip() if (node / "partition").exists() else ""
    except OSError:
        return ""


def _block_device_kind(node: Path) -> DiskKind:
    # A partition has no queue of its own; its disk is the folder above.
    for queue in (node / "queue/rotational", node.parent / "queue/rotational"):
        try:
            rotates = queue.read_text().strip() == "1"
        except OSError:
            continue
        # Virtual disks say that they rotate, whatever they lie on.
        return ("unknown" if _is_virtual(node) else "rotating") if rotates else "flash"
    return "unknown"


def _is_virtual(node: Path) -> bool:
    return any(part.startswith(("virtio", "xvd", "vbd-", "vmbus", "virtual")) for part in node.parts)
