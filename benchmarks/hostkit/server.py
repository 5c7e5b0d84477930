"""A ComfyUI process on an ephemeral port, over a base directory of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .client import HostClient

PACK_ROOT = Path(__file__).resolve().parents[2]
PACK_FOLDER = "comfyui-warm-stack"
"""Hyphenated, and not the import name: what a git clone under any name looks like to the host."""

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 60.0
"""A host that ends by itself takes two seconds; on a machine that does much else, more than ten times that."""


@dataclass(frozen=True, slots=True)
class HostInstall:
    """Where ComfyUI and its interpreter are."""

    root: Path
    python: Path

    @classmethod
    def from_environment(cls) -> HostInstall | None:
        """None when COMFYUI_PATH or COMFYUI_PYTHON is unset."""
        root, python = os.environ.get("COMFYUI_PATH"), os.environ.get("COMFYUI_PYTHON")
        return cls(Path(root), Path(python)) if root and python else None


def make_base_directory(base: Path, *, with_pack: bool = True, with_test_nodes: bool = True) -> Path:
    """Lay out `models/`, `custom_nodes/`, ... under `base`; the pack is a link to this checkout."""
    for folder in (
        "models/checkpoints",
        "models/diffusion_models",
        "models/vae",
        "models/loras",
        "custom_nodes",
        "input",
        "output",
    ):
        (base / folder).mkdir(parents=True, exist_ok=True)
    if with_pack:
        (base / "custom_nodes" / PACK_FOLDER).symlink_to(PACK_ROOT, target_is_directory=True)
    if with_test_nodes:
        shutil.copy(Path(__file__).with_name("host_nodes.py"), base / "custom_nodes" / "hostkit_test_nodes.py")
    return base


@dataclass(slots=True)
class HostServer:
    """Context manager: started on enter, stopped (SIGINT, then SIGKILL) on exit. The log is `base/host.log`."""

    install: HostInstall
    base: Path
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    on_gpu: bool = False
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    ready_s: float = 0.0
    """Seconds from the start of the process to its first answer."""

    @property
    def client(self) -> HostClient:
        return HostClient(f"http://127.0.0.1:{self.port}")

    @property
    def log(self) -> str:
        return (self.base / "host.log").read_text(errors="replace")

    def __enter__(self) -> HostServer:
        self.port = _free_port()
        self.start()
        return self

    def start(self) -> None:
        """On the port that it has: after a `stop`, a client that knew the server finds it again."""
        started = time.perf_counter()
        self.process = self._spawn("--port", str(self.port))
        try:
            self._wait_until_ready(started + _START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.perf_counter() - started

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGINT, as Ctrl-C does, so that the exit path of the pack runs too."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def quick_test(self) -> int:
        """Run `--quick-test-for-ci` to its end; returns the exit status. The log is in `log`."""
        return self._spawn("--quick-test-for-ci").wait(_START_TIMEOUT_S)

    def _spawn(self, *extra: str) -> subprocess.Popen[bytes]:
        command = [
            str(self.install.python), str(self.install.root / "main.py"), "--listen", "127.0.0.1",
            "--base-directory", str(self.base), "--database-url", "sqlite:///:memory:", "--disable-api-nodes",
            *(() if self.on_gpu else ("--cpu",)), *self.arguments, *extra,
        ]  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WARMSTACK_")}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **self.environment}
        with (self.base / "host.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.base, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=_heed_sigint
            )

    def _wait_until_ready(self, deadline: float) -> None:
        while True:
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended before it served:\n{self.log[-4000:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/system_stats", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                if time.perf_counter() > deadline:
                    raise TimeoutError(f"ComfyUI does not answer:\n{self.log[-4000:]}") from None
                time.sleep(0.05)


def _heed_sigint() -> None:
    """What a shell starts in the background ignores SIGINT, and hands that on: the host would have to be killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
