from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.loaders.system.disk_kind import STORAGE_VARIABLE, disk_kind, disk_under, storage_problems


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
        (disk / "part/partition").write_text("2\n")
        (disk / "dev").write_text("8:0\n")
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


def stated(text: str) -> dict[str, str]:
    return {STORAGE_VARIABLE: text}


def test_what_the_user_states_wins_and_the_longest_folder_of_it(tmp_path: Path, system):
    inside = tmp_path / "nas/loras"
    inside.mkdir(parents=True)
    root = system(rotational="0")
    text = f"{tmp_path}=rotating, {tmp_path}/nas = Network,{tmp_path}/nasal=flash"
    assert disk_kind(str(inside), root=root, environ=stated(text)) == "network"
    assert disk_kind(str(tmp_path), root=root, environ=stated(text)) == "rotating"
    assert disk_kind(str(tmp_path / "absent"), environ=stated(text)) == "rotating"


def test_what_the_user_states_of_a_network_drive_wins_too(tmp_path: Path, system):
    assert disk_kind(str(tmp_path), root=system("nfs4"), environ=stated(f"{tmp_path}=flash")) == "flash"


def test_a_stated_folder_may_be_a_link(tmp_path: Path):
    (tmp_path / "nas").mkdir()
    (tmp_path / "loras").symlink_to(tmp_path / "nas")
    assert disk_kind(str(tmp_path / "nas"), environ=stated(f"{tmp_path}/loras=network")) == "network"


def test_what_is_stated_wrongly_is_ignored_and_named(tmp_path: Path, system):
    environ = stated(f"{tmp_path}=floppy,=flash,{tmp_path},{tmp_path}=rotating")
    assert storage_problems(environ) == (f"{tmp_path}=floppy", "=flash", str(tmp_path))
    assert disk_kind(str(tmp_path), root=system(rotational="0"), environ=environ) == "rotating"


def test_two_partitions_are_one_disk(tmp_path: Path, system):
    assert disk_under(str(tmp_path), root=system(rotational="1", partition=True), environ={}) == ("8:0", "rotating")


def test_a_disk_that_the_system_does_not_show_is_known_by_its_number(tmp_path: Path):
    device = os.stat(tmp_path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    assert disk_under(str(tmp_path), root=tmp_path / "nothing", environ={}) == (number, "unknown")
    assert disk_under(str(tmp_path / "absent"), environ={}) == ("", "unknown")
