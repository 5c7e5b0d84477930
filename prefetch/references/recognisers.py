"""The table of node classes that load LoRAs. Supporting another pack is one row here and one fixture in the tests."""

from __future__ import annotations

from collections.abc import Mapping

from .shapes import Csv, Drawn, Entries, Flat, Keyed, One, Rows, Shape, Unknowable
from .texts import StackText, Tags

_MODEL_ONLY = One(clip="")
_FILE_ONLY = One(model="", clip="")
_WILDCARD_TEXT = Tags(("wildcard",), expanded=True)
_EASY_LOADER = (One(model="lora_model_strength", clip="lora_clip_strength"), Tags(("positive", "negative")))
_NUNCHAKU_ROWS = Rows(
    model="lora_strength_{i}", count="lora_count", switches=("enabled_{i}",), toggles=("toggle_all",), tiny=1e-5
)
_COUNTED_ROWS = Rows(
    model="model_str_{i}",
    clip="clip_str_{i}",
    simple="lora_wt_{i}",
    mode="input_mode",
    count="lora_count",
    switches=("enabled_{i}",),
)
_COUNTED_NAMES = Rows(model="", count="lora_count")
_FOLDER = "it sweeps a whole folder"

RECOGNISERS: Mapping[str, tuple[Shape, ...]] = {
    # Ours
    "WarmStackLoadLoraStack": (StackText(),),
    "WarmStackLoraStack": (StackText(category="category"),),
    "WarmStackLoraTags": (Tags(syntax="syntax", via_cache=True),),
    "WarmStackLoraRequest": (StackText("request"),),
    "WarmStackWarm": (StackText(),),
    # ComfyUI
    "LoraLoader": (One(),),
    "LoraLoaderModelOnly": (_MODEL_ONLY,),
    "LoraLoaderBypass": (One(),),
    "LoraLoaderBypassModelOnly": (_MODEL_ONLY,),
    "CreateHookLora": (One(),),
    "CreateHookLoraModelOnly": (_MODEL_ONLY,),
    "TrainLoraNode": (One("existing_lora", "", ""),),
    "LoadLoraModel": (Flat(),),
    "LoadLoraTextEncoder": (Flat(),),
    # LoRA Manager: `text` is what the browser shows, `loras` is what the node reads
    "Lora Loader (LoraManager)": (Entries(),),
    "Lora Stacker (LoraManager)": (Entries(),),
    "WanVideo Lora Select (LoraManager)": (Entries(),),
    "Create Hook LoRA (LoraManager)": (Entries(),),
    "Lora Randomizer (LoraManager)": (
        Drawn(Entries(), "roll_mode", "it draws its LoRAs at run time", fixed="fixed", needs="execution_seed"),
    ),
    "LoRA Text Loader (LoraManager)": (Tags(("lora_syntax",)),),
    "WanVideo Lora Select From Text (LoraManager)": (Tags(("lora_syntax",)),),
    "Lora Cycler (LoraManager)": (Unknowable("it cycles through a pool that only the server knows"),),
    "Lora Pool (LoraManager)": (),
    # rgthree
    "Power Lora Loader (rgthree)": (Keyed(),),
    "Lora Loader Stack (rgthree)": (Rows("lora_{i:02d}", "strength_{i:02d}", last=4),),
    "Power Prompt (rgthree)": (Tags(("prompt",), ("insert_lora",)),),
    "SDXL Power Prompt - Positive (rgthree)": (Tags(("prompt_g", "prompt_l", "prompt"), ("insert_lora",)),),
    # Efficiency
    "LoRA Stacker": (_COUNTED_ROWS,),
    "Efficient Loader": (One(model="lora_model_strength", clip="lora_clip_strength"),),
    "Eff. Loader SDXL": (),
    "XY Input: LoRA": (Drawn(_COUNTED_NAMES, "input_mode", _FOLDER, word="batch"),),
    "XY Input: LoRA Plot": (Drawn(_FILE_ONLY, "input_mode", _FOLDER, word="batch"),),
    "XY Input: LoRA Stacks": (),
    # Comfyroll
    "CR Load LoRA": (One(switches=("switch",)),),
    "CR LoRA Stack": (Rows(model="model_weight_{i}", clip="clip_weight_{i}", last=3, switches=("switch_{i}",)),),
    "CR Random LoRA Stack": (
        Rows(model="model_weight_{i}", clip="clip_weight_{i}", last=3, switches=("switch_{i}",), chance="chance_{i}"),
    ),
    "CR Random Weight LoRA": (One(model="", clip="", switches=("switch",)),),
    "CR Apply LoRA Stack": (),
    # Easy-Use
    "easy loraStack": (
        Rows(
            "lora_{i}_name",
            "lora_{i}_model_strength",
            "lora_{i}_clip_strength",
            simple="lora_{i}_strength",
            count="num_loras",
            toggles=("toggle",),
        ),
    ),
    "easy loraSwitcher": (
        Rows(
            "lora_{i}_name", "lora_strength", "lora_strength", count="num_loras", select="select", toggles=("toggle",)
        ),
    ),
    "easy fullLoader": _EASY_LOADER,
    "easy a1111Loader": _EASY_LOADER,
    "easy comfyLoader": _EASY_LOADER,
    "easy fluxLoader": _EASY_LOADER,
    "easy hunyuanDiTLoader": _EASY_LOADER,
    "easy pixArtLoader": _EASY_LOADER,
    "easy kolorsLoader": _EASY_LOADER,
    "easy cascadeLoader": _EASY_LOADER,
    "easy mochiLoader": _EASY_LOADER,
    "easy XYInputs: Lora": (_COUNTED_NAMES,),
    "easy loraPromptApply": (Tags(("positive", "negative", "text", "prompt")),),
    "easy loraStackApply": (),
    "easy loraNames": (_FILE_ONLY,),
    # pysssss
    "LoraLoader|pysssss": (One(),),
    # Inspire and Impact
    "LoraLoaderBlockWeight //Inspire": (One(unless=("bypass",)),),
    "MakeLBW //Inspire": (_FILE_ONLY,),
    "LoraBlockInfo //Inspire": (_FILE_ONLY,),
    "XY Input: Lora Block Weight //Inspire": (One(),),
    "ImpactWildcardEncode": (Tags(("populated_text",)),),
    "WildcardEncode //Inspire": (Tags(("populated_text",)),),
    "MakeBasicPipe //Inspire": (Tags(("positive_populated_text", "negative_populated_text")),),
    "FaceDetailer": (_WILDCARD_TEXT,),
    "FaceDetailerPipe": (_WILDCARD_TEXT,),
    "DetailerForEach": (_WILDCARD_TEXT,),
    "DetailerForEachDebug": (_WILDCARD_TEXT,),
    "DetailerForEachPipe": (_WILDCARD_TEXT,),
    "DetailerForEachDebugPipe": (_WILDCARD_TEXT,),
    "DetailerForEachPipeForAnimateDiff": (_WILDCARD_TEXT,),
    "DetailerForEachAutoRetry": (_WILDCARD_TEXT,),
    "SEGSDetailer": (_WILDCARD_TEXT,),
    "SEGSDetailerForAnimateDiff": (_WILDCARD_TEXT,),
    "MaskDetailerPipe": (_WILDCARD_TEXT,),
    "ToDetailerPipe": (_WILDCARD_TEXT,),
    "ToDetailerPipeSDXL": (_WILDCARD_TEXT,),
    "BasicPipeToDetailerPipe": (_WILDCARD_TEXT,),
    "BasicPipeToDetailerPipeSDXL": (_WILDCARD_TEXT,),
    "EditDetailerPipe": (_WILDCARD_TEXT,),
    "EditDetailerPipeSDXL": (_WILDCARD_TEXT,),
    # Video wrappers
    "WanVideoLoraSelect": (One("lora", "strength", ""),),
    "HyVideoLoraSelect": (One("lora", "strength", ""),),
    "WanVideoLoraSelectByName": (Unknowable("it picks the last file whose name contains a text"),),
    "WanVideoLoraSelectMulti": (Rows("lora_{i}", "strength_{i}", first=0, last=4),),
    # Nunchaku
    "NunchakuFluxLoraLoader": (One(model="lora_strength", clip="", tiny=1e-5),),
    "NunchakuQwenImageLoraLoader": (One(model="lora_strength", clip="", tiny=1e-5),),
    "NunchakuFluxLoraStack": (Rows(last=15, tiny=1e-5),),
    "NunchakuQwenImageLoraStack": (_NUNCHAKU_ROWS,),
    "NunchakuQwenImageLoraStackV2": (_NUNCHAKU_ROWS,),
    "NunchakuQwenImageLoraStackV3": (_NUNCHAKU_ROWS,),
    "NunchakuZImageTurboLoraStack": (_NUNCHAKU_ROWS,),
    "NunchakuZImageTurboLoraStackV2": (_NUNCHAKU_ROWS,),
    "NunchakuZImageTurboLoraStackV3": (_NUNCHAKU_ROWS,),
    "FluxLoraMultiLoader_10": (_COUNTED_ROWS,),
    "LoraStackerV2_10": (_COUNTED_ROWS,),
    # Single packs
    "LTX2LoraLoaderAdvanced": (One(clip="", override="opt_lora_path"),),
    "SwarmLoraLoader": (Csv(),),
    "LoraTagLoader": (Tags(),),
    "LoraTagLoaderModelOnly": (Tags(),),
    "MNeMiC_LoraTagLoader": (Tags(("text", "STRING")),),
    "PCLazyLoraLoader": (Tags(),),
    "PCLazyLoraLoaderAdvanced": (Tags(),),
    "LoraLoaderVanilla": (One(model="lora_weight", clip="", override="override_lora_name"),),
    "LoraLoaderAdvanced": (One(model="lora_weight", clip="", override="override_lora_name"),),
    "LoraLoaderStackedVanilla": (One(model="lora_weight", clip="", override="override_lora_name"),),
    "LoraLoaderStackedAdvanced": (One(model="lora_weight", clip="", override="override_lora_name"),),
    "EA_PowerLora": (Entries("loras_json"),),
    "SuperLoraLoader": (Entries("lora_bundle"),),
    "CivitAI_LORA_Loader": (One(),),
}
"""Class -> how to read it; `()` says that the class itself names no LoRA, whatever its inputs look like."""

PLAIN_CLASSES = frozenset(
    {
        # Encoders take their text as it is: a tag in it loads nothing.
        "CLIPTextEncode",
        "CLIPTextEncodeSDXL",
        "CLIPTextEncodeSDXLRefiner",
        "CLIPTextEncodeFlux",
        "CLIPTextEncodeSD3",
        "CLIPTextEncodeHunyuanDiT",
        "TextEncodeQwenImageEdit",
        "TextEncodeQwenImageEditPlus",
        # The host's commonest nodes.
        "CheckpointLoaderSimple",
        "UNETLoader",
        "CLIPLoader",
        "DualCLIPLoader",
        "VAELoader",
        "KSampler",
        "KSamplerAdvanced",
        "SamplerCustomAdvanced",
        "KSamplerSelect",
        "BasicScheduler",
        "BasicGuider",
        "CFGGuider",
        "RandomNoise",
        "EmptyLatentImage",
        "EmptySD3LatentImage",
        "VAEDecode",
        "VAEEncode",
        "LoadImage",
        "SaveImage",
        "PreviewImage",
        "ConditioningCombine",
        "ConditioningZeroOut",
        "FluxGuidance",
        "ModelSamplingSD3",
        "ModelSamplingFlux",
        "ControlNetLoader",
        "ControlNetApplyAdvanced",
    }
)
"""Classes that load no LoRA, whatever their inputs look like."""
