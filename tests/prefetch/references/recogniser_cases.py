"""One fixture per recogniser row, as front ends write it: what loads LoRAs, what loads none, what is broken."""

from __future__ import annotations

from typing import Any, NamedTuple

Inputs = dict[str, Any]


class Case(NamedTuple):
    active: Inputs
    names: tuple[str, ...]
    """What `active` loads, in order."""
    inactive: Inputs
    """Names written, none of them loaded."""
    malformed: Inputs
    """Nothing of it can be loaded."""
    unknown: bool = False
    """`active` reports a part that only a run can tell."""


def one(name: str = "lora_name", model: str = "strength_model", clip: str = "", **extra: Any) -> Case:
    strengths = {key: 0.8 for key in (model, clip) if key}
    zeros = {key: 0 for key in (model, clip) if key}
    inactive = {name: "a.safetensors", **zeros, **extra} if zeros else {name: "None", **extra}
    return Case(
        {name: "styles/a.safetensors", **strengths, **extra},
        ("styles/a.safetensors",),
        inactive,
        {name: ["x"], model or "s": {}},
    )


def tags(key: str = "text", **extra: Any) -> Case:
    return Case(
        {key: "a cat, <lora:a:0.8> and <lyco:styles/b:0.5:0.2>, sitting", **extra},
        ("a", "styles/b"),
        {key: "a cat <lora:a:0> <lora:b:0:0>", **extra},
        {key: {"text": "<lora:a:1>"}, **extra},
    )


def nothing(**inputs: Any) -> Case:
    return Case(inputs, (), {}, {"lora_name": {"no": 1}})


def unknowable(active: Inputs, inactive: Inputs, malformed: Inputs) -> Case:
    return Case(active, (), inactive, malformed, unknown=True)


def manager_row(name: Any, active: Any = True, strength: Any = 1.0, **extra: Any) -> Inputs:
    return {"name": name, "strength": strength, "active": active, "expanded": False, "locked": False, **extra}


MANAGER = Case(
    {
        "text": "<lora:z:1>",
        "loras": {"__value__": [manager_row("a"), manager_row("b", False), manager_row("d/c", strength="0.5")]},
    },
    ("a", "d/c"),
    {"text": "<lora:z:1>", "loras": [manager_row("a", False), manager_row("b", strength="0", clipStrength=0.0)]},
    {"loras": [None, 5, [], {"active": True}, manager_row(7), manager_row(None)]},
)
EFFICIENCY_ROWS = {"lora_name_1": "a.safetensors", "lora_name_2": "b.safetensors", "lora_name_3": "stale.safetensors"}
STACKER = Case(
    {
        "input_mode": "advanced",
        "lora_count": 2,
        **EFFICIENCY_ROWS,
        "model_str_1": 1,
        "clip_str_1": 1,
        "model_str_2": 0,
        "clip_str_2": 0.5,
    },
    ("a.safetensors", "b.safetensors"),
    {
        "input_mode": "simple",
        "lora_count": 2,
        **EFFICIENCY_ROWS,
        "lora_wt_1": 0,
        "lora_wt_2": 0.0,
        "model_str_1": 1,
        "clip_str_1": 1,
    },
    {"input_mode": 3, "lora_count": "many", "lora_name_1": 4, "lora_name_2": None},
)
COUNTED = Case(
    {"lora_count": 2, **EFFICIENCY_ROWS},
    ("a.safetensors", "b.safetensors"),
    {"lora_count": 0, **EFFICIENCY_ROWS},
    {"lora_count": -1, **EFFICIENCY_ROWS},
)
ROW_SWITCHES = {"switch_1": "On", "lora_name_1": "a", "model_weight_1": 1, "clip_weight_1": 1}
CR_STACK = Case(
    {
        **ROW_SWITCHES,
        "switch_2": "Off",
        "lora_name_2": "b",
        "model_weight_2": 1,
        "clip_weight_2": 1,
        "switch_3": "On",
        "lora_name_3": "None",
    },
    ("a",),
    {**ROW_SWITCHES, "switch_1": "Off"},
    {"switch_1": "On", "lora_name_1": 3.5},
)
EASY_LOADER = Case(
    {
        "ckpt_name": "x",
        "lora_name": "a.safetensors",
        "lora_model_strength": 1,
        "lora_clip_strength": 1,
        "positive": "cat <lora:b:1>",
        "negative": "bad",
    },
    ("a.safetensors", "b"),
    {"lora_name": "None", "lora_model_strength": 1, "positive": "cat", "negative": "<lora:b:0>"},
    {"lora_name": 1, "positive": 2, "negative": ["x"]},
)
WILDCARD = Case(
    {"wildcard": "<lora:a:1> {<lora:b:1>|<lora:c:1>}"},
    ("a",),
    {"wildcard": "a {cat|dog}"},
    {"wildcard": 3},
    unknown=True,
)
NUNCHAKU_STACK = Case(
    {
        "lora_count": 3,
        "toggle_all": True,
        "cpu_offload": "auto",
        "lora_name_1": "a",
        "lora_strength_1": 1,
        "lora_name_2": "b",
        "enabled_2": False,
        "lora_name_3": "c",
        "lora_wt_3": 1,
    },
    ("a", "c"),
    {"lora_count": 1, "toggle_all": False, "lora_name_1": "a", "lora_strength_1": 1},
    {"lora_count": [], "lora_name_1": {}},
)
IDRIRAP = Case(
    {"lora_name": "a", "lora_weight": 1, "override_lora_name": "b"},
    ("b",),
    {"lora_name": "a", "lora_weight": 0},
    {"lora_name": 0, "override_lora_name": []},
)
JSON_ROWS = '[{"enabled": true, "name": "a", "strength_model": 0.5}, {"enabled": false, "name": "b"}, {"lora": "c"}]'
JSON_OFF = '[{"enabled": false, "name": "a"}, {"enabled": true, "name": "b", "strength_model": 0, "strength_clip": 0}]'
OUR_ROWS = Case(
    {"loras": '[{"name": "a", "strength": 0.8}, "b", {"name": "off", "on": false}]'},
    ("a", "b"),
    {"loras": '[{"name": "a", "strength": 0}]'},
    {"loras": "{not json"},
)
FLAT = Case(
    {"loras.0.lora_name": "a", "loras.0.strength": 1.0, "loras.7.lora_name": "b", "loras.7.strength": 0.5},
    ("a", "b"),
    {"loras.0.lora_name": "a", "loras.0.strength": 0, "loras.1.lora_name": "None"},
    {"loras.x.lora_name": "a", "loras.1.lora_name": 4, "loras..lora_name": "b"},
)
EFFICIENT = one(model="lora_model_strength", clip="lora_clip_strength")
BOTH = one(clip="strength_clip")

CASES: dict[str, Case] = {
    "WarmStackLoadLoraStack": OUR_ROWS,
    "WarmStackLoraStack": OUR_ROWS,
    "WarmStackLoraTags": tags(syntax="a1111"),
    "WarmStackLoraRequest": Case(
        {"request": '{"lora": {"enabled": true, "global_weight": 0.5, "models": [{"name": "a", "weight": 1}, "b"]}}'},
        ("a", "b"),
        {"request": '{"lora": {"enabled": false, "models": ["a"]}}'},
        {"request": '{"lora": 5}'},
    ),
    "WarmStackWarm": OUR_ROWS,
    "LoraLoader": BOTH,
    "LoraLoaderModelOnly": one(),
    "LoraLoaderBypass": BOTH,
    "LoraLoaderBypassModelOnly": one(),
    "CreateHookLora": BOTH,
    "CreateHookLoraModelOnly": one(),
    "TrainLoraNode": Case(
        {"existing_lora": "a.safetensors"}, ("a.safetensors",), {"existing_lora": "[None]"}, {"existing_lora": 5}
    ),
    "LoadLoraModel": FLAT,
    "LoadLoraTextEncoder": FLAT,
    "Lora Loader (LoraManager)": MANAGER,
    "Lora Stacker (LoraManager)": MANAGER,
    "WanVideo Lora Select (LoraManager)": MANAGER,
    "Create Hook LoRA (LoraManager)": MANAGER,
    "Lora Randomizer (LoraManager)": MANAGER._replace(
        active={**MANAGER.active, "roll_mode": "fixed", "execution_seed": 3}
    ),
    "LoRA Text Loader (LoraManager)": tags("lora_syntax"),
    "WanVideo Lora Select From Text (LoraManager)": tags("lora_syntax"),
    "Lora Cycler (LoraManager)": unknowable(
        {"cycler_config": {"current_index": 2}}, {"cycler_config": None}, {"cycler_config": 5}
    ),
    "Lora Pool (LoraManager)": nothing(pool_config={"filters": {"folders": {"include": ["lora"]}}}),
    "Power Lora Loader (rgthree)": Case(
        {
            "➕ Add Lora": "",
            "PowerLoraLoaderHeaderWidget": {"type": "PowerLoraLoaderHeaderWidget"},
            "lora_1": {"on": True, "lora": "a.safetensors", "strength": 1},
            "LORA_7": {"on": True, "lora": "b.safetensors", "strength": 0, "strengthTwo": 0.5},
        },
        ("a.safetensors", "b.safetensors"),
        {
            "lora_1": {"on": False, "lora": "a", "strength": 1},
            "lora_2": {"on": True, "lora": "None"},
            "lora_3": {"on": True, "lora": "b", "strength": 0},
        },
        {"lora_1": {"on": True, "lora": None}, "lora_2": "a", "lora_3": 3, "lora_4": []},
    ),
    "Lora Loader Stack (rgthree)": Case(
        {
            "lora_01": "a",
            "strength_01": 1,
            "lora_02": "None",
            "strength_02": 1,
            "lora_03": "c",
            "strength_03": 0,
            "lora_04": "d",
            "strength_04": -1,
        },
        ("a", "d"),
        {"lora_01": "None", "lora_02": "None"},
        {"lora_01": [], "strength_01": "x"},
    ),
    "Power Prompt (rgthree)": tags("prompt", insert_lora="CHOOSE"),
    "SDXL Power Prompt - Positive (rgthree)": tags("prompt_g"),
    "LoRA Stacker": STACKER,
    "Efficient Loader": EFFICIENT,
    "Eff. Loader SDXL": nothing(base_ckpt_name="lora"),
    "XY Input: LoRA": COUNTED._replace(active={"input_mode": "LoRA Names", **COUNTED.active}),
    "XY Input: LoRA Plot": Case(
        {"input_mode": "X: Model Strength, Y: Clip Strength", "lora_name": "a"},
        ("a",),
        {"lora_name": "None"},
        {"lora_name": 3},
    ),
    "XY Input: LoRA Stacks": nothing(node_state="Enabled"),
    "CR Load LoRA": Case(
        {"switch": "On", "lora_name": "a", "strength_model": 1, "strength_clip": 1},
        ("a",),
        {"switch": "Off", "lora_name": "a", "strength_model": 1},
        {"switch": "On", "lora_name": 2},
    ),
    "CR LoRA Stack": CR_STACK,
    "CR Random LoRA Stack": CR_STACK._replace(
        active={**CR_STACK.active, "chance_1": 0.5}, inactive={**ROW_SWITCHES, "chance_1": 0}
    ),
    "CR Random Weight LoRA": Case(
        {"switch": "On", "lora_name": "a", "weight_min": 0},
        ("a",),
        {"switch": "Off", "lora_name": "a"},
        {"lora_name": {}},
    ),
    "CR Apply LoRA Stack": nothing(switch="On"),
    "easy loraStack": Case(
        {
            "toggle": True,
            "mode": "simple",
            "num_loras": 1,
            "lora_1_name": "a",
            "lora_1_strength": 1,
            "lora_2_name": "stale",
            "lora_2_strength": 1,
        },
        ("a",),
        {"toggle": False, "mode": "simple", "num_loras": 1, "lora_1_name": "a", "lora_1_strength": 1},
        {"toggle": True, "num_loras": None, "lora_1_name": 3},
    ),
    "easy loraSwitcher": Case(
        {"toggle": True, "select": 2, "num_loras": 3, "lora_1_name": "a", "lora_2_name": "b", "lora_strength": 1},
        ("b",),
        {"toggle": True, "select": 5, "num_loras": 3, "lora_1_name": "a", "lora_5_name": "e", "lora_strength": 1},
        {"toggle": True, "select": {}, "num_loras": 3, "lora_1_name": "a"},
    ),
    **dict.fromkeys(
        (
            f"easy {kind}Loader"
            for kind in ("full", "a1111", "comfy", "flux", "hunyuanDiT", "pixArt", "kolors", "cascade", "mochi")
        ),
        EASY_LOADER,
    ),
    "easy XYInputs: Lora": COUNTED,
    "easy loraPromptApply": tags("positive"),
    "easy loraStackApply": nothing(lora_name="a.safetensors"),
    "easy loraNames": one(model=""),
    "LoraLoader|pysssss": BOTH._replace(
        active={"lora_name": {"content": "styles/a.safetensors", "image": None}, "strength_model": 1}
    ),
    "LoraLoaderBlockWeight //Inspire": BOTH._replace(inactive={"lora_name": "a", "strength_model": 1, "bypass": True}),
    "MakeLBW //Inspire": one(model=""),
    "LoraBlockInfo //Inspire": one(model=""),
    "XY Input: Lora Block Weight //Inspire": BOTH,
    "ImpactWildcardEncode": tags(
        "populated_text", **{"wildcard_text": "<lora:z:1>", "Select to add LoRA": "Select the LoRA to add to the text"}
    ),
    "WildcardEncode //Inspire": tags("populated_text", wildcard_text="<lora:z:1>"),
    "MakeBasicPipe //Inspire": tags("positive_populated_text"),
    **dict.fromkeys(
        (
            "FaceDetailer",
            "FaceDetailerPipe",
            "DetailerForEach",
            "DetailerForEachDebug",
            "DetailerForEachPipe",
            "DetailerForEachDebugPipe",
            "DetailerForEachPipeForAnimateDiff",
            "DetailerForEachAutoRetry",
            "SEGSDetailer",
            "SEGSDetailerForAnimateDiff",
            "MaskDetailerPipe",
            "ToDetailerPipe",
            "ToDetailerPipeSDXL",
            "BasicPipeToDetailerPipe",
            "BasicPipeToDetailerPipeSDXL",
            "EditDetailerPipe",
            "EditDetailerPipeSDXL",
        ),
        WILDCARD,
    ),
    "WanVideoLoraSelect": Case(
        {"lora": "a", "strength": [0.0, 0.5]},
        ("a",),
        {"lora": "a", "strength": [0, 0.0, 0]},
        {"lora": 4, "strength": [[]]},
    ),
    "HyVideoLoraSelect": Case(
        {"lora": "a", "strength": 1, "blocks": {}}, ("a",), {"lora": "a", "strength": 0}, {"lora": {}}
    ),
    "WanVideoLoraSelectByName": unknowable(
        {"lora_name": "p", "strength": 1}, {"lora_name": "p", "strength": 0}, {"lora_name": 5}
    ),
    "WanVideoLoraSelectMulti": Case(
        {"lora_0": "a", "strength_0": 1, "lora_1": "none", "strength_1": 1, "lora_4": "e", "strength_4": 0.1},
        ("a", "e"),
        {"lora_0": "none", "strength_0": 1},
        {"lora_0": False},
    ),
    "NunchakuFluxLoraLoader": Case(
        {"lora_name": "a", "lora_strength": 1}, ("a",), {"lora_name": "a", "lora_strength": 5e-6}, {"lora_name": 1}
    ),
    "NunchakuQwenImageLoraLoader": one(model="lora_strength"),
    "NunchakuFluxLoraStack": Case(
        {"lora_name_1": "a", "lora_strength_1": 1, "lora_name_2": "None", "lora_name_15": "o", "lora_strength_15": 1},
        ("a", "o"),
        {"lora_name_1": "a", "lora_strength_1": 0},
        {"lora_name_1": 1},
    ),
    **dict.fromkeys(
        (
            "NunchakuQwenImageLoraStack",
            "NunchakuQwenImageLoraStackV2",
            "NunchakuQwenImageLoraStackV3",
            "NunchakuZImageTurboLoraStack",
            "NunchakuZImageTurboLoraStackV2",
            "NunchakuZImageTurboLoraStackV3",
        ),
        NUNCHAKU_STACK,
    ),
    "FluxLoraMultiLoader_10": STACKER,
    "LoraStackerV2_10": STACKER,
    "LTX2LoraLoaderAdvanced": Case(
        {"lora_name": "a", "strength_model": 1, "opt_lora_path": "/loras/b.safetensors"},
        ("/loras/b.safetensors",),
        {"lora_name": "a", "strength_model": 0},
        {"lora_name": 1, "opt_lora_path": 2},
    ),
    "SwarmLoraLoader": Case(
        {"lora_names": "a, b,c", "lora_weights": "1,0,0.5"},
        ("a", "c"),
        {"lora_names": "a,b", "lora_weights": "0,0"},
        {"lora_names": ["a", "b"], "lora_weights": 1},
    ),
    "LoraTagLoader": tags(),
    "LoraTagLoaderModelOnly": tags(),
    "MNeMiC_LoraTagLoader": tags("STRING"),
    "PCLazyLoraLoader": Case(
        {"text": "cat [<lora:a:1>::0.5] [<lora:b:0.5>:<lora:c:1>:0.3]"}, ("a", "b", "c"), {"text": "cat"}, {"text": 0}
    ),
    "PCLazyLoraLoaderAdvanced": tags(),
    **dict.fromkeys(
        ("LoraLoaderVanilla", "LoraLoaderAdvanced", "LoraLoaderStackedVanilla", "LoraLoaderStackedAdvanced"), IDRIRAP
    ),
    "EA_PowerLora": Case({"loras_json": JSON_ROWS}, ("a", "c"), {"loras_json": JSON_OFF}, {"loras_json": 5}),
    "SuperLoraLoader": Case({"lora_bundle": JSON_ROWS}, ("a", "c"), {"lora_bundle": JSON_OFF}, {"lora_bundle": None}),
    "CivitAI_LORA_Loader": Case(
        {"lora_name": "a", "strength_model": 1, "lora_air": ""},
        ("a",),
        {"lora_name": "none", "lora_air": ""},
        {"lora_name": 2},
    ),
}
