"""The tightest limit holds: the machine's, or that of any cgroup around the process."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from warmstack.loaders import ModelLoader, available_bytes, log_memory_stats
from warmstack.loaders.memory import host_memory
from warmstack.loaders.memory.host_memory import Memory, measure_memory

MIB = 1 << 20


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


def test_this_machine_has_some_left() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total


@pytest.fixture
def small_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A process that may still take 20 MiB, on a machine that has more; the number of bytes."""
    make_group(tmp_path / "cg", str(100 * MIB), 90 * MIB, f"inactive_file {10 * MIB}\n", V2)
    proc = make_proc(tmp_path, "0::/\n")
    monkeypatch.setattr(host_memory, "measure_memory", partial(measure_memory, proc, tmp_path / "cg"))
    return 20 * MIB


@pytest.mark.parametrize(("device", "strategy"), [("cpu", "lazy"), ("meta", "streaming")])
def test_auto_loads_by_what_the_container_allows(
    large: tuple[str, dict[str, torch.Tensor]], small_container: int, device: str, strategy: str
) -> None:
    result = ModelLoader(device=device).load_checkpoint(large[0])
    assert result.metrics.strategy == strategy
    assert f"80% of {small_container} bytes of free memory" in result.reasons[0]


def test_the_memory_line_tells_what_the_container_allows(
    small_container: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "warmstack.loaders.tracking"):
        log_memory_stats("after load")
    assert f"host {small_container // MIB} MiB free" in caplog.records[0].getMessage()
