"""Disks: every file is found on its disk, and a disk is measured once, in a quiet moment, and remembered."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.system.disk_kind import STORAGE_VARIABLE, Disk
from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.disks.disk_memory import DiskMemory
from warmstack.prefetch.disks.disks import Disks
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.settings import PrefetchSettings

from ..world import ManualPool

PLAIN = PrefetchSettings()


class Bench:
    """Disks whose blocking calls run when the test says so. The first folder below the root is the disk."""

    def __init__(self, root: Path, rates: tuple[float, ...] = (100.0, 190.0, 200.0), **machine: Any) -> None:
        self.root = root
        self.chores = ManualPool()
        self.probed: list[Sequence[str]] = []
        self.found = 0
        self.rates = rates
        self.kinds: dict[str, Any] = {}
        self.machine = Machine(
            disk_under=self.disk_under, probe=self.probe, **{"state_folder": root / "state", **machine}
        )
        self.disks = Disks(self.machine, self.chores, lambda call: call(), self.count)

    def disk_under(self, path: str) -> Disk:
        device = Path(path).resolve().relative_to(self.root.resolve()).parts[0]
        return Disk(device, self.kinds.get(device, "flash"))

    def probe(self, paths: Sequence[str], *, cancelled: Callable[[], bool]) -> tuple[float, ...]:
        self.probed.append(paths)
        return () if cancelled() else self.rates

    def count(self) -> None:
        self.found += 1

    def file(self, name: str, size_bytes: int = 100) -> LoraFile:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        return LoraFile(name, str(path), size_bytes, 0)

    def run(self) -> None:
        while self.chores.waiting:
            self.chores.run_next()

    def survey(self, files: Sequence[LoraFile], settings: PrefetchSettings = PLAIN) -> None:
        """As many quiet moments as it takes."""
        for _ in range(6):
            self.disks.survey(files, settings)
            self.run()


def test_a_file_is_found_on_its_disk_in_a_thread_and_a_linked_one_where_it_lies(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    here, there = bench.file("ssd/loras/a"), bench.file("nas/b")
    link = tmp_path / "ssd/loras/b"
    link.symlink_to(there.path)
    bench.disks.locate([here.path, str(link)])
    bench.disks.locate([here.path])
    assert (bench.disks.under(here.path), len(bench.chores.waiting)) == (None, 1)
    bench.run()
    assert bench.disks.under(here.path) == Disk("ssd", "flash")
    assert bench.disks.under(str(link)) == Disk("nas", "flash")
    assert bench.found == 2, "the linked one holds up nobody"
    bench.disks.locate([here.path])
    assert not bench.chores.waiting


def test_a_library_that_has_changed_may_lie_on_other_disks(tmp_path: Path) -> None:
    """A share was mounted again, a drive plugged in at the place of another: files there are files of one disk. What
    they were holds until the answer comes."""
    bench = Bench(tmp_path)
    old, model, gone = bench.file("usb/a"), bench.file("usb/models/m"), bench.file("ssd/a")
    link = tmp_path / "ssd/linked"
    link.symlink_to(old.path)
    linked = LoraFile("linked", str(link), 100, 0)
    bench.disks.locate([model.path])
    library = (old, gone, linked)
    bench.survey(library)
    before, after = Disk("usb", "flash"), Disk("usb", "rotating")
    bench.kinds["usb"] = "rotating"
    bench.survey(library)
    assert {bench.disks.under(path) for path in (old.path, model.path, str(link))} == {before}
    new = bench.file("usb/b")
    (tmp_path / "ssd/a").unlink()
    changed = (old, new, linked)
    for _ in range(6):
        bench.disks.survey(changed, PLAIN)
    assert {bench.disks.under(path) for path in (old.path, model.path, str(link))} == {before}
    bench.run()
    assert [bench.disks.under(path) for path in (old.path, model.path, str(link), new.path)] == [after] * 4
    assert bench.disks.under(gone.path) == Disk("ssd", "flash")


def test_a_disk_that_cannot_be_told_any_more_is_the_one_that_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    files = (bench.file("usb/a"),)
    bench.survey(files)
    bench.kinds["usb"] = "rotating"
    bench.root = tmp_path / "nowhere"
    bench.survey((*files, LoraFile("b", "/b", 100, 0)))
    assert bench.disks.under(files[0].path) == Disk("usb", "flash")
    bench.root = tmp_path
    bench.survey((*files, bench.file("usb/b")))
    assert bench.disks.under(files[0].path) == Disk("usb", "rotating")


def test_what_waits_for_a_share_costs_nothing_until_it_answers(tmp_path: Path) -> None:
    """A library may have thousands of folders there, and each survey of another came by all of them."""
    asked_the_time = 0

    def clock() -> float:
        nonlocal asked_the_time
        asked_the_time += 1
        return 0.0

    bench = Bench(tmp_path, clock=clock)
    folders = 100
    far = [bench.file(f"nas/{number}/a") for number in range(folders)]
    for file in far:
        bench.disks.locate([file.path])
    assert len(bench.chores.waiting) == 1, "the topmost folder, for all of them"
    assert asked_the_time <= 2 * folders, "once for each folder that is looked at, and not for each pair of them"
    bench.run()
    assert {bench.disks.under(file.path) for file in far} == {Disk("nas", "flash")}


def test_a_disk_that_cannot_be_told_is_one_all_the_same(tmp_path: Path) -> None:
    def broken(path: str) -> Disk:
        raise RuntimeError("no such system")

    bench = Bench(tmp_path)
    bench.disks = Disks(Machine(disk_under=broken), bench.chores, lambda call: call(), bench.count)
    bench.disks.locate(["/a"])
    bench.run()
    disk = bench.disks.under("/a")
    assert disk is not None
    assert bench.disks.readers(disk, PLAIN) == 1


def test_readers_are_those_of_the_kind_and_the_user_may_rule_otherwise(tmp_path: Path) -> None:
    disks = Bench(tmp_path).disks
    own = PrefetchSettings(readers_rotating=2, readers_network=3, readers_flash=5)
    for kind, plain, stated in (("rotating", 1, 2), ("network", 1, 3), ("flash", 1, 5), ("unknown", 1, 5)):
        disk = Disk("8:0", kind)
        assert (disks.readers(disk, PLAIN), disks.readers(disk, own)) == (plain, stated)


def test_a_disk_is_measured_with_its_largest_files_and_remembered_over_restarts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    files = [bench.file(f"ssd/{i}", size_bytes=i) for i in range(12)]
    bench.survey(files)
    assert [list(paths) for paths in bench.probed] == [[f.path for f in reversed(files[4:])]]
    assert bench.disks.readers(Disk("ssd", "flash"), PLAIN) == 2
    kept = json.loads((tmp_path / "state/disks.json").read_text())["disks"]
    (entry,) = kept.values()
    assert (entry["readers"], entry["rates"]) == (2, [100, 190, 200])
    again = Bench(tmp_path)
    again.survey(files)
    assert (again.probed, again.disks.readers(Disk("ssd", "flash"), PLAIN)) == ([], 2)


@pytest.mark.parametrize(("kind", "changes"), [
    ("rotating", {}), ("network", {}), ("flash", {"readers_flash": 4}), ("flash", {"concurrency": 2}),
])  # fmt: skip
def test_what_needs_no_measurement_gets_none(tmp_path: Path, kind: str, changes: dict[str, int]) -> None:
    bench = Bench(tmp_path)
    bench.kinds["disk"] = kind
    bench.survey([bench.file("disk/a")], PrefetchSettings(**changes))
    assert bench.probed == []


def test_an_interrupted_measurement_is_made_up_for_and_a_vain_one_is_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    files = [bench.file("ssd/a")]
    bench.disks.survey(files, PLAIN)
    bench.run()
    bench.disks.survey(files, PLAIN)
    assert bench.disks.measuring == Disk("ssd", "flash")
    bench.disks.stop_measuring()
    bench.run()
    assert (bench.disks.measuring, bench.found) == (None, 2)
    assert not (tmp_path / "state/disks.json").exists()
    bench.rates = ()
    bench.survey(files)
    assert len(bench.probed) == 2, "what cannot be measured is tried once per run"
    assert not (tmp_path / "state/disks.json").exists()


def test_a_closed_pool_ends_it_quietly(tmp_path: Path) -> None:
    class Closed(ManualPool):
        def submit(self, call: Callable[[], Any]) -> Any:
            raise RuntimeError("the pool is closed")

    disks = Disks(Machine(), Closed(), lambda call: call(), lambda: None)
    disks.locate(["/a"])
    assert disks.under("/a") is None


def test_a_wrong_word_of_the_user_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(STORAGE_VARIABLE, "/mnt/nas=floppy")
    with caplog.at_level(logging.WARNING):
        Disks(Machine(), ManualPool(), lambda call: call(), lambda: None)
    assert STORAGE_VARIABLE in caplog.text


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 1}', '{"version": 1, "disks": {"a": {"readers": "x"}}}', "\x00"]
)
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "disks.json").write_text(text)
    memory = DiskMemory(tmp_path)
    assert memory.recall() == {}
    memory.keep("a", 2, (1.0, 2.0))
    assert memory.recall()["a"].readers == 2


def test_what_was_measured_long_ago_is_measured_again(tmp_path: Path) -> None:
    memory = DiskMemory(tmp_path)
    memory.keep("a", 4, (1.0,))
    now = datetime.now(timezone.utc)
    assert set(memory.recall(now + timedelta(days=89))) == {"a"}
    assert memory.recall(now + timedelta(days=91)) == {}


def test_without_a_folder_or_with_one_that_cannot_be_written_nothing_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    DiskMemory(None).keep("a", 2, (1.0,))
    (tmp_path / "file").write_text("")
    memory = DiskMemory(tmp_path / "file")
    memory.keep("a", 2, (1.0,))
    assert DiskMemory(None).recall() == memory.recall() == {}
    assert "lasts until the restart" in caplog.text
