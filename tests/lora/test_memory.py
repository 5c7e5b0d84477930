"""The default budget follows the tightest limit: the machine's, or that of any cgroup around the process."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from warmstack.lora.memory import Memory, available_bytes, budget_for, default_budget_bytes, measure_memory

GIB = 1 << 30
MIB = 1 << 20


@pytest.mark.parametrize(
    ("total_gib", "available_gib", "expected_gib"),
    [
        (16, 14, 4),  # a quarter
        (128, 100, 8),  # at most 8 GiB
        (32, 5, 3),  # what is available, less 2 GiB
        (8, 1.5, 0.5),  # less an eighth on a small machine
        (32, 1, 0),  # nothing to spare: everything streams
    ],
)
def test_a_budget_is_a_quarter_bounded_by_what_is_available(
    total_gib: float, available_gib: float, expected_gib: float
) -> None:
    assert budget_for(Memory(int(total_gib * GIB), int(available_gib * GIB))) == expected_gib * GIB


def make_proc(root: Path, content: str) -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(content)
    return root / "proc"


def make_group(folder: Path, limit: str, used: int, stat: str, names: tuple[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
V2 = ("memory.max", "memory.current")


def test_a_v2_limit_holds_and_its_page_cache_is_available(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, "0::/user/job\n")
    groups = tmp_path / "cg"
    stat = f"anon {40 * MIB}\nactive_file {10 * MIB}\ninactive_file {20 * MIB}\n"
    make_group(groups / "user" / "job", str(100 * MIB), 70 * MIB, stat, V2)
    assert measure_memory(proc, groups) == Memory(100 * MIB, 60 * MIB)


def test_the_tightest_of_nested_groups_holds(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, "0::/user/job\n")
    groups = tmp_path / "cg"
    make_group(groups / "user" / "job", "max", 1 * MIB, "", V2)
    make_group(groups / "user", str(64 * MIB), 60 * MIB, "", V2)
    assert measure_memory(proc, groups) == Memory(64 * MIB, 4 * MIB)


def test_a_v1_limit_is_found_at_the_mount_when_the_path_is_the_hosts(tmp_path: Path) -> None:
    proc = make_proc(tmp_path, "12:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n")
    groups = tmp_path / "cg"
    make_group(groups / "memory", str(50 * MIB), 45 * MIB, f"total_inactive_file {5 * MIB}\n", V1)
    assert measure_memory(proc, groups) == Memory(50 * MIB, 10 * MIB)


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    assert measure_memory(tmp_path, tmp_path).total_bytes == psutil.virtual_memory().total


def test_this_machine_has_a_budget_within_its_memory() -> None:
    assert 0 <= default_budget_bytes() <= min(8 * GIB, psutil.virtual_memory().total // 4)
    assert 0 < available_bytes() <= psutil.virtual_memory().total
