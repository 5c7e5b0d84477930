"""Device memory: freed blocks belong to their stream, and hold nonsense by the time that it comes to them."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from dataclasses import dataclass, field

import simulated_gpu_backend as backend
import streams
from streams import LOCK, Stream

TOTAL_BYTES = 8 << 30
_POISON = 0xA5


@dataclass(eq=False)
class Block:
    address: int
    nbytes: int
    stream: Stream
    """Whose work may use it again at once."""
    users: set[Stream] = field(default_factory=set)
    """Other streams that `record_stream` named."""


@dataclass(eq=False)
class DeviceMemory:
    """torch's caching allocator, less the splitting of blocks: each has one size for ever."""

    device: int
    limit_bytes: float = TOTAL_BYTES
    allocated_bytes: int = 0
    reserved_bytes: int = 0
    peak_bytes: int = 0
    _taken_bytes: int = 0
    _live: dict[int, Block] = field(default_factory=dict)
    _free: dict[tuple[Stream, int], list[Block]] = field(default_factory=lambda: defaultdict(list))
    _still_used: list[tuple[Block, list[tuple[Stream, int]]]] = field(default_factory=list)

    def allocate(self, nbytes: int) -> int:
        """An address, or 0 where there is no room."""
        with LOCK:
            self._collect()
            stream, size = streams.current(self.device), _rounded(nbytes)
            cached = self._free[stream, size]
            block = cached.pop() if cached else self._reserve(size, stream)
            if block is None:
                return 0
            self._live[block.address] = block
            self.allocated_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
            return block.address

    def free(self, address: int) -> None:
        with LOCK:
            block = self._live.pop(address)
            self.allocated_bytes -= block.nbytes
            marks = [(user, user.queued) for user in block.users - {block.stream}]
            block.users.clear()
            if marks:
                self._still_used.append((block, marks))
            else:
                self._hand_back(block)

    def record(self, address: int, stream: Stream) -> None:
        with LOCK:
            self._live[address].users.add(stream)

    def empty_cache(self) -> None:
        with LOCK:
            self._collect()
            self.reserved_bytes -= sum(block.nbytes for cached in self._free.values() for block in cached)
            self._free.clear()

    def addresses(self, nbytes: int) -> int:
        """The first of as many that are nobody else's."""
        with LOCK:
            if self._taken_bytes + nbytes > backend.ARENA_BYTES:
                raise RuntimeError("the simulated GPU gives no address twice, and has none left")
            start = self._taken_bytes
            self._taken_bytes += _rounded(nbytes)
            return backend.device_base(self.device) + start

    def _reserve(self, nbytes: int, stream: Stream) -> Block | None:
        if self.reserved_bytes + nbytes > self.limit_bytes:
            return None
        block = Block(self.addresses(nbytes), nbytes, stream)
        self.reserved_bytes += nbytes
        self._poison(block)
        return block

    def _hand_back(self, block: Block) -> None:
        # In the order of its stream: what is queued there still reads the old bytes, and what is queued on another
        # stream without waiting reads nonsense.
        block.stream.put(lambda: self._poison(block))
        self._free[block.stream, block.nbytes].append(block)

    def _collect(self) -> None:
        waiting, self._still_used = self._still_used, []
        for block, marks in waiting:
            if all(stream.done >= number for stream, number in marks):
                self._hand_back(block)
            else:
                self._still_used.append((block, marks))

    def _poison(self, block: Block) -> None:
        poison(self.device, block.address, block.nbytes)


def poison(device: int, address: int, nbytes: int) -> None:
    ctypes.memset(backend.host_base(device) + address - backend.device_base(device), _POISON, nbytes)


def _rounded(nbytes: int) -> int:
    step = 512 if nbytes < 1 << 20 else 2 << 20
    return -(-nbytes // step) * step


DEVICES = [DeviceMemory(device) for device in range(backend.DEVICES)]


def of_address(address: int) -> DeviceMemory:
    for memory in DEVICES:
        if 0 <= address - backend.device_base(memory.device) < backend.ARENA_BYTES:
            return memory
    raise RuntimeError("not an address of the simulated GPU")


backend.connect(
    lambda device, nbytes: DEVICES[device].allocate(nbytes),
    lambda address: of_address(address).free(address),
    lambda device: streams.current(device).ident,
)
