"""References from graphs: every row of the table, the generic rules, links, and whatever a client may post."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstack.lora.stacks.stack import parse_stack
from warmstack.prefetch.queue.job import References
from warmstack.prefetch.references import payload_references, references
from warmstack.prefetch.references.recognisers import PLAIN_CLASSES, RECOGNISERS

from .recogniser_cases import CASES, Inputs

CLASSES = sorted(CASES)


def read(class_type: str, inputs: Inputs, **others: tuple[str, Inputs]) -> References:
    prompt = {"1": {"class_type": class_type, "inputs": inputs}}
    prompt |= {node_id: {"class_type": kind, "inputs": given} for node_id, (kind, given) in others.items()}
    return references(prompt, ["1"])


def names(found: References) -> tuple[str, ...]:
    return tuple(lora.name for lora in found.loras)


def test_every_row_of_the_table_has_a_fixture() -> None:
    assert CASES.keys() == RECOGNISERS.keys()


@pytest.mark.parametrize("class_type", CLASSES)
def test_every_fixture_has_all_three_variants(class_type: str) -> None:
    """An empty variant, or one of inputs that the row does not read, would pass whatever the row did."""
    active, inactive, malformed = CASES[class_type].active, CASES[class_type].inactive, CASES[class_type].malformed
    assert active
    assert inactive != active != malformed
    if RECOGNISERS[class_type]:
        assert family(active) & family(inactive)
        assert family(active) & family(malformed)


def family(inputs: Inputs) -> set[str]:
    """Names of inputs without the numbers that tell rows apart."""
    return {re.sub(r"\d+", "#", key.lower()) for key in inputs}


@pytest.mark.parametrize("class_type", CLASSES)
def test_active(class_type: str) -> None:
    case = CASES[class_type]
    found = read(class_type, case.active)
    assert names(found) == case.names
    assert bool(found.unknown) == case.unknown
    assert not any(lora.guessed for lora in found.loras)


@pytest.mark.parametrize("class_type", CLASSES)
def test_inactive(class_type: str) -> None:
    assert names(read(class_type, CASES[class_type].inactive)) == ()


@pytest.mark.parametrize("class_type", CLASSES)
def test_malformed(class_type: str) -> None:
    assert names(read(class_type, CASES[class_type].malformed)) == ()


def test_strengths_are_read_as_the_class_means_them() -> None:
    assert read("LoraLoaderModelOnly", {"lora_name": "a", "strength_model": 0.5}).loras[0].strength_clip == 0.0
    manager = read("Lora Loader (LoraManager)", {"loras": [{"name": "a", "strength": "0.5", "active": True}]}).loras[0]
    assert (manager.strength_model, manager.strength_clip) == (0.5, 0.5)
    a1111 = read("WarmStackLoraTags", {"text": "<lora:a:0.8:0.4>", "syntax": "a1111"}).loras[0]
    assert (a1111.strength_model, a1111.strength_clip) == (0.4, 0.8)
    comfy = read("LoraTagLoader", {"text": "<lora:a:0.8:0.4>"}).loras[0]
    assert (comfy.strength_model, comfy.strength_clip) == (0.8, 0.4)


def test_a_computed_strength_is_unknown_and_not_zero() -> None:
    found = read("LoraLoaderModelOnly", {"lora_name": "a", "strength_model": ["2", 0]}, **{"2": ("MathExpression", {})})
    assert [(lora.name, lora.strength_model) for lora in found.loras] == [("a", None)]


@pytest.mark.parametrize(
    ("switch", "loaded"), [(True, ("on",)), (False, ("off",)), (["4", 0], ("on",)), (["5", 0], ("off", "on"))]
)
def test_a_branch_that_its_switch_leaves_out_names_nothing(switch: Any, loaded: tuple[str, ...]) -> None:
    others = {
        "2": ("LoraLoaderModelOnly", {"lora_name": "off", "strength_model": 1}),
        "3": ("LoraLoaderModelOnly", {"lora_name": "on", "strength_model": 1}),
        "4": ("PrimitiveBoolean", {"value": True}),
        "5": ("SomeCondition", {}),
    }
    found = read("ComfySwitchNode", {"switch": switch, "on_false": ["2", 0], "on_true": ["3", 0]}, **others)
    assert names(found) == loaded


@pytest.mark.parametrize("class_type", sorted(PLAIN_CLASSES))
def test_classes_that_load_no_lora_are_not_guessed_at(class_type: str) -> None:
    assert class_type not in RECOGNISERS
    assert read(class_type, {"text": "a cat <lora:a:1>", "lora_name": "a", "rows": [{"lora": "a"}]}) == References()


def test_links_are_followed_to_literals() -> None:
    others = {
        "2": ("Reroute", {"": ["3", 0]}),
        "3": ("PrimitiveString", {"value": "ink.safetensors"}),
        "4": ("PrimitiveFloat", {"value": 0}),
    }
    linked = {"lora_name": ["2", 0], "strength_model": 1}
    assert names(read("LoraLoaderModelOnly", linked, **others)) == ("ink.safetensors",)
    assert names(read("LoraLoaderModelOnly", {**linked, "strength_model": ["4", 0]}, **others)) == ()
    assert names(
        read(
            "easy loraStack",
            {"toggle": True, "num_loras": ["5", 0], "lora_1_name": "a", "lora_2_name": "b"},
            **{"5": ("easy int", {"value": 1})},
        )
    ) == ("a",)


@pytest.mark.parametrize(
    ("class_type", "inputs"),
    [
        ("LoraLoader", {"lora_name": ["2", 0], "strength_model": 1}),
        ("LoraLoader", {"lora_name": ["nowhere", 0], "strength_model": 1}),
        ("CR Load LoRA", {"switch": ["2", 0], "lora_name": "a", "strength_model": 1}),
        ("LoraLoaderBlockWeight //Inspire", {"lora_name": "a", "strength_model": 1, "bypass": ["2", 0]}),
        ("LoRA Stacker", {"lora_count": ["2", 0], "lora_name_1": "a"}),
        ("easy loraSwitcher", {"toggle": True, "select": ["2", 0], "num_loras": 2, "lora_1_name": "a"}),
        ("LoraTagLoader", {"text": ["2", 0]}),
        ("SwarmLoraLoader", {"lora_names": ["2", 0]}),
        ("Lora Loader (LoraManager)", {"loras": ["2", 0]}),
        ("WarmStackLoadLoraStack", {"loras": ["2", 0]}),
        ("XY Input: LoRA", {"input_mode": "LoRA Batch", "lora_count": 1, "lora_name_1": "a"}),
        (
            "Lora Randomizer (LoraManager)",
            {"roll_mode": "always", "execution_seed": 7, "loras": [{"name": "a", "active": True}]},
        ),
        ("FaceDetailer", {"wildcard": "__loras/any__"}),
        ("LoraLoader", {"lora_name": "x" * 5000, "strength_model": 1}),
        ("LoraTagLoader", {"text": "<lora:a:1>" + "x" * 100_000}),
    ],
)
def test_what_only_a_run_can_tell_is_reported_and_not_guessed(class_type: str, inputs: Inputs) -> None:
    found = read(class_type, inputs, **{"2": ("RandomChoice", {"seed": 1})})
    assert names(found) == ()
    assert [unknown.class_type for unknown in found.unknown] == [class_type]


@pytest.mark.parametrize(
    ("inputs", "strengths"),
    [
        ({}, (0.8, 0.4)),
        ({"syntax": "comfy"}, (0.8, 0.4)),
        ({"syntax": "a1111"}, (0.4, 0.8)),
        ({"syntax": ["2", 0]}, (None, None)),
    ],
)
def test_a_syntax_may_be_left_out_or_come_over_a_link(inputs: Inputs, strengths: tuple[float | None, ...]) -> None:
    inputs = {"text": "<lora:a:0.8:0.4>", **inputs}
    found = read("WarmStackLoraTags", inputs, **{"2": ("RandomChoice", {"seed": 1})})
    assert [(lora.name, lora.strength_model, lora.strength_clip) for lora in found.loras] == [("a", *strengths)]
    assert found.unknown == ()


@pytest.mark.parametrize(
    ("inputs", "taken", "loaded"),
    [({}, 0, ("b",)), ({"clip": ["2", 0]}, 0, ("a", "b")), ({}, 2, ("a", "b"))],
    ids=["no clip", "a clip", "a later loader may have one"],
)
def test_without_a_clip_our_loader_reads_no_row_of_model_strength_0(
    inputs: Inputs, taken: int, loaded: tuple[str, ...]
) -> None:
    inputs = {"loras": '[["a", 0, 1], ["b", 0.5, 0]]', **inputs}
    later = {"3": ("Somebodys", {"model": ["1", taken]}), "4": ("Broken", {"x": {"1": ["1", 2]}})}
    assert names(read("WarmStackLoadLoraStack", inputs, **later)) == loaded


ROWS = '[["a", 0, 1], ["b", 0.5, 0]]'
WRITERS = [
    ("WarmStackLoraStack", {"loras": ROWS}, 0),
    ("WarmStackLoraRequest", {"request": ROWS}, 0),
    ("WarmStackLoraTags", {"text": "<lora:a:0:1> <lora:b:0.5:0>"}, 1),
]


@pytest.mark.parametrize(("class_type", "inputs", "output"), WRITERS)
@pytest.mark.parametrize(
    ("others", "loaded"),
    [
        ({}, ("b",)),
        ({"2": ("WarmStackLoadLoraStack", {"loras": "", "lora_stack": ["3", 0], "clip": ["9", 1]})}, ("a", "b")),
        ({"4": ("WarmStackLoraStack", {"loras": "", "lora_stack": ["2", 2]})}, ("b",)),
        ({"4": ("WarmStackLoadLoraStack", {"loras": "", "lora_stack": ["2", 2], "clip": ["9", 1]})}, ("a", "b")),
        ({"4": ("CR Apply LoRA Stack", {"lora_stack": ["2", 2]})}, ("a", "b")),
        ({"4": ("WarmStackLoadLoraStack", {"loras": ["2", 2]})}, ("a", "b")),
        (
            {
                "1": ("WarmStackLoraStack", {"loras": ROWS, "lora_stack": ["2", 2]}),
                "3": ("WarmStackLoraStack", {"loras": "", "lora_stack": ["1", 0]}),
            },
            ("b",),
        ),
        ({"2": ("Somebodys", {})}, ("a", "b")),
    ],
    ids=["no clip", "a clip", "a dead end", "a later clip", "another pack's", "as text", "a circle", "no loader yet"],
)
def test_a_stack_that_only_loaders_without_a_clip_read_has_no_row_of_model_strength_0(
    class_type: str, inputs: Inputs, output: int, others: dict[str, Any], loaded: tuple[str, ...]
) -> None:
    nodes: dict[str, Any] = {
        "1": (class_type, inputs),
        "2": ("WarmStackLoadLoraStack", {"loras": "", "lora_stack": ["3", 0]}),
        "3": ("WarmStackLoraStack", {"loras": "", "lora_stack": ["1", output]}),
        **others,
    }
    prompt = {node_id: {"class_type": kind, "inputs": given} for node_id, (kind, given) in nodes.items()}
    assert names(references(prompt)) == loaded


class Counted(dict[str, Any]):
    """A part of a graph that tells how often any part was looked at."""

    looks = 0

    def get(self, key: str, default: Any = None) -> Any:
        Counted.looks += 1
        return super().get(key, default)

    def items(self) -> Any:
        Counted.looks += 1
        return super().items()


@pytest.mark.parametrize("circle", [False, True], ids=["a chain", "a circle"])
@pytest.mark.parametrize(("clip", "rows"), [({}, 0), ({"clip": ["m", 1]}, 1)], ids=["no clip", "a clip"])
def test_reading_a_chain_of_stacks_looks_at_each_node_a_few_times_however_long_it_is(
    circle: bool, clip: Inputs, rows: int
) -> None:
    """ComfyUI's event loop waits for it: one walk for each node would make 400 nodes cost half a minute."""

    def looks(count: int) -> int:
        chain = {
            str(at): ("WarmStackLoraStack", Counted(loras='[["a", 0, 1]]', lora_stack=[str(at - 1), 0]))
            for at in range(1, count + 1)
        }
        if circle:
            chain["1"][1]["lora_stack"] = [str(count), 0]
        chain["l"] = ("WarmStackLoadLoraStack", Counted(loras="", lora_stack=[str(count), 0], **clip))
        prompt = Counted({at: {"class_type": kind, "inputs": given} for at, (kind, given) in chain.items()})
        Counted.looks = 0
        assert len(references(prompt).loras) == count * rows
        return Counted.looks

    assert looks(40) < 3 * looks(20)


@pytest.mark.parametrize("value", [["a", ["b", 1]], {"lora": {"models": ["a"]}}, None, 5, True])
def test_what_the_host_would_refuse_for_a_text_is_no_stack_and_the_cure_is_told(value: Any) -> None:
    found = read("WarmStackLoadLoraStack", {"loras": value})
    assert names(found) == ()
    assert [unknown.reason for unknown in found.unknown] == [
        "'loras' is no text; send a list or a request as one JSON text"
    ]


@pytest.mark.parametrize(("bypass", "loaded"), [(True, ()), (False, ("a",)), ("", ("a",)), (None, ("a",))])
def test_a_node_that_is_bypassed_over_a_link_loads_nothing(bypass: object, loaded: tuple[str, ...]) -> None:
    inputs = {"lora_name": "a", "strength_model": 1, "bypass": ["2", 0]}
    found = read("LoraLoaderBlockWeight //Inspire", inputs, **{"2": ("PrimitiveBoolean", {"value": bypass})})
    assert (names(found), found.unknown) == (loaded, ())


@pytest.mark.parametrize("name", ["strength", "-", "None", "undefined"])
def test_our_tags_ask_for_what_they_name_where_other_packs_skip_a_placeholder(name: str) -> None:
    text = {"text": f"<lora:{name}:0.5>"}
    assert names(read("WarmStackLoraTags", text)) == (name,)
    assert names(read("LoRA Text Loader (LoraManager)", {"lora_syntax": text["text"]})) == ()


@pytest.mark.parametrize("row", [{"lora": "a", "name": None}, {"lora": "a", "strength": 0, "strength_model": None}])
def test_a_field_that_is_null_is_one_that_is_absent(row: dict[str, Any]) -> None:
    found = read("Lora Loader (LoraManager)", {"loras": [row]})
    assert names(found) == tuple(row.name for row in parse_stack(json.dumps([row])).active)


def test_one_unreadable_tag_does_not_hide_the_others() -> None:
    found = read("LoraTagLoader", {"text": "<lora:a:one> <lora:b:1> <lora::1>"})
    assert names(found) == ("b",)
    assert len(found.unknown) == 2


def test_only_nodes_that_the_outputs_need_count_and_come_in_running_order() -> None:
    def loader(name: str, model: list[Any]) -> dict[str, Any]:
        return {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": name, "strength_model": 1, "model": model}}

    prompt = {
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
        "3": loader("second", ["2", 0]),
        "2": loader("first", ["1", 0]),
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}},
        "7": loader("muted", ["1", 0]),
    }
    assert names(references(prompt, ["9"])) == ("first", "second")
    assert set(names(references(prompt))) == {"first", "second", "muted"}
    assert names(payload_references((prompt, ("9",)))) == ("first", "second")
    assert names(payload_references(prompt)) == names(references(prompt))


def test_a_stack_that_ends_in_our_loader_comes_from_the_cache_whatever_pack_built_it() -> None:
    rows = {"switch_1": "On", "lora_name_1": "a", "model_weight_1": 1, "clip_weight_1": 1}
    ours = read(
        "WarmStackLoadLoraStack", {"loras": "<lora:b:1>", "lora_stack": ["2", 0]}, **{"2": ("CR LoRA Stack", rows)}
    )
    assert [(lora.name, lora.via_cache) for lora in ours.loras] == [("a", True), ("b", True)]
    theirs = read("CR Apply LoRA Stack", {"lora_stack": ["2", 0]}, **{"2": ("CR LoRA Stack", rows)})
    assert [(lora.name, lora.via_cache) for lora in theirs.loras] == [("a", False)]


GENERIC = [
    ({"lora": "a.safetensors", "strength": 1}, ("a.safetensors",)),
    ({"my_lora_name": "a", "my_lora_strength": 0.0}, ()),
    ({"style_lora_1": "a", "style_lora_2": "b", "lora_count": 1}, ("a",)),
    ({"lora_1": "a", "enable_1": False, "lora_2": "b", "enable_2": True}, ("b",)),
    ({"lora_1": "a", "weight_1": 0, "lora_2": "b", "weight_2": 0.5}, ("b",)),
    ({"lora_1": "a", "lora_2": "b", "select": 2}, ("b",)),
    ({"lora_name": "a", "enabled": False}, ()),
    ({"lora_name": "a", "toggle": "Off"}, ()),
    ({"lora_name": "a", "bypass": True}, ()),
    ({"row": {"on": True, "lora": "a", "strength": 1}}, ("a",)),
    ({"row": {"on": False, "lora": "a", "strength": 1}}, ()),
    ({"rows": [{"lora_name": "a"}, {"name": "b", "enabled": False}]}, ("a",)),
    ({"data": '{"rows": [{"lora": "a"}, {"lora": "None"}]}'}, ("a",)),
    ({"anything": "cat <lyco:a:0.5>"}, ("a",)),
    ({"lycoris_name": "a"}, ("a",)),
    (
        {
            "lora_strength": "strength",
            "lora_a": "None",
            "lora_b": "[None]",
            "lora_c": "Select the LoRA to add to the text",
        },
        (),
    ),
    ({"ckpt_name": "model.safetensors", "text": "a cat", "seed": 3}, ()),
    ({"lora_name": "[XL] ink.safetensors", "strength": 1}, ("[XL] ink.safetensors",)),
    ({"lora_1": "{x} a.pt", "lora_2": "[b]", "enable_1": True, "enable_2": False}, ("{x} a.pt",)),
    ({"lora_name": "[1] a.pt", "text": "[XL] b.pt", "lora_strength": 0.0}, ()),
]


@pytest.mark.parametrize(("inputs", "expected"), GENERIC)
def test_unknown_classes_are_read_by_generic_rules_as_guesses(inputs: Inputs, expected: tuple[str, ...]) -> None:
    found = read("SomebodysNewLoader", inputs)
    assert names(found) == expected
    assert all(lora.guessed for lora in found.loras)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["<lora:a:1>", "<lora:", '[{"name":1}]', "None"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["name", "lora", "on", "__value__"]), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = sorted({key for case in CASES.values() for key in (*case.active, *case.inactive)})
LINKS = st.tuples(st.sampled_from(["1", "2", "3", "x"]), st.integers(0, 2)).map(list)
NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from([*CLASSES, "PrimitiveString", "Reroute", "New Loader"]) | JSON,
        "inputs": st.dictionaries(st.sampled_from([*KEYS, "value", ""]), LINKS | JSON, max_size=6) | JSON,
    }
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["1", "2", "3"]), NODES | JSON, max_size=3), st.none() | st.lists(JSON, max_size=3)
)
def test_nothing_that_json_can_say_raises(prompt: Any, outputs: Any) -> None:
    for found in (payload_references((prompt, outputs)), payload_references(prompt), payload_references(outputs)):
        assert all(isinstance(lora.name, str) and lora.name for lora in found.loras)
        assert all(isinstance(unknown.reason, str) for unknown in found.unknown)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([c for c in CLASSES if CASES[c].names]), JSON)
def test_cycles_through_a_recognised_node_end(class_type: str, value: Any) -> None:
    cycle = {key: ["2", 0] for key in CASES[class_type].active}
    found = read(class_type, cycle, **{"2": ("Reroute", {"": ["3", 0]}), "3": ("PrimitiveString", {"value": ["2", 0]})})
    assert names(found) == ()


HOSTILE = [
    ("New Loader", {"lora_" + str(i): "x" for i in range(5000)}),
    ("New Loader", {"rows": [{"lora": "a"}] * 100_000}),
    ("New Loader", {"text": "<lora:" * 100_000}),
    ("New Loader", {"text": "[" * 60_000}),
    ("New Loader", {"lora_name": "a" * 10_000_000}),
    ("FaceDetailer", {"wildcard": "{" * 60_000 + "_" * 60_000}),
    ("FaceDetailer", {"wildcard": "<" * 30_000 + "__" * 15_000}),
    ("Lora Loader (LoraManager)", {"loras": [{"name": "a", "active": True}] * 100_000}),
    ("WarmStackLoadLoraStack", {"loras": "[" * 60_000}),
    ("SwarmLoraLoader", {"lora_names": "a," * 1_000_000}),
]


@pytest.mark.parametrize(("class_type", "inputs"), HOSTILE)
def test_giant_values_are_cut_off(class_type: str, inputs: Inputs) -> None:
    started_s = time.process_time()
    found = read(class_type, inputs)
    assert len(found.loras) <= 5000
    # A quadratic reading of these takes minutes.
    assert time.process_time() - started_s < 5.0
