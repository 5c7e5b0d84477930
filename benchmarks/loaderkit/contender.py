"""Contender: a loader in a process of its own, and how much memory it takes there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from .workloads import Workload

Memory = Literal["views", "private", "floor"]
_SAMPLE_S = 0.0005


@dataclass(frozen=True)
class Contender:
    """One loader of the report."""

    name: str
    memory: Memory
    """Views show the mapped file; private memory is a copy."""
    function: str
    """`module:function` for loader_process.py."""
    workloads: tuple[str, ...] = ("lora", "batch", "checkpoint", "shards", "subset", "shards_subset")
    host: bool = False
    """Runs in ComfyUI's Python."""
    ours: bool = False


class ContenderError(Exception):
    """The loader does not run here, or failed; the text is its own."""


class Running:
    """The process of a contender."""

    def __init__(self, contender: Contender, peers: str) -> None:
        self.contender = contender
        self.has_memory_of = ""
        """The latest workload, unless its memory was given back."""
        host = os.environ.get("COMFYUI_PATH", "") if contender.host else ""
        python = os.environ.get("COMFYUI_PYTHON", "") if contender.host else sys.executable
        if contender.host and not (host and python):
            raise ContenderError("COMFYUI_PATH and COMFYUI_PYTHON are not set")
        paths = [path for path in (host, peers, os.environ.get("PYTHONPATH", "")) if path]
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("loader_process.py")), contender.function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            cwd=host or None,
        )
        self._hear()

    def load(self, workload: Workload, *, gives_memory_back: bool = False, **extra: object) -> dict[str, Any]:
        answer = self.ask({**asdict(workload), "gives_memory_back": gives_memory_back, **extra})
        self.has_memory_of = "" if gives_memory_back else workload.name
        return answer

    def ask(self, question: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ContenderError(f"ended with {self._process.wait()}") from error
        return self._hear()

    def peak_bytes(self, workload: Workload) -> tuple[int, dict[str, Any]]:
        """Anonymous memory that one load adds at its highest, by the kernel's own count, sampled; and its answer."""
        # Freed memory that is kept would hide what the load takes.
        self.give_memory_back()
        before_bytes = self._anonymous_bytes()
        highest: list[int] = [before_bytes]
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                highest.append(self._anonymous_bytes())
                time.sleep(_SAMPLE_S)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answer = self.load(workload, hold_s=0.02)
        finally:
            done.set()
            watcher.join()
        return max(highest) - before_bytes, answer

    def give_memory_back(self) -> None:
        """What is kept of earlier loads."""
        self.ask({"paths": ()})
        self.has_memory_of = ""

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(f"ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def _anonymous_bytes(self) -> int:
        with open(f"/proc/{self._process.pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))
