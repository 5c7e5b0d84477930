from __future__ import annotations

import os
from pathlib import Path

import pytest

from warmstack.loaders import LoadCancelledError, Pace
from warmstack.loaders.reading.filling import fill

MIB = 1 << 20


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filling") / "any.bin"
    path.write_bytes(os.urandom(24 * MIB + 5))
    return path


def filled(path: Path, pace: Pace, threads: int, chunk_bytes: int) -> bytearray:
    memory = bytearray(path.stat().st_size)
    border = 9 * MIB + 1
    with path.open("rb", buffering=0) as file, memoryview(memory) as whole:
        spans = [(whole[border:], border), (whole[:border], 0)]
        fill(str(path), file, spans, pace, threads=threads, chunk_bytes=chunk_bytes)
    return memory


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("chunk_bytes", [MIB, 7 * MIB + 3, 64 * MIB])
def test_threads_and_chunks_change_nothing(path: Path, threads: int, chunk_bytes: int):
    arrived: list[int] = []
    pace = Pace(reached=lambda path, nbytes, at: arrived.append(nbytes))
    assert filled(path, pace, threads, chunk_bytes) == path.read_bytes()
    assert sum(arrived) == path.stat().st_size


@pytest.mark.parametrize("threads", [1, 4])
def test_cancelling_stops_between_two_chunks(path: Path, threads: int):
    arrived: list[int] = []
    pace = Pace(cancelled=lambda: bool(arrived), reached=lambda path, nbytes, at: arrived.append(nbytes))
    with pytest.raises(LoadCancelledError):
        filled(path, pace, threads, 4 * MIB)
    assert 0 < sum(arrived) < path.stat().st_size
