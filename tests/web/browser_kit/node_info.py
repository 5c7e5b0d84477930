"""What /object_info says of the nodes that carry a `loras` text and of those that give them a model, as far as the
front end needs it."""

from __future__ import annotations

_LORAS = ["STRING", {"multiline": True, "default": "", "dynamicPrompts": False}]
_STACK = ["LORA_STACK", {}]


def object_info() -> dict[str, object]:
    return {
        "WarmStackLoadLoraStack": _node(
            "WarmStackLoadLoraStack",
            {"model": ["MODEL", {}], "loras": _LORAS},
            {"math": ["COMBO", {"options": ["fused", "exact"], "default": "fused"}], "lora_stack": _STACK},
            ["MODEL", "CLIP", "LORA_STACK", "STRING"],
        ),
        "CheckpointLoaderSimple": _node(
            "CheckpointLoaderSimple",
            {"ckpt_name": [["xl.safetensors", "flux.safetensors"], {}]},
            {},
            ["MODEL", "CLIP", "VAE"],
        ),
        "StringSource": _node("StringSource", {}, {}, ["STRING"]),
        "LoraLoaderModelOnly": _node("LoraLoaderModelOnly", {"model": ["MODEL", {}]}, {}, ["MODEL"]),
        "WarmStackLoraStack": _node(
            "WarmStackLoraStack",
            {"loras": _LORAS},
            {"category": ["STRING", {"default": ""}], "lora_stack": _STACK},
            ["LORA_STACK"],
        ),
    }


def _node(name: str, required: dict[str, object], optional: dict[str, object], output: list[str]) -> dict[str, object]:
    return {
        "input": {"required": required, "optional": optional},
        "input_order": {"required": list(required), "optional": list(optional)},
        "output": output,
        "output_is_list": [False] * len(output),
        "output_name": output,
        "name": name,
        "display_name": name,
        "description": "",
        "python_module": "custom_nodes.comfyui-warmstack",
        "category": "WarmStack",
        "output_node": False,
    }
