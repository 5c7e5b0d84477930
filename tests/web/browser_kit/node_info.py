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
            {
                "math": ["COMBO", {"options": ["fused", "exact"], "default": "fused"}],
                "clip": ["CLIP", {}],
                "lora_stack": _STACK,
            },
            {"model": "MODEL", "clip": "CLIP", "lora_stack": "LORA_STACK", "report": "STRING"},
        ),
        "CheckpointLoaderSimple": _node(
            "CheckpointLoaderSimple",
            {"ckpt_name": [["xl.safetensors", "flux.safetensors"], {}]},
            {},
            {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"},
        ),
        "StringSource": _node("StringSource", {}, {}, {"STRING": "STRING"}),
        "LoraLoaderModelOnly": _node("LoraLoaderModelOnly", {"model": ["MODEL", {}]}, {}, {"MODEL": "MODEL"}),
        "WarmStackLoraStack": _node(
            "WarmStackLoraStack",
            {"loras": _LORAS},
            {"category": ["STRING", {"default": ""}], "lora_stack": _STACK},
            {"lora_stack": "LORA_STACK"},
        ),
    }


def _node(
    name: str, required: dict[str, object], optional: dict[str, object], outputs: dict[str, str]
) -> dict[str, object]:
    """`outputs`: name -> type."""
    return {
        "input": {"required": required, "optional": optional},
        "input_order": {"required": list(required), "optional": list(optional)},
        "output": list(outputs.values()),
        "output_is_list": [False] * len(outputs),
        "output_name": list(outputs),
        "name": name,
        "display_name": name,
        "description": "",
        "python_module": "custom_nodes.comfyui-warmstack",
        "category": "WarmStack",
        "output_node": False,
    }
