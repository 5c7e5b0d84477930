"""What the example workflows may use: our nodes, read from their schemas, and the host's, written down here.

`tests/host/test_example_workflows_on_host.py` holds both against a real host.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

_NODES = Path(__file__).resolve().parents[2] / "nodes"
_WIDGET_TYPES = frozenset({"Boolean", "Combo", "Float", "Int", "String"})
_SHARED = {
    "loras_input": ("loras", True),
    "lora_stack_input": ("lora_stack", False),
    "strategy_input": ("strategy", True),
}
"""`nodes/inputs.py`: a widget or not, by its name; what is not here is a widget and gets its name from the node."""


class Declared(NamedTuple):
    """One node class."""

    sockets: frozenset[str]
    """Inputs that only a link can fill."""
    widgets: tuple[str, ...]
    """In the order of `widgets_values`; "" for one that exists only in the browser."""
    outputs: tuple[str, ...]
    """Types."""


def _stock(sockets: str, widgets: tuple[str, ...], *outputs: str) -> Declared:
    return Declared(frozenset(sockets.split()), widgets, outputs)


STOCK = {
    "CheckpointLoaderSimple": _stock("", ("ckpt_name",), "MODEL", "CLIP", "VAE"),
    "CLIPTextEncode": _stock("clip", ("text",), "CONDITIONING"),
    "EmptyLatentImage": _stock("", ("width", "height", "batch_size"), "LATENT"),
    "KSampler": _stock(
        "model positive negative latent_image",
        ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        "LATENT",
    ),
    "LoraLoader": _stock("model clip", ("lora_name", "strength_model", "strength_clip"), "MODEL", "CLIP"),
    "PreviewAny": _stock("source", (), "STRING"),
    "SaveImage": _stock("images", ("filename_prefix",), "IMAGE"),
    "VAEDecode": _stock("samples vae", (), "IMAGE"),
}

RGTHREE = {
    "Power Lora Loader (rgthree)": _stock(
        "model clip",
        ("", "PowerLoraLoaderHeaderWidget", "lora_1", "lora_2", "", "➕ Add Lora"),
        "MODEL",
        "CLIP",
    ),
}
"""As rgthree-comfy's front end makes it with two LoRAs: it draws its widgets itself, so they have no inputs.
`tests/web/test_rgthree_on_comfyui.py` holds this against the real pack."""


def ours() -> dict[str, Declared]:
    """Node id -> what `define_schema` declares."""
    return dict(map(_declared, sorted(_NODES.glob("*_node.py"))))


def _declared(source: Path) -> tuple[str, Declared]:
    calls = (node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    schema = next(call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "Schema")
    named = {keyword.arg: keyword.value for keyword in schema.keywords}
    inputs = [_input(call) for call in _elements(named["inputs"])]
    return ast.literal_eval(named["node_id"]), Declared(
        frozenset(name for name, is_widget in inputs if not is_widget),
        tuple(name for name, is_widget in inputs if is_widget),
        tuple(_output(call) for call in _elements(named["outputs"])),
    )


def _elements(listed: ast.expr) -> list[ast.Call]:
    assert isinstance(listed, ast.List)
    return [element for element in listed.elts if isinstance(element, ast.Call)]


def _input(call: ast.Call) -> tuple[str, bool]:
    if isinstance(call.func, ast.Name):
        return _SHARED.get(call.func.id) or (ast.literal_eval(call.args[0]), True)
    return ast.literal_eval(call.args[0]), _kind(call) in _WIDGET_TYPES


def _output(call: ast.Call) -> str:
    return "LORA_STACK" if isinstance(call.func, ast.Name) else _kind(call).upper()


def _kind(call: ast.Call) -> str:
    """`Model` of `io.Model.Input(...)`."""
    assert isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Attribute)
    return call.func.value.attr
