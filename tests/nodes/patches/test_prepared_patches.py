"""Prepared patches with a stand-in for the host's matching: sides, what may be fused, and how much was matched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from warmstack.lora.fusing.fuse import PlainLora
from warmstack.nodes.patches.key_map import Target, fingerprint
from warmstack.nodes.patches.prepared_patches import PreparedPatches, Tensors, prepare
from warmstack.nodes.patches.target_model import TargetModel, TargetModels, Targets


def _swap(delta: object) -> object:
    return delta


def _base(key_map: dict[str, Target], shapes: dict[str, tuple[int, ...] | None]) -> TargetModel:
    return TargetModel(key_map, shapes, fingerprint(key_map, shapes), ())


MODEL = _base(
    {"unet_a": "model.a", "unet_q": ("model.qkv", (0, 0, 8)), "unet_f": ("model.f", None, _swap), "unet_p": "model.p"},
    {"model.a": (8, 4), "model.qkv": (24, 4), "model.f": (8, 4), "model.p": None},
)
CLIP = _base({"te_a": "clip.a"}, {"clip.a": (8, 4)})


class _Plain:
    """Stands for the host's LoRA adapter."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor) -> None:
        self.weights = (up, down, None)


def _match(tensors: Tensors, key_map: Mapping[str, Target]) -> dict[Target, object]:
    found: dict[Target, object] = {}
    for x, target in key_map.items():
        if f"{x}.lora_up.weight" in tensors:
            found[target] = _Plain(tensors[f"{x}.lora_up.weight"], tensors[f"{x}.lora_down.weight"])
        if f"{x}.diff" in tensors:
            found[target] = ("diff", (tensors[f"{x}.diff"],))
    return found


def _lora(value: object) -> PlainLora | None:
    return PlainLora(value.weights[0], value.weights[1], 1.0) if isinstance(value, _Plain) else None


def _tensors(*modules: str, out_features: int = 8) -> dict[str, torch.Tensor]:
    tensors = {}
    for module in modules:
        tensors[f"{module}.lora_up.weight"] = torch.ones(out_features, 2)
        tensors[f"{module}.lora_down.weight"] = torch.ones(2, 4)
    return tensors


def _prepare(tensors: Tensors, targets: Targets) -> PreparedPatches:
    return prepare(tensors, targets, _match, _lora)


def test_each_side_gets_its_own_patches_in_the_hosts_order() -> None:
    patches = _prepare(_tensors("te_a", "unet_q", "unet_a"), Targets(MODEL, CLIP))
    assert [p.target for p in patches.model] == ["model.a", ("model.qkv", (0, 0, 8))]
    assert [p.target for p in patches.clip] == ["clip.a"]
    assert (patches.match.modules, patches.match.matched_modules, patches.match.norm_share) == (3, 3, 1.0)


def test_a_patch_with_a_function_and_a_patch_of_another_kind_stay_the_hosts_own() -> None:
    tensors = _tensors("unet_a", "unet_f") | {"unet_p.diff": torch.ones(3)}
    fusable = {p.target: p.lora is not None for p in _prepare(tensors, Targets(MODEL, None)).model}
    assert fusable == {"model.a": True, ("model.f", None, _swap): False, "model.p": False}


@pytest.mark.parametrize("broken", ["unet_a", "te_a"])
def test_where_the_file_cannot_tell_all_modules_count_alike(broken: str) -> None:
    infinite = _tensors("unet_a", "te_a")
    infinite[f"{broken}.lora_up.weight"][0, 0] = torch.inf
    for tensors in (infinite, _tensors("unet_a", "te_a") | {f"{broken}.dora_scale": torch.ones(8, 1)}):
        match = _prepare(tensors, Targets(MODEL, None)).match
        assert (match.norm_share, match.share) == (None, pytest.approx(0.5**0.5))


def test_the_matched_share_is_one_of_the_update_and_not_of_the_keys() -> None:
    tensors = _tensors("unet_a", "te_a")
    tensors["te_a.lora_up.weight"] *= 0.75
    match = _prepare(tensors, Targets(MODEL, None)).match
    assert (match.modules, match.matched_modules, match.unmatched) == (2, 1, ("te_a",))
    assert match.norm_share == pytest.approx(4 / 5), "norms of 4 and 3 are 5 together"


@pytest.mark.parametrize(("module", "key"), [("unet_a", "model.a"), ("unet_q", "model.qkv")])
def test_factors_of_another_shape_are_misfits_and_not_matched(module: str, key: str) -> None:
    match = _prepare(_tensors(module, out_features=16), Targets(MODEL, None)).match
    assert match.misfits == (key,) and match.matched_modules == 0 and match.norm_share == 0.0


def test_of_one_weight_a_slice_that_fits_is_matched_and_a_slice_that_does_not_is_told() -> None:
    parts: dict[str, Target] = {part: ("model.qkv", (0, at, 8)) for part, at in (("q", 0), ("k", 8), ("v", 16))}
    base = _base(parts, {"model.qkv": (24, 4)})
    for wide in (_tensors("k", out_features=16), {"k.diff": torch.ones(16, 4)}):
        match = _prepare(_tensors("q", "v") | wide, Targets(base, None)).match
        assert (match.modules, match.matched_modules, match.unmatched) == (3, 2, ("k",))
        assert match.misfits == ("model.qkv",)
    match = _prepare(_tensors("q", "k", "v", out_features=16), Targets(base, None)).match
    assert (match.matched_modules, match.misfits) == (0, ("model.qkv",)), "a weight is told once"


def _wide(kind: str, width: int) -> object:
    """A patch of `kind`, as the host holds it, for a weight of `width` x 4."""
    o = torch.ones
    if kind == "diff":
        return ("diff", (o(width, 4),))
    weights: dict[str, tuple[object, ...]] = {
        "lora": (o(width, 2), o(2, 4), None, None, o(width, 1), None),
        "loha": (o(width, 2), o(2, 4), None, o(width, 2), o(2, 4), None, None, None),
        "lokr": (o(2, 2), None, None, None, None, o(width // 2, 1), o(1, 2), None, None),
        "oft": (o(width // 2, 2, 2), None, None, None),
        "boft": (o(3, width // 2, 2, 2), None, None, None),
    }
    return SimpleNamespace(name=kind, weights=weights[kind])


def _matched(patches: dict[Target, Any]) -> Callable[..., dict[Target, Any]]:
    """The host's matching, which found these."""
    return lambda *_: patches


@pytest.mark.parametrize("kind", ["diff", "lora", "loha", "lokr", "oft", "boft"])
def test_patches_of_another_shape_are_misfits_whatever_their_kind(kind: str) -> None:
    tensors = {"unet_a.diff": torch.ones(2)}
    for width, key, misfits in ((16, "model.a", ("model.a",)), (8, "model.a", ()), (16, "model.p", ())):
        patches = prepare(tensors, Targets(MODEL, None), _matched({key: _wide(kind, width)}), _lora)
        assert patches.match.misfits == misfits, width
    sliced: Target = ("model.qkv", (0, 8, 8))
    match = prepare(tensors, Targets(MODEL, None), _matched({sliced: _wide(kind, 24)}), _lora).match
    assert match.misfits == ("model.qkv",), "the slice is what it is put into"


def test_what_has_no_known_form_is_taken_to_fit() -> None:
    tensors = {"unet_a.diff": torch.ones(2)}
    widened = SimpleNamespace(name="lora", weights=(torch.ones(16, 2), torch.ones(2, 4), None, None, None, [16, 4]))
    strange = [SimpleNamespace(name="loha", weights=(torch.ones(16, 2),)), SimpleNamespace(name="new", weights=())]
    padded = ("diff", (torch.ones(16, 4), {"pad_weight": True}))
    for value in (widened, *strange, padded, ("set", (torch.ones(16, 4),)), ("diff",), object()):
        match = prepare(tensors, Targets(MODEL, None), _matched({"model.a": value}), _lora).match
        assert match.misfits == (), value


def test_packed_weights_have_no_shape_to_judge_by() -> None:
    assert _prepare(_tensors("unet_p", out_features=16), Targets(MODEL, None)).match.misfits == ()


def test_of_two_equal_names_the_text_encoders_wins_as_in_the_host() -> None:
    clip = _base({"unet_a": "clip.a"}, {"clip.a": (8, 4)})
    patches = _prepare(_tensors("unet_a"), Targets(MODEL, clip))
    assert (len(patches.model), [p.target for p in patches.clip]) == (0, ["clip.a"])


class _Read:
    """Counts how often a key map is read."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: torch.nn.Module, key_map: dict[str, Target]) -> dict[str, Target]:
        self.calls += 1
        return key_map | {f"x_{name}": name for name in module.state_dict()}


def test_a_target_model_is_read_once_and_forgotten_with_its_module() -> None:
    target_models, read = TargetModels(), _Read()
    module = torch.nn.Sequential(torch.nn.Linear(4, 8))
    first = target_models.of(module, read)
    assert target_models.of(module, read) is first and read.calls == 1
    assert first.shapes == {"0.weight": (8, 4), "0.bias": (8,)}
    twin = torch.nn.Sequential(torch.nn.Linear(4, 8))
    assert target_models.of(twin, read).fingerprint == first.fingerprint
    assert target_models.of(torch.nn.Sequential(torch.nn.Linear(4, 9)), read).fingerprint != first.fingerprint
    del module, twin
    assert len(target_models) == 0


def test_a_weight_that_is_stored_packed_has_its_own_shape_or_none() -> None:
    module = torch.nn.Linear(8, 4)
    module.register_state_dict_post_hook(
        lambda _, stored, *__: stored.update(weight=torch.ones(4, 4, dtype=torch.uint8))
    )
    bare = torch.nn.Module()
    bare.register_parameter("weight", torch.nn.Parameter(torch.ones(4, 4, dtype=torch.uint8), requires_grad=False))
    shapes = [TargetModels().of(one, _Read()).shapes["weight"] for one in (module, bare)]
    assert shapes == [(4, 8), None]


def test_a_target_model_whose_children_were_wrapped_is_read_again() -> None:
    target_models, read = TargetModels(), _Read()
    module = torch.nn.Sequential(torch.nn.Linear(4, 8))
    before = target_models.of(module, read)
    module[0] = torch.nn.Sequential(module[0])
    assert target_models.of(module, read).shapes.keys() == {"0.0.weight", "0.0.bias"} != before.shapes.keys()


def test_a_target_model_with_one_wrapped_block_is_read_again() -> None:
    target_models, read = TargetModels(), _Read()
    blocks = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 4))
    module = torch.nn.Sequential(blocks, torch.nn.Sequential())
    before = target_models.of(module, read)
    plain = blocks[1]
    blocks[1] = torch.nn.Sequential(plain)
    assert "0.1.0.weight" in target_models.of(module, read).shapes
    # The same names and types in the same order, one level up.
    del blocks[1]
    module[1] = torch.nn.Sequential(plain)
    assert "1.0.weight" in target_models.of(module, read).shapes
    blocks.append(plain)
    module[1] = torch.nn.Sequential()
    assert target_models.of(module, read).fingerprint == before.fingerprint
