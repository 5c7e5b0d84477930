"""The `warmstack` command, on a small demo world."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import make_demo
import pytest
import torch
from PIL import Image
from tiny_sdxl import tiny_sdxl

from warmstack.worker import run_command
from warmstack.worker.__main__ import main as command_main
from warmstack.worker.cli import main
from warmstack.worker.pipelines import load_pipeline


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make demo` builds, with small files."""
    folder = tmp_path_factory.mktemp("world")
    pipeline = tiny_sdxl(folder / "tokenizers")
    pipeline.save_pretrained(folder / "pipeline")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(make_demo, "RANK", 4)
        make_demo.make_library(pipeline, folder / "loras")
    lines = [line if isinstance(line, str) else json.dumps(line) for line in make_demo.queue_lines()]
    small = [line.replace('"width": 128, "height": 128', '"width": 64, "height": 64') for line in lines]
    (folder / "queue.jsonl").write_text("\n".join(small), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test leaves anything in the state folder of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "users-state"))
    return tmp_path / "users-state"


def run(world: Path, output: Path, *options: str) -> int:
    places = ["--pipeline", str(world / "pipeline"), "--loras", str(world / "loras"), "--output", str(output)]
    return main(["run", str(world / "queue.jsonl"), *places, "--steps", "1", "--device", "cpu", *options])


def test_both_passes_agree_and_everything_is_left_behind(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = ["--cold"] if hasattr(os, "posix_fadvise") else []
    assert run(world, tmp_path, "--mode", "both", *cold) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["comparison"] == {"compared": 14, "different": [], "identical": True}
    assert [found["mode"] for found in report["runs"]] == ["on-demand", "prefetch"]
    failures = {request["id"] for request in report["runs"][1]["requests"] if request["problems"]}
    assert failures == {"misspelt", "line 9", "soft-unsaid", "another-model"}
    totals = report["runs"][1]["totals"]
    assert totals["failures"] == 4
    assert totals["hits"] + totals["joins"] > totals["misses"]
    assert 0 <= totals["wait_p50_s"] <= totals["wait_p99_s"]
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.size[0] > 700
    assert len(list((tmp_path / "images").iterdir())) == 14
    shown = capsys.readouterr().out
    assert "identical, byte for byte" in shown
    assert "Totals" in shown
    assert f"{1000 * totals['wait_p50_s']:.1f} / {1000 * totals['wait_p99_s']:.1f} ms" in shown
    assert str(world / "loras") not in json.dumps(report)


def test_pictures_tell_the_loras_apart(world: Path, tmp_path: Path) -> None:
    assert run(world, tmp_path) == 0
    pictures = {path.stem: path.read_bytes() for path in (tmp_path / "images").iterdir()}
    assert pictures["off"] == pictures["base"]
    rest = [picture for name, picture in pictures.items() if name != "off"]
    assert len(set(rest)) == len(rest)


def test_a_broken_pipeline_is_not_success(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, steps: int | None) -> None:
            pass

        def __call__(self, pipeline: Any, request: Any) -> Any:
            raise RuntimeError("the device is gone")

    monkeypatch.setattr(run_command, "Generator", Broken)
    assert run(world, tmp_path, "--mode", "on-demand") == 1


@pytest.mark.parametrize("missing", ["queue", "pipeline"])
def test_what_is_not_there_is_one_line_and_status_2(
    missing: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    queue = world / "queue.jsonl" if missing != "queue" else tmp_path / "none.jsonl"
    pipeline = world / "pipeline" if missing != "pipeline" else tmp_path / "none"
    places = ["--pipeline", str(pipeline), "--loras", str(world / "loras"), "--output", str(tmp_path / "out")]
    assert main(["run", str(queue), *places]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "none" in line


@pytest.mark.parametrize("command", ["run", "list", "plan"])
def test_a_lora_folder_that_is_not_there_is_told_before_anything_else(
    command: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--pipeline", str(tmp_path / "none"), "--output", str(tmp_path / "out")] if command == "run" else []
    queue = [] if command == "list" else [str(world / "queue.jsonl")]
    loras = ["--loras", str(world / "loras"), "--loras", str(tmp_path / "lorras")]
    assert main([command, *queue, *places, *loras]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "lorras is no folder" in line


@pytest.mark.parametrize("option", [("--steps", "0"), ("--memory-limit-mb", "-1"), ("--device-budget-mb", "-1")])
def test_a_number_that_cannot_be_is_refused_by_its_option(
    option: tuple[str, str], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(world, tmp_path, *option)
    assert ended.value.code == 2
    assert f"argument {option[0]}: {option[1]} is less than" in capsys.readouterr().err


def test_list_and_plan_show_names_and_reasons(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--loras", str(world / "loras"), "--category", "styles"]) == 0
    shown = capsys.readouterr().out
    assert "styles/ink.safetensors" in shown
    assert "characters/" not in shown
    assert main(["plan", str(world / "queue.jsonl"), "--loras", str(world / "loras")]) == 0
    shown = capsys.readouterr().out
    assert "not JSON" in shown
    assert "ambiguous" in shown


@pytest.mark.parametrize("command", ["list", "plan"])
@pytest.mark.parametrize("is_terminal", [False, True])
def test_names_are_shown_whole(
    command: str,
    is_terminal: bool,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A program reads the output line by line, a person in a narrow window over several lines."""
    name = "x".join(map(str, range(70)))
    shutil.copy(world / "loras" / "styles" / "ink.safetensors", tmp_path / f"{name}.safetensors")
    (tmp_path / "queue.jsonl").write_text(json.dumps({"prompt": "x", "lora": [name]}), encoding="utf-8")
    monkeypatch.setenv("COLUMNS", "70")
    if is_terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    assert (
        main([command, *([str(tmp_path / "queue.jsonl")] if command == "plan" else []), "--loras", str(tmp_path)]) == 0
    )
    shown = capsys.readouterr().out
    assert (f"{name}.safetensors" in shown) is not is_terminal
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_a_run_keeps_what_it_learned_for_the_next(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users_state: Path
) -> None:
    monkeypatch.setenv("WARMSTACK_PREDICT", "on")
    state = tmp_path / "state"
    assert run(world, tmp_path / "out", "--state", str(state)) == 0
    assert {"index.json", "habits.json"} <= {path.name for path in state.iterdir()}
    assert "styles/ink" in (state / "habits.json").read_text(encoding="utf-8")
    assert not users_state.exists()


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the place is the system's own there")
def test_each_library_has_an_index_of_its_own_in_the_users_state(
    world: Path, tmp_path: Path, users_state: Path
) -> None:
    """One index for both would forget the one at each run over the other."""
    other = tmp_path / "other"
    shutil.copytree(world / "loras" / "styles", other)
    for loras in (world / "loras", other, world / "loras"):
        assert main(["list", "--loras", str(loras)]) == 0
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in users_state.glob("warmstack/*/index.json")]
    assert sorted(len(index["files"]) for index in kept) == [5, 10]


@pytest.mark.parametrize(("command", "missing"), [("list", "rich"), ("run", "torch"), ("run", "diffusers")])
def test_an_install_without_the_extra_says_so_in_one_line(command: str, missing: str, world: Path) -> None:
    """`pip install comfyui-warmstack` brings the command, and not what it works with."""
    options = [] if command == "list" else [str(world / "queue.jsonl"), "--pipeline", "x", "--output", "y"]
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from warmstack.worker.__main__ import main\n"
        f"sys.exit(main([{command!r}, *{options!r}, '--loras', {str(world / 'loras')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert missing in line
    assert 'pip install "comfyui-warmstack[diffusers]"' in line


@pytest.mark.parametrize("kind", [ImportError, ModuleNotFoundError])
def test_a_package_that_the_pipeline_lacks_is_not_taken_for_the_extra(
    kind: type[ImportError],
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lacking(*_: object, **options: object) -> None:
        raise kind("this tokenizer needs\nsentencepiece", name="sentencepiece")

    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lacking)
    places = ["--pipeline", str(world / "pipeline"), "--loras", str(world / "loras"), "--output", str(tmp_path)]
    assert command_main(["run", str(world / "queue.jsonl"), *places]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot be loaded: this tokenizer needs sentencepiece" in said
    assert "comfyui-warmstack" not in said


def test_a_pipeline_is_loaded_in_its_precision_without_a_warning(world: Path) -> None:
    """Cast afterwards, modules that belong in float32 would lose it; diffusers warns of that each time."""
    said: list[logging.LogRecord] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = said.append
    logging.getLogger("diffusers").addHandler(listener)
    try:
        pipeline = load_pipeline(world / "pipeline", "cpu", "bfloat16")
    finally:
        logging.getLogger("diffusers").removeHandler(listener)
    assert [record.getMessage() for record in said] == []
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2)
    assert [part.dtype for part in parts] == [torch.bfloat16] * 4


@pytest.mark.parametrize("command", ["list", "plan"])
def test_a_name_that_the_output_has_no_letters_for_costs_no_other(command: str, world: Path, tmp_path: Path) -> None:
    """As on Windows, when the output goes into a file or another program."""
    for name in ("ink", "\N{CJK UNIFIED IDEOGRAPH-732B}"):
        shutil.copy(world / "loras" / "styles" / "ink.safetensors", tmp_path / f"{name}.safetensors")
    queue = tmp_path / "queue.jsonl"
    queue.write_text('{"prompt": "x", "lora": ["ink", "\\u732b"]}', encoding="utf-8")
    wanted = [command, *([str(queue)] if command == "plan" else []), "--loras", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "warmstack.worker", *wanted], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"ink.safetensors" in done.stdout
    assert rb"\u732b.safetensors" in done.stdout


@pytest.mark.parametrize("command", ["list", "plan"])
def test_list_and_plan_import_no_torch(command: str, world: Path) -> None:
    queue = [] if command == "list" else [str(world / "queue.jsonl")]
    code = (
        "import sys; from warmstack.worker.cli import main;"
        f"status = main([{command!r}, *{queue!r}, '--loras', {str(world / 'loras')!r}]);"
        "sys.exit(status or bool({'torch', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "styles/ink" in done.stdout
