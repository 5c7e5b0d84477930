"""Starting and ending with real threads: from the loop, from another thread, mid-read, and without a goodbye."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from warmstack.prefetch.machine import Machine
from warmstack.prefetch.prefetcher import Prefetcher

from .patience import threads
from .world import World


class Gate:
    """Holds every page read at its first chunk until it opens or is told to stop looking."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def warm_file(self, path: str, *, cancelled: Callable[[], bool], limiter: object = None) -> int:
        from warmstack.loaders.errors import LoadCancelledError

        self.reached.set()
        while not self.open.wait(0.001):
            if cancelled():
                raise LoadCancelledError(path, "cancelled")
        return 10


def real(world: World, gate: Gate) -> Prefetcher:
    """On real threads; the read in flight waits at the gate."""
    machine = Machine(warm_file=gate.warm_file, resident_bytes=lambda path: 0, available_bytes=lambda: 1 << 40)
    return world.build(machine=machine)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "loras")
    world.submit("1", world.lora("a"))
    return world


async def reached(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, 20)


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def test_close_on_the_loop_ends_run_and_its_threads(world: World, gate: Gate) -> None:
    prefetcher = real(world, gate)
    task = asyncio.get_running_loop().create_task(prefetcher.run())
    await reached(gate.reached)
    assert threads()
    prefetcher.close()
    await task
    assert threads() == []
    assert prefetcher.status().in_flight == ()
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_run_ends_as_cleanly(world: World, gate: Gate) -> None:
    prefetcher = real(world, gate)
    task = asyncio.get_running_loop().create_task(prefetcher.run())
    await reached(gate.reached)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads() == []
    assert len(asyncio.all_tasks()) == 1


def test_close_from_another_thread_returns_when_everything_has_ended(world: World, gate: Gate) -> None:
    prefetcher = real(world, gate)
    thread = threading.Thread(target=lambda: asyncio.run(prefetcher.run()))
    thread.start()
    assert gate.reached.wait(20)
    prefetcher.close()
    assert threads() == []
    thread.join(20)
    assert not thread.is_alive()


def test_close_twice_before_run_and_after_the_loop_is_gone(world: World, gate: Gate) -> None:
    prefetcher = real(world, gate)
    prefetcher.close()
    prefetcher.close()
    asyncio.run(prefetcher.run())
    prefetcher.close()
    prefetcher.wake()
    assert threads() == []
    assert not gate.reached.is_set()


def test_wake_and_configure_before_run_are_harmless(world: World, gate: Gate) -> None:
    prefetcher = real(world, gate)
    prefetcher.wake()
    prefetcher.configure(prefetcher.settings.updated({"enabled": False}))
    assert prefetcher.status().queue == ()

    async def briefly() -> None:
        task = asyncio.get_running_loop().create_task(prefetcher.run())
        await asyncio.sleep(0)
        prefetcher.close()
        await task

    asyncio.run(briefly())
    assert not gate.reached.is_set()


async def test_an_error_of_the_front_end_is_seen_and_leaves_nothing_behind(world: World) -> None:
    def broken() -> list[object]:
        raise RuntimeError("no queue")

    prefetcher = world.build(jobs=broken)
    with pytest.raises(RuntimeError, match="no queue"):
        await prefetcher.run()
    assert threads() == []


async def test_a_stuck_read_does_not_hold_up_the_end(
    world: World, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = threading.Event()

    def read(path: str, *, cancelled: Callable[[], bool], limiter: object = None) -> int:
        gate.reached.set()
        stuck.wait()
        return 0

    monkeypatch.setattr("warmstack.prefetch.prefetcher.GRACE_S", 0.05)
    monkeypatch.setattr("warmstack.prefetch.prefetcher.JOIN_S", 0.05)
    prefetcher = world.build(machine=Machine(warm_file=read, resident_bytes=lambda path: 0))
    task = asyncio.get_running_loop().create_task(prefetcher.run())
    await reached(gate.reached)
    prefetcher.close()
    await task
    assert "thread is left behind" in caplog.text
    stuck.set()


ABANDONED = """
import asyncio, json, sys, threading
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.catalog import LoraCatalog
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.machine import Machine
from warmstack.prefetch.prefetcher import Prefetcher

reached = threading.Event()

def stuck(path, *, cancelled, limiter=None):
    reached.set()
    threading.Event().wait()

prompt = {"1": {"class_type": "LoraLoader", "inputs": {"lora_name": "a", "strength_model": 1}}}
prefetcher = Prefetcher(
    jobs=lambda: [QueuedJob("1", prompt)],
    catalog=LoraCatalog(lambda: [sys.argv[1]]),
    cache=AdapterCache(ByteBudget(1 << 20)),
    machine=Machine(warm_file=stuck, resident_bytes=lambda path: 0),
)
loop = asyncio.new_event_loop()
loop.create_task(prefetcher.run())
loop.run_until_complete(loop.run_in_executor(None, reached.wait, 20))
loop.stop()
print("reached" if reached.is_set() else "never")
"""


def test_a_process_whose_loop_dies_without_close_ends(world: World) -> None:
    command = [sys.executable, "-c", ABANDONED, str(world.root)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (0, "reached"), ended.stderr
