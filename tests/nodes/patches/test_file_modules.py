"""Module names in every naming family, and norms good enough for a percentage."""

from __future__ import annotations

import math

import pytest
import torch

from warmstack.nodes.patches.file_modules import modules_of, split_key, update_norms


@pytest.mark.parametrize(
    "key",
    [
        "m.lora_up.weight", "m.lora_down.weight", "m.lora_mid.weight", "m.lora_A.weight", "m.lora_B", "m.lora_B.bias",
        "m.lora_A.default.weight", "m_lora.up.weight", "m.lora.down.weight", "m.lora_linear_layer.up.weight",
        "m.hada_w1_a", "m.hada_t2", "m.lokr_w1",
        "m.lokr_w2_b", "m.a1.weight", "m.diff", "m.diff_b", "m.set_weight", "m.w_norm", "m.oft_blocks",
        "m.alpha", "m.dora_scale", "m.rescale", "m.reshape_weight",
    ],
)  # fmt: skip
def test_every_known_key_belongs_to_its_module(key: str) -> None:
    assert split_key(key)[0] == "m"


def test_one_part_has_one_name_in_every_spelling() -> None:
    ups = (
        "m.lora_up.weight",
        "m.lora_B",
        "m.lora_B.default.weight",
        "m_lora.up.weight",
        "m.lora_linear_layer.up.weight",
    )
    assert {split_key(key) for key in ups} == {("m", "up")}


def test_a_key_of_an_unknown_form_is_a_module_of_its_own() -> None:
    assert split_key("emb_params")[0] == "emb_params"


def test_side_values_alone_are_no_module() -> None:
    tensors = {"a.alpha": torch.tensor(4.0), "b.lora_up.weight": torch.ones(2, 1), "b.alpha": torch.tensor(1.0)}
    assert modules_of(tensors) == {"b": ["b.lora_up.weight", "b.alpha"]}


def test_estimated_norms_are_near_the_true_ones() -> None:
    generator = torch.Generator().manual_seed(1)
    up, down = torch.randn(640, 16, generator=generator), torch.randn(16, 320, generator=generator)
    tensors = {
        "m.lora_up.weight": up.half(), "m.lora_down.weight": down.half(), "m.alpha": torch.tensor(8.0),
        "n.diff": torch.randn(300, 50, generator=generator),
    }  # fmt: skip
    norms = update_norms(tensors, modules_of(tensors))
    assert norms["m"] == pytest.approx(float((up @ down).norm()) * 8 / 16, rel=0.1)
    assert norms["n"] == pytest.approx(float(tensors["n.diff"].norm()), rel=0.1)


@pytest.mark.parametrize("core", [False, True])
def test_an_element_wise_product_shrinks_with_the_weight(core: bool) -> None:
    """Beside a plain LoRA of the same file it would otherwise weigh hundreds of times what it does."""
    g = torch.Generator().manual_seed(2)
    shapes = {"w1_b": (4, 300), "w2_b": (4, 300)}
    shapes |= {"w1_a": (4, 200), "w2_a": (4, 200), "t1": (4, 4, 3, 3), "t2": (4, 4, 3, 3)} if core else {
        "w1_a": (200, 4), "w2_a": (200, 4)
    }  # fmt: skip
    t = {part: torch.randn(shape, generator=g) for part, shape in shapes.items()}
    if core:
        one, two = (
            torch.einsum("ijkl,jr,ip->prkl", t[core], t[b], t[a])
            for core, b, a in (("t1", "w1_b", "w1_a"), ("t2", "w2_b", "w2_a"))
        )
    else:
        one, two = t["w1_a"] @ t["w1_b"], t["w2_a"] @ t["w2_b"]
    tensors = {f"m.hada_{part}": tensor for part, tensor in t.items()} | {"m.alpha": torch.tensor(2.0)}
    expected = float((one * two).norm()) * 2 / 4
    assert update_norms(tensors, modules_of(tensors))["m"] == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("split", [(), ("w1",), ("w2",), ("w1", "w2"), ("w2", "t2")])
def test_a_kronecker_product_has_the_product_of_its_sides_norms(split: tuple[str, ...]) -> None:
    """And its alpha counts over the rank of the last side that has one."""
    g = torch.Generator().manual_seed(3)
    t: dict[str, torch.Tensor] = {}
    sides = []
    for side, rows, columns, rank in (("w1", 16, 12, 3), ("w2", 20, 24, 5)):
        if side not in split:
            t[side] = torch.randn(rows, columns, generator=g)
            sides.append(t[side])
            continue
        core = "t2" in split
        t[f"{side}_a"] = torch.randn((rank, rows) if core else (rows, rank), generator=g)
        t[f"{side}_b"] = torch.randn(rank, columns, generator=g)
        if core:
            t["t2"] = torch.randn(rank, rank, 3, 3, generator=g)
            sides.append(torch.einsum("ijkl,jr,ip->prkl", t["t2"], t[f"{side}_b"], t[f"{side}_a"]))
        else:
            sides.append(t[f"{side}_a"] @ t[f"{side}_b"])
    tensors = {f"m.lokr_{part}": tensor for part, tensor in t.items()} | {"m.alpha": torch.tensor(2.0)}
    scale = 2 / 5 if "w2" in split else 2 / 3 if "w1" in split else 1.0
    expected = math.prod(float(side.norm()) for side in sides) * scale
    assert update_norms(tensors, modules_of(tensors))["m"] == pytest.approx(expected, rel=0.2)


def test_a_core_is_summed_over_the_rank_twice() -> None:
    g = torch.Generator().manual_seed(4)
    up, mid, down = (torch.randn(s, generator=g) for s in ((200, 6, 1, 1), (6, 6, 3, 3), (6, 100, 1, 1)))
    tensors = {"m.lora_up.weight": up, "m.lora_mid.weight": mid, "m.lora_down.weight": down}
    delta = torch.einsum("or,rkhw,ki->oihw", up.flatten(1), mid, down.flatten(1))
    assert update_norms(tensors, modules_of(tensors))["m"] == pytest.approx(float(delta.norm()), rel=0.2)


@pytest.mark.parametrize(
    "key", ["m.dora_scale", "m.oft_blocks", "m.set_weight", "m.a1.weight"], ids=["dora", "oft", "set", "glora"]
)
def test_an_update_that_depends_on_the_weight_has_no_norm_in_the_file(key: str) -> None:
    tensors = {"m.lora_up.weight": torch.ones(4, 2), "m.lora_down.weight": torch.ones(2, 4), key: torch.ones(4, 1)}
    assert math.isnan(update_norms(tensors, modules_of(tensors))["m"])


def test_strange_shapes_do_not_stop_the_estimate() -> None:
    tensors = {
        "a.lora_up.weight": torch.zeros(4, 0), "a.lora_down.weight": torch.zeros(0, 4), "a.alpha": torch.ones(2),
        "b.diff": torch.tensor(3.0), "c.lokr_w1": torch.tensor(2.0),
        "d.lora_up.weight": torch.zeros(3, 2, dtype=torch.float8_e4m3fn), "e.hada_w1_a": torch.tensor(2.0),
        "f.hada_w1_a": torch.zeros(4, 0), "f.hada_t1": torch.zeros(0),
    }  # fmt: skip
    assert update_norms(tensors, modules_of(tensors)) == {"a": 0.0, "b": 3.0, "c": 2.0, "d": 0.0, "e": 2.0, "f": 0.0}
