"""The process of one loader: loads what stdin asks for, one JSON line each, and answers on stdout with what it took.

Runs in any Python that has the loader; the timed part begins when the paths are known and ends when the tensors are
there ("returned") and every page of them has been read ("touched")."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from typing import Any


def main(name: str) -> None:
    # Whatever a loader prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    load = _loader(name, answers)
    _say(answers, {"ready": name})
    for line in sys.stdin:
        try:
            _say(answers, _measure(load, json.loads(line)))
        except Exception as error:
            _say(answers, {"error": f"{type(error).__name__}: {error}"[:300]})


def _loader(name: str, answers: Any) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function.replace("-", "_"))
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"[:300]})
        raise SystemExit(1) from error


def _measure(load: Any, workload: dict[str, Any]) -> dict[str, Any]:
    if not workload["paths"]:
        _give_memory_back()
        return {}
    getattr(load, "before", lambda workload: None)(workload)
    before_bytes = _read_bytes()
    started_s = time.perf_counter()
    loaded = load(workload)
    returned_s = time.perf_counter() - started_s
    count, size_bytes = touch(loaded)
    touched_s = time.perf_counter() - started_s
    read_bytes = _read_bytes() - before_bytes
    if workload.get("hold_s"):
        time.sleep(workload["hold_s"])
    getattr(loaded, "close", lambda: None)()
    del loaded
    # What has been imported is not looked through for garbage by every load that follows.
    gc.collect()
    gc.freeze()
    if workload.get("gives_memory_back"):
        _give_memory_back()
    return {
        "returned_s": returned_s,
        "touched_s": touched_s,
        "tensors": count,
        "bytes": size_bytes,
        "read_bytes": read_bytes,
    }


def _give_memory_back() -> None:
    """What malloc and our own loaders keep of earlier loads."""
    ctypes.CDLL(None).malloc_trim(0)
    ours = sys.modules.get("warmstack.loaders.memory.spare_memory")
    if ours is not None:
        ours.process_spare().release()


def touch(tensors: Any) -> tuple[int, int]:
    """Read a byte of every page; (tensors, bytes). Neighbours in one go, since a call for each tensor would cost more
    than a fast loader does."""
    import numpy as np

    spans: list[list[int]] = []
    for start, nbytes in sorted((tensor.data_ptr(), tensor.nbytes) for tensor in tensors if tensor.nbytes):
        if spans and 0 <= start - spans[-1][1] <= 64:
            spans[-1][1] = start + nbytes
        else:
            spans.append([start, start + nbytes])
    for start, end in spans:
        memory = (ctypes.c_ubyte * (end - start)).from_address(start)
        np.frombuffer(memory, np.uint8)[:: 4096 if end - start > 4096 else 1].max()
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


def _read_bytes() -> int:
    """What this process has made the disk read."""
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
