"""load_adapter: what it holds, where its bytes live, and how each failure reads."""

from __future__ import annotations

import gc
import os
import pickle
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders.reading.private import allocate
from warmstack.loaders.reading.tensor_file import Storage
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import load_adapter
from warmstack.lora.errors import AdapterLoadCancelledError, AdapterLoadError, AdapterUnavailableError
from warmstack.lora.library.file import LoraFile


class CallsHome:
    """A pickle of it calls a function when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


STORAGES: tuple[Storage, ...] = ("private", "mapped")


def found(path: Path) -> LoraFile:
    stat = path.stat()
    return LoraFile(f"styles/{path.name}", str(path), stat.st_size, stat.st_mtime_ns)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "m.lora_up.weight": torch.randn(16, 4, generator=generator).half(),
        "m.lora_down.weight": torch.randn(4, 8, generator=generator).bfloat16(),
        "m.alpha": torch.tensor(4.0),
        "m.mask": torch.tensor([True, False, True]),
        "m.empty": torch.empty(0, 3),
    }


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_tensors_are_those_of_the_file(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str, storage: Storage
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path, metadata={"ss_output_name": "ink"})
    file = found(path)
    adapter = load_adapter(file, storage=storage)
    assert adapter.key == file.key
    assert adapter.storage == storage
    assert adapter.nbytes == sum(tensor.nbytes for tensor in tensors.values())
    assert dict(adapter.metadata) == ({} if suffix == ".pt" else {"ss_output_name": "ink"})
    assert adapter.tensors.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert adapter.tensors[key].dtype == tensor.dtype
        assert torch.equal(adapter.tensors[key], tensor)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_private_memory_is_free_when_the_last_tensor_is(
    tmp_path: Path, tensors: dict[str, torch.Tensor], suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    torch.save(tensors, path) if suffix == ".pt" else save_file(tensors, path)
    adapter = load_adapter(found(path))
    assert adapter.buffer is not None
    buffer = weakref.ref(adapter.buffer)
    last = adapter.tensors["m.lora_up.weight"]
    del adapter
    gc.collect()
    assert buffer() is not None
    assert torch.equal(last, tensors["m.lora_up.weight"])
    del last
    assert buffer() is None


def test_private_memory_does_not_follow_the_file(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    adapter = load_adapter(found(path))
    with path.open("r+b") as file:
        file.truncate(10)
    assert all(torch.equal(adapter.tensors[key], tensor) for key, tensor in tensors.items())


def test_a_file_that_is_no_longer_what_was_found_is_not_loaded(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    file = found(path)
    os.utime(path, ns=(file.mtime_ns + 1, file.mtime_ns + 1))
    for storage in STORAGES:
        with pytest.raises(AdapterUnavailableError, match="changed"):
            load_adapter(file, storage=storage)


def test_a_pickle_that_is_written_into_while_it_is_copied_is_not_loaded(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    torch.save(tensors, path)
    file = found(path)

    def rewritten_meanwhile(name: str, nbytes: int, *, huge_pages: bool) -> object:
        os.utime(path, ns=(file.mtime_ns + 1, file.mtime_ns + 1))
        return allocate(name, nbytes, huge_pages=huge_pages)

    monkeypatch.setattr("warmstack.lora.cache.adapter.allocate", rewritten_meanwhile)
    with pytest.raises(AdapterUnavailableError, match="changed"):
        load_adapter(file)


@pytest.mark.parametrize("name", ["gone.safetensors", "gone.pt"])
def test_a_missing_file_is_unavailable_not_broken(tmp_path: Path, name: str) -> None:
    with pytest.raises(AdapterUnavailableError, match=f"LoRA '{name}' cannot be loaded"):
        load_adapter(LoraFile(name, str(tmp_path / name), 10, 10))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b""),
        ("a.safetensors", b"\xff" * 64),
        ("a.pt", b"no pickle at all"),
        ("a.ckpt", pickle.dumps(CallsHome(), protocol=2)),
    ],
)
def test_broken_content_is_one_line_without_a_path_or_a_cause(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AdapterLoadError) as caught:
        load_adapter(found(path))
    assert type(caught.value) is AdapterLoadError
    assert f"styles/{name}" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "its frames would keep half-read buffers, its text the path"


@pytest.mark.parametrize(
    "tensor", [torch.zeros(1).expand(1 << 40), torch.eye(3).to_sparse()], ids=["expanded", "sparse"]
)
def test_a_pickle_of_tensors_that_a_copy_would_blow_up_is_refused(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = tmp_path / "a.pt"
    torch.save({"m.lora_up.weight": tensor}, path)
    for storage in STORAGES:
        with pytest.raises(AdapterLoadError, match="convert it to safetensors"):
            load_adapter(found(path), storage=storage)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_cancelled_load_says_so(tmp_path: Path, tensors: dict[str, torch.Tensor], storage: Storage) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    with pytest.raises(AdapterLoadCancelledError):
        load_adapter(found(path), cancelled=lambda: True, storage=storage)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_load_that_nobody_can_cancel(tmp_path: Path, tensors: dict[str, torch.Tensor], storage: Storage) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    limiter = RateLimit(1e9)
    assert load_adapter(found(path), cancelled=None, limiter=limiter, storage=storage).tensors.keys() == tensors.keys()


@pytest.mark.parametrize("storage", STORAGES)
def test_the_limiter_sees_every_byte(tmp_path: Path, tensors: dict[str, torch.Tensor], storage: Storage) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    now_s = [0.0]

    def sleep(seconds: float) -> None:
        now_s[0] += seconds

    limiter = RateLimit(100.0, clock=lambda: now_s[0], sleep=sleep)
    adapter = load_adapter(found(path), limiter=limiter, storage=storage)
    assert now_s[0] >= 0.99 * adapter.nbytes / 100.0
