"""Other loaders, each used as its documentation says. `workload` is a Workload as JSON."""

from __future__ import annotations

from typing import Any

Tensors = list[Any]


class _Held(Tensors):
    """Tensors with what must live as long as they do, and keeps their memory until it is closed."""

    def __init__(self, tensors: Tensors, *owners: Any) -> None:
        super().__init__(tensors)
        self._owners = owners

    def close(self) -> None:
        self.clear()
        for owner in self._owners:
            owner.close()


def load_file(workload: dict[str, Any]) -> Tensors:
    from safetensors.torch import load_file as load

    return [
        tensor
        for path in workload["paths"]
        for key, tensor in load(path).items()
        if _wanted(key, workload)
    ]  # fmt: skip


def load_file_pread(workload: dict[str, Any]) -> Tensors:
    from safetensors.torch import load_file as load

    found = [load(path, backend="pread") for path in workload["paths"]]
    return [tensor for tensors in found for key, tensor in tensors.items() if _wanted(key, workload)]


def safe_open(workload: dict[str, Any]) -> Tensors:
    return _safe_open(workload, lambda tensor: tensor)


def safe_open_clone(workload: dict[str, Any]) -> Tensors:
    return _safe_open(workload, lambda tensor: tensor.clone())


def torch_load(workload: dict[str, Any]) -> Tensors:
    import torch

    return [t for path in workload["pickles"] for t in torch.load(path, weights_only=True).values()]


def torch_load_mmap(workload: dict[str, Any]) -> Tensors:
    import torch

    return [t for path in workload["pickles"] for t in torch.load(path, weights_only=True, mmap=True).values()]


def comfyui(workload: dict[str, Any]) -> Tensors:
    import comfy.utils

    found = [comfy.utils.load_torch_file(path) for path in workload["paths"]]
    return [tensor for tensors in found for key, tensor in tensors.items() if _wanted(key, workload)]


def comfyui_without_mmap(workload: dict[str, Any]) -> Tensors:
    import comfy.utils

    comfy.utils.DISABLE_MMAP = True
    return comfyui(workload)


def fastsafetensors(workload: dict[str, Any]) -> Tensors:
    """Tensors alias the buffers of the loader, which must therefore not go first."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), "cpu", nogds=True)
    if workload["prefixes"]:
        loader.set_tensor_filter(lambda key: _wanted(key, workload))
    loader.add_filenames({0: list(workload["paths"])})
    buffers = loader.copy_files_to_device()
    return _Held([buffers.get_tensor(key) for key in loader.get_keys()], buffers, loader)


def runai_model_streamer(workload: dict[str, Any]) -> Tensors:
    """What it yields aliases a buffer that it reuses, unless that holds everything: its default for local files."""
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(list(workload["paths"]))
        return [tensor for key, tensor in streamer.get_tensors() if _wanted(key, workload)]


def instanttensor(workload: dict[str, Any]) -> Tensors:
    from instanttensor import safe_open as open_files

    with open_files(list(workload["paths"]), framework="pt", device="cpu") as file:
        return [tensor.clone() for key, tensor in file.tensors() if _wanted(key, workload)]


def _safe_open(workload: dict[str, Any], take: Any) -> Tensors:
    from safetensors import safe_open as open_file

    tensors = []
    for path in workload["paths"]:
        with open_file(path, "pt") as file:
            tensors += [take(file.get_tensor(key)) for key in file.keys() if _wanted(key, workload)]  # noqa: SIM118  # no mapping: it cannot be iterated
    return tensors


def _wanted(key: str, workload: dict[str, Any]) -> bool:
    prefixes = workload["prefixes"]
    return not prefixes or key.rpartition(".")[0].rpartition(".")[0] in prefixes
