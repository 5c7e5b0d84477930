from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from warmstack.loaders import DeviceTransfer, FakeDevice
from warmstack.loaders.errors import LoadCancelledError, SafetensorsLoadError
from warmstack.loaders.gguf.chunks import CHUNK_ELEMENTS
from warmstack.loaders.gguf.header import read_gguf_header
from warmstack.loaders.gguf.load import LoadedGguf, load_gguf
from warmstack.loaders.gguf.on_numpy import refusal
from warmstack.loaders.gguf.quant_types import GGUF_TYPES
from warmstack.loaders.reading.filling import Pace

from .gguf_files import U32, RawTensor, gguf_bytes, original_shape, pair

FLOATS = [name for name, kind in GGUF_TYPES.items() if not refusal(kind)]
ROWS, ROW = 5, 512


@pytest.fixture(scope="module")
def packed_bytes() -> dict[str, NDArray[np.uint8]]:
    """Noise for one tensor of (ROWS, ROW) in every type, with scales that are finite, so that values compare."""
    generator = np.random.default_rng(4)
    packed = {
        name: generator.integers(0, 256, kind.nbytes((ROWS, ROW)), dtype=np.uint8) for name, kind in GGUF_TYPES.items()
    }
    for name in FLOATS:
        kind = GGUF_TYPES[name]
        words = packed[name].reshape(-1, kind.block_bytes)
        words &= 0x3B
    return packed


@pytest.fixture(scope="module")
def every_type(tmp_path_factory: pytest.TempPathFactory, packed_bytes: dict[str, NDArray[np.uint8]]) -> str:
    tensors, data = [], b""
    for name, raw in packed_bytes.items():
        tensors.append(RawTensor(name, (ROW, ROWS), GGUF_TYPES[name].code, len(data)))
        data += raw.tobytes() + bytes(-raw.size % 32)
    path = tmp_path_factory.mktemp("gguf") / "every.gguf"
    path.write_bytes(gguf_bytes(tensors, data=data))
    return str(path)


def reference(raw: NDArray[np.uint8], name: str) -> torch.Tensor:
    values = gguf.quants.dequantize(raw.reshape(ROWS, -1), gguf.GGMLQuantizationType[name])
    return torch.from_numpy(values.copy())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_are_those_of_gguf_rounded_once(
    every_type: str, packed_bytes: dict[str, NDArray[np.uint8]], dtype: torch.dtype, threads: int
):
    loaded = load_gguf(every_type, dtype, threads=threads)
    for name in FLOATS:
        tensor = loaded.tensors[name]
        assert (tensor.dtype, tuple(tensor.shape)) == (dtype, (ROWS, ROW)), name
        assert torch.equal(tensor, reference(packed_bytes[name], name).to(dtype)), name


@pytest.fixture(scope="module")
def many_chunks(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gguf") / "many.gguf"
    kind, rows = GGUF_TYPES["Q4_0"], 10 * CHUNK_ELEMENTS // ROW
    path.write_bytes(gguf_bytes([RawTensor("a", (ROW, rows), kind.code, 0)], data=bytes(kind.nbytes((ROW, rows)))))
    return str(path)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (3, 3), (64, 8)])
def test_a_thread_for_each_core_that_the_process_may_use(
    many_chunks: str, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
):
    """By the memory that each of them takes."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    settings: list[dict[str, int]] = [{}, {"threads": threads}, {"threads": threads + 1}]
    peaks_bytes = [load_gguf(many_chunks, torch.float16, **chosen).metrics.peak_bytes for chosen in settings]
    assert peaks_bytes[0] == peaks_bytes[1] < peaks_bytes[2]


def test_types_without_numbers_stay_packed_and_say_so(every_type: str, packed_bytes: dict[str, NDArray[np.uint8]]):
    loaded = load_gguf(every_type, torch.float16)
    assert sorted(loaded.packed) == ["Q1_0", "Q8_1", "Q8_K"]
    packed = loaded.packed["Q8_K"]
    assert "nothing dequantises Q8_K" in packed.reason
    assert packed.data.numpy().tobytes() == packed_bytes["Q8_K"].tobytes()
    with pytest.raises(SafetensorsLoadError, match="nothing dequantises Q8_K"):
        packed.dequantise()


def test_without_a_dtype_quantised_tensors_stay_packed(every_type: str, packed_bytes: dict[str, NDArray[np.uint8]]):
    loaded = load_gguf(every_type)
    assert sorted(loaded.tensors) == ["BF16", "F16", "F32", "F64", "I16", "I32", "I64", "I8"]
    assert loaded.tensors["BF16"].dtype == torch.bfloat16
    for name, packed in loaded.packed.items():
        assert packed.data.numpy().tobytes() == packed_bytes[name].tobytes()
        assert packed.shape == (ROWS, ROW)
    assert torch.equal(loaded.packed["Q4_K"].dequantise(), reference(packed_bytes["Q4_K"], "Q4_K"))


def test_whole_numbers_are_never_cast(every_type: str, packed_bytes: dict[str, NDArray[np.uint8]]):
    tensor = load_gguf(every_type, torch.float16).tensors["I32"]
    assert tensor.dtype == torch.int32
    assert tensor.numpy().tobytes() == packed_bytes["I32"].tobytes()


def test_writing_to_a_packed_tensor_does_not_reach_the_file(every_type: str):
    before = Path(every_type).read_bytes()
    load_gguf(every_type, select=["Q4_0"]).packed["Q4_0"].data.zero_()
    assert Path(every_type).read_bytes() == before


def test_only_what_is_selected_is_read(every_type: str):
    read: list[int] = []
    loaded = load_gguf(
        every_type, torch.float16, select={"Q6_K", "F32"}, pace=Pace(reached=lambda _, nbytes, at: read.append(nbytes))
    )
    assert list(loaded.tensors) == ["F32", "Q6_K"] and not loaded.packed
    stored_bytes = sum(GGUF_TYPES[name].nbytes((ROWS, ROW)) for name in ("Q6_K", "F32"))
    assert sum(read) == loaded.metrics.loaded_bytes == stored_bytes


def test_a_name_that_is_not_there_is_refused(every_type: str):
    with pytest.raises(SafetensorsLoadError, match="holds no 'absent'"):
        load_gguf(every_type, select=["Q6_K", "absent"])


def test_a_dtype_of_whole_numbers_is_refused(every_type: str):
    with pytest.raises(ValueError, match="no floating-point dtype"):
        load_gguf(every_type, torch.int8)


def test_shapes_of_all_kinds(tmp_path: Path):
    ones = np.ones(64, np.float32).tobytes()
    halves = np.full(6, 0x3F80, np.uint16).tobytes()
    tensors = [
        RawTensor("conv", (64,), GGUF_TYPES["F32"].code, 0),
        RawTensor("scalar", (), GGUF_TYPES["F32"].code, 256),
        RawTensor("vector", (6,), GGUF_TYPES["BF16"].code, 263),
        RawTensor("empty", (32, 0), GGUF_TYPES["Q8_0"].code, 263),
    ]
    path = tmp_path / "shapes.gguf"
    pairs = [original_shape("conv", (4, 4, 2, 2)), pair("general.alignment", U32, struct.pack("<I", 1))]
    path.write_bytes(gguf_bytes(tensors, pairs, ones + ones[:4] + b"odd" + halves, alignment=1))
    loaded = load_gguf(path, torch.float16)
    shapes = {name: tuple(tensor.shape) for name, tensor in loaded.tensors.items()}
    assert shapes == {"conv": (4, 4, 2, 2), "scalar": (), "vector": (6,), "empty": (0, 32)}
    assert all(bool((tensor == 1).all()) for tensor in loaded.tensors.values())
    assert load_gguf(path).packed["empty"].dequantise().shape == (0, 32)


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_what_is_set_in_the_process_is_no_obstacle(tmp_path: Path, dtype: torch.dtype | None, other_defaults: None):
    tensors: list[RawTensor] = []
    data_bytes = 0
    for kind in (GGUF_TYPES[name] for name in ("F32", "BF16", "F64", "I32", "Q8_0")):
        for rows in (0, 1):
            tensors.append(RawTensor(f"{kind.name}.{rows}", (32, rows), kind.code, data_bytes))
            data_bytes += kind.nbytes((32, rows))
    path = tmp_path / "kinds.gguf"
    pairs = [pair("general.alignment", U32, struct.pack("<I", 1))]
    path.write_bytes(gguf_bytes(tensors, pairs, bytes(data_bytes), alignment=1))
    loaded = load_gguf(path, dtype)
    everything = {**loaded.tensors, **{name: packed.data for name, packed in loaded.packed.items()}}
    assert everything.keys() == {tensor.name for tensor in tensors}
    assert {tensor.device.type for tensor in everything.values()} == {"cpu"}


def test_another_device_gets_the_same_shapes(every_type: str):
    here, there = load_gguf(every_type, torch.float16), load_gguf(every_type, torch.float16, "meta")
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in here.tensors.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in there.tensors.items()
    }
    assert all(tensor.is_meta for tensor in there.tensors.values())
    assert all(packed.data.is_meta for packed in there.packed.values())


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_packed_bytes_go_from_the_file_into_the_slots(every_type: str, dtype: torch.dtype | None):
    device = FakeDevice(lag=2)
    with DeviceTransfer(device, slots=2, slot_bytes=100) as transfer:
        here, there = load_gguf(every_type, dtype), load_gguf(every_type, dtype, transfer=transfer)
    assert list(there.tensors) == list(here.tensors)
    for name, tensor in here.tensors.items():
        assert torch.equal(there.tensors[name].view(torch.uint8), tensor.view(torch.uint8)), name
    assert {name: bytes(item.data.numpy()) for name, item in there.packed.items()} == {
        name: bytes(item.data.numpy()) for name, item in here.packed.items()
    }
    assert all(device.owns(item.data) for item in there.packed.values())
    assert (device.overwritten, device.in_flight, device.pinned_bytes) == (0, 0, 0)


def test_a_gpu_without_room_says_so(every_type: str):
    with (
        DeviceTransfer(FakeDevice(memory_limit_bytes=100)) as transfer,
        pytest.raises(SafetensorsLoadError, match=r"every\.gguf: no room for"),
    ):
        load_gguf(every_type, torch.float16, transfer=transfer)


@pytest.mark.gpu
def test_a_gpu_gets_the_same_numbers(every_type: str):
    here, there = load_gguf(every_type, torch.float16), load_gguf(every_type, torch.float16, "cuda")
    assert list(there.tensors) == list(here.tensors)
    for name, tensor in here.tensors.items():
        assert there.tensors[name].is_cuda
        # A double of random bits may be NaN, and a GPU has only one of them.
        torch.testing.assert_close(there.tensors[name].cpu(), tensor, rtol=0, atol=0, equal_nan=True)
    assert {name: bytes(item.data.cpu().numpy()) for name, item in there.packed.items()} == {
        name: bytes(item.data.numpy()) for name, item in here.packed.items()
    }


@pytest.fixture
def large(tmp_path: Path) -> str:
    """20 chunks of Q8_0 zeros."""
    elements = 20 << 18
    path = tmp_path / "large.gguf"
    tensor = RawTensor("large", (1024, elements // 1024), GGUF_TYPES["Q8_0"].code, 0)
    path.write_bytes(gguf_bytes([tensor], data=bytes(elements // 32 * 34)))
    return str(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("threads", [1, 2])
def test_inference_mode_is_no_obstacle_to_other_threads(large: str, threads: int, dtype: torch.dtype):
    """ComfyUI runs its nodes in it, and it is their thread's alone."""
    with torch.inference_mode():
        values = load_gguf(large, dtype, threads=threads).tensors["large"]
    assert not values.any()
    assert values.dtype == dtype


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cancel_is_seen_between_two_chunks(large: str, threads: int):
    arrived: list[int] = []
    pace = Pace(cancelled=lambda: len(arrived) >= 3, reached=lambda _, nbytes, at: arrived.append(nbytes))
    with pytest.raises(LoadCancelledError):
        load_gguf(large, torch.float16, threads=threads, pace=pace)
    assert 3 <= len(arrived) < 3 + threads


def test_without_preadv_one_thread_reads(large: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "preadv", raising=False)
    readers: set[int] = set()
    loaded = load_gguf(
        large, torch.float16, threads=3, pace=Pace(reached=lambda *_: readers.add(threading.get_ident()))
    )
    assert readers == {threading.get_ident()}
    assert not loaded.tensors["large"].any()


def append(path: str) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def load_after(path: str, change: Callable[[str], None]) -> LoadedGguf:
    header = read_gguf_header(path)
    change(path)
    return load_gguf(path, torch.float16, header=header)


def test_a_file_that_changed_since_its_header_is_refused(large: str):
    with pytest.raises(SafetensorsLoadError, match="changed"):
        load_after(large, append)


def test_a_file_that_changes_during_the_load_is_refused(large: str):
    with pytest.raises(SafetensorsLoadError, match="changed"):
        load_gguf(large, torch.float16, pace=Pace(reached=lambda path, *_: append(path)))


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_memory_is_the_result_and_a_few_chunks(tmp_path: Path):
    elements = 48 << 20
    path = tmp_path / "memory.gguf"
    tensor = RawTensor("w", (4096, elements // 4096), GGUF_TYPES["Q4_K"].code, 0)
    with open(path, "wb") as file:
        file.write(gguf_bytes([tensor]))
        file.truncate(file.tell() + elements // 256 * 144)
    code = f"""
import torch
from pathlib import Path
from warmstack.loaders.gguf.load import load_gguf
from warmstack.loaders.gguf.chunks import CHUNK_ELEMENTS
from warmstack.loaders.gguf.header import read_gguf_header
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
torch.empty(1).half()
before = peak()
loaded = load_gguf({str(path)!r}, torch.float16, threads=2)
grown = peak() - before
assert loaded.tensors["w"].nbytes == {2 * elements}
assert {2 * elements} * 0.9 < grown < {2 * elements} + (24 << 20), grown
assert loaded.metrics.peak_bytes < {2 * elements} + (24 << 20)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
