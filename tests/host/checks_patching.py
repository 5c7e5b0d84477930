"""Checks that need ComfyUI in the process: our patches against the host's own. Run by inside_host.py."""

from __future__ import annotations

import gc
import os
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import synthetic_loras
import torch
from comfy.weight_adapter import LoRAAdapter, adapters
from hostkit import tiny_flux, tiny_sd15
from hostkit.models import lora_path, write_models
from hostkit.tiny_lora import write_flux_lora, write_sd15_lora
from patching_kit import (
    FLUX_ROWS,
    SD15_ROWS,
    Bench,
    Row,
    assert_bit_equal,
    assert_near,
    assert_same_patches,
    deltas_of,
)  # fmt: skip

from warmstack.nodes.patches.applied_stack import LEASES, prepared_patches, targets_of
from warmstack.nodes.patches.file_modules import modules_of, update_norms
from warmstack.nodes.patches.fused_adapter import FusedLoraAdapter
from warmstack.nodes.patches.target_model import Targets


def prepare(base: Path) -> None:
    write_models(base)
    for seed, name in enumerate(("styles/ink", "styles/oil", "characters/mira")):
        write_sd15_lora(lora_path(base, f"{name}.safetensors"), seed=10 + seed)
    write_sd15_lora(lora_path(base, "styles/ldm.safetensors"), seed=20, naming="ldm", text_encoder=False)
    for seed in range(2):
        write_flux_lora(lora_path(base, f"flux/native{seed}.safetensors"), seed=30 + seed)
        write_flux_lora(lora_path(base, f"flux/diffusers{seed}.safetensors"), seed=40 + seed, naming="diffusers")


def check_exact_equals_chained_stock_loaders_on_model_and_clip(base: Path) -> None:
    bench = Bench(base)
    model, clip = bench.sd15()
    stock_model, stock_clip = bench.stock(model, clip, SD15_ROWS)
    ours = bench.ours(model, clip, SD15_ROWS, "exact")
    assert_same_patches(ours.model, stock_model)
    assert_same_patches(ours.clip.patcher, stock_clip.patcher)
    assert_bit_equal(ours.model, stock_model)
    assert_bit_equal(ours.clip.patcher, stock_clip.patcher)


def check_exact_equals_chained_stock_loaders_on_sliced_qkv(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    stock, _ = bench.stock(model, None, FLUX_ROWS)
    ours = bench.ours(model, None, FLUX_ROWS, "exact").model
    assert any(p[3] is not None for patches in stock.patches.values() for p in patches), "no sliced patch was tested"
    assert_same_patches(ours, stock)
    assert_bit_equal(ours, stock)


def check_fused_is_within_a_millionth_of_the_update(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    stock, _ = bench.stock(model, None, FLUX_ROWS)
    fused = bench.ours(model, None, FLUX_ROWS, "fused").model
    assert all(type(p[1]) is FusedLoraAdapter for patches in fused.patches.values() for p in patches)
    assert max(len(patches) for patches in fused.patches.values()) <= 4, "q, k, v and the whole are the most there are"
    assert_near(fused, stock)
    model, clip = bench.sd15()
    stock, stock_clip = bench.stock(model, clip, SD15_ROWS)
    ours = bench.ours(model, clip, SD15_ROWS, "fused")
    assert {len(patches) for patches in ours.model.patches.values()} == {1}
    assert_near(ours.model, stock)
    assert_near(ours.clip.patcher, stock_clip.patcher)


def check_every_adapter_type_in_every_order(base: Path) -> None:
    bench = Bench(base)
    kinds = synthetic_loras.write_flux_kinds(base)
    model = bench.flux()
    seen = set()
    for turn in range(len(kinds)):
        names = kinds[turn:] + kinds[:turn]
        rows = [(name, 0.4 + 0.1 * at, 0.0) for at, name in enumerate(names)]
        stock, _ = bench.stock(model, None, rows)
        seen |= {type(p[1]) for patches in stock.patches.values() for p in patches}
        exact = bench.ours(model, None, rows, "exact").model
        assert_same_patches(exact, stock)
        assert_bit_equal(exact, stock)
        assert_near(bench.ours(model, None, rows, "fused").model, stock, 2e-6)
    assert seen >= {*adapters, tuple}, seen


def check_what_the_host_does_not_apply_is_not_reported_as_matched(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    for name in synthetic_loras.write_flux_kinds(base):
        match = bench.ours(model, None, [(name, 1.0, 0.0)], "exact").matches[0]
        assert (match.misfits, match.matched_modules) == ((), match.modules), name
    for name in synthetic_loras.write_wide_kinds(base):
        patched = bench.ours(model, None, [(name, 1.0, 0.0)], "exact")
        match = patched.matches[0]
        assert (match.matched_modules, match.norm_share) == (0, 0.0), name
        assert set(match.misfits) == set(patched.model.patches), name
        for key in patched.model.patches:
            weight = comfy.utils.get_attr(model.model, key).detach().float()
            assert torch.equal(comfy.lora.calculate_weight(patched.model.patches[key], weight.clone(), key), weight)


def check_what_does_not_fit_a_packed_weight_is_told_too(base: Path) -> None:
    """Its storage has another shape than the weight; stacks on it are those of chained stock loaders."""
    bench = Bench(base)
    names = synthetic_loras.write_wide_kinds(base)
    for format_name in ("nvfp4", "int8_tensorwise"):
        model = bench.packed_flux(format_name)
        packed = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
        assert model.model.state_dict()[packed].dtype in (torch.uint8, torch.int8)
        stock, _ = bench.stock(model, None, FLUX_ROWS)
        assert_same_patches(bench.ours(model, None, FLUX_ROWS, "exact").model, stock)
        for name in names:
            patched = bench.ours(model, None, [(name, 1.0, 0.0)], "exact")
            assert set(patched.matches[0].misfits) == set(patched.model.patches) > {packed}, (format_name, name)
        (fitting,) = bench.ours(model, None, FLUX_ROWS[:1], "fused").matches
        assert (fitting.misfits, fitting.norm_share) == ((), 1.0)


def check_estimated_norms_are_those_of_the_hosts_updates(base: Path) -> None:
    bench = Bench(base)
    for name in synthetic_loras.write_products(base):
        model = bench.sd15()[0] if "convolutions" in name else bench.flux()
        stock, _ = bench.stock(model, None, [(name, 1.0, 0.0)])
        expected = sorted(float(delta.norm()) for delta in deltas_of(stock, list(stock.patches)).values())
        (leased,) = bench.lease([(name, 1.0, 0.0)])
        tensors = leased.lease.adapter.tensors
        norms = sorted(update_norms(tensors, modules_of(tensors)).values())
        assert len(norms) == len(expected)
        assert all(abs(a - b) < 0.15 * b for a, b in zip(norms, expected, strict=True)), (name, norms, expected)


def check_a_convolution_with_a_tucker_core(base: Path) -> None:
    bench = Bench(base)
    names = [synthetic_loras.write_sd15_convolutions(base, seed) for seed in (1, 2)]
    model, _ = bench.sd15()
    rows = [(name, 0.7, 0.0) for name in names]
    stock, _ = bench.stock(model, None, rows)
    assert any(p[1].weights[3] is not None for patches in stock.patches.values() for p in patches)
    assert_bit_equal(bench.ours(model, None, rows, "exact").model, stock)
    assert_near(bench.ours(model, None, rows, "fused").model, stock)


def check_zero_strengths_and_set_patches(base: Path) -> None:
    bench = Bench(base)
    kinds = synthetic_loras.write_flux_kinds(base)
    setter = next(name for name in kinds if "set" in name)
    model = bench.flux()
    rows = [("flux/native0.safetensors", 0.0, 0.0), (setter, 0.0, 1.0), ("flux/native1.safetensors", 0.5, 0.0)]
    stock, _ = bench.stock(model, None, rows)
    assert_bit_equal(bench.ours(model, None, rows, "exact").model, stock)
    assert_near(bench.ours(model, None, rows, "fused").model, stock)


def check_a_weight_is_padded_at_strength_zero_too(base: Path) -> None:
    """As chained loaders do; what comes after it in the stack is for the padded weight."""
    bench = Bench(base)
    model = bench.flux()
    rows = [(synthetic_loras.write_padding(base), 0.0, 1.0), (synthetic_loras.write_padded(base), 0.5, 0.0)]
    stock, _ = bench.stock(model, None, rows)
    assert_bit_equal(bench.ours(model, None, rows, "exact").model, stock)
    key = "diffusion_model.img_in.weight"
    weight = comfy.utils.get_attr(model.model, key).detach().float()
    fused = bench.ours(model, None, rows, "fused").model
    expected, got = (comfy.lora.calculate_weight(p.patches[key], weight.clone(), key) for p in (stock, fused))
    assert expected.shape == got.shape == (128, 128)
    assert (got - expected).norm() <= 1e-6 * expected.norm()


def check_restricted_matching_is_the_hosts_matching(base: Path) -> None:
    bench = Bench(base)
    model, clip = bench.sd15()
    names = [*synthetic_loras.write_flux_kinds(base), *(row[0] for row in (*FLUX_ROWS, *SD15_ROWS))]
    for used_model, used_clip in ((model, clip), (model, None), (bench.flux(), None), (None, clip)):
        for name in names:
            (leased,) = bench.lease([(name, 1.0, 1.0)])
            targets = targets_of(used_model, used_clip, bench.target_models)
            prepared = prepared_patches(leased.lease.adapter, targets)
            key_map: dict[str, Any] = {}
            if used_model is not None:
                key_map = comfy.lora.model_lora_keys_unet(used_model.model, key_map)
            if used_clip is not None:
                key_map = comfy.lora.model_lora_keys_clip(used_clip.cond_stage_model, key_map)
            expected = comfy.lora.load_lora(dict(leased.lease.adapter.tensors), key_map, log_missing=False)
            assert [p.target for p in (*prepared.model, *prepared.clip)] == list(expected), name


def check_equal_stacks_share_their_uuid_and_any_difference_changes_it(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    other = bench.flux()
    first, second = FLUX_ROWS[0], FLUX_ROWS[2]

    def made(of: Any, rows: Sequence[Row], math: str = "fused") -> uuid.UUID:
        return bench.ours(of, None, rows, math).model.patches_uuid

    same = made(model, [first, second])
    assert isinstance(same, uuid.UUID) and same == made(model, [first, second])
    bench.cache.clear()
    assert same == made(model, [first, second]), "a reload of the same file is the same stack"
    different = [
        made(other, [first, second]), made(model, [second, first]), made(model, [first]),
        made(model, [first, second], "exact"), made(model, [(first[0], 0.81, 0.0), second]), model.patches_uuid,
    ]  # fmt: skip
    path = bench.path(first[0])
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))
    different.append(made(model, [first, second]))
    assert len({same, *different}) == len(different) + 1


def check_model_and_clip_strengths_change_their_own_side_alone(base: Path) -> None:
    bench = Bench(base)
    model, clip = bench.sd15()
    a = bench.ours(model, clip, [("styles/ink.safetensors", 0.5, 0.5)], "fused")
    b = bench.ours(model, clip, [("styles/ink.safetensors", 0.5, 0.6)], "fused")
    assert a.model.patches_uuid == b.model.patches_uuid
    assert a.clip.patcher.patches_uuid != b.clip.patcher.patches_uuid


def check_an_equal_stack_is_not_patched_again(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    patched: list[str] = []
    original = comfy.model_patcher.ModelPatcher.patch_weight_to_device

    def recording(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        if key in self.patches:
            patched.append(key)
        return original(self, key, *args, **kwargs)

    comfy.model_patcher.ModelPatcher.patch_weight_to_device = recording
    try:
        counts = []
        for rows in (FLUX_ROWS, FLUX_ROWS, FLUX_ROWS[:2]):
            patched.clear()
            comfy.model_management.load_models_gpu([bench.ours(model, None, rows, "fused").model])
            counts.append(len(patched))
    finally:
        comfy.model_patcher.ModelPatcher.patch_weight_to_device = original
        comfy.model_management.unload_all_models()
    assert counts[0] > 0 and counts[1] == 0 and counts[2] > 0, counts


def check_leases_live_exactly_as_long_as_the_patcher(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    patched = bench.ours(model, None, FLUX_ROWS[:1], "fused").model
    second = bench.ours(patched, None, FLUX_ROWS[2:3], "fused").model
    clone = second.clone()
    second.parent = clone.parent = None  # the host links a clone to its origin, which would keep the first leases too
    in_use = lambda: {view.name for view in bench.cache.snapshot().adapters if view.leases}  # noqa: E731
    both = {FLUX_ROWS[0][0], FLUX_ROWS[2][0]}
    assert in_use() == both
    gone = weakref.ref(second)
    del patched, second
    gc.collect()
    assert in_use() == both, "the clone still uses both"
    del clone
    gc.collect()
    assert gone() is None and in_use() == set(), "nothing of ours keeps a patcher alive"


def check_buffers_are_given_back_with_the_last_patcher(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    patched = bench.ours(model, None, FLUX_ROWS, "fused").model
    bench.cache.clear()
    assert bench.cache.snapshot().used_bytes > 0
    del patched
    gc.collect()
    bench.cache.clear()
    assert bench.cache.snapshot().used_bytes == 0


def check_target_models_are_forgotten_with_the_model(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    bench.ours(model, None, FLUX_ROWS, "fused")
    gone = weakref.ref(model.model)
    del model
    gc.collect()
    assert gone() is None and len(bench.target_models) == 0


def check_an_adapter_does_not_collect_matches_for_ever(base: Path) -> None:
    bench = Bench(base)
    (leased,) = bench.lease(FLUX_ROWS[:1])
    known = targets_of(bench.flux(), None, bench.target_models).model
    assert known is not None
    for number in range(40):
        targets = Targets(replace(known, fingerprint=f"model {number}"), None)
        patches = prepared_patches(leased.lease.adapter, targets)
        assert prepared_patches(leased.lease.adapter, targets) is patches, "the latest is kept"
    assert len(leased.lease.adapter.prepared) < 20


def check_nothing_to_change_returns_the_inputs(base: Path) -> None:
    bench = Bench(base)
    model, clip = bench.sd15()
    ours = bench.ours(model, clip, [("styles/ldm.safetensors", 0.0, 1.0)], "fused")
    assert ours.model is model and ours.clip is clip
    ours = bench.ours(model, None, [("flux/native0.safetensors", 1.0, 1.0)], "exact")
    assert ours.model is model and ours.clip is None


def check_inputs_are_left_alone(base: Path) -> None:
    bench = Bench(base)
    model, clip = bench.sd15()
    before = (model.patches_uuid, clip.patcher.patches_uuid)
    bench.ours(model, clip, SD15_ROWS, "fused")
    bench.ours(model, clip, SD15_ROWS, "exact")
    assert before == (model.patches_uuid, clip.patcher.patches_uuid)
    assert not model.patches and not clip.patcher.patches and not model.attachments


def check_the_match_report(base: Path) -> None:
    bench = Bench(base)
    model, clip = bench.sd15()
    (full,) = bench.ours(model, clip, [("styles/ink.safetensors", 1.0, 1.0)], "fused").matches
    assert full.matched_modules == full.modules == len(tiny_sd15.UNET_MODULES) + 12 * len(tiny_sd15.CLIP_MODULES)
    assert full.norm_share == 1.0 and full.unmatched == ()
    (half,) = bench.ours(model, None, [("styles/ink.safetensors", 1.0, 1.0)], "fused").matches
    assert half.matched_modules == len(tiny_sd15.UNET_MODULES) and 0 < half.norm_share < 1
    assert all(module.startswith("lora_te") for module in half.unmatched)
    (wrong,) = bench.ours(model, clip, [("flux/native0.safetensors", 1.0, 1.0)], "fused").matches
    assert wrong.matched_modules == 0 and wrong.norm_share == 0.0 and wrong.modules == len(tiny_flux.MODULES)
    name = synthetic_loras.write_misfit(base)
    (misfit,) = bench.ours(bench.flux(), None, [(name, 1.0, 1.0)], "fused").matches
    assert misfit.misfits == ("diffusion_model.img_in.weight",) and misfit.matched_modules == 1


def check_a_lora_that_does_not_fit_does_not_stop_the_others(base: Path) -> None:
    bench = Bench(base)
    model = bench.flux()
    rows = [(synthetic_loras.write_misfit(base), 1.0, 0.0), *FLUX_ROWS[:2]]
    stock, _ = bench.stock(model, None, rows)
    assert_near(bench.ours(model, None, rows, "fused").model, stock)


def check_metadata_is_attached_as_the_host_does(base: Path) -> None:
    bench = Bench(base)
    name = synthetic_loras.write_with_metadata(base, {"reference_downscale_factor": "2"})
    model = bench.flux()
    rows = [(name, 1.0, 0.0), ("flux/native0.safetensors", 1.0, 0.0)]
    stock, _ = bench.stock(model, None, rows)
    ours = bench.ours(model, None, rows, "fused").model
    assert ours.get_attachment("lora_metadata") == stock.get_attachment("lora_metadata") != None  # noqa: E711
    assert ours.get_attachment(LEASES) is not None


def check_the_dynamic_path_can_rebuild_a_fused_adapter(base: Path) -> None:
    """LowVramPatch gathers the tensors into one buffer and rebuilds the adapter from it."""
    bench = Bench(base)
    patcher = bench.ours(bench.flux(), None, FLUX_ROWS, "fused").model
    for key in patcher.patches:
        weight = comfy.utils.get_attr(patcher.model, key).detach().float()
        patch = comfy.model_patcher.LowVramPatch(key, patcher.patches)
        tensors = [v for p in patcher.patches[key] for v in p[1].weights if isinstance(v, torch.Tensor)]
        assert patch.memory_required() >= sum(t.nbytes for t in tensors) > 0
        assert all(t.is_contiguous() for t in tensors)
        direct = patch(weight.clone())
        buffer = torch.empty(patch.memory_required(), dtype=torch.uint8)
        prepared = patch.prepare(buffer, None)
        rebuilt = [p[1] for p in prepared]
        assert all(type(adapter) is FusedLoraAdapter for adapter in rebuilt)
        inside = range(buffer.data_ptr(), buffer.data_ptr() + buffer.nbytes)
        copies = [v for adapter in rebuilt for v in adapter.weights if isinstance(v, torch.Tensor)]
        assert len(copies) == len(tensors) and all(t.data_ptr() in inside for t in copies)
        assert torch.equal(patch(weight.clone()), direct), key
        half = patch(weight.to(torch.bfloat16))
        assert (
            half.dtype == torch.bfloat16 and torch.equal(half, (direct - weight + weight.bfloat16()).bfloat16())
        ) or ((half.float() - direct).norm() < 0.01 * direct.norm())


def check_bypass_terms_are_the_sum_of_the_hosts(base: Path) -> None:
    del base
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 16, generator=generator)
    factors = [
        (torch.randn(8, r, generator=generator), torch.randn(r, 16, generator=generator), 0.3 * r) for r in (2, 4)
    ]
    stock = [LoRAAdapter(set(), (up, down, alpha, None, None, None)) for up, down, alpha in factors]
    flat = [value for up, down, alpha in factors for value in (up, down, None, alpha / down.shape[0])]
    fused = FusedLoraAdapter.of(flat)
    base_out = torch.zeros(3, 8)
    assert torch.allclose(fused.h(x, base_out), sum(adapter.h(x, base_out) for adapter in stock), rtol=1e-5, atol=1e-6)


class _Wrapped(torch.nn.Module):
    """What torch.compile makes of a module."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner


def check_a_compiled_model_is_read_anew(base: Path) -> None:
    """Wrapping a child renames the weights: the names that were known before do not fit then."""
    bench = Bench(base)
    model = bench.flux()
    before = targets_of(model, None, bench.target_models)
    inner = model.model.diffusion_model
    model.model.diffusion_model = _Wrapped(inner)
    try:
        assert targets_of(model, None, bench.target_models).fingerprint != before.fingerprint
    finally:
        model.model.diffusion_model = inner
    assert targets_of(model, None, bench.target_models).fingerprint == before.fingerprint


def check_compiled_blocks_of_a_model_are_read_anew(base: Path) -> None:
    """Nodes that compile block by block do so in the shared module, and the host takes it back later."""
    for compiled_first in (False, True):
        bench = Bench(base)
        model = bench.flux()
        blocks = model.model.diffusion_model.double_blocks
        inner = blocks[0]
        for is_compiled in (compiled_first, not compiled_first, compiled_first):
            blocks[0] = _Wrapped(inner) if is_compiled else inner
            ours = bench.ours(model, None, FLUX_ROWS, "exact").model
            stock, _ = bench.stock(model, None, FLUX_ROWS)
            assert_same_patches(ours, stock)
