"""Test-only nodes, copied into the tiny host's custom_nodes. Runs inside ComfyUI: imports nothing of ours."""

import hashlib
import json
import sys
import time

import torch


class TestConditioning:
    """Conditioning without a text encoder: seeded noise of the width that the model wants."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "width": ("INT", {"default": 64}),
                "pooled": ("INT", {"default": 64}),
                "seed": ("INT", {"default": 0}),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "make"
    CATEGORY = "test"

    def make(self, width, pooled, seed):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randn(1, 77, width, generator=generator)
        return ([[tokens, {"pooled_output": torch.randn(1, pooled, generator=generator)}]],)


class TestHold:
    """Stands in for the time that a GPU works and the CPU waits: a job as long as the test needs."""

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "latent": ("LATENT",),
                "seconds": ("FLOAT", {"default": 0.0, "max": 600.0}),
                "tag": ("STRING", {"default": ""}),
            }
        }

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "hold"
    CATEGORY = "test"

    def hold(self, latent, seconds, tag):
        print(f"holding for {seconds} s", flush=True)
        time.sleep(seconds)
        return (latent,)


class TestDigest:
    """SHA-256 over the float image: stricter than comparing the 8-bit PNGs."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "digest"
    CATEGORY = "test"

    def digest(self, image):
        raw = image.contiguous().cpu()
        return {
            "ui": {
                "digest": [hashlib.sha256(raw.numpy().tobytes()).hexdigest()],
                "finite": [bool(torch.isfinite(raw).all())],
            }
        }


class TestModelDigest:
    """SHA-256 over every weight that the model would sample with, patches applied: the picture's cause, not the
    picture."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}, "optional": {"clip": ("CLIP",)}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "digest"
    CATEGORY = "test"

    def digest(self, model, clip=None):
        import comfy.model_management

        comfy.model_management.unload_all_models()  # another prompt may have left its patches in the shared weights
        patchers = {"model": model} | ({"clip": clip.patcher} if clip is not None else {})
        return {"ui": {name: [_weights_digest(patcher)] for name, patcher in patchers.items()}}


class TestShortOfMemory:
    """The model as it is. The next product on the GPU that is added to a weight in place finds no memory there."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",)}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "arm"
    CATEGORY = "test"

    def arm(self, model):
        product = torch.Tensor.addmm_

        def addmm_(weight, *args, **kwargs):
            if not weight.is_cuda:
                return product(weight, *args, **kwargs)
            torch.Tensor.addmm_ = product
            raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED (test)")

        torch.Tensor.addmm_ = addmm_
        return (model,)


class TestExpand:
    """A chain of loaders that no prompt names, as the body of a loop: `nodes` is their JSON, each takes the model of
    the one before."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "nodes": ("STRING", {"default": "[]"})}}

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "expand"
    CATEGORY = "test"

    def expand(self, model, nodes):
        from comfy_execution.graph_utils import GraphBuilder

        graph = GraphBuilder()
        for node in json.loads(nodes):
            model = graph.node(node["class_type"], **node["inputs"] | {"model": model}).out(0)
        return {"result": (model,), "expand": graph.finalize()}


class TestModules:
    """Which of the named modules this process has imported."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"names": ("STRING", {"default": ""}), "tag": ("STRING", {"default": ""})}}

    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "look"
    CATEGORY = "test"

    def look(self, names, tag):
        return {"ui": {"modules": [name for name in names.split(",") if name in sys.modules]}}


def _weights_digest(patcher):
    total = hashlib.sha256()
    for key, weight in sorted(patcher.model.state_dict().items()):
        patched = patcher.patch_weight_to_device(key, return_weight=True) if key in patcher.patches else None
        final = weight if patched is None else patched
        total.update(key.encode() + final.detach().cpu().float().contiguous().numpy().tobytes())
    return total.hexdigest()


NODE_CLASS_MAPPINGS = {
    cls.__name__: cls
    for cls in (TestConditioning, TestHold, TestDigest, TestModelDigest, TestShortOfMemory, TestExpand, TestModules)
}
