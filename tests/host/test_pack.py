"""The pack as the host sees it: it registers quietly, ends quietly, and when it is broken the host runs on."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from hostkit.client import HostClient, HostRequestError
from hostkit.graphs import flux_graph
from hostkit.server import PACK_FOLDER, PACK_ROOT, HostInstall, HostServer

from ..web.browser_kit.node_info import object_info

NODES = {
    "WarmStackLoadLoraStack", "WarmStackLoraStack", "WarmStackLoraTags", "WarmStackLoraRequest", "WarmStackLoraCatalog",
    "WarmStackWarm", "WarmStackStatus", "WarmStackLoadDiffusionModel", "WarmStackLoadCheckpoint",
}  # fmt: skip
ROWS = [("flux/native0.safetensors", 0.7, 0.0), ("flux/native1.safetensors", 0.4, 0.0)]

_RED = re.compile(
    r"\[ERROR\]|\[CRITICAL\]|Traceback|Task was destroyed|was never awaited|IMPORT FAILED|Exception ignored"
)
_OURS = re.compile(r"warm[-_]?stack", re.IGNORECASE)


def complaints(log: str) -> list[str]:
    """Lines of the host's log that are red, or that warn and name us."""
    lines = log.splitlines()
    return [line for line in lines if _RED.search(line) or ("WARNING" in line and _OURS.search(line))]


def test_every_node_registers_and_a_session_leaves_nothing_red(install: HostInstall, own_base: Path) -> None:
    with HostServer(install, own_base) as server:
        client = server.client
        assert set(client.get("/object_info")) >= NODES
        stock, ours = client.run(flux_graph(ROWS), flux_graph(ROWS, loader="stack"))
        assert stock.output("digest") == ours.output("digest")
        assert client.get("/warmstack/v1/status")["prefetch"]["enabled"]
    assert complaints(server.log) == []
    assert f"seconds: {own_base}/custom_nodes/{PACK_FOLDER}" in server.log


def test_a_host_that_only_tests_its_imports_ends_cleanly(install: HostInstall, own_base: Path) -> None:
    server = HostServer(install, own_base)
    assert server.quick_test() == 0
    assert PACK_FOLDER in server.log
    assert complaints(server.log) == []


def test_ending_while_a_file_is_being_read_is_quiet(install: HostInstall, own_base: Path) -> None:
    slow = {"WARMSTACK_READ_LIMIT": "1000"}
    with HostServer(install, own_base, environment=slow) as server:
        server.client.queue(flux_graph(hold_s=20))
        server.client.queue(flux_graph(ROWS, loader="stack"))
        # Inside a sampler the host itself may abort: its worker is a daemon thread, ended in the middle of torch.
        while "holding for 20.0 s" not in server.log or not _reads_ahead(server):
            time.sleep(0.01)
    assert server.process is not None and server.process.returncode == 0, "it had to be killed"
    assert complaints(server.log) == []


def _reads_ahead(server: HostServer) -> bool:
    return bool(server.client.get("/warmstack/v1/status")["prefetch"]["in_flight"])


BREAKS = {
    # what is broken -> (file, what is put at its end)
    "the server hooks": ("nodes/service.py", "raise RuntimeError('broken on purpose')"),
    "the host adapter": (
        "nodes/server/host.py",
        "def _broken(self):\n    raise AttributeError('prompt_queue')\nComfyHost.__init__ = _broken",
    ),
    "the prefetch task": (
        "prefetch/prefetcher.py",
        "async def _broken(self):\n    raise RuntimeError('broken on purpose')\nPrefetcher._reconcile = _broken",
    ),
    "reading the queue": (
        "nodes/server/host.py",
        "def _broken(self):\n    raise RuntimeError('broken on purpose')\nComfyHost.queued_jobs = _broken",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_part_costs_the_prefetch_and_one_line(install: HostInstall, own_base: Path, broken: str) -> None:
    path, damage = BREAKS[broken]
    _damage(_copy_of_the_pack(own_base) / path, damage)
    with HostServer(install, own_base) as server:
        stock, ours = server.client.run(flux_graph(ROWS), flux_graph(ROWS, loader="stack"))
    assert stock.status == ours.status == "success"
    assert stock.output("digest") == ours.output("digest")
    lines = complaints(server.log)
    assert len(lines) == 1, lines
    assert "broken on purpose" in lines[0] or "prompt_queue" in lines[0]


def test_a_pack_that_cannot_be_imported_leaves_the_host_alone(install: HostInstall, own_base: Path) -> None:
    _damage(_copy_of_the_pack(own_base) / "nodes/extension.py", "raise RuntimeError('broken on purpose')")
    with HostServer(install, own_base) as server:
        (stock,) = server.client.run(flux_graph(ROWS))
        assert stock.status == "success"
        with pytest.raises(HostRequestError, match="missing_node_type"):
            server.client.queue(flux_graph(ROWS, loader="stack"))


def _copy_of_the_pack(base: Path) -> Path:
    """In place of the link, so that it can be damaged."""
    pack = base / "custom_nodes" / PACK_FOLDER
    pack.unlink()
    for folder in ("loaders", "lora", "prefetch", "nodes"):
        shutil.copytree(PACK_ROOT / folder, pack / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACK_ROOT / "__init__.py", pack)
    (pack / "web").mkdir()
    return pack


def _damage(path: Path, damage: str) -> None:
    path.write_text(path.read_text() + "\n\n" + damage + "\n")


def test_the_browser_tests_draw_the_nodes_as_they_are(client: HostClient) -> None:
    for name, drawn in object_info().items():
        if name.startswith("WarmStack"):
            real = client.get(f"/object_info/{name}")[name]
            facts = [[info[fact] for fact in ("input_order", "output", "output_name")] for info in (drawn, real)]
            assert facts[0] == facts[1], name
