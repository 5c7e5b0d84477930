"""Layers keep the order on every weight, whatever is mixed into a stack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstack.lora.fusing.fuse import PlainLora
from warmstack.nodes.patches.key_map import Target, weight_key
from warmstack.nodes.patches.layers import Layer, Patch, Summands, exact_layers, fused_layers

_TARGETS: tuple[Target, ...] = ("w", "v", ("w", (0, 0, 2)), ("w", (0, 2, 2)))
_STRENGTHS = (0.0, 0.5, 1.0, -0.25)


class _Fused(list[Any]):
    """The summands of one fused patch, unflattened."""

    def __init__(self, summands: Summands) -> None:
        super().__init__(zip(*(summands[at::4] for at in range(4)), strict=True))


def _plain(value: float) -> PlainLora:
    return PlainLora(torch.tensor([[value]]), torch.tensor([[1.0]]), 2.0)


def _patch(target: Target, kind: str, number: int) -> Patch:
    if kind == "plain":
        return Patch(target, f"plain {number}", _plain(float(number)))
    return Patch(target, ("set", (number,)) if kind == "set" else ("diff", (number,)), None)


@st.composite
def _stacks(draw: st.DrawFn) -> list[tuple[float, list[Patch]]]:
    rows = []
    for row in range(draw(st.integers(0, 5))):
        targets = draw(st.lists(st.sampled_from(_TARGETS), unique=True))
        kinds = [draw(st.sampled_from(["plain", "plain", "diff", "set"])) for _ in targets]
        numbered = enumerate(zip(targets, kinds, strict=True))
        rows.append((draw(st.sampled_from(_STRENGTHS)), [_patch(t, k, 10 * row + at) for at, (t, k) in numbered]))
    return rows


def _events(layers: Sequence[Layer], key: str) -> list[list[tuple[object, ...]]]:
    """What happens to one weight: a list of runs; the summands of one run are a set, the rest is a run by itself."""
    runs: list[list[tuple[object, ...]]] = []
    summing = False
    for layer in layers:
        for target, value in layer.patches.items():
            if weight_key(target) != key:
                continue
            if isinstance(value, _Fused):
                assert layer.strength == 1.0
                parts: list[tuple[object, ...]] = [(target, up.item(), scale) for up, _, _, scale in value]
                runs[-1:] = (
                    [sorted([*runs[-1], *parts], key=repr)] if summing else [*runs[-1:], sorted(parts, key=repr)]
                )
            else:
                runs.append([(target, value, layer.strength)])
            summing = isinstance(value, _Fused)
    return runs


def _expected(rows: Sequence[tuple[float, Sequence[Patch]]], key: str) -> list[list[tuple[object, ...]]]:
    runs: list[list[tuple[object, ...]]] = []
    summing = False
    for strength, patches in rows:
        for patch in patches:
            if weight_key(patch.target) != key:
                continue
            if patch.lora is None:
                if strength != 0 or patch.value[0] == "set":  # type: ignore[index]
                    runs.append([(patch.target, patch.value, strength)])
                    summing = False
            elif strength != 0:
                part = (patch.target, patch.lora.up.item(), 2.0 * strength)
                runs[-1:] = [sorted([*runs[-1], part], key=repr)] if summing else [*runs[-1:], [part]]
                summing = True
    return runs


@given(_stacks())
def test_fused_layers_do_to_every_weight_what_the_rows_do_one_after_another(
    rows: list[tuple[float, list[Patch]]],
) -> None:
    layers = fused_layers(rows, _Fused)
    for key in ("w", "v"):
        assert _events(layers, key) == _expected(rows, key)


@given(_stacks())
def test_exact_layers_are_the_rows_themselves(rows: list[tuple[float, list[Patch]]]) -> None:
    made = [(layer.strength, list(layer.patches.items())) for layer in exact_layers(rows)]
    assert made == [(strength, [(p.target, p.value) for p in patches]) for strength, patches in rows if patches]


def test_plain_loras_of_any_number_are_one_layer_with_one_patch_per_weight() -> None:
    rows = [(0.1 * (n + 1), [Patch(f"w{i}", object(), _plain(n)) for i in range(5)]) for n in range(8)]
    (layer,) = fused_layers(rows, _Fused)
    assert layer.strength == 1.0
    assert [len(value) for value in layer.patches.values() if isinstance(value, _Fused)] == [8] * 5


def test_a_stack_of_zero_strengths_leaves_nothing_to_do() -> None:
    assert fused_layers([(0.0, [_patch("w", "plain", 1), _patch("v", "diff", 2)])], _Fused) == []
