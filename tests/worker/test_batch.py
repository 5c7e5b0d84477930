"""Running a queue: the same pictures however the adapters got there, and no request lost."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.cache.cache import AdapterCache
from warmstack.lora.library.file import LoraFile
from warmstack.prefetch.planning.habit_memory import HabitMemory
from warmstack.prefetch.planning.habits import Run
from warmstack.prefetch.queue.job import QueuedJob
from warmstack.prefetch.settings import PrefetchSettings
from warmstack.worker.batch import Batch, run_batch
from warmstack.worker.lora_worker import LoRAWorker
from warmstack.worker.pipelines import Generator
from warmstack.worker.report import RequestReport, compare_images
from warmstack.worker.request import QueueRequest, parse_queue

MakeWorker = Callable[..., LoRAWorker]
SMALL = {"steps": 2, "width": 64, "height": 64}


def line(name: str, *loras: Any) -> str:
    return json.dumps({"id": name, "prompt": "a fox", "lora": list(loras), **SMALL})


QUEUE = [
    line("none"),
    line("ink", "styles/ink"),
    line("pair", ["ink", 0.5], ["fox", 0.8]),
    line("pickle", ["grain", 0.7], "wash"),
    line("again", ["ink", -0.5], ["fox", 0.3], "wash"),
]


def paint(pipeline: Any, request: QueueRequest) -> Image.Image:
    """A picture that shows exactly which weights the pipeline has."""
    total = sum(float(weight.double().sum()) for weight in pipeline.unet.parameters())
    return Image.frombytes("F", (1, 1), torch.tensor([total]).numpy().tobytes()).convert("L")


@pytest.mark.parametrize("memory_limit_mb", [None, 0, 1])
def test_pictures_do_not_depend_on_prefetch_cache_or_budget(
    memory_limit_mb: int | None, pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    lines = parse_queue(QUEUE)
    stock = Batch(lines, pipeline, Generator(), tmp_path / "on-demand")
    ahead = Batch(lines, pipeline, Generator(), tmp_path / "prefetch")
    run_batch(make_worker(), stock, "on-demand")
    report = run_batch(make_worker(memory_limit_mb=memory_limit_mb), ahead, "prefetch")
    comparison = compare_images(stock.images, ahead.images, {request.image for request in stock.requests})
    assert comparison.identical
    assert comparison.compared == len(QUEUE)
    assert len({path.read_bytes() for path in ahead.images.iterdir()}) == len(QUEUE)
    assert report.cache.peak_bytes <= report.cache.limit_bytes


def test_the_pipeline_has_its_own_weights_after_a_run(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    before = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}
    run_batch(make_worker(), Batch(parse_queue(QUEUE), pipeline, Generator(), tmp_path), "prefetch")
    assert all(torch.equal(value, before[key]) for key, value in pipeline.unet.state_dict().items())


@pytest.mark.parametrize("mode", ["on-demand", "prefetch"])
def test_a_picture_is_made_as_the_caller_would_make_it(
    mode: Any, pipeline: Any, tmp_path: Path, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inference mode and autocast hold for a thread: weights made in the one take writes nowhere else."""
    seen: list[tuple[bool, bool, bool]] = []

    def generate(pipeline: Any, request: QueueRequest) -> Image.Image:
        states = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        seen.append(states)
        return paint(pipeline, request)

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        monkeypatch.setattr(pipeline, "unet", copy.deepcopy(pipeline.unet))
        assert all(weight.is_inference() for weight in pipeline.unet.parameters())
        report = run_batch(make_worker(), Batch(parse_queue(QUEUE), pipeline, generate, tmp_path), mode)
    assert [request.problems for request in report.requests] == [()] * len(QUEUE)
    assert seen == [(True, False, True)] * len(QUEUE)


def test_weights_made_in_inference_mode_are_updated_and_restored_outside_of_it(
    pipeline: Any, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.inference_mode():
        monkeypatch.setattr(pipeline, "unet", copy.deepcopy(pipeline.unet))
    before, worker = {key: value.clone() for key, value in pipeline.unet.state_dict().items()}, make_worker()
    (applied,) = worker.apply_to_pipeline(pipeline, "ink").loras
    assert applied.matched
    assert any(not torch.equal(value, before[key]) for key, value in pipeline.unet.state_dict().items())
    worker.remove_from_pipeline(pipeline)
    assert all(torch.equal(value, before[key]) for key, value in pipeline.unet.state_dict().items())


def test_the_next_requests_adapters_load_while_this_one_runs(
    pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    loaded = threading.Event()

    def load(file: LoraFile, **options: Any) -> Adapter:
        adapter = load_adapter(file, **options)
        loaded.set()
        return adapter

    def generate(pipeline: Any, request: QueueRequest) -> Image.Image:
        if request.id == "none":
            assert loaded.wait(30), "nothing was loaded while the first request ran"
        return Image.new("L", (1, 1))

    worker = make_worker()
    worker.cache = AdapterCache(ByteBudget(1 << 30), load=load)
    report = run_batch(worker, Batch(parse_queue(QUEUE[:2]), pipeline, generate, tmp_path), "prefetch")
    assert [lora.outcome for lora in report.requests[1].loras] in (["hit"], ["join"])


def test_what_a_look_at_the_queue_costs_does_not_grow_with_it(
    pipeline: Any, tmp_path: Path, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prefetcher looks several times a second: at 5,000 requests, each made into a job anew took a core."""
    made: list[QueuedJob] = []

    def make(*fields: Any, **more: Any) -> QueuedJob:
        made.append(QueuedJob(*fields, **more))
        return made[-1]

    monkeypatch.setattr("warmstack.worker.batch.QueuedJob", make)
    lines = parse_queue([line(str(number), "ink") for number in range(40)])
    run_batch(make_worker(), Batch(lines, pipeline, paint, tmp_path), "prefetch")
    assert {job.job_id for job in made} == {str(number) for number in range(40)}
    assert len(made) <= 2 * len(lines)


def test_on_demand_loads_nothing_ahead(pipeline: Any, tmp_path: Path, make_worker: MakeWorker) -> None:
    worker = make_worker()
    seen = []

    def generate(pipeline: Any, request: QueueRequest) -> Image.Image:
        seen.append(worker.cache.stats().read_bytes)
        return Image.new("L", (1, 1))

    report = run_batch(worker, Batch(parse_queue(QUEUE[:2]), pipeline, generate, tmp_path), "on-demand")
    assert seen[0] == 0 < seen[1]
    assert [lora.outcome for lora in report.requests[1].loras] == ["miss"]


def test_a_run_goes_on_guessing_where_the_last_one_stopped(
    pipeline: Any, tmp_path: Path, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = threading.Event()
    keep = HabitMemory.keep

    def tell(memory: HabitMemory, runs: Iterable[Run]) -> None:
        keep(memory, runs)
        kept.set()

    def generate(pipeline: Any, request: QueueRequest) -> Image.Image:
        assert kept.wait(30), "nobody remembers what this request uses"
        return Image.new("L", (1, 1))

    monkeypatch.setattr(HabitMemory, "keep", tell)
    for name in ("ink", "wash"):
        kept.clear()
        worker = make_worker(index_path=tmp_path / "state" / "index.json")
        batch = Batch(parse_queue([line(name, name)]), pipeline, generate, tmp_path, PrefetchSettings(predict=True))
        run_batch(worker, batch, "prefetch")
    runs = json.loads((tmp_path / "state" / "habits.json").read_text())["runs"]
    assert [run["loras"] for run in runs] == [
        [["styles/ink.safetensors", "resident"]],
        [["styles/wash.safetensors", "resident"]],
    ]


def test_failed_requests_are_reported_and_the_queue_goes_on(
    pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    lines = parse_queue([line("missing", "styles/inkk"), "{cut", line("soft", "soft"), line("good", "ink")])
    told: list[RequestReport] = []
    report = run_batch(make_worker(), Batch(lines, pipeline, paint, tmp_path), "prefetch", told.append)
    assert [request.id for request in report.requests] == ["missing", "line 2", "soft", "good"]
    assert [request.id for request in told] == ["missing", "soft", "good"]
    missing, cut, soft, good = report.requests
    assert "styles/ink.safetensors" in missing.problems[0]
    assert "not JSON" in cut.problems[0]
    assert "ambiguous" in soft.problems[0]
    assert good.problems == ()
    assert (tmp_path / good.image).is_file()
    assert all(request.expected for request in report.requests)
    assert json.dumps(report.as_json())


@pytest.mark.parametrize(
    "problem",
    [
        RuntimeError("out of memory"),
        OSError("disk full"),
        TypeError("got an unexpected keyword argument 'negative_prompt'"),
        IndexError("index out of range in self"),
        AssertionError("Torch not compiled with CUDA enabled"),
        ImportError("apply_chat_template requires jinja2"),
        ModuleNotFoundError("No module named 'ftfy'", name="ftfy"),
        NameError("name 'ftfy' is not defined"),
        re.error("nothing to repeat"),
        StopIteration("no more timesteps"),
    ],
)
def test_a_pipeline_that_breaks_costs_one_request_and_is_unexpected(
    problem: Exception, pipeline: Any, tmp_path: Path, make_worker: MakeWorker
) -> None:
    def generate(pipeline: Any, request: QueueRequest) -> Image.Image:
        if request.id == "ink":
            raise problem
        return paint(pipeline, request)

    report = run_batch(make_worker(), Batch(parse_queue(QUEUE[:3]), pipeline, generate, tmp_path), "on-demand")
    none, ink, pair = report.requests
    assert (none.problems, pair.problems) == ((), ())
    assert ink.problems == (str(problem),)
    assert not ink.expected


def test_a_changed_picture_is_found(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("L", (2, 2), 7).save(tmp_path / folder / "same.png")
    Image.new("L", (2, 2), 8).save(tmp_path / "b" / "only.png")
    Image.new("L", (2, 2), 7).save(tmp_path / "a" / "other.png")
    Image.new("L", (2, 2), 8).save(tmp_path / "b" / "other.png")
    found = compare_images(tmp_path / "a", tmp_path / "b", ["same.png", "only.png", "other.png"])
    assert found == (3, ("only.png", "other.png"))
