"""A share that is gone: one look at a file there may take for ever, and nobody else waits for it. Real threads."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.system.daemon_pool import DaemonPool
from warmstack.loaders.system.disk_kind import Disk
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.file import LoraFile, as_on_disk
from warmstack.prefetch.disks.disks import LATE_S, LOCATES
from warmstack.prefetch.planning.horizon import NEAREST
from warmstack.prefetch.prefetcher import BUSY_POLL_S, MEMORY_TICK_S
from warmstack.prefetch.queue.lookup import RESTAT_S
from warmstack.prefetch.queue.scan import REFRESH_S
from warmstack.prefetch.reading.gate import STALL_S

from .patience import DEADLINE_S, until
from .world import CHUNK_BYTES, World


class Share:
    """Looks at one file of it stand still until it is back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.looks = 0
        self.is_asked = threading.Event()
        self.is_back = threading.Event()

    def look(self, path: str) -> None:
        if path == self.path:
            self.looks += 1
            self.is_asked.set()
            assert self.is_back.wait(DEADLINE_S)

    def as_on_disk(self, file: LoraFile) -> LoraFile | None:
        self.look(file.path)
        return as_on_disk(file)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Everything runs in threads."""
    world = World(tmp_path / "loras")
    world.machine = replace(world.machine, make_pool=DaemonPool)
    world.build()
    for name in ("far", "near"):
        world.lora(name)
    world.catalog.refresh()
    yield world
    await world.close()


@pytest.fixture
def share(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Share]:
    share = Share(world.path("far.safetensors"))
    monkeypatch.setattr("warmstack.prefetch.queue.resolver.as_on_disk", share.as_on_disk)
    yield share
    share.is_back.set()


def state(world: World, job_id: str) -> str:
    return next(iter(world.states().get(job_id, {"": ""}).values()))


async def test_a_look_that_hangs_holds_up_no_other_job_no_switch_and_no_memory(world: World, share: Share) -> None:
    world.submit("far", "far")
    await until(world, share.is_asked.is_set)
    world.submit("near", "near", front=True)
    await until(world, lambda: state(world, "near") == "ready")
    world.available_bytes = 0
    world.now_s += MEMORY_TICK_S
    await until(world, lambda: world.prefetcher.status().under_pressure)
    world.prefetcher.configure(world.settings.updated({"enabled": False}))
    await until(world, lambda: not world.prefetcher.status().enabled)
    assert world.prefetcher.status().queue == ()


async def test_there_is_one_look_at_a_time_and_what_it_finds_counts(world: World, share: Share) -> None:
    world.submit("far", "far")
    await until(world, lambda: state(world, "far") == "ready")
    assert share.looks == 1, "what the last scan has found has to do"
    for job in range(3):
        world.now_s += RESTAT_S
        world.submit(f"near{job}", "near")
        await until(world, lambda job=job: state(world, f"near{job}") == "ready")
    assert share.looks == 1
    world.lora("far", 9 * CHUNK_BYTES)
    share.is_back.set()
    await until(world, lambda: world.page_reads.count(share.path) == 2 and state(world, "far") == "ready")
    (far,) = world.prefetcher.status().queue[0].adapters
    assert far.size_bytes > 9 * CHUNK_BYTES


@pytest.fixture
def pages(world: World) -> Iterator[Share]:
    """Whoever asks for the pages of its file stands still, once `is_back` is cleared."""
    pages = Share(world.path(world.lora("away/far")))
    world.catalog.refresh()
    pages.is_back.set()
    cached = world.machine.resident_bytes

    def resident_bytes(path: str) -> int | None:
        if not pages.is_back.is_set():
            pages.look(path)
        return cached(path)

    world.build(machine=replace(world.machine, resident_bytes=resident_bytes))
    yield pages
    pages.is_back.set()


async def test_pages_that_nobody_can_ask_for_take_one_thread(world: World, pages: Share) -> None:
    world.submit("far", "away/far")
    await until(world, lambda: state(world, "far") == "ready")
    pages.is_back.clear()
    world.now_s += MEMORY_TICK_S
    await until(world, pages.is_asked.is_set)
    for is_short in (True, False) * 6:
        world.available_bytes = 0 if is_short else 1 << 40
        world.now_s += MEMORY_TICK_S
        await until(world, lambda is_short=is_short: world.prefetcher.status().under_pressure == is_short)
    assert pages.looks == 1


async def test_pages_that_the_kernel_takes_back_elsewhere_are_read_again_meanwhile(world: World, pages: Share) -> None:
    world.disk_under = lambda path: Disk(os.path.basename(path), "rotating")
    near = world.path("near.safetensors")
    world.submit("both", "away/far", "near")
    await until(world, lambda: set(world.states().get("both", {}).values()) == {"ready"})
    pages.is_back.clear()
    world.now_s += MEMORY_TICK_S
    await until(world, pages.is_asked.is_set)
    del world.page_cache[near]
    world.now_s += MEMORY_TICK_S
    await until(world, lambda: world.page_reads.count(near) == 2)
    assert pages.looks == 1


async def test_a_folder_of_which_the_disk_cannot_be_told_holds_up_no_other(world: World) -> None:
    """Nor does a link that leads there, and however many files of it come: there is one look at a time."""
    share = Share(world.path("far"))
    link = world.path("linked.safetensors")
    linked = Share(link)

    def disk_under(path: str) -> Disk:
        share.look(path)
        linked.look(path)
        return Disk("8:0", "rotating")

    world.disk_under = disk_under
    for number in range(6):
        world.lora(f"far/{number}")
        world.lora(f"near{number}")
    world.lora("../store/linked")
    os.symlink(world.path("../store/linked.safetensors"), link)
    world.catalog.refresh()
    world.submit("first", "linked", "far/0", "near")
    for number in range(1, 6):
        world.submit(f"far{number}", f"far/{number}")
        world.submit(f"near{number}", f"near{number}")
        await until(world, lambda number=number: state(world, f"near{number}") == "ready")
    assert world.states()["first"]["near.safetensors"] == "ready"
    assert max(share.looks, linked.looks) <= 2, "one for what is due, and one for the survey of the library"
    share.is_back.set()
    linked.is_back.set()
    await until(world, lambda: state(world, "far5") == "ready")


async def test_while_a_look_hangs_the_last_scan_tells(world: World, share: Share) -> None:
    for name in ("a/twice", "b/twice"):
        world.lora(name)
    world.catalog.refresh()
    world.submit("late", "late")
    await until(world, lambda: state(world, "late") == "missing")
    world.submit("far", "far")
    await until(world, share.is_asked.is_set)
    world.submit("later", "later")
    world.submit("twice", "twice")
    await until(world, lambda: state(world, "later") == "missing" and state(world, "twice") == "ambiguous")
    for name in ("late", "later"):
        world.lora(name)
    world.now_s += REFRESH_S
    await until(world, lambda: state(world, "late") == state(world, "later") == "ready")
    assert share.looks == 1
    (twice,) = world.prefetcher.status().queue[-1].adapters
    assert twice.problem == "a/twice.safetensors, b/twice.safetensors"


async def test_a_file_that_was_replaced_while_a_look_hangs_is_read_once(
    world: World, share: Share, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In memory as it is now, though the queue names it as the last scan has found it."""
    reads, looks, prefetch = [], [], AdapterCache.prefetch

    def counted(cache: AdapterCache, file: LoraFile, **options: Any) -> Any:
        reads.append(file.name)
        return prefetch(cache, file, **options)

    monkeypatch.setattr(AdapterCache, "prefetch", counted)
    world.build(jobs=lambda: looks.append(None) or list(world.queue))
    world.submit("far", "far")
    await until(world, share.is_asked.is_set)
    world.lora("near", 9 * CHUNK_BYTES)
    world.submit("near", "near", resident=True)
    await until(world, lambda: state(world, "near") == "ready")
    for _ in range(6):
        world.now_s += BUSY_POLL_S
        looked = len(looks)
        await until(world, lambda looked=looked: len(looks) > looked + 2)
    await until(world, lambda: state(world, "near") == "ready")
    assert reads == ["near.safetensors"]
    world.cache.clear()
    world.now_s += BUSY_POLL_S
    await until(world, lambda: len(reads) == 2 and state(world, "near") == "ready")


@pytest.mark.parametrize("is_located", [True, False])
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_reads_that_hang_take_no_place_of_other_disks(world: World, concurrency: int, is_located: bool) -> None:
    """With a number of the user for all disks together. Nothing else is begun on their own disk meanwhile, also when
    nobody can tell which that is."""
    share = Share(world.path("far"))
    begun: list[str] = []

    def read(path: str, _done_bytes: int) -> None:
        begun.append(os.path.basename(path))
        share.look(os.path.dirname(path))

    def disk_under(path: str) -> Disk:
        if not is_located:
            share.look(path)
        return Disk("far" if path == share.path else "near", "flash")

    world.on_chunk, world.disk_under = read, disk_under
    world.prefetcher.configure(world.settings.updated({"concurrency": concurrency}))
    far = [world.lora(f"far/{number}") for number in range(4)]
    world.catalog.refresh()
    world.submit("far", *far)
    world.submit("near", "near")
    await until(world, lambda: len(begun) == concurrency)
    world.now_s += STALL_S
    await until(world, lambda: state(world, "near") == "ready")
    world.submit("later", world.lora("later"))
    world.catalog.refresh()
    await until(world, lambda: state(world, "later") == "ready")
    assert begun.count("0.safetensors") == 1
    assert {name for name in begun if name[0].isdigit()} == {f"{number}.safetensors" for number in range(concurrency)}
    share.is_back.set()
    await until(world, lambda: set(world.states()["far"].values()) == {"ready"})


@pytest.mark.parametrize("concurrency", [None, 2])
@pytest.mark.parametrize("hangs", ["reads", "looks"])
async def test_however_much_is_due_on_a_disk_that_hangs_all_of_another_disk_is_read(
    world: World, hangs: str, concurrency: int | None
) -> None:
    """Also while nobody can tell on which disk those due lie."""
    share = Share(world.path("far"))
    if hangs == "reads":
        world.on_chunk = lambda path, _done_bytes: share.look(os.path.dirname(path))

    def disk_under(path: str) -> Disk:
        if hangs == "looks":
            share.look(path)
        return Disk("far" if path.startswith(share.path) else "near", "flash")

    world.disk_under = disk_under
    world.prefetcher.configure(world.settings.updated({"concurrency": concurrency}))
    far = [world.lora(f"far/{number}") for number in range(NEAREST + 2)]
    near = [world.lora(f"near/{number}") for number in range(NEAREST + 2)]
    world.catalog.refresh()
    for number, name in enumerate((*far, *near)):
        world.submit(f"{number}", name)
    await until(world, share.is_asked.is_set)
    world.now_s += STALL_S
    await until(world, lambda: all(state(world, f"{len(far) + number}") == "ready" for number in range(len(near))))
    share.is_back.set()
    await until(world, lambda: all(state(world, f"{number}") == "ready" for number in range(len(far))))


async def test_a_read_that_makes_progress_keeps_its_place_however_long_it_takes(world: World) -> None:
    path, chunk = world.path("far.safetensors"), threading.Semaphore(0)
    asked: list[int] = []

    def read(read_path: str, done_bytes: int) -> None:
        if read_path == path:
            asked.append(done_bytes)
            assert chunk.acquire(timeout=DEADLINE_S)

    world.on_chunk = read
    world.disk_under = lambda path: Disk(os.path.basename(path), "flash")
    looks: list[None] = []
    world.build(
        jobs=lambda: looks.append(None) or list(world.queue), settings=world.settings.updated({"concurrency": 1})
    )
    world.submit("far", "far")
    world.submit("near", "near")
    for chunks in range(1, 4):
        await until(world, lambda chunks=chunks: len(asked) == chunks)
        world.now_s += STALL_S - 1
        looked = len(looks)
        await until(world, lambda looked=looked: len(looks) > looked + 2)
        assert world.page_reads == [path]
        chunk.release()
    chunk.release(9)
    await until(world, lambda: state(world, "near") == "ready")


@pytest.fixture
def disks(world: World) -> Iterator[Share]:
    """`far` is a mount of its own, and whoever asks for its disk, or that of what lies below it, stands still."""
    share = Share(world.path("far"))

    def disk_under(path: str) -> Disk:
        is_far = path.startswith(share.path)
        if is_far:
            share.look(share.path)
        return Disk("far" if is_far else "near", "flash")

    world.disk_under = disk_under
    yield share
    share.is_back.set()


async def test_however_many_folders_of_a_share_are_asked_for_others_are_found_on_their_disks(
    world: World, disks: Share
) -> None:
    far = [world.lora(f"far/{number}/{number}/far") for number in range(LOCATES + 2)]
    near = [world.lora(f"near/{number}/near") for number in range(LOCATES + 2)]
    world.catalog.refresh()
    world.submit("far", *far)
    for number, name in enumerate(near):
        world.submit(f"near{number}", name)
    await until(world, lambda: all(state(world, f"near{number}") == "ready" for number in range(LOCATES + 2)))
    assert disks.looks == 1
    disks.is_back.set()
    await until(world, lambda: set(world.states()["far"].values()) == {"ready"})


async def test_disks_are_measured_though_others_cannot_be_told_or_measured(world: World, disks: Share) -> None:
    """One measurement at a time, as long as it does not hang."""
    probed: list[str] = []
    is_over = threading.Event()

    def probe(paths: Sequence[str], cancelled: Callable[[], bool]) -> tuple[float, ...]:
        probed.append(os.path.basename(os.path.dirname(paths[0])))
        if probed[-1] == "hangs":
            assert is_over.wait(3 * DEADLINE_S)  # longer than the test waits for anything
        return () if cancelled() else (1.0,)

    disk_under = world.disk_under
    world.disk_under = lambda path: Disk("hangs", "flash") if "hangs" in path else disk_under(path)
    world.probe = probe
    for name in ("far/1/far", "far/2/far", "hangs/hangs"):
        world.lora(name)
    for name in ("far", "near"):
        os.remove(world.path(f"{name}.safetensors"))
    world.catalog.refresh()
    try:
        await until(world, lambda: probed == ["hangs"])
        # Only now: which of two disks is told first, and measured first, is for the threads to say.
        world.lora("near/near")
        world.catalog.refresh()
        world.now_s += LATE_S
        await until(world, lambda: probed == ["hangs", "near"])
        world.prefetcher.configure(world.settings.updated({"concurrency": 1}))
        world.submit("near", "near/near")
        await until(world, lambda: state(world, "near") == "ready")
    finally:
        is_over.set()
