"""One fixture per row of the model table: what a class posts when it loads models, when it does not, when it is broken.

The names of inputs and folders are those of the packs' own node definitions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Inputs = dict[str, Any]
Named = tuple[tuple[str, str], ...]


class Case(NamedTuple):
    active: Inputs
    models: Named
    """(kind, name) of what `active` loads, in order."""
    inactive: Inputs
    """Names no file, or is switched off."""
    malformed: Inputs


def plain(**kinds: str) -> Case:
    """Inputs that each name one file of one kind."""
    named = {key: f"sub/{key}.safetensors" for key in kinds}
    return Case(
        {**named, "seed": 3},
        tuple((kind, named[key]) for key, kind in kinds.items()),
        dict.fromkeys(kinds, "None"),
        dict(zip(kinds, [5, None, {"x": 1}, ["x"], True], strict=False)),
    )


def numbered(key: str, kind: str, count: int) -> Case:
    return plain(**{key.format(i=i): kind for i in range(1, count + 1)})


def either(key: str, *kinds: str) -> Case:
    """One name that may be of several kinds."""
    name = "sub/a.safetensors"
    return Case({key: name}, tuple((kind, name) for kind in kinds), {key: "none"}, {key: {"content": name}})


def switched(key: str, count: int, kind: str) -> Case:
    """Rows with a switch each; the second is off."""
    rows = {key.format(i=i): f"{i}.safetensors" for i in range(1, count + 1)}
    on = {f"switch_{i}": "Off" if i == 2 else "On" for i in range(1, count + 1)}
    off = {f"switch_{i}": "Off" for i in range(1, count + 1)}
    expected = tuple((kind, f"{i}.safetensors") for i in range(1, count + 1) if i != 2)
    return Case({**on, **rows}, expected, {**off, **rows}, {**on, **dict.fromkeys(rows, 1.5)})


def drawn(key: str, kind: str) -> Case:
    """The node draws a file of its own when `select_at_random` is on."""
    return Case(
        {key: "a.safetensors", "select_at_random": False, "base_model": "Any"},
        ((kind, "a.safetensors"),),
        {key: "a.safetensors", "select_at_random": True},
        {key: [], "select_at_random": False},
    )


def shared(key: str, kind: str, **extra: str) -> Case:
    """Inspire's loaders; "Read Only" takes the model from its own cache."""
    return Case(
        {key: "a.gguf", "key_opt": "", **extra},
        ((kind, "a.gguf"),),
        {key: "a.gguf", "key_opt": "k", "mode": "Read Only", **extra},
        {key: 3, "mode": 4},
    )


CHECKPOINT = plain(ckpt_name="checkpoints")
UNET = plain(unet_name="diffusion_models")
CLIP = plain(clip_name="text_encoders")
VAE = Case(
    {"vae_name": "flux/ae.safetensors"}, (("vae", "flux/ae.safetensors"),), {"vae_name": "pixel_space"}, {"vae_name": 0}
)
CONTROLNET = plain(control_net_name="controlnet")
GEOMETRY = plain(model_name="geometry_estimation")
WITH_VAE = Case(
    {"ckpt_name": "a.ckpt", "vae_name": "b.pt"},
    (("checkpoints", "a.ckpt"), ("vae", "b.pt")),
    {"ckpt_name": "None", "vae_name": "Baked VAE"},
    {"ckpt_name": {}, "vae_name": 1},
)
CLIPS = {
    "CLIPLoader": CLIP,
    **{
        f"{word}CLIPLoader": numbered("clip_name{i}", "text_encoders", n)
        for word, n in (("Dual", 2), ("Triple", 3), ("Quadruple", 4))
    },
}
CORE = {
    "CheckpointLoaderSimple": CHECKPOINT,
    "CheckpointLoader": CHECKPOINT,
    "unCLIPCheckpointLoader": CHECKPOINT,
    "ImageOnlyCheckpointLoader": CHECKPOINT,
    "CreateHookModelAsLora": CHECKPOINT,
    "CreateHookModelAsLoraModelOnly": CHECKPOINT,
    "UNETLoader": UNET,
    **CLIPS,
    "VAELoader": VAE,
    "ControlNetLoader": CONTROLNET,
    "DiffControlNetLoader": CONTROLNET,
    "CLIPVisionLoader": plain(clip_name="clip_vision"),
    "StyleModelLoader": plain(style_model_name="style_models"),
    "GLIGENLoader": plain(gligen_name="gligen"),
    "UpscaleModelLoader": plain(model_name="upscale_models"),
    "LatentUpscaleModelLoader": plain(model_name="latent_upscale_models"),
    "ModelPatchLoader": plain(name="model_patches"),
    "AudioEncoderLoader": plain(audio_encoder_name="audio_encoders"),
    "LTXVAudioVAELoader": CHECKPOINT,
    "LTXAVTextEncoderLoader": plain(text_encoder="text_encoders", ckpt_name="checkpoints"),
    "HypernetworkLoader": plain(hypernetwork_name="hypernetworks"),
    "PhotoMakerLoader": plain(photomaker_model_name="photomaker"),
    "FrameInterpolationModelLoader": plain(model_name="frame_interpolation"),
    "OpticalFlowLoader": plain(model_name="optical_flow"),
    "LoadBackgroundRemovalModel": plain(bg_removal_name="background_removal"),
    "LoadDA3Model": GEOMETRY,
    "LoadMoGeModel": GEOMETRY,
    "LoadMediaPipeFaceLandmarker": plain(model_name="detection"),
    "SAM3DBody_Loader": plain(model_file="detection"),
}
GGUF = {
    "UnetLoaderGGUF": UNET,
    "UnetLoaderGGUFAdvanced": UNET,
    **{f"{name}GGUF": case for name, case in CLIPS.items()},
}
WAN = {
    "WanVideoModelLoader": plain(model="diffusion_models"),
    "WanVideoVAELoader": plain(model_name="vae"),
    "WanVideoControlnetLoader": plain(model="controlnet"),
    "WanVideoUni3C_ControlnetLoader": plain(model="controlnet"),
    "LoadWanVideoT5TextEncoder": plain(model_name="text_encoders"),
    "LoadWanVideoClipTextEncoder": either("model_name", "clip_vision", "text_encoders"),
    "WanVideoTextEncodeCached": plain(model_name="text_encoders"),
    "FantasyTalkingModelLoader": plain(model="diffusion_models"),
}
MULTI_GPU = {
    "CheckpointLoaderAdvancedMultiGPU": CHECKPOINT,
    "CheckpointLoaderAdvancedDisTorch2MultiGPU": CHECKPOINT,
    **{f"{name}MultiGPU": case for name, case in {**GGUF, **WAN}.items()},
    **{f"{name}DisTorch{version}MultiGPU": case for name, case in GGUF.items() for version in ("", "2")},
    **{
        f"{name}{suffix}": case
        for name, case in {
            "CheckpointLoaderSimple": CHECKPOINT,
            "UNETLoader": UNET,
            **CLIPS,
            "VAELoader": VAE,
            "ControlNetLoader": CONTROLNET,
            "DiffControlNetLoader": CONTROLNET,
            "CLIPVisionLoader": CORE["CLIPVisionLoader"],
        }.items()
        for suffix in ("MultiGPU", "DisTorch2MultiGPU")
    },
}

XY_CHECKPOINTS = {f"ckpt_name_{i}": f"{i}.safetensors" for i in (1, 2, 3)}
XY_VAES = {f"vae_name_{i}": f"v{i}.safetensors" for i in (1, 2, 3)}
XY = Case(
    {"input_mode": "Ckpt Names+ClipSkip+VAE", "ckpt_count": 2, **XY_CHECKPOINTS, **XY_VAES},
    (
        *(("checkpoints", f"{i}.safetensors") for i in (1, 2)),
        *(("vae", f"v{i}.safetensors") for i in (1, 2)),
    ),
    {"input_mode": "Ckpt Names", "ckpt_count": 0, **XY_CHECKPOINTS, **XY_VAES},
    {"input_mode": 1, "ckpt_count": [], **XY_CHECKPOINTS, **XY_VAES},
)
SELECT = {f"ckpt_name{i}": f"{i}.safetensors" for i in range(1, 6)}
HIRES = {
    "hires_ckpt_name": "a.safetensors",
    "pixel_upscaler": "b.pth",
    "control_net_name": "c.safetensors",
    "use_controlnet": False,
}
TILED = {"tile_controlnet": "a.safetensors", "tiling_strategy": "random"}
STACK = {f"controlnet_{i}": f"{i}.safetensors" for i in (1, 2, 3)}
CASCADE = {"stage_c": "c.safetensors", "stage_b": "b.safetensors", "stage_a": "Baked VAE", "clip_name": "None"}

MODEL_CASES: dict[str, Case] = {
    **CORE,
    **GGUF,
    **WAN,
    **MULTI_GPU,
    "WarmStackLoadCheckpoint": CHECKPOINT._replace(
        active={"ckpt_name": "big/m.safetensors.index.json", "strategy": "auto"},
        models=(("checkpoints", "big/m.safetensors.index.json"),),
    ),
    "WarmStackLoadDiffusionModel": UNET._replace(
        active={"unet_name": "flux\\b.gguf"}, models=(("diffusion_models", "flux\\b.gguf"),)
    ),
    "Checkpoint Loader (LoraManager)": CHECKPOINT,
    "Unet Loader (LoraManager)": UNET,
    "Random Checkpoint Loader (LoraManager)": drawn("ckpt_name", "checkpoints"),
    "Random Unet Loader (LoraManager)": drawn("unet_name", "diffusion_models"),
    "Efficient Loader": WITH_VAE,
    "Eff. Loader SDXL": Case(
        {"base_ckpt_name": "a.safetensors", "refiner_ckpt_name": "b.safetensors", "vae_name": "Baked VAE"},
        (("checkpoints", "a.safetensors"), ("checkpoints", "b.safetensors")),
        {"base_ckpt_name": "", "refiner_ckpt_name": "None", "vae_name": "Baked VAE"},
        {"base_ckpt_name": 1},
    ),
    "XY Input: Checkpoint": XY._replace(
        inactive={"input_mode": "Checkpoint Batch", "ckpt_count": 3, **XY_CHECKPOINTS, **XY_VAES}
    ),
    "XY Input: VAE": Case(
        {"input_mode": "VAE Names", "vae_count": 1, **XY_VAES},
        (("vae", "v1.safetensors"),),
        {"input_mode": "VAE Batch", "vae_count": 3, **XY_VAES},
        {"input_mode": "VAE Names", "vae_count": "many", **XY_VAES},
    ),
    "HighRes-Fix Script": Case(
        {**HIRES, "upscale_type": "both", "use_controlnet": True},
        (("checkpoints", "a.safetensors"), ("upscale_models", "b.pth"), ("controlnet", "c.safetensors")),
        {**HIRES, "upscale_type": "latent", "hires_ckpt_name": "(use same)"},
        {**HIRES, "upscale_type": 5},
    ),
    "Tiled Upscaler Script": Case(
        {**TILED, "use_controlnet": True},
        (("controlnet", "a.safetensors"),),
        {**TILED, "use_controlnet": False},
        {"tile_controlnet": 7, "use_controlnet": True},
    ),
    "CR Select Model": Case(
        {**SELECT, "select_model": 3},
        (("checkpoints", "3.safetensors"),),
        {**SELECT, "select_model": 3, "ckpt_name3": "None"},
        {**SELECT, "select_model": {}},
    ),
    "CR Model Merge Stack": switched("ckpt_name{i}", 3, "checkpoints"),
    "CR Multi-ControlNet Stack": switched("controlnet_{i}", 3, "controlnet"),
    "CR Multi Upscale Stack": switched("upscale_model_{i}", 3, "upscale_models"),
    "CR Upscale Image": plain(upscale_model="upscale_models"),
    "CR Load Scheduled Models": Case(
        {"mode": "Load default Model", "default_model": "a.safetensors"},
        (("checkpoints", "a.safetensors"),),
        {"mode": "Schedule", "default_model": "a.safetensors"},
        {"mode": None, "default_model": "a.safetensors"},
    ),
    **{
        f"easy {name}Loader": WITH_VAE
        for name in ("full", "a1111", "comfy", "hunyuanDiT", "flux", "mochi", "zero123", "sv3d")
    },
    **{
        f"easy {name}Loader": plain(ckpt_name="checkpoints", vae_name="vae", clip_name="text_encoders")
        for name in ("svd", "pixArt")
    },
    "easy kolorsLoader": plain(unet_name="diffusion_models", vae_name="vae", chatglm3_name="llm"),
    "easy cascadeLoader": Case(
        CASCADE,
        tuple(
            (kind, name) for name in ("c.safetensors", "b.safetensors") for kind in ("diffusion_models", "checkpoints")
        ),
        {**CASCADE, "stage_c": "", "stage_b": "None"},
        {**CASCADE, "stage_c": 1, "stage_b": ["x"]},
    ),
    "easy controlnetLoader": CONTROLNET,
    "easy controlnetLoaderADV": CONTROLNET,
    "easy controlnetLoader++": CONTROLNET,
    "easy controlnetStack": Case(
        {**STACK, "toggle": True, "num_controlnet": 2},
        (("controlnet", "1.safetensors"), ("controlnet", "2.safetensors")),
        {**STACK, "toggle": False, "num_controlnet": 2},
        {**STACK, "toggle": True, "num_controlnet": None},
    ),
    "easy LLLiteLoader": plain(model_name="controlnet"),
    "easy XYInputs: Checkpoint": XY,
    "CheckpointLoaderSimpleShared //Inspire": shared("ckpt_name", "checkpoints"),
    "LoadDiffusionModelShared //Inspire": shared("model_name", "diffusion_models"),
    "LoadTextEncoderShared //Inspire": shared("model_name1", "text_encoders", model_name2="None", model_name3="None"),
    "StableCascade_CheckpointLoader //Inspire": plain(stage_b="checkpoints", stage_c="checkpoints"),
    "MakeBasicPipe //Inspire": CHECKPOINT,
    "SAMLoader": Case(
        {"model_name": "sam_vit_h.pth", "device_mode": "AUTO"},
        (("sams", "sam_vit_h.pth"),),
        {"model_name": "ESAM"},
        {"model_name": 1},
    ),
    "CheckpointLoaderKJ": CHECKPOINT,
    "DiffusionModelLoaderKJ": plain(model_name="diffusion_models"),
    "DiffusionModelSelector": either("model_name", "diffusion_models", "text_encoders"),
    "GGUFLoaderKJ": plain(model_name="diffusion_models", extra_model_name="diffusion_models"),
    "VAELoaderKJ": VAE,
    "NunchakuFluxDiTLoader": Case(
        {"model_path": "svdq-int4_r32-flux.1-dev.safetensors", "cache_threshold": 0},
        (("diffusion_models", "svdq-int4_r32-flux.1-dev.safetensors"),),
        {"model_path": "svdq-int4-flux.1-dev"},
        {"model_path": 1},
    ),
    "NunchakuQwenImageDiTLoader": plain(model_name="diffusion_models"),
    "NunchakuTextEncoderLoader": numbered("text_encoder{i}", "text_encoders", 2),
    "NunchakuTextEncoderLoaderV2": numbered("text_encoder{i}", "text_encoders", 2),
    "NunchakuPuLIDLoaderV2": plain(pulid_file="pulid", eva_clip_file="text_encoders"),
}
