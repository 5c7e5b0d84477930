from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.loaders.disk_kind import disk_kind


@pytest.fixture
def system(tmp_path: Path):
    """A proc/ and sys/ that say what the test wants about the disk of `tmp_path`."""
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    root = tmp_path / "root"

    def build(
        file_system: str = "ext4", rotational: str | None = None, partition: bool = False, bus: str = "pci0/ata1"
    ) -> Path:
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/mountinfo").write_text(
            f"1 2 999:7 / / rw - tmpfs tmpfs rw\n3 1 {number} / /m rw shared:1 - {file_system} source rw\n"
        )
        disk = root / "sys/devices" / bus / "disk"
        (disk / "part").mkdir(parents=True)
        if rotational is not None:
            (disk / "queue").mkdir()
            (disk / "queue/rotational").write_text(rotational + "\n")
        (root / "sys/dev/block").mkdir(parents=True)
        (root / "sys/dev/block" / number).symlink_to(disk / "part" if partition else disk)
        return root

    return build


@pytest.mark.parametrize("partition", [False, True])
@pytest.mark.parametrize(("flag", "kind"), [("0", "flash"), ("1", "rotating")])
def test_disks_and_partitions(tmp_path: Path, system, flag: str, kind: str, partition: bool):
    assert disk_kind(str(tmp_path), root=system(rotational=flag, partition=partition)) == kind


@pytest.mark.parametrize(("flag", "kind"), [("0", "flash"), ("1", "unknown")])
@pytest.mark.parametrize("bus", ["pci0/virtio1", "vbd-51712", "virtual"])
def test_a_virtual_disk_that_claims_to_rotate_is_not_believed(tmp_path: Path, system, bus: str, flag: str, kind: str):
    assert disk_kind(str(tmp_path), root=system(rotational=flag, bus=bus, partition=True)) == kind


@pytest.mark.parametrize("file_system", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_network(tmp_path: Path, system, file_system: str):
    assert disk_kind(str(tmp_path), root=system(file_system, rotational="0")) == "network"


def test_unknown(tmp_path: Path, system):
    assert disk_kind(str(tmp_path), root=system()) == "unknown"
    assert disk_kind(str(tmp_path), root=tmp_path / "nothing") == "unknown"
    assert disk_kind(str(tmp_path / "absent")) == "unknown"
