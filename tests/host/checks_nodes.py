"""Checks of the nodes themselves, in ComfyUI's process and without a server. Run by inside_host.py."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import gc
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import folder_paths
import synthetic_loras
import torch
from hostkit import graphs, tiny_flux
from hostkit.models import lora_path, write_models
from hostkit.tiny_lora import write_flux_lora, write_sd15_lora

from warmstack.lora.errors import AmbiguousLoraError, LoraError, LoraNotFoundError
from warmstack.nodes.extension import WarmStackExtension
from warmstack.nodes.load_lora_stack_node import REPORT_KEY, LoadLoraStack
from warmstack.nodes.lora_catalog_node import LoraCatalogNode
from warmstack.nodes.lora_request_node import LoraRequest
from warmstack.nodes.lora_stack_node import LoraStackNode
from warmstack.nodes.lora_tags_node import LoraTags
from warmstack.nodes.runtime import get_runtime
from warmstack.nodes.status_node import Status
from warmstack.nodes.warm_node import Warm

NODES = (LoadLoraStack, LoraStackNode, LoraTags, LoraRequest, LoraCatalogNode, Warm, Status)
CONTRACT: dict[str, tuple[set[str], set[str], list[str]]] = {
    "WarmStackLoadLoraStack": (
        {"model", "loras"},
        {"clip", "lora_stack", "math"},
        ["MODEL", "CLIP", "LORA_STACK", "STRING"],
    ),
    "WarmStackLoraStack": ({"loras"}, {"category", "lora_stack"}, ["LORA_STACK"]),
    "WarmStackLoraTags": ({"text"}, {"syntax"}, ["STRING", "LORA_STACK"]),
    "WarmStackLoraRequest": ({"request"}, set(), ["LORA_STACK"]),
    "WarmStackLoraCatalog": (set(), {"category", "base_model", "pattern"}, ["STRING"]),
    "WarmStackWarm": ({"loras"}, set(), ["STRING"]),
    "WarmStackStatus": (set(), set(), ["STRING"]),
    "WarmStackLoadDiffusionModel": ({"unet_name"}, {"weight_dtype", "strategy"}, ["MODEL", "STRING"]),
    "WarmStackLoadCheckpoint": ({"ckpt_name"}, {"strategy"}, ["MODEL", "CLIP", "VAE", "STRING"]),
}
"""Node id -> required inputs, optional inputs, outputs: what API clients rely on."""


def prepare(base: Path) -> None:
    write_models(base, sd15=False)
    for name in ("flux/one", "flux/two", "other/one"):
        write_flux_lora(lora_path(base, f"{name}.safetensors"), seed=len(name))
    write_sd15_lora(lora_path(base, "styles/ink.safetensors"), seed=3, text_encoder=False)
    generator = torch.Generator().manual_seed(4)
    shape = tiny_flux.MODULES["img_in"]
    pickled = {
        "diffusion_model.img_in.lora_B.weight": torch.randn(shape[0], 2, generator=generator),
        "diffusion_model.img_in.lora_A.weight": torch.randn(2, shape[1], generator=generator),
    }
    torch.save(pickled, lora_path(base, "flux/old.pt"))
    lora_path(base, "flux/broken.safetensors").write_bytes(b"\xff" * 64)
    assert folder_paths.get_folder_paths("loras"), "the host knows the folder"


def _flux(base: Path) -> Any:
    return comfy.sd.load_diffusion_model(str(base / "models/diffusion_models" / graphs.UNET))


def _run(model: Any, loras: str, **inputs: Any) -> tuple[Any, Any, list[tuple[str, float, float]], str]:
    model, clip, stack, report = LoadLoraStack.execute(model, loras, **inputs).args
    return model, clip, stack, report


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(handler)


def _leases() -> int:
    gc.collect()
    return sum(view.leases for view in get_runtime().cache.snapshot().adapters)


def check_ids_inputs_and_outputs_are_the_contract(base: Path) -> None:
    del base
    listed = asyncio.run(WarmStackExtension().get_node_list())
    got = {}
    for node in listed:
        schema = node.define_schema()
        types = node.INPUT_TYPES()
        got[schema.node_id] = (
            set(types.get("required", {})),
            set(types.get("optional", {})),
            [output.io_type for output in schema.outputs],
        )
    assert got == CONTRACT, got


def check_a_schema_asks_no_disk(base: Path) -> None:
    del base

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a schema looked at the disk: {args}")

    asked = {(os, name): getattr(os, name) for name in ("stat", "scandir", "listdir", "open")} | {
        (builtins, "open"): builtins.open
    }
    for owner, name in asked:
        setattr(owner, name, refuse)
    try:
        for node in NODES:
            node.define_schema()
    finally:
        for (owner, name), original in asked.items():
            setattr(owner, name, original)


def check_nothing_to_apply_returns_the_very_inputs(base: Path) -> None:
    model, clip = _flux(base), object()
    for loras in ("", "[]", '[{"name": "flux/one", "strength": 0}]', '[{"name": "no such file", "strength": 0}]'):
        out_model, out_clip, stack, report = _run(model, loras, clip=clip)
        assert out_model is model and out_clip is clip and stack == [] and "passed on" in report
    assert "skipped" in report


def check_a_row_for_a_clip_that_is_not_there_changes_nothing(base: Path) -> None:
    """A `set` patch acts at any strength: the stock loader for a model alone leaves a LoRA at 0 out."""
    setter = next(name for name in synthetic_loras.write_flux_kinds(base) if "set" in name)
    model = _flux(base)
    row = {"name": setter, "strength_model": 0, "strength_clip": 0.5}
    for chosen in ("fused", "exact"):
        out, clip, stack, report = _run(model, json.dumps([row]), math=chosen)
        assert out is model and clip is None
        assert stack == [(setter, 0.0, 0.5)], "a later loader may have a clip"
        assert report.splitlines()[1:] == [f"{setter}: skipped, its model strength is 0 and no clip is connected"]
        assert setter not in {view.name for view in get_runtime().cache.snapshot().adapters}, "it was read for nothing"
        out, _, stack, report = _run(model, json.dumps(["flux/one", row, "flux/two"]), math=chosen)
        assert [name for name, _, _ in stack] == ["flux/one.safetensors", setter, "flux/two.safetensors"]
        assert [line.split(":")[0] for line in report.splitlines()] == [stack[0][0], stack[2][0], setter]
        alone, _, _, _ = _run(model, json.dumps(["flux/one", "flux/two"]), math=chosen)
        assert out.patches_uuid == alone.patches_uuid, "the same stack without the row"


def check_a_stack_is_applied_and_reported(base: Path) -> None:
    model = _flux(base)
    earlier = [("flux/two.safetensors", 0.25, 0.0)]
    loras = json.dumps([{"name": "flux/one", "strength_model": 0.5}, {"name": "flux/old", "strength": 1}])
    for chosen in ("fused", "exact"):
        out, clip, stack, report = _run(model, loras, lora_stack=earlier, math=chosen)
        assert out is not model and clip is None and out.patches
        names = ["flux/two.safetensors", "flux/one.safetensors", "flux/old.pt"]
        assert [name for name, _, _ in stack] == names
        lines = report.splitlines()
        assert [line.split(":")[0] for line in lines] == names and all(chosen in line for line in lines)


def check_the_node_is_told_what_its_report_says(base: Path) -> None:
    loras = '["flux/one", "styles/ink", {"name": "flux/two", "strength_model": 0}]'
    (text,) = LoadLoraStack.execute(_flux(base), loras).ui[REPORT_KEY]
    told = json.loads(text)
    assert [(row["name"], row["share"] >= 0.5, bool(row["warning"])) for row in told["rows"]] == [
        ("flux/one.safetensors", True, False),
        ("styles/ink.safetensors", False, True),
    ]
    assert len(told["notes"]) == 1 and "flux/two" in told["notes"][0]


def check_a_missing_name_fails_with_what_it_could_have_been(base: Path) -> None:
    model = _flux(base)
    for loras, error, parts in (
        ('["flux/onee"]', LoraNotFoundError, ("flux/onee",)),
        ('["one"]', AmbiguousLoraError, ("flux/one.safetensors", "other/one.safetensors")),
    ):
        try:
            _run(model, loras)
        except error as problem:
            assert all(part in str(problem) for part in parts)
        else:
            raise AssertionError("it was taken")
        told = asyncio.run(LoadLoraStack.validate_inputs(loras=loras))
        assert isinstance(told, str) and all(part in told for part in parts)
    assert asyncio.run(LoadLoraStack.validate_inputs(loras='["flux/one"]')) is True
    assert asyncio.run(LoadLoraStack.validate_inputs()) is True, "a linked input passes"


def check_a_broken_file_is_named_and_the_rest_is_given_back(base: Path) -> None:
    before = _leases()
    try:
        _run(_flux(base), '["flux/two", "flux/broken"]')
    except LoraError as problem:
        assert "flux/broken.safetensors" in str(problem) and str(base) not in str(problem)
    else:
        raise AssertionError("it was taken")
    assert _leases() == before
    assert "flux/broken.safetensors" in str(asyncio.run(LoadLoraStack.validate_inputs(loras='["flux/broken"]')))


def check_a_wrong_model_is_one_line_in_the_log(base: Path) -> None:
    with _warnings() as messages:
        out, _, _, report = _run(_flux(base), '["styles/ink"]')
    assert "WARNING" in report and "styles/ink.safetensors" in report and "sd15" in report
    assert len(messages) == 1 and "styles/ink.safetensors" in messages[0], messages
    assert not out.patches


def check_rotations_that_the_host_cannot_add_are_told(base: Path) -> None:
    """Under dynamic VRAM it adds patches in the precision that the model computes in."""
    kinds = [name for name in synthetic_loras.write_flux_kinds(base) if "oft" in name]
    for dtype, dynamic in ((torch.float16, True), (torch.float32, True), (torch.float16, False)):
        model = _flux(base)
        model.is_dynamic, model.model.get_dtype_inference = lambda is_it=dynamic: is_it, lambda of=dtype: of
        for name in (*kinds, "flux/one.safetensors"):
            out, _, _, report = _run(model, json.dumps([name]))
            weight = torch.ones_like(comfy.utils.get_attr(model.model, "diffusion_model.img_in.weight"), dtype=dtype)
            used = comfy.model_patcher.LowVramPatch("diffusion_model.img_in.weight", out.patches)(weight.clone())
            told = "--disable-dynamic-vram" in report
            assert told == (dynamic and torch.equal(used, weight)), (name, dtype, dynamic, report)
            assert told == (name in kinds and dynamic and dtype is torch.float16), (name, dtype, dynamic)


def check_an_interrupt_stops_the_stack_and_gives_back(base: Path) -> None:
    before = _leases()
    comfy.model_management.interrupt_current_processing(True)
    try:
        _run(_flux(base), '["flux/one", "flux/two"]')
    except comfy.model_management.InterruptProcessingException:
        pass
    else:
        raise AssertionError("it was not interrupted")
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert _leases() == before


def check_a_changed_file_runs_the_node_again(base: Path) -> None:
    path = lora_path(base, "flux/two.safetensors")
    for fingerprint in (
        lambda: LoadLoraStack.fingerprint_inputs(loras='["flux/two"]', math="fused"),
        lambda: LoraStackNode.fingerprint_inputs(loras='["flux/two"]', category=""),
        lambda: LoraTags.fingerprint_inputs(text="x <lora:flux/two:1>", syntax="comfy"),
        lambda: LoraRequest.fingerprint_inputs(request='{"models": ["flux/two"]}'),
        lambda: LoraCatalogNode.fingerprint_inputs(pattern="flux/two*"),
        # The host gives None for what a link brings.
        lambda: LoadLoraStack.fingerprint_inputs(model=None, loras=None),
        lambda: LoadLoraStack.fingerprint_inputs(model=None, loras="", lora_stack=None),
        lambda: LoraStackNode.fingerprint_inputs(loras=None),
        lambda: LoraStackNode.fingerprint_inputs(loras='["two"]', category=None),
        lambda: LoraStackNode.fingerprint_inputs(loras="", category="", lora_stack=None),
        lambda: LoraTags.fingerprint_inputs(text=None, syntax="comfy"),
        lambda: LoraRequest.fingerprint_inputs(request=None),
    ):
        # As the host does it: what has another fingerprint runs.
        fingerprint()
        LoraStackNode.execute('["flux/two"]')
        before = fingerprint()
        assert before == fingerprint()
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))
        assert before != fingerprint()
    others = LoadLoraStack.fingerprint_inputs(model=None, loras='["flux/one"]')
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))
    assert others == LoadLoraStack.fingerprint_inputs(model=None, loras='["flux/one"]'), "a file that it does not name"
    assert LoadLoraStack.fingerprint_inputs() == LoadLoraStack.fingerprint_inputs()


def check_stacks_from_every_node(base: Path) -> None:
    del base
    assert LoraStackNode.execute('["one"]', category="other", lora_stack=[("x", 1.0, 0.5)]).args == (
        [("x", 1.0, 0.5), ("other/one.safetensors", 1.0, 1.0)],
    )
    for syntax, strengths in (("comfy", (0.5, 0.25)), ("a1111", (0.25, 0.5))):
        text, stack = LoraTags.execute("a <lora:flux/two:0.5:0.25>b", syntax).args
        assert (text, stack) == ("a b", [("flux/two.safetensors", *strengths)])
    request = {"lora": {"global_weight": 0.5, "models": [{"name": "flux/two", "weight": 0.5}]}}
    assert LoraRequest.execute(json.dumps(request)).args == ([("flux/two.safetensors", 0.25, 0.25)],)


def check_the_catalog_sees_new_files_and_filters(base: Path) -> None:
    before = LoraCatalogNode.fingerprint_inputs(pattern="styles/*")
    assert LoraCatalogNode.execute(pattern="styles/*").args == (["styles/ink.safetensors"],)
    write_sd15_lora(lora_path(base, "styles/new.safetensors"), seed=9, text_encoder=False)
    assert LoraCatalogNode.fingerprint_inputs(pattern="styles/*") != before
    assert LoraCatalogNode.execute(pattern="styles/*").args == (["styles/ink.safetensors", "styles/new.safetensors"],)
    assert asyncio.run(LoraCatalogNode.validate_inputs(pattern="styles/*")) is True
    told = asyncio.run(LoraCatalogNode.validate_inputs(category="styles", base_model="no such model"))
    assert "no LoRA has category 'styles' and base_model 'no such model'" in told and "'other'" in told, told
    try:
        LoraCatalogNode.execute(base_model="no such model")
    except LoraError as problem:
        assert "no LoRA has base_model 'no such model'" in str(problem)
    else:
        raise AssertionError("what is linked to an empty list fails in the host with an IndexError")
    write_sd15_lora(lora_path(base, "late/one.safetensors"), seed=9, text_encoder=False)
    assert asyncio.run(LoraCatalogNode.validate_inputs(category="late")) is True, "looked for again before refusing"
    (name,) = LoraCatalogNode.execute(pattern="styles/new*").args[0]
    assert LoraStackNode.execute(name).args == ([(name, 1.0, 1.0)],), "a listed name is a stack"


def check_a_file_that_cannot_be_loaded_does_not_end_a_sweep(base: Path) -> None:
    del base
    names = LoraCatalogNode.execute(pattern="flux/*").args[0]
    assert "flux/two.safetensors" in names and "flux/broken.safetensors" not in names, names
    told = asyncio.run(LoraCatalogNode.validate_inputs(pattern="flux/broken*"))
    assert "no LoRA that can be loaded has pattern 'flux/broken*'" in told, told


def check_what_has_no_effect_is_one_line_in_the_log(base: Path) -> None:
    del base
    tag = "<lora:flux/two:1:lbw=ALL>"
    for execute in (LoraTags.execute, LoraStackNode.execute, LoraRequest.execute):
        with _warnings() as messages:
            execute(tag)
        assert len(messages) == 1 and "lbw=ALL" in messages[0], (execute, messages)
    with _warnings() as messages:
        LoraStackNode.execute('[{"name": "flux/two", "target": "transformer_2"}]')
    assert len(messages) == 1 and "'transformer_2'" in messages[0], messages


def check_a_target_has_no_effect_and_is_in_the_report(base: Path) -> None:
    out, _, _, report = _run(_flux(base), '[{"name": "flux/two", "target": "transformer_2"}]')
    assert out.patches and "no effect in ComfyUI: target 'transformer_2'" in report, report


def check_warm_and_status_always_run(base: Path) -> None:
    del base
    assert math.isnan(Warm.fingerprint_inputs(loras="x")) and math.isnan(Status.fingerprint_inputs())
    rows = json.loads(Warm.execute('["flux/two"]').args[0])["results"]
    assert [row["file"] for row in rows] == ["flux/two.safetensors"]
    status = json.loads(Status.execute().args[0])
    assert status["prefetch"]["misses"] >= 1 and status["budget"]["limit_bytes"] > 0
