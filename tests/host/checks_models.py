"""Checks of the model loaders in ComfyUI's process: weights, reloads, interrupts. Run by inside_host.py."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_execution.utils import CurrentNodeContext
from hostkit import graphs
from hostkit.models import write_models

from warmstack.loaders.progress import LoadProgress
from warmstack.nodes.load_checkpoint_node import LoadCheckpoint
from warmstack.nodes.load_diffusion_model_node import LoadDiffusionModel
from warmstack.nodes.models.model_files import ModelFileError
from warmstack.nodes.models.model_loading import _Bar, call_host
from warmstack.nodes.runtime import get_runtime

NODES = (LoadDiffusionModel, LoadCheckpoint)
_NOT_IN_THE_FILE = "text_projection.weight"
"""The tiny checkpoint has none, and the host leaves it as uninitialised memory."""


def prepare(base: Path) -> None:
    write_models(base)
    for kind in ("diffusion_models", "checkpoints"):
        assert folder_paths.get_folder_paths(kind), "the host knows the folder"


def _same(actual: Any, expected: Any) -> None:
    ours, stock = actual.model_state_dict(), expected.model_state_dict()
    assert ours.keys() == stock.keys() and len(ours) > 10
    for key, tensor in stock.items():
        if key.endswith(_NOT_IN_THE_FILE):
            continue
        assert ours[key].dtype == tensor.dtype and torch.equal(ours[key], tensor), key


def _stock_checkpoint(base: Path) -> tuple[Any, Any, Any]:
    path = base / "models/checkpoints" / graphs.CHECKPOINT
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(str(path))
    return model, clip, vae


def check_a_diffusion_model_and_its_reload_are_the_stock_loaders(base: Path) -> None:
    stock = comfy.sd.load_diffusion_model(str(base / "models/diffusion_models" / graphs.UNET))
    model, report = LoadDiffusionModel.execute(graphs.UNET).args
    _same(model, stock)
    assert report.startswith(f"{graphs.UNET}: eager") and "only" in report
    recorded = get_runtime().status()["loads"]["eager"]
    assert recorded["loads"] == 1 and recorded["loaded_bytes"] > 0 and recorded["median_s"] > 0
    reload, arguments, index = model.cached_patcher_init
    again = reload(*arguments, disable_dynamic=True)[index]
    assert again is not model
    _same(again, stock)


def check_a_checkpoint_and_the_reloads_of_its_parts_are_the_stock_loaders(base: Path) -> None:
    stock = _stock_checkpoint(base)
    model, clip, vae, report = LoadCheckpoint.execute(graphs.CHECKPOINT, strategy="streaming").args
    for ours, expected in ((model, stock[0]), (clip.patcher, stock[1].patcher), (vae.patcher, stock[2].patcher)):
        _same(ours, expected)
        reload, arguments, *index = ours.cached_patcher_init
        again = reload(*arguments, disable_dynamic=True)
        again = again[index[0]] if index else again
        assert again is not ours
        _same(again, expected)
    assert "streaming" in report


def check_listing_again_walks_nowhere(base: Path) -> None:
    del base
    for node in NODES:
        node.define_schema()

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"it walked {arguments}")

    with mock.patch("os.walk", refuse):
        for node in NODES:
            node.define_schema()


def check_an_interrupt_stops_the_load(base: Path) -> None:
    del base
    for node, name in ((LoadDiffusionModel, graphs.UNET), (LoadCheckpoint, graphs.CHECKPOINT)):
        comfy.model_management.interrupt_current_processing(True)
        try:
            node.execute(name)
        except comfy.model_management.InterruptProcessingException:
            pass
        else:
            raise AssertionError("it was not interrupted")
        finally:
            comfy.model_management.interrupt_current_processing(False)


def check_an_interrupt_that_the_progress_bar_takes_is_not_lost(base: Path) -> None:
    del base

    def hook(*arguments: object, **options: object) -> None:
        raise comfy.model_management.InterruptProcessingException

    earlier = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        bar = _Bar()
        assert not bar.interrupted()
        bar.show(LoadProgress(1, 2, "m"))
        assert bar.interrupted()
        try:
            LoadDiffusionModel.execute(graphs.UNET)
        except comfy.model_management.InterruptProcessingException:
            pass
        else:
            raise AssertionError("it was not interrupted")
    finally:
        comfy.utils.set_progress_bar_global_hook(earlier)


def check_a_load_reports_for_its_own_node_from_every_thread(base: Path) -> None:
    del base
    told: list[tuple[object, bool]] = []

    def hook(value: int, total: int, preview: object, prompt_id: object = None, node_id: object = None) -> None:
        told.append((node_id, threading.current_thread() is threading.main_thread()))

    earlier = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with CurrentNodeContext("a prompt", "7"):
            LoadDiffusionModel.execute(graphs.UNET, strategy="fast_single_file")
        assert {node for node, _ in told} == {"7"}, told
        assert not all(here for _, here in told), "no thread but the prompt's reported anything"
        told.clear()
        LoadDiffusionModel.execute(graphs.UNET)
        assert {node for node, _ in told} == {None}, "outside of a prompt there is no node"
    finally:
        comfy.utils.set_progress_bar_global_hook(earlier)


def check_a_linked_name_passes_and_a_wrong_one_does_not(base: Path) -> None:
    unet, checkpoint = f"diffusion_models/{graphs.UNET}", f"checkpoints/{graphs.CHECKPOINT}"
    for node, given, file in ((LoadDiffusionModel, "unet_name", unet), (LoadCheckpoint, "ckpt_name", checkpoint)):
        assert asyncio.run(node.validate_inputs()) is True
        node.execute(os.path.basename(file))
        before = node.fingerprint_inputs()
        # A download, while it grows.
        for nbytes in (0, 64):
            (base / "models" / file).with_name("download.safetensors").write_bytes(bytes(nbytes))
            assert node.fingerprint_inputs() == before, "a file that no run has loaded"
        written_ns = os.stat(base / "models" / file).st_mtime_ns
        os.utime(base / "models" / file, ns=(written_ns, written_ns + 10**9))
        assert node.fingerprint_inputs() != before, "the link may name the file that was replaced"
        told = asyncio.run(node.validate_inputs(**{given: "no such.gguf"}))
        assert isinstance(told, str) and "no such" in told and str(base) not in told
        assert node.fingerprint_inputs(**{given: "no such.gguf"}) == told
        try:
            node.execute("no such.gguf")
        except ModelFileError as problem:
            assert str(problem) == told
        else:
            raise AssertionError("it was taken")


def check_an_older_host_is_asked_only_what_it_knows(base: Path) -> None:
    del base
    assert call_host(lambda sd, model_options: (sd, model_options), 1, model_options=2, metadata=3) == (1, 2)


def check_a_loader_that_another_pack_has_wrapped_gets_every_option(base: Path) -> None:
    assert call_host(lambda *given, **options: (given, options), 1, metadata=2) == ((1,), {"metadata": 2})
    path = base / "models/diffusion_models" / graphs.UNET
    stock = comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.float8_e4m3fn})
    assert torch.float8_e4m3fn in {tensor.dtype for tensor in stock.model_state_dict().values()}
    loader = comfy.sd.load_diffusion_model_state_dict

    def wrapper(*arguments: object, **options: object) -> object:
        return loader(*arguments, **options)

    comfy.sd.load_diffusion_model_state_dict = wrapper
    try:
        model, _ = LoadDiffusionModel.execute(graphs.UNET, weight_dtype="fp8_e4m3fn").args
    finally:
        comfy.sd.load_diffusion_model_state_dict = loader
    _same(model, stock)
