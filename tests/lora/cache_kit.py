"""Real files, the real loader behind gates, and threads whose progress can be awaited: for forced interleavings."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors.torch import save

from warmstack.loaders.reading.tensor_file import Storage
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.cache.lease import Lease
from warmstack.lora.cache.loading import PrefetchOutcome
from warmstack.lora.errors import AdapterLoadCancelledError
from warmstack.lora.library.file import AdapterKey, LoraFile

T = TypeVar("T")

DEADLINE_S = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "nothing happened"
        time.sleep(0.0005)


class Disk:
    """A LoRA folder. Each write gets a new mtime and a new fill value, by which a stale copy shows.

    Files are replaced, not rewritten: a mapped view of a file that is truncated in place kills the process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writes = 0
        self.fill: dict[AdapterKey, float] = {}

    def write(self, name: str, elements: int = 512) -> LoraFile:
        self._writes += 1
        fill = float(self._writes)
        up, down = torch.full((elements, 1), fill), torch.ones(1, 4)
        return self._replaced(name, save({"m.lora_up.weight": up, "m.lora_down.weight": down}), fill)

    def write_garbage(self, name: str) -> LoraFile:
        self._writes += 1
        return self._replaced(name, b"\xff" * 100, -1.0)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _replaced(self, name: str, content: bytes, fill: float) -> LoraFile:
        path = str(self._folder / name)
        fresh = Path(f"{path}.part")
        fresh.write_bytes(content)
        fresh.replace(path)
        mtime_ns = 1_700_000_000_000_000_000 + self._writes * 1_000_000_000
        os.utime(path, ns=(mtime_ns, mtime_ns))
        file = LoraFile(name, path, os.stat(path).st_size, mtime_ns)
        self.fill[file.key] = fill
        return file

    def holds_content(self, adapter: Adapter) -> bool:
        """Whether the adapter's bytes are those that were written under its key."""
        tensor = adapter.tensors["m.lora_up.weight"]
        return bool(torch.equal(tensor, torch.full_like(tensor, self.fill[adapter.key])))


class GatedLoad:
    """`load_adapter` that can be held at its first chunk, and that keeps count."""

    def __init__(self) -> None:
        self.loads: Counter[AdapterKey] = Counter()
        self.active: Counter[AdapterKey] = Counter()
        self.reserved_bytes = 0
        """Of the private loads that run now."""
        self.most_active = 0
        """The most loads of one key that ever ran at once."""
        self.storages: list[str] = []
        self.next_errors: list[BaseException] = []
        """Raised by the next loads, one each, once they are let go."""
        self._lock = threading.Lock()
        self._held: dict[str, threading.Event] = {}
        self._buffers: list[tuple[weakref.ref[object], int]] = []

    def hold(self, name: str) -> None:
        self._held.setdefault(name, threading.Event())

    def let_go(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            held.set()

    @property
    def live_bytes(self) -> int:
        """File bytes of every private buffer that is still in memory."""
        return sum(nbytes for buffer, nbytes in self._buffers if buffer() is not None)

    def __call__(
        self,
        file: LoraFile,
        *,
        cancelled: Callable[[], bool],
        storage: Storage,
        limiter: RateLimit | None = None,
    ) -> Adapter:
        reserved_bytes = file.size_bytes if storage == "private" else 0
        with self._lock:
            self.loads[file.key] += 1
            self.active[file.key] += 1
            self.reserved_bytes += reserved_bytes
            self.most_active = max(self.most_active, self.active[file.key])
            self.storages.append(storage)
        try:
            self._pass_gate(file, cancelled)
            if self.next_errors:
                raise self.next_errors.pop(0)
            adapter = load_adapter(file, cancelled=cancelled, limiter=limiter, storage=storage)
            if adapter.buffer is not None:
                self._buffers.append((weakref.ref(adapter.buffer), file.size_bytes))
            return adapter
        finally:
            with self._lock:
                self.active[file.key] -= 1
                self.reserved_bytes -= reserved_bytes

    def _pass_gate(self, file: LoraFile, cancelled: Callable[[], bool]) -> None:
        held = self._held.get(file.name)
        while held is not None and not held.wait(0.001):
            if cancelled():
                raise AdapterLoadCancelledError(file.name, "cancelled")


class Background(Generic[T]):
    """A call in a thread, with a cancel flag of its own."""

    def __init__(self, call: Callable[[Callable[[], bool]], T]) -> None:
        self.cancel = threading.Event()
        self.error: BaseException | None = None
        self._value: list[T] = []
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._call(self.cancel.is_set))
        except BaseException as error:
            self.error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert self.done, "a waiter never woke"

    def result(self) -> T:
        """The value, once; raises what the call raised."""
        self.join()
        if self.error is not None:
            raise self.error
        return self._value.pop()


@dataclass
class House:
    """A cache on such a disk."""

    disk: Disk
    load: GatedLoad
    budget: ByteBudget
    cache: AdapterCache

    def acquire(self, file: LoraFile) -> Background[Lease]:
        """Returns once the acquire leads a load, waits for one, or is over."""
        before = self.load.loads[file.key], self.waiting(file)
        call = Background(lambda cancelled: self.cache.acquire(file, cancelled=cancelled))
        wait_until(lambda: call.done or (self.load.loads[file.key], self.waiting(file)) > before)
        return call

    def prefetch(self, file: LoraFile, limiter: RateLimit | None = None) -> Background[PrefetchOutcome]:
        before = self.load.loads[file.key]
        call = Background(lambda cancelled: self.cache.prefetch(file, cancelled=cancelled, limiter=limiter))
        wait_until(lambda: call.done or self.load.loads[file.key] > before)
        return call

    def waiting(self, file: LoraFile) -> int:
        return sum(view.waiting for view in self.cache.snapshot().adapters if view.key == file.key)

    def states(self) -> dict[str, str]:
        return {view.name: view.state for view in self.cache.snapshot().adapters}
