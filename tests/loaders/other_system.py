"""Run by `test_other_systems.py`: `other_system.py PLATFORM FOLDER` takes away what only Linux has, then loads FOLDER.

What cannot be taken away in a running process stays: paths, locking and the file cache are those of Linux."""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # noqa: F401  # before its system goes
import torch

_LINUX = {
    "os": "O_DIRECT fdatasync posix_fadvise posix_fallocate POSIX_FADV_DONTNEED sched_getaffinity copy_file_range",
    "mmap": "MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_POPULATE_READ MAP_NORESERVE MAP_POPULATE",
}
_POSIX = {
    "os": "preadv pread readv pwrite major minor makedev getuid geteuid getgid statvfs fstatvfs fork fchmod",
    "mmap": " ".join(name for name in dir(mmap) if name.startswith(("MAP_", "PROT_", "MADV_"))),
}


class WindowsMapping(mmap.mmap):
    def __new__(
        cls, fileno: int, length: int, tagname: str | None = None, access: int = mmap.ACCESS_DEFAULT, offset: int = 0
    ) -> WindowsMapping:
        return super().__new__(cls, fileno, length, access=access, offset=offset)

    @property
    def madvise(self) -> Any:
        raise AttributeError("madvise")


class FileWithOnePosition(io.FileIO):
    """Where each read moves it: a thread that shares it gets the other's bytes."""

    def seek(self, *place: int) -> int:
        position = super().seek(*place)
        time.sleep(0.002)
        return position


def become(platform: str) -> None:
    """Before anything of ours is imported."""
    library = ctypes.CDLL

    def open_library(name: str | None, *args: Any, **choices: Any) -> Any:
        if name is not None:
            return library(name, *args, **choices)
        if platform == "win32":
            raise TypeError("argument of type 'NoneType' is not iterable")
        process = library(None)
        return types.SimpleNamespace(mincore=process.mincore, madvise=process.madvise)

    ctypes.CDLL = open_library  # type: ignore[assignment, misc]
    for names in (_LINUX, _POSIX) if platform == "win32" else (_LINUX,):
        for module in (os, mmap):
            for name in names[module.__name__].split():
                module.__dict__.pop(name, None)
    if platform == "win32":
        mmap.mmap = WindowsMapping  # type: ignore[misc]
        io.FileIO = FileWithOnePosition  # type: ignore[misc]
        sys.modules["fcntl"] = sys.modules["resource"] = None  # type: ignore[assignment]
    sys.platform = platform


def same(loaded: dict[str, torch.Tensor], saved: dict[str, torch.Tensor]) -> bool:
    return loaded.keys() == saved.keys() and all(
        loaded[key].dtype == tensor.dtype and np.array_equal(loaded[key].numpy(), tensor.numpy())
        for key, tensor in saved.items()
    )


def load_everything(folder: Path, saved: dict[str, torch.Tensor], dequantised: dict[str, torch.Tensor]) -> None:
    from warmstack.loaders import ModelLoader, NoCapableLoaderError, StrategyRegistry

    shards, whole = sorted(folder.glob("shard-*")), [folder / "whole.safetensors"]
    for strategy in ("auto", *StrategyRegistry.default().strategies):
        for choices in ({}, {"device_map": {"": "disk", "large": "cpu"}}, {"dtype": torch.float16}):
            expected = {key: tensor for key, tensor in saved.items() if "device_map" not in choices or key == "large"}
            if "dtype" in choices:
                expected = {key: tensor.half() for key, tensor in saved.items()}
            for files in (whole, shards):
                try:
                    loaded = ModelLoader(strategy, **choices).load_shards(files)
                except NoCapableLoaderError:
                    continue
                assert same(loaded.tensors, expected), (strategy, choices, files)
                if not choices:
                    sys.stdout.write(f"{strategy} {'whole' if files == whole else 'shards'}\n")
    assert same(ModelLoader().load_checkpoint(folder / "pickle.pt").tensors, saved)
    assert same(ModelLoader().load_checkpoint(folder / "packed.gguf").tensors, dequantised)


def ask_everything(platform: str, path: str, nowhere: Path) -> None:
    """Every public function of what asks the system."""
    from warmstack.loaders.memory import host_memory
    from warmstack.loaders.system import disk_kind, disk_probe, kernel, page_cache

    if platform == "win32":
        kernel.os = types.SimpleNamespace(**{**vars(os), "name": "nt"})  # type: ignore[attr-defined]
    size_bytes = os.path.getsize(path)
    told = (None,) if platform == "win32" else range(size_bytes + 1)
    nobody = {disk_kind.STORAGE_VARIABLE: f"{nowhere}=flash,what=ever"}

    def dropped() -> bool:
        try:
            page_cache.drop_file(path)
        except OSError as error:
            return "needs Linux" in str(error) and "\n" not in str(error)
        return False

    def share() -> bool:
        with io.FileIO(path) as file:
            found = page_cache.cached_share(file, [(0, size_bytes)])
        return found is None if platform == "win32" else found is not None and 0 <= found <= 1

    answers: dict[types.ModuleType, dict[str, Callable[[], bool]]] = {
        page_cache: {
            "resident_bytes": lambda: page_cache.resident_bytes(path) in told,
            "about_resident_bytes": lambda: page_cache.about_resident_bytes(path) in told,
            "cached_share": share,
            "warm_file": lambda: page_cache.warm_file(path, cancelled=lambda: False) == size_bytes,
            "drop_file": dropped,
        },
        disk_kind: {
            "disk_under": lambda: disk_kind.disk_under(path, root=nowhere).kind == "unknown",
            "disk_kind": lambda: disk_kind.disk_kind(path, root=nowhere, environ=nobody) == "unknown",
            "storage_problems": lambda: disk_kind.storage_problems(nobody) == ("what=ever",),
        },
        disk_probe: {
            "probe_rates": lambda: disk_probe.probe_rates([path], cancelled=lambda: False) == (),
            "readers_that_pay": lambda: disk_probe.readers_that_pay(()) == 1,
        },
        host_memory: {
            "available_bytes": lambda: host_memory.available_bytes() > 0,
            "measure_memory": lambda: host_memory.measure_memory(nowhere, nowhere).total_bytes > 0,
        },
    }
    for module, by_name in answers.items():
        public = {name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__}
        functions = {name for name in public if name[0] != "_" and isinstance(vars(module)[name], types.FunctionType)}
        assert by_name.keys() == functions, (module, functions)
        for name, holds in by_name.items():
            assert holds(), (module, name)


if __name__ == "__main__":
    given_platform, given_folder = sys.argv[1], Path(sys.argv[2])
    contents = [torch.load(given_folder / name) for name in ("saved.pt", "dequantised.pt")]
    become(given_platform)
    load_everything(given_folder, *contents)
    ask_everything(given_platform, str(given_folder / "whole.safetensors"), given_folder / "nowhere")
