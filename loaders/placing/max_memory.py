"""MaxMemory: how many bytes a load may put on each device, and which of them that makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import SafetensorsLoadError
from ..sizes import parse_bytes
from .device_map import DISK, DeviceMap, known_device
from .device_plan import plan_devices

if TYPE_CHECKING:
    from ..strategies.strategy import LoadRequest


@dataclass(frozen=True, slots=True)
class MaxMemory:
    """Limits by device; a device without one has none."""

    limit_bytes: Mapping[str, int]
    places: bool = False
    """Whether tensors go to the first of these devices that has room for them."""

    @classmethod
    def of(cls, limits: Mapping[object, float | str], *, places: bool = False) -> MaxMemory:
        """From `{device: bytes}`; bytes as a number or as text: `"6GiB"`, `"500MB"`. ValueError for a device that is
        neither `"disk"` nor known to torch, and for what is no number of bytes."""
        if not isinstance(limits, Mapping):
            raise ValueError(f"{limits!r} is no max_memory; write {{device: bytes}}, as in {{'cuda:0': '10GiB'}}")
        named = {DISK if device == DISK else known_device(device): limit for device, limit in limits.items()}
        return cls({device: parse_bytes(limit) for device, limit in named.items()}, places and bool(limits))

    def place(
        self, request: LoadRequest, sizes: Callable[[], Mapping[str, int]]
    ) -> tuple[LoadRequest, tuple[str, ...]]:
        """`request` with a device for every key of `sizes`, bytes as they are handed out, and what each device gets; as
        it is when this places nothing. SafetensorsLoadError when there is not room for all."""
        if not self.places:
            return request, ()
        nbytes = sizes()
        limits = self._numbered_limits()
        planned = plan_devices(request.paths[0], nbytes, limits)
        total: Counter[str] = Counter()
        for key, device in planned.items():
            total[device] += nbytes[key]
        told = (f"{total[device]} bytes on {device}" for device in limits if device in total)
        return replace(request, device_map=DeviceMap((), planned)), tuple(told)

    def check(self, path: str, device_bytes: Mapping[str, int], advice: str = "move a part with device_map") -> None:
        """Raise when a load of `path` would put more on a device than it may: `device_bytes` says how much."""
        limits = self._numbered_limits()
        needed: Counter[str] = Counter()
        for device, nbytes in device_bytes.items():
            needed[_numbered(device)] += nbytes
        for device, needed_bytes in needed.items():
            limit_bytes = limits.get(device)
            if limit_bytes is not None and needed_bytes > limit_bytes:
                reason = f"needs {needed_bytes} bytes on {device} and may take {limit_bytes}; {advice}"
                raise SafetensorsLoadError(path, reason)

    def _numbered_limits(self) -> dict[str, int]:
        """Of two limits for one GPU the smaller."""
        limits: dict[str, int] = {}
        for device, limit_bytes in self.limit_bytes.items():
            name = _numbered(device)
            limits[name] = min(limit_bytes, limits.get(name, limit_bytes))
        return limits


def _numbered(device: str) -> str:
    """The current GPU goes by two names."""
    if device != "cuda":
        return device
    import torch

    return f"cuda:{torch.cuda.current_device() if torch.cuda.is_available() else 0}"
