"""Ctrl-C during `warmstack run`, in a process of its own: what was done is reported."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_sdxl import tiny_sdxl

from warmstack.worker import run_command
from warmstack.worker.cli import main
from warmstack.worker.interruption import Interruption

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")

QUEUE = ["one", "two", "three", "four"]
CHILD = """
import signal, sys
from PIL import Image
from warmstack.worker import run_command
from warmstack.worker.cli import main

class Generator:
    def __init__(self, steps):
        pass

    def __call__(self, pipeline, request):
        if request.id == "two":
            print("under way", flush=True)
            sys.stdin.readline()
        return Image.new("L", (8, 8))

run_command.Generator = Generator
# Whoever runs the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny_sdxl(folder / "tokenizers").save_pretrained(folder / "pipeline")
    (folder / "loras").mkdir()
    lines = [json.dumps({"id": name, "prompt": "a fox"}) for name in QUEUE]
    (folder / "queue.jsonl").write_text("\n".join([*lines, "{"]), encoding="utf-8")
    return folder


def arguments(world: Path, output: Path, mode: str) -> list[str]:
    places = ["--pipeline", str(world / "pipeline"), "--loras", str(world / "loras"), "--state", str(output / "state")]
    return ["run", str(world / "queue.jsonl"), *places, "--output", str(output), "--mode", mode, "--device", "cpu"]


@pytest.fixture
def interrupted(world: Path, tmp_path: Path) -> Callable[[str], AbstractContextManager[subprocess.Popen[str]]]:
    """A run whose second request is under way, with Ctrl-C pressed once and heard."""

    @contextmanager
    def start(mode: str) -> Iterator[subprocess.Popen[str]]:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", CHILD, *arguments(world, tmp_path, mode)]
        with subprocess.Popen(command, text=True, **pipes) as child:
            try:
                assert child.stdout is not None and child.stderr is not None
                assert any("under way" in line for line in child.stdout)
                child.send_signal(signal.SIGINT)
                assert any("Ctrl-C again ends at once" in line for line in child.stderr)
                yield child
            finally:
                child.kill()

    return start


def test_the_request_under_way_is_finished_and_the_rest_is_reported_as_not_run(
    interrupted: Callable[[str], AbstractContextManager[subprocess.Popen[str]]], tmp_path: Path
) -> None:
    with interrupted("prefetch") as child:
        shown, said = child.communicate("go on\n")
    assert child.returncode == 130
    assert "Traceback" not in said
    assert "not run" in shown
    assert sorted(path.stem for path in (tmp_path / "images").iterdir()) == ["one", "two"]
    assert (tmp_path / "contact-sheet.png").is_file()
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["interrupted"] is True
    (run,) = report["runs"]
    assert {request["id"]: request["ran"] for request in run["requests"]} == {
        "one": True, "two": True, "three": False, "four": False, "line 5": True,
    }  # fmt: skip
    assert run["totals"]["failures"] == 1
    assert run["totals"]["not_run"] == 2


def test_a_second_one_ends_at_once(
    interrupted: Callable[[str], AbstractContextManager[subprocess.Popen[str]]], tmp_path: Path
) -> None:
    with interrupted("on-demand") as child:
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["interrupted"], report["runs"]) == (True, [])


def test_a_second_pass_is_not_begun(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pressed = Interruption()

    class Generator:
        def __init__(self, steps: int | None) -> None:
            pass

        def __call__(self, pipeline: Any, request: Any) -> Image.Image:
            pressed.asked = request.id == "three"
            return Image.new("L", (8, 8))

    monkeypatch.setattr(run_command, "Generator", Generator)
    monkeypatch.setattr(run_command, "Interruption", lambda: pressed)
    assert main(arguments(world, tmp_path, "both")) == 130
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [run["mode"] for run in report["runs"]] == ["on-demand"]
    assert [request["ran"] for request in report["runs"][0]["requests"]] == [True, True, True, False, True]
    assert report["comparison"] is None
    assert not (tmp_path / "images").exists()


def test_before_and_after_it_is_pythons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_outside_a_queue_is_one_line(
    tmp_path: Path, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "load_pipeline", interrupt)
    assert main(arguments(world, tmp_path, "prefetch")) == 130
    assert capsys.readouterr().err.splitlines() == ["Interrupted."]
