"""Models in graphs: every row of the table, links, switches, and whatever a client may post."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstack.prefetch.queue.job import ModelReference
from warmstack.prefetch.references import references
from warmstack.prefetch.references.model_recognisers import MODEL_INPUTS

from .model_cases import MODEL_CASES, Inputs, Named

CLASSES = sorted(MODEL_CASES)


def read(class_type: str, inputs: Inputs, **others: tuple[str, Inputs]) -> tuple[ModelReference, ...]:
    prompt = {"1": {"class_type": class_type, "inputs": inputs}}
    prompt |= {node_id: {"class_type": kind, "inputs": given} for node_id, (kind, given) in others.items()}
    return references(prompt, ["1"]).models


def named(found: tuple[ModelReference, ...]) -> Named:
    return tuple((model.kind, model.name) for model in found)


def test_every_row_of_the_table_has_a_fixture() -> None:
    assert MODEL_CASES.keys() == MODEL_INPUTS.keys()


@pytest.mark.parametrize("class_type", CLASSES)
def test_active(class_type: str) -> None:
    case = MODEL_CASES[class_type]
    found = read(class_type, case.active)
    assert named(found) == case.models
    assert {(model.node_id, model.class_type) for model in found} == {("1", class_type)}


@pytest.mark.parametrize("class_type", CLASSES)
def test_inactive(class_type: str) -> None:
    assert read(class_type, MODEL_CASES[class_type].inactive) == ()


@pytest.mark.parametrize("class_type", CLASSES)
def test_malformed(class_type: str) -> None:
    assert read(class_type, MODEL_CASES[class_type].malformed) == ()


def test_links_are_followed_to_literals_and_what_only_a_run_can_tell_is_nothing() -> None:
    others = {
        "2": ("easy ckptNames", {"ckpt_name": "a.safetensors"}),
        "3": ("RandomChoice", {"ckpt_name": "a.safetensors"}),
        "4": ("PrimitiveBoolean", {"value": True}),
    }
    assert named(read("CheckpointLoaderSimple", {"ckpt_name": ["2", 0]}, **others)) == (
        ("checkpoints", "a.safetensors"),
    )
    assert read("CheckpointLoaderSimple", {"ckpt_name": ["3", 0]}, **others) == ()
    tiled = {"tile_controlnet": "a.safetensors"}
    assert named(read("Tiled Upscaler Script", {**tiled, "use_controlnet": ["4", 0]}, **others))
    assert read("Tiled Upscaler Script", {**tiled, "use_controlnet": ["3", 0]}, **others) == ()
    random = {"ckpt_name": "a.safetensors", "select_at_random": ["3", 0]}
    assert read("Random Checkpoint Loader (LoraManager)", random, **others) == ()
    assert read("CR Select Model", {"ckpt_name1": "a.safetensors", "select_model": ["3", 0]}, **others) == ()
    assert read("XY Input: VAE", {"vae_name_1": "a.pt", "vae_count": 1, "input_mode": ["3", 0]}, **others) == ()


def test_the_branch_that_a_switch_leaves_out_and_what_no_output_needs_name_nothing() -> None:
    def loader(name: str) -> dict[str, Any]:
        return {"class_type": "UNETLoader", "inputs": {"unet_name": name}}

    prompt = {
        "1": {"class_type": "ComfySwitchNode", "inputs": {"switch": True, "on_false": ["2", 0], "on_true": ["3", 0]}},
        "2": loader("off.safetensors"),
        "3": loader("on.safetensors"),
        "4": loader("muted.safetensors"),
    }
    assert named(references(prompt, ["1"]).models) == (("diffusion_models", "on.safetensors"),)


def test_models_come_in_an_order_in_which_the_nodes_run() -> None:
    prompt = {
        "9": {"class_type": "KSampler", "inputs": {"model": ["5", 0], "control": ["6", 0]}},
        "6": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "third.safetensors", "after": ["5", 0]}},
        "5": {"class_type": "MergeSomehow", "inputs": {"a": ["1", 0], "b": ["2", 0]}},
        "2": {"class_type": "UNETLoader", "inputs": {"unet_name": "second.safetensors"}},
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "first.safetensors"}},
    }
    assert [model.name for model in references(prompt, ["9"]).models] == [
        "first.safetensors",
        "second.safetensors",
        "third.safetensors",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("a.safetensors"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = sorted({key for case in MODEL_CASES.values() for key in case.active})


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CLASSES), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8))
def test_nothing_that_json_can_say_raises_and_every_name_is_of_a_weight_file(class_type: str, inputs: Inputs) -> None:
    for model in read(class_type, inputs):
        assert model.name == "a.safetensors"
