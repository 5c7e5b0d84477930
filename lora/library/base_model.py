"""Which base model a LoRA was made for, from what its header says and from the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from ...loaders.files.header import SafetensorsHeader
from ...loaders.files.tensor_entry import TensorEntry

# Against "ss_base_model_version" and "modelspec.architecture", lower case, every separator a dash.
_WRITTEN = tuple(
    (re.compile(rf"(?:^|/)(?:{pattern})"), base_model)
    for pattern, base_model in (
        (r"sd-?xl|stable-diffusion-xl|pony|illustrious|noobai", "sdxl"),
        (r"(?:sd|stable-diffusion)-?v?-?1(?!\d)", "sd15"),
        (r"(?:sd|stable-diffusion)-?v?-?2(?!\d)", "sd2"),
        (r"(?:sd|stable-diffusion)-?v?-?3(?!\d)", "sd3"),
        (r"flux-?2", "flux2"),
        (r"flux", "flux"),
        (r"chroma", "chroma"),
        (r"wan(?![a-z])", "wan"),
        (r"qwen-?image", "qwen-image"),
        (r"z-?image", "z-image"),
        (r"hunyuan-?video|framepack", "hunyuan-video"),
        (r"hunyuan-?image", "hunyuan-image"),
        (r"hunyuan-?dit", "hunyuan-dit"),
        (r"lumina", "lumina2"),
        (r"ltx", "ltx-video"),
        (r"pixart", "pixart"),
        (r"hidream", "hidream"),
        (r"anima(?![a-z])", "anima"),
        (r"krea-?2", "krea2"),
        (r"kandinsky-?5", "kandinsky5"),
    )
)
_SEPARATORS = re.compile(r"[\s_.\-]+")
_DOWN = re.compile(r"(?:lora_down|lora_A|lora\.down|lora_linear_layer\.down|hada_w1_b)(?:\.default)?(?:\.weight)?$")
_UNET = re.compile(r"(?:down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_")
_TRANSFORMER = re.compile(rf"\n(?![^\n]*{_UNET.pattern})[^\n]*(?:transformer|joint|double|single)_blocks_[0-9]")
_EVIDENCE_CHARS = 60

UNETS = {768: "sd15", 1024: "sd2", 2048: "sdxl"}
"""By the features of the text that attn2 reads."""

Asked = TypeVar("Asked")


class BaseModel(NamedTuple):
    """`name` is "" when nothing tells; `evidence` says what did, for a person."""

    name: str = ""
    evidence: str = ""


def base_model_of(header: SafetensorsHeader) -> BaseModel:
    """What the trainer wrote counts first, then the tensors."""
    return written_base_model(header.metadata) or first_answer(_RULES, _Keys(header.tensors)) or BaseModel()


def rank_of(header: SafetensorsHeader) -> int | None:
    """The most frequent rank of the down matrices; None where no LoRA of the plain kind is in the file."""
    counts: dict[int, int] = {}
    for key, entry in header.tensors.items():
        if len(entry.shape) >= 2 and _DOWN.search(key):
            counts[entry.shape[0]] = counts.get(entry.shape[0], 0) + 1
    return max(counts, key=lambda rank: (counts[rank], rank)) if counts else None


def written_base_model(metadata: Mapping[str, str]) -> BaseModel | None:
    """What `metadata` says; None when it says nothing that is known."""
    for field in ("ss_base_model_version", "modelspec.architecture"):
        written = metadata.get(field, "")[:_EVIDENCE_CHARS]
        text = _SEPARATORS.sub("-", written.lower()).removesuffix("/lora")
        for pattern, base_model in _WRITTEN:
            if pattern.search(text):
                return BaseModel(base_model, f"metadata {field} = {written}")
    if metadata.get("ss_v2", "").lower() == "true":
        return BaseModel("sd2", "metadata ss_v2 = True")
    return None


def first_answer(rules: Iterable[Callable[[Asked], BaseModel | None]], asked: Asked) -> BaseModel | None:
    """Of the first of `rules` that has one; `BaseModel()` is one too."""
    return next((found for rule in rules if (found := rule(asked)) is not None), None)


class _Keys:
    """Tensor names searched as one text; kohya's `_` and the `.` of the others look alike in `flat`."""

    def __init__(self, tensors: Mapping[str, TensorEntry]) -> None:
        self.tensors = tensors
        self.dotted = "\n" + "\n".join(tensors)
        self.flat = self.dotted.replace(".", "_")

    def has(self, pattern: str) -> bool:
        return re.search(pattern, self.flat) is not None

    def has_dotted(self, pattern: str) -> bool:
        return re.search(pattern, self.dotted) is not None

    def inputs(self, pattern: str) -> int | None:
        """Input features of the first down matrix, shape (rank, in_features, ...), whose flat name matches."""
        for key, entry in self.tensors.items():
            if len(entry.shape) >= 2 and _DOWN.search(key) and re.search(pattern, key.replace(".", "_")):
                return entry.shape[1]
        return None


def _double_blocks(keys: _Keys) -> BaseModel | None:
    if keys.has("double_stream_blocks_"):
        return BaseModel("hidream", "keys double_stream_blocks")
    if keys.has("(?:double|single)_stream_modulation"):
        return BaseModel("flux2", "keys double_stream_modulation")
    if not keys.has("(?:double|single)_blocks_[0-9]"):
        return None
    if keys.has("img_mlp_fc1|individual_token_refiner") or keys.has_dotted(r"double_blocks\.[0-9]+\.img_attn_q"):
        return BaseModel("hunyuan-video", "keys double_blocks with img_attn_qkv or img_mlp.fc1")
    if keys.has("distilled_guidance_layer"):
        return BaseModel("chroma", "keys distilled_guidance_layer")
    inputs = keys.inputs("double_blocks_[0-9]+_img_attn_qkv|single_blocks_[0-9]+_linear1")
    if inputs not in (None, 3072):
        return None
    return BaseModel("flux", "keys double_blocks, single_blocks")


def _diffusers_double_blocks(keys: _Keys) -> BaseModel | None:
    if not keys.has("single_transformer_blocks_[0-9]"):
        return None
    if keys.has("token_refiner") or keys.has("(?<!single_)transformer_blocks_(?:19|[2-9][0-9])_"):
        return BaseModel("hunyuan-video", "keys of 20 or more transformer_blocks beside single_transformer_blocks")
    if keys.has("to_qkv_mlp_proj"):
        return BaseModel("flux2", "keys to_qkv_mlp_proj")
    return BaseModel("flux", "keys single_transformer_blocks")


def _joint_blocks(keys: _Keys) -> BaseModel | None:
    if keys.has("joint_blocks_[0-9]"):
        return BaseModel("sd3", "keys joint_blocks")
    if keys.has("transformer_blocks_[0-9]+_(?:img|txt)_(?:mod|mlp)_"):
        return BaseModel("qwen-image", "keys transformer_blocks with img_mlp, txt_mlp")
    inputs = keys.inputs("transformer_blocks_[0-9]+_attn_(?:add_[qkv]_proj|to_[qkv])")
    if inputs in (1536, 2432):
        return BaseModel("sd3", f"transformer_blocks of {inputs} features")
    if inputs == 3072 and keys.has("attn_add_[qkv]_proj"):
        return BaseModel("qwen-image", "transformer_blocks of 3072 features with add_q_proj")
    return None


def _wan(keys: _Keys) -> BaseModel | None:
    if keys.has(
        "_blocks_[0-9]+_(?:self|cross)_attn_[qkvo]_(?!proj)|\nblocks_[0-9]+_(?:self|cross)_attn_[qkvo]_(?!proj)"
    ):
        return BaseModel("wan", "keys blocks with self_attn.q, cross_attn.k")
    if keys.has_dotted(r"[.\n]blocks\.[0-9]+\.attn2\.to_[qkv]\."):
        return BaseModel("wan", "keys blocks with attn1, attn2")
    return None


def _lumina_like(keys: _Keys) -> BaseModel | None:
    inputs = keys.inputs("layers_[0-9]+_(?:attention_(?:qkv|to_[qkv])|feed_forward_w[13])_")
    known = {3840: "z-image", 2304: "lumina2"}
    if inputs not in known:
        return None
    return BaseModel(known[inputs], f"layers with attention of {inputs} features")


def _unet(keys: _Keys) -> BaseModel | None:
    # SD3 and Flux have a second text encoder too.
    if keys.has("lora_te2_|text_encoder_2_") and not keys.has(_TRANSFORMER.pattern):
        return BaseModel("sdxl", "keys of a second text encoder")
    if not keys.has(_UNET.pattern):
        return None
    inputs = keys.inputs("attn2_to_[kv]_")
    if inputs in UNETS:
        return BaseModel(UNETS[inputs], f"attn2.to_k reads {inputs} features")
    if inputs is None and keys.has("_transformer_blocks_[1-9]"):
        return BaseModel("sdxl", "keys of several transformer_blocks per attention")
    return None


def _text_encoder(keys: _Keys) -> BaseModel | None:
    inputs = keys.inputs("^lora_te_text_model_.*self_attn_q_proj")
    known = {768: "sd15", 1024: "sd2"}
    if inputs not in known or keys.has("\nlora_(?:unet|transformer)_"):
        return None
    return BaseModel(known[inputs], f"text encoder of {inputs} features")


def _attn1_blocks(keys: _Keys) -> BaseModel | None:
    if not keys.has_dotted(r"\n(?:diffusion_model\.|transformer\.)?transformer_blocks\.[0-9]+\.attn1\."):
        return None
    inputs = keys.inputs("transformer_blocks_[0-9]+_attn1_to_[qkv]_")
    known = {2048: "ltx-video", 4096: "ltx-video", 1152: "pixart"}
    if inputs not in known:
        return None
    return BaseModel(known[inputs], f"transformer_blocks with attn1 of {inputs} features")


# Every rule starts from names that the others lack, so their order decides nothing but speed.
_RULES: tuple[Callable[[_Keys], BaseModel | None], ...] = (
    _unet,
    _double_blocks,
    _diffusers_double_blocks,
    _joint_blocks,
    _wan,
    _lumina_like,
    _attn1_blocks,
    _text_encoder,
)
