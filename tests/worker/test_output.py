"""The output folder of `warmstack run`: what others put there stays, and the report is written whatever else fails."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import save_file

from warmstack.worker import output_folder, run_command
from warmstack.worker.batch import Batch, run_batch
from warmstack.worker.cli import main
from warmstack.worker.contact_sheet import MOST_CELLS, save_contact_sheet
from warmstack.worker.lora_worker import LoRAWorker
from warmstack.worker.report import RequestReport, RunReport

from .other_pipelines import FluxLike, kohya_pair

Run = Callable[..., int]


class Painter:
    """Stands in for diffusers: a grey square per request."""

    def __init__(self, steps: int | None) -> None:
        pass

    def __call__(self, pipeline: Any, request: Any) -> Image.Image:
        return Image.new("L", (8, 8), request.seed)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the requests of the given ids into `output`; the exit status."""
    (tmp_path / "loras").mkdir()
    save_file(kohya_pair("lora_unet_single_blocks_0_linear2", 1), tmp_path / "loras" / "ink.safetensors")
    monkeypatch.setattr(run_command, "load_pipeline", lambda *_: FluxLike(transformer=["x"]))
    monkeypatch.setattr(run_command, "Generator", Painter)

    def go(*ids: str, options: tuple[str, ...] = ()) -> int:
        queue = tmp_path / "queue.jsonl"
        lines = [json.dumps({"id": name, "prompt": "a fox", "seed": seed}) for seed, name in enumerate(ids)]
        queue.write_text("\n".join(lines), encoding="utf-8")
        places = ["--pipeline", "any", "--loras", str(tmp_path / "loras"), "--state", str(tmp_path / "state")]
        return main(["run", str(queue), *places, "--output", str(output), *options])

    return go


class Killed(BaseException):
    """Nothing in the package catches it."""


class ShortLived(Painter):
    """The second picture of a run is its end."""

    made = 0

    def __call__(self, pipeline: Any, request: Any) -> Image.Image:
        self.made += 1
        if self.made > 1:
            raise Killed
        return super().__call__(pipeline, request)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def report_of(output: Path) -> Any:
    return json.loads((output / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("mode", ["prefetch", "both"])
def test_what_no_run_made_stays(mode: str, run: Run, output: Path) -> None:
    for folder in ("images", "images-on-demand"):
        (output / folder).mkdir(parents=True)
        (output / folder / "mine.jpg").write_bytes(b"mine")
        (output / folder / "mine.png").write_bytes(b"mine")
    for _ in range(2):
        assert run("a", "b", options=("--mode", mode)) == 0
    assert names(output / "images") == {"a.png", "b.png", "mine.jpg", "mine.png"}
    assert (output / "images" / "mine.png").read_bytes() == b"mine"
    assert "mine.jpg" in names(output / "images-on-demand")
    if mode == "both":
        assert report_of(output)["comparison"] == {"compared": 2, "different": [], "identical": True}


def test_pictures_of_the_run_before_go(run: Run, output: Path) -> None:
    assert run("a", "b", options=("--mode", "both")) == 0
    assert run("b", "c") == 0
    assert names(output / "images") == {"b.png", "c.png"}
    assert not (output / "images-on-demand").exists()


@pytest.mark.parametrize("path", ["images/a.png", "report.json", "contact-sheet.png"])
def test_a_file_of_somebody_else_is_never_overwritten(
    path: str, run: Run, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = output / path
    mine.parent.mkdir(parents=True)
    mine.write_text('{"runs": 3}', encoding="utf-8")
    assert run("a") == 2
    assert Path(path).name in capsys.readouterr().err.replace("\n", "")
    assert mine.read_text(encoding="utf-8") == '{"runs": 3}'


@pytest.mark.parametrize("mode", ["on-demand", "prefetch", "both"])
def test_a_run_that_was_killed_leaves_nothing_in_the_way(
    mode: str, run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--mode", mode)
    with monkeypatch.context() as patched:
        patched.setattr(run_command, "Generator", ShortLived)
        for ids in (("a", "b"), ("c", "b")):
            with pytest.raises(Killed):
                run(*ids, options=options)
    (painted,) = output.glob("images*")
    assert names(painted) == {"c.png"}
    assert (report_of(output)["interrupted"], report_of(output)["runs"]) == (True, [])
    assert run("a", "b", options=options) == 0
    assert names(output / "images") == {"a.png", "b.png"}
    assert report_of(output)["interrupted"] is False


@pytest.mark.parametrize("mode", ["on-demand", "prefetch", "both"])
def test_a_report_of_old_did_not_tell_its_folders(mode: str, run: Run, output: Path) -> None:
    options = ("--mode", mode)
    assert run("a", "b", options=options) == 0
    written = report_of(output)
    for done in written["runs"]:
        del done["folder"]
    (output / "report.json").write_text(json.dumps(written), encoding="utf-8")
    assert run("b", "c", options=options) == 0
    assert {names(folder) == {"b.png", "c.png"} for folder in output.glob("images*")} == {True}


def test_what_an_interrupted_report_of_old_leaves_open_stays(run: Run, output: Path) -> None:
    """It may have been the first of two passes, which does not own `images/`."""
    for folder in ("images", "images-on-demand"):
        (output / folder).mkdir(parents=True)
        (output / folder / "old.png").write_bytes(b"")
    written = {"interrupted": True, "runs": [{"mode": "on-demand", "requests": [{"image": "old.png"}]}]}
    (output / "report.json").write_text(json.dumps(written), encoding="utf-8")
    assert run("a") == 0
    assert names(output / "images") == {"a.png", "old.png"}
    assert not (output / "images-on-demand").exists()


@pytest.mark.parametrize("taken", ["images/c.png", "images-on-demand/c.png", "images"])
def test_a_refusal_comes_before_everything_else(
    taken: str, run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever pass would meet somebody else's file: nothing is painted, nothing deleted."""
    painted: list[str] = []

    class Watched(Painter):
        def __call__(self, pipeline: Any, request: Any) -> Image.Image:
            painted.append(request.id)
            return super().__call__(pipeline, request)

    if taken == "images":
        output.mkdir()
    else:
        assert run("a", "b", options=("--mode", "both")) == 0
        (output / taken).parent.mkdir(exist_ok=True)
    (output / taken).write_bytes(b"mine")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    monkeypatch.setattr(run_command, "Generator", Watched)
    assert run("b", "c", options=("--mode", "both")) == 2
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert painted == []


def test_a_picture_of_ours_in_another_spelling_is_not_in_the_way(run: Run, output: Path) -> None:
    """A second name for the same file: what a file system that ignores case shows."""
    assert run("Fox") == 0
    (output / "images" / "fox.png").hardlink_to(output / "images" / "Fox.png")
    assert run("fox") == 0
    (output / "images" / "FOX.png").write_bytes(b"mine")
    assert run("FOX") == 2


def test_a_report_that_cannot_be_written_stops_the_run_before_anything_is_deleted(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    assert run("a") == 0
    monkeypatch.setattr(output_folder, "replace_text", full)
    assert run("b") == 2
    assert names(output / "images") == {"a.png"}


def test_a_run_that_could_not_remove_a_picture_still_knows_it(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def locked(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a.png":
            raise PermissionError(f"{path} is in use")
        unlink(path, missing_ok)

    assert run("a") == 0
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", locked)
        assert run("b") == 2
    assert run("a") == 0


@pytest.mark.parametrize(
    ("folders", "image", "status"),
    [
        (["images"], "../mine.png", 0),
        (["images"], "mine.jpg", 0),
        (["."], "mine.png", 2),
        (["images", ".."], "../out/mine.png", 2),
    ],
)
def test_a_report_that_names_other_files_removes_none(
    folders: list[str], image: str, status: int, run: Run, output: Path
) -> None:
    """One that names folders which no run has is nobody's report, and in the way."""
    (output / "images").mkdir(parents=True)
    mine = [output / "mine.png", output / "images" / "mine.jpg"]
    for path in mine:
        path.write_bytes(b"mine")
    runs = [{"mode": "prefetch", "folder": folder, "requests": [{"image": image}]} for folder in folders]
    named = {"runs": runs}
    (output / "report.json").write_text(json.dumps(named), encoding="utf-8")
    assert run("a") == status
    assert all(path.exists() for path in mine)


def test_the_report_is_written_though_a_picture_was_taken_away(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thief(Painter):
        def __call__(self, pipeline: Any, request: Any) -> Image.Image:
            (output / "images" / "a.png").unlink(missing_ok=True)
            return super().__call__(pipeline, request)

    monkeypatch.setattr(run_command, "Generator", Thief)
    assert run("a", "b") == 0
    assert [request["image"] for request in report_of(output)["runs"][0]["requests"]] == ["a.png", "b.png"]
    assert (output / "contact-sheet.png").is_file()


@pytest.mark.parametrize("part", ["save_contact_sheet", "write_report", "request_table"])
def test_what_a_run_leaves_is_left_though_a_part_of_it_fails(
    part: str, run: Run, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(run_command, part, full)
    assert run("a") == (2 if part == "request_table" else 1)
    shown = capsys.readouterr()
    named = {"save_contact_sheet": "contact-sheet.png", "write_report": "report.json"}.get(part, "")
    (line,) = shown.err.splitlines()
    assert named in line and "no space left" in line
    assert ("Totals" in shown.out) == (part != "request_table")
    assert (output / "contact-sheet.png").is_file() == (part == "request_table")
    assert part == "write_report" or report_of(output)["runs"][0]["requests"][0]["image"] == "a.png"


def test_output_that_lacks_the_letters_shows_their_codes(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, when it goes into a file or another program."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", shown)
    assert run("\N{CJK UNIFIED IDEOGRAPH-732B}") == 0
    shown.flush()
    assert rb"\u732b" in shown.buffer.getvalue()
    assert (output / "contact-sheet.png").is_file()


def test_a_cold_run_is_refused_where_no_page_can_be_dropped(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_pipeline(*_: object) -> None:
        pytest.fail("that takes minutes")

    monkeypatch.setattr(run_command, "load_pipeline", load_pipeline)
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert run("a", options=("--cold",)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("--cold needs Linux")
    assert not output.exists()


def test_the_sheet_of_a_long_queue_shows_its_first_requests(tmp_path: Path) -> None:
    def height(count: int) -> int:
        reports = [RequestReport(f"r{index}", index) for index in range(count)]
        save_contact_sheet(reports, tmp_path, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            return sheet.size[1]

    assert height(MOST_CELLS) < height(MOST_CELLS + 1) == height(2 * MOST_CELLS)


@pytest.mark.parametrize("mode", ["on-demand", "prefetch"])
@pytest.mark.parametrize(("flag_mb", "limit_mb"), [(3, 3), (None, 5)])
def test_the_flag_decides_the_budget_and_else_the_environment(
    mode: str, flag_mb: int | None, limit_mb: int, run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WARMSTACK_BUDGET", "5 MiB")
    seen: list[int | None] = []

    def watched(worker: LoRAWorker, batch: Batch, *rest: Any) -> RunReport:
        seen.extend((worker.status().budget_bytes, batch.settings.budget_bytes))
        return run_batch(worker, batch, *rest)

    monkeypatch.setattr(run_command, "run_batch", watched)
    options = () if flag_mb is None else ("--memory-limit-mb", str(flag_mb))
    assert run("a", options=("--mode", mode, *options)) == 0
    assert seen == [limit_mb << 20] * 2
    assert report_of(output)["runs"][0]["totals"]["limit_bytes"] == limit_mb << 20


def test_a_picture_that_was_not_saved_whole_is_in_nobodys_way(
    run: Run, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Half:
        def save(self, path: Path) -> None:
            path.write_bytes(b"half of it")
            raise OSError("no space left")

    class FullDisk(Painter):
        def __call__(self, pipeline: Any, request: Any) -> Any:
            return Half() if request.id == "b" else super().__call__(pipeline, request)

    with monkeypatch.context() as patched:
        patched.setattr(run_command, "Generator", FullDisk)
        assert run("a", "b") == 1
    assert names(output / "images") == {"a.png"}
    assert run("a", "b") == 0


def test_a_report_that_holds_half_a_character_is_still_known(run: Run, output: Path) -> None:
    """As in the name of a file on Linux, which is any bytes."""
    assert run("a") == 0
    written = report_of(output)
    written["runs"][0]["requests"][0]["prompt"] = "caf\udce9"
    (output / "report.json").write_text(json.dumps(written), encoding="utf-8")
    assert run("a") == 0
