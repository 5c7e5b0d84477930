"""What `warmstack run` takes for a picture, and which pipelines it takes at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from diffusers import Kandinsky5T2IPipeline, LTXPipeline, StableDiffusionXLPipeline, WanPipeline
from PIL import Image

from warmstack.worker.cli import main
from warmstack.worker.pipelines import Generator, load_pipeline
from warmstack.worker.request import QueueRequest, parse_queue


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[type], Path]:
    """A folder that diffusers takes for a pipeline of the given class, without models, and a queue in it."""

    def save(kind: type) -> Path:
        (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
        (tmp_path / "queue.jsonl").write_text('"a fox"', encoding="utf-8")
        light = type(kind.__name__, (kind,), {"to": lambda self, device: self})
        monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *_, **__: light.__new__(light))
        return tmp_path

    return save


@pytest.mark.parametrize("kind", [StableDiffusionXLPipeline, Kandinsky5T2IPipeline])
def test_a_pipeline_that_makes_pictures_is_taken(kind: type, saved: Callable[[type], Path]) -> None:
    assert isinstance(load_pipeline(saved(kind), "cpu"), kind)


@pytest.mark.parametrize("kind", [WanPipeline, LTXPipeline])
def test_a_pipeline_that_makes_none_is_refused_before_anything_is_computed(
    kind: type, saved: Callable[[type], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(kind)
    places = ["--pipeline", str(folder), "--loras", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["run", str(tmp_path / "queue.jsonl"), *places]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"{kind.__name__} makes frames and no pictures; ")
    assert not (tmp_path / "out").exists()


def request() -> QueueRequest:
    (found,) = parse_queue(['"a fox"'])
    assert isinstance(found, QueueRequest)
    return found


@pytest.mark.parametrize("field", ["images", "image"])
def test_a_picture_is_read_from_wherever_the_pipeline_puts_it(field: str) -> None:
    picture = Image.new("L", (8, 8))
    pipeline: Any = lambda **_: SimpleNamespace(**{field: [picture]})  # noqa: E731
    assert Generator()(pipeline, request()) is picture


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_told_before_a_weight_is_read(
    device: str,
    saved: Callable[[type], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = saved(StableDiffusionXLPipeline)
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *_, **__: pytest.fail("it was read"))
    places = ["--pipeline", str(folder), "--loras", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["run", str(tmp_path / "queue.jsonl"), *places, "--device", device]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"--device {device} is not there: ")
