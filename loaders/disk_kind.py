"""What a file lies on: several readers help a flash disk and hurt a rotating or a distant one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

DiskKind = Literal["flash", "rotating", "network", "unknown"]
_NETWORK_TYPES = frozenset({
    "9p", "afs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "lustre",
    "nfs", "nfs4", "smb2", "smb3", "smbfs", "virtiofs",
})  # fmt: skip


def disk_kind(path: str, *, root: Path = Path("/")) -> DiskKind:
    """The kind of disk under `path`; "unknown" where the system does not say. `root` holds proc/ and sys/."""
    try:
        device = os.stat(path).st_dev
    except OSError:
        return "unknown"
    number = f"{os.major(device)}:{os.minor(device)}" if hasattr(os, "major") else ""
    if _file_system(root, number) in _NETWORK_TYPES:
        return "network"
    return _block_device_kind(root / "sys/dev/block" / number)


def _file_system(root: Path, number: str) -> str:
    """The type of the file system with that device number, from /proc/self/mountinfo."""
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    fields = (line.split() for line in lines)
    return next((line[line.index("-") + 1] for line in fields if line[2] == number and "-" in line), "")


def _block_device_kind(device: Path) -> DiskKind:
    resolved = device.resolve()
    # A partition has no queue of its own; its disk is the folder above.
    for queue in (resolved / "queue/rotational", resolved.parent / "queue/rotational"):
        try:
            rotates = queue.read_text().strip() == "1"
        except OSError:
            continue
        # Virtual disks say that they rotate, whatever they lie on.
        return ("unknown" if _is_virtual(resolved) else "rotating") if rotates else "flash"
    return "unknown"


def _is_virtual(device: Path) -> bool:
    return any(part.startswith(("virtio", "xvd", "vbd-", "vmbus", "virtual")) for part in device.parts)
