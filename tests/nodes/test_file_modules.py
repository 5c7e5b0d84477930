"""Module names in every naming family, and norms good enough for a percentage."""

from __future__ import annotations

import pytest
import torch

from warmstack.nodes.file_modules import modules_of, split_key, update_norms


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
    assert split_key(key)[1] in ("factor", "whole", "beside")


def test_a_key_of_an_unknown_form_is_a_module_of_its_own() -> None:
    assert split_key("emb_params") == ("emb_params", "other")


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


def test_strange_shapes_do_not_stop_the_estimate() -> None:
    tensors = {
        "a.lora_up.weight": torch.zeros(4, 0), "a.lora_down.weight": torch.zeros(0, 4), "a.alpha": torch.ones(2),
        "b.diff": torch.tensor(3.0), "c.lokr_w1": torch.tensor(2.0),
        "d.lora_up.weight": torch.zeros(3, 2, dtype=torch.float8_e4m3fn), "e.hada_w1_a": torch.tensor(2.0),
        "f.hada_w1_a": torch.zeros(4, 0), "f.hada_t1": torch.zeros(0),
    }  # fmt: skip
    assert update_norms(tensors, modules_of(tensors)) == {"a": 0.0, "b": 3.0, "c": 2.0, "d": 0.0, "e": 2.0, "f": 0.0}
