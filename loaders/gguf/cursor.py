"""A cursor over the head of a GGUF file, which reads no further than it is asked to."""

from __future__ import annotations

import struct
from io import FileIO
from typing import NoReturn

from ..errors import SafetensorsValidationError, damaged
from ..reading.filling import read_at

MAX_HEADER_BYTES = 100_000_000
"""As for safetensors. The tokenizers of the largest language models take about 10 MB."""

_FIRST_READ_BYTES = 1 << 16
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class GgufCursor:
    """Little-endian values, one after the other. `position_bytes` is the offset in the file. Whatever would run past
    the end of the file or the header bound raises SafetensorsValidationError before it is read."""

    def __init__(self, path: str, file: FileIO, file_bytes: int, position_bytes: int = 0) -> None:
        self.path = path
        self.position_bytes = position_bytes
        self.file_bytes = file_bytes
        self._file = file
        self._first_byte = position_bytes
        self._read = bytearray()

    @property
    def left_bytes(self) -> int:
        return self.file_bytes - self.position_bytes

    def unpack(self, layout: struct.Struct) -> tuple[object, ...]:
        start = self._take(layout.size)
        return layout.unpack_from(self._read, start)

    def u32(self) -> int:
        return int(_U32.unpack_from(self._read, self._take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack_from(self._read, self._take(8))[0])

    def text(self, what: str, limit_bytes: int) -> str:
        """A string of at most `limit_bytes`; `what` it is goes into the error."""
        length = self.u64()
        if length > limit_bytes:
            self.damaged(f"{what} is said to have {length} bytes")
        start = self._take(length)
        try:
            return self._read[start : start + length].decode()
        except UnicodeDecodeError:
            self.damaged(f"{what} is no UTF-8")

    def skip(self, nbytes: int) -> None:
        self._take(nbytes)

    def skip_texts(self, count: int) -> None:
        """Pass over `count` strings without making one. In one loop, because a tokenizer has some 100,000 of them."""
        position = self.position_bytes - self._first_byte
        for _ in range(count):
            if position + 8 > len(self._read):
                self._require(position + 8)
            position += 8 + _U64.unpack_from(self._read, position)[0]
        self.position_bytes = self._first_byte + position
        self._require(position)

    def fail(self, reason: str, key: str = "") -> NoReturn:
        raise SafetensorsValidationError(self.path, reason, key)

    def damaged(self, fault: str, key: str = "") -> NoReturn:
        raise damaged(self.path, fault, key)

    def _take(self, nbytes: int) -> int:
        """Index in what has been read where the next `nbytes` start; they are there, and the cursor is behind them."""
        start = self.position_bytes - self._first_byte
        self._require(start + nbytes)
        self.position_bytes += nbytes
        return start

    def _require(self, nbytes: int) -> None:
        """Have at least `nbytes` read."""
        have = len(self._read)
        if nbytes <= have:
            return
        end = self._first_byte + nbytes
        if end > self.file_bytes:
            self.fail(f"header reaches to byte {end} of {self.file_bytes}; it is truncated, download it again")
        if end > MAX_HEADER_BYTES:
            self.damaged(f"header is longer than {MAX_HEADER_BYTES} bytes")
        bound = min(self.file_bytes, MAX_HEADER_BYTES) - self._first_byte
        wanted = min(max(nbytes, 2 * have, _FIRST_READ_BYTES), bound)
        self._read.extend(bytes(wanted - have))
        with memoryview(self._read) as memory, memory[have:] as target:
            read_at(self.path, self._file, target, self._first_byte + have)
