"""The table of node classes that load models. Supporting another pack is one row here and one fixture in the tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from ...loaders.files.checkpoint import is_weight_file
from ..queue.job import ModelReference
from .graph import Computed, Node
from .values import MAX_NAME_CHARS, is_on, number_in


class Condition(Protocol):
    """When an input counts. What only a run can tell counts as no: a model is too big to be read on a guess."""

    def holds(self, node: Node) -> bool: ...


class On(NamedTuple):
    """The switch `key` is on, or absent."""

    key: str

    def holds(self, node: Node) -> bool:
        value = node.value(self.key)
        return not isinstance(value, Computed) and is_on(value)


class Off(NamedTuple):
    """The switch `key` is off, or absent."""

    key: str

    def holds(self, node: Node) -> bool:
        value = node.value(self.key)
        return value is None or not (isinstance(value, Computed) or is_on(value))


class Counted(NamedTuple):
    """Row `row` is among the first `key`; those beyond are hidden widgets that keep stale names."""

    key: str
    row: int

    def holds(self, node: Node) -> bool:
        count = number_in(node.value(self.key))
        return count is not None and self.row <= count


class Chosen(NamedTuple):
    """The node uses row `row` of several."""

    key: str
    row: int

    def holds(self, node: Node) -> bool:
        return number_in(node.value(self.key)) == self.row


class Says(NamedTuple):
    """The text `key` holds one of `words`, or none of them when not `wanted`."""

    key: str
    words: tuple[str, ...]
    wanted: bool = True

    def holds(self, node: Node) -> bool:
        value = node.value(self.key)
        text = "" if value is None else value
        return isinstance(text, str) and any(word in text.lower() for word in self.words) is self.wanted


class ModelInput(NamedTuple):
    """One input that names a file below the host's folders of `kind`."""

    key: str
    kind: str
    conditions: tuple[Condition, ...] = ()


def named_models(node: Node) -> Iterator[ModelReference]:
    """The models that a node of the table names. Whatever does not look like a weight file ("None", "Baked VAE",
    "pixel_space") stands for something else, and a computed name is nothing yet."""
    for key, kind, conditions in MODEL_INPUTS[node.class_type]:
        name = node.value(key)
        if not isinstance(name, str) or len(name) > MAX_NAME_CHARS or not is_weight_file(name):
            continue
        if all(condition.holds(node) for condition in conditions):
            yield ModelReference(kind, name, node.node_id, node.class_type)


def _rows(
    key: str, kind: str, last: int, *conditions: Condition, count: str = "", switch: str = ""
) -> tuple[ModelInput, ...]:
    """`key` and `switch` with `{i}` for the number of the row."""
    rows = []
    for i in range(1, last + 1):
        own: tuple[Condition, ...] = (Counted(count, i),) if count else ()
        own += (On(switch.format(i=i)),) if switch else ()
        rows.append(ModelInput(key.format(i=i), kind, (*conditions, *own)))
    return tuple(rows)


_CHECKPOINT = (ModelInput("ckpt_name", "checkpoints"),)
_DIFFUSION_MODEL = (ModelInput("unet_name", "diffusion_models"),)
_TEXT_ENCODER = (ModelInput("clip_name", "text_encoders"),)
_VAE = (ModelInput("vae_name", "vae"),)
_CONTROLNET = (ModelInput("control_net_name", "controlnet"),)
_GEOMETRY = (ModelInput("model_name", "geometry_estimation"),)
_FROM_NAMES = Says("input_mode", ("batch",), wanted=False)
_FROM_FILE = Says("mode", ("read only",), wanted=False)

_CORE: Mapping[str, tuple[ModelInput, ...]] = {
    "CheckpointLoaderSimple": _CHECKPOINT,
    "CheckpointLoader": _CHECKPOINT,
    "unCLIPCheckpointLoader": _CHECKPOINT,
    "ImageOnlyCheckpointLoader": _CHECKPOINT,
    "CreateHookModelAsLora": _CHECKPOINT,
    "CreateHookModelAsLoraModelOnly": _CHECKPOINT,
    "UNETLoader": _DIFFUSION_MODEL,
    "CLIPLoader": _TEXT_ENCODER,
    "DualCLIPLoader": _rows("clip_name{i}", "text_encoders", 2),
    "TripleCLIPLoader": _rows("clip_name{i}", "text_encoders", 3),
    "QuadrupleCLIPLoader": _rows("clip_name{i}", "text_encoders", 4),
    # The tiny decoders of `vae_approx` are not worth a read.
    "VAELoader": _VAE,
    "ControlNetLoader": _CONTROLNET,
    "DiffControlNetLoader": _CONTROLNET,
    "CLIPVisionLoader": (ModelInput("clip_name", "clip_vision"),),
    "StyleModelLoader": (ModelInput("style_model_name", "style_models"),),
    "GLIGENLoader": (ModelInput("gligen_name", "gligen"),),
    "UpscaleModelLoader": (ModelInput("model_name", "upscale_models"),),
    "LatentUpscaleModelLoader": (ModelInput("model_name", "latent_upscale_models"),),
    "ModelPatchLoader": (ModelInput("name", "model_patches"),),
    "AudioEncoderLoader": (ModelInput("audio_encoder_name", "audio_encoders"),),
    "LTXVAudioVAELoader": _CHECKPOINT,
    "LTXAVTextEncoderLoader": (ModelInput("text_encoder", "text_encoders"), *_CHECKPOINT),
    "HypernetworkLoader": (ModelInput("hypernetwork_name", "hypernetworks"),),
    "PhotoMakerLoader": (ModelInput("photomaker_model_name", "photomaker"),),
    "FrameInterpolationModelLoader": (ModelInput("model_name", "frame_interpolation"),),
    "OpticalFlowLoader": (ModelInput("model_name", "optical_flow"),),
    "LoadBackgroundRemovalModel": (ModelInput("bg_removal_name", "background_removal"),),
    "LoadDA3Model": _GEOMETRY,
    "LoadMoGeModel": _GEOMETRY,
    "LoadMediaPipeFaceLandmarker": (ModelInput("model_name", "detection"),),
    "SAM3DBody_Loader": (ModelInput("model_file", "detection"),),
}

_GGUF: Mapping[str, tuple[ModelInput, ...]] = {
    "UnetLoaderGGUF": _DIFFUSION_MODEL,
    "UnetLoaderGGUFAdvanced": _DIFFUSION_MODEL,
    "CLIPLoaderGGUF": _TEXT_ENCODER,
    "DualCLIPLoaderGGUF": _rows("clip_name{i}", "text_encoders", 2),
    "TripleCLIPLoaderGGUF": _rows("clip_name{i}", "text_encoders", 3),
    "QuadrupleCLIPLoaderGGUF": _rows("clip_name{i}", "text_encoders", 4),
}

_WAN: Mapping[str, tuple[ModelInput, ...]] = {
    "WanVideoModelLoader": (ModelInput("model", "diffusion_models"),),
    "WanVideoVAELoader": (ModelInput("model_name", "vae"),),
    "WanVideoControlnetLoader": (ModelInput("model", "controlnet"),),
    "WanVideoUni3C_ControlnetLoader": (ModelInput("model", "controlnet"),),
    "LoadWanVideoT5TextEncoder": (ModelInput("model_name", "text_encoders"),),
    "LoadWanVideoClipTextEncoder": (ModelInput("model_name", "clip_vision"), ModelInput("model_name", "text_encoders")),
    "WanVideoTextEncodeCached": (ModelInput("model_name", "text_encoders"),),
    "FantasyTalkingModelLoader": (ModelInput("model", "diffusion_models"),),
}

# MultiGPU offers the loaders of others under their own names with one of these behind, inputs and all.
_MULTI_GPU_OF_CORE = {
    f"{name}{suffix}": _CORE[name]
    for name in (
        "CheckpointLoaderSimple",
        "UNETLoader",
        "CLIPLoader",
        "DualCLIPLoader",
        "TripleCLIPLoader",
        "QuadrupleCLIPLoader",
        "VAELoader",
        "ControlNetLoader",
        "DiffControlNetLoader",
        "CLIPVisionLoader",
    )
    for suffix in ("MultiGPU", "DisTorch2MultiGPU")
}
_MULTI_GPU_OF_PACKS = {f"{name}MultiGPU": inputs for table in (_GGUF, _WAN) for name, inputs in table.items()} | {
    f"{name}{suffix}": inputs for name, inputs in _GGUF.items() for suffix in ("DisTorchMultiGPU", "DisTorch2MultiGPU")
}

MODEL_INPUTS: Mapping[str, tuple[ModelInput, ...]] = {
    **_CORE,
    **_GGUF,
    **_WAN,
    **_MULTI_GPU_OF_CORE,
    **_MULTI_GPU_OF_PACKS,
    # Ours
    "WarmStackLoadCheckpoint": _CHECKPOINT,
    "WarmStackLoadDiffusionModel": _DIFFUSION_MODEL,
    # LoRA Manager
    "Checkpoint Loader (LoraManager)": _CHECKPOINT,
    "Unet Loader (LoraManager)": _DIFFUSION_MODEL,
    "Random Checkpoint Loader (LoraManager)": (ModelInput("ckpt_name", "checkpoints", (Off("select_at_random"),)),),
    "Random Unet Loader (LoraManager)": (ModelInput("unet_name", "diffusion_models", (Off("select_at_random"),)),),
    # Efficiency
    "Efficient Loader": _CHECKPOINT + _VAE,
    "Eff. Loader SDXL": (
        ModelInput("base_ckpt_name", "checkpoints"),
        ModelInput("refiner_ckpt_name", "checkpoints"),
        *_VAE,
    ),
    "XY Input: Checkpoint": (
        *_rows("ckpt_name_{i}", "checkpoints", 50, _FROM_NAMES, count="ckpt_count"),
        *_rows("vae_name_{i}", "vae", 50, Says("input_mode", ("+vae",)), count="ckpt_count"),
    ),
    "XY Input: VAE": _rows("vae_name_{i}", "vae", 50, _FROM_NAMES, count="vae_count"),
    "HighRes-Fix Script": (
        ModelInput("hires_ckpt_name", "checkpoints", (Says("upscale_type", ("latent", "both")),)),
        ModelInput("pixel_upscaler", "upscale_models", (Says("upscale_type", ("pixel", "both")),)),
        ModelInput("control_net_name", "controlnet", (On("use_controlnet"),)),
    ),
    "Tiled Upscaler Script": (ModelInput("tile_controlnet", "controlnet", (On("use_controlnet"),)),),
    # Comfyroll
    "CR Select Model": tuple(
        ModelInput(f"ckpt_name{i}", "checkpoints", (Chosen("select_model", i),)) for i in range(1, 6)
    ),
    "CR Model Merge Stack": _rows("ckpt_name{i}", "checkpoints", 3, switch="switch_{i}"),
    "CR Multi-ControlNet Stack": _rows("controlnet_{i}", "controlnet", 3, switch="switch_{i}"),
    "CR Multi Upscale Stack": _rows("upscale_model_{i}", "upscale_models", 3, switch="switch_{i}"),
    "CR Upscale Image": (ModelInput("upscale_model", "upscale_models"),),
    "CR Load Scheduled Models": (ModelInput("default_model", "checkpoints", (Says("mode", ("default",)),)),),
    # Easy-Use
    "easy fullLoader": _CHECKPOINT + _VAE,
    "easy a1111Loader": _CHECKPOINT + _VAE,
    "easy comfyLoader": _CHECKPOINT + _VAE,
    "easy hunyuanDiTLoader": _CHECKPOINT + _VAE,
    "easy fluxLoader": _CHECKPOINT + _VAE,
    "easy mochiLoader": _CHECKPOINT + _VAE,
    "easy zero123Loader": _CHECKPOINT + _VAE,
    "easy sv3dLoader": _CHECKPOINT + _VAE,
    "easy svdLoader": _CHECKPOINT + _VAE + _TEXT_ENCODER,
    "easy pixArtLoader": _CHECKPOINT + _VAE + _TEXT_ENCODER,
    "easy kolorsLoader": (*_DIFFUSION_MODEL, *_VAE, ModelInput("chatglm3_name", "llm")),
    "easy cascadeLoader": (
        *(ModelInput(stage, kind) for stage in ("stage_c", "stage_b") for kind in ("diffusion_models", "checkpoints")),
        ModelInput("stage_a", "vae"),
        *_TEXT_ENCODER,
    ),
    "easy controlnetLoader": _CONTROLNET,
    "easy controlnetLoaderADV": _CONTROLNET,
    "easy controlnetLoader++": _CONTROLNET,
    "easy controlnetStack": _rows("controlnet_{i}", "controlnet", 3, On("toggle"), count="num_controlnet"),
    "easy LLLiteLoader": (ModelInput("model_name", "controlnet"),),
    "easy XYInputs: Checkpoint": (
        *_rows("ckpt_name_{i}", "checkpoints", 10, count="ckpt_count"),
        *_rows("vae_name_{i}", "vae", 10, Says("input_mode", ("+vae",)), count="ckpt_count"),
    ),
    # Inspire: a cached model of that key is used in place of the file, which only the server knows
    "CheckpointLoaderSimpleShared //Inspire": (ModelInput("ckpt_name", "checkpoints", (_FROM_FILE,)),),
    "LoadDiffusionModelShared //Inspire": (ModelInput("model_name", "diffusion_models", (_FROM_FILE,)),),
    "LoadTextEncoderShared //Inspire": _rows("model_name{i}", "text_encoders", 3, _FROM_FILE),
    "StableCascade_CheckpointLoader //Inspire": (
        ModelInput("stage_b", "checkpoints"),
        ModelInput("stage_c", "checkpoints"),
    ),
    "MakeBasicPipe //Inspire": _CHECKPOINT,
    # Impact
    "SAMLoader": (ModelInput("model_name", "sams"),),
    # KJ
    "CheckpointLoaderKJ": _CHECKPOINT,
    "DiffusionModelLoaderKJ": (ModelInput("model_name", "diffusion_models"),),
    "DiffusionModelSelector": (ModelInput("model_name", "diffusion_models"), ModelInput("model_name", "text_encoders")),
    "GGUFLoaderKJ": (ModelInput("model_name", "diffusion_models"), ModelInput("extra_model_name", "diffusion_models")),
    "VAELoaderKJ": _VAE,
    # Nunchaku
    "NunchakuFluxDiTLoader": (ModelInput("model_path", "diffusion_models"),),
    "NunchakuQwenImageDiTLoader": (ModelInput("model_name", "diffusion_models"),),
    "NunchakuTextEncoderLoader": _rows("text_encoder{i}", "text_encoders", 2),
    "NunchakuTextEncoderLoaderV2": _rows("text_encoder{i}", "text_encoders", 2),
    "NunchakuPuLIDLoaderV2": (ModelInput("pulid_file", "pulid"), ModelInput("eva_clip_file", "text_encoders")),
    # MultiGPU
    "CheckpointLoaderAdvancedMultiGPU": _CHECKPOINT,
    "CheckpointLoaderAdvancedDisTorch2MultiGPU": _CHECKPOINT,
}
"""Class -> its inputs that name models. A name that could be of two kinds has a row for each; files that are not there
are nobody's business."""
