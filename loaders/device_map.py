"""DeviceMap: which tensor goes where, by the prefix of its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SEPARATORS = (".", "_")
DISK = "disk"
"""The device of tensors that are not loaded."""


@dataclass(frozen=True, slots=True)
class DeviceMap:
    """Prefix rules, longest first. A prefix catches a key that equals it or goes on with `.` or `_`, so that the Kohya
    block `lora_unet_down_blocks_2` does not catch `lora_unet_down_blocks_20`."""

    rules: tuple[tuple[str, str], ...]
    """(prefix, device) pairs; the prefix "" is the default."""
    planned: Mapping[str, str] = field(default_factory=dict, hash=False)
    """key -> device of single tensors, before any rule."""

    @classmethod
    def of(cls, rules: Mapping[str, object]) -> DeviceMap:
        """From `{prefix: device}`; a device is `"cpu"`, `"cuda:1"`, `"disk"`, a torch.device, or the number of a
        GPU."""
        if not isinstance(rules, Mapping):
            raise ValueError(f"{rules!r} is no device map; write {{prefix: device}}, as in {{'': 'cuda:0'}}")
        named = ((prefix, device_name(device)) for prefix, device in rules.items())
        return cls(tuple(sorted(named, key=lambda rule: -len(rule[0]))))

    def device_of(self, key: str) -> str | None:
        """The device planned for `key`, or of the longest prefix that catches it, or None when none does and there is
        no default."""
        planned = self.planned.get(key)
        return planned or next((device for prefix, device in self.rules if _catches(prefix, key)), None)

    def assign(self, keys: Iterable[str], default: str) -> dict[str, str]:
        """key -> device of all `keys` that are loaded at all: those on disk are left out."""
        devices = ((key, self.device_of(key) or default) for key in keys)
        return {key: device for key, device in devices if device != DISK}

    @property
    def moves(self) -> bool:
        """True when some tensors end up elsewhere than on the CPU."""
        return any(device not in ("cpu", DISK) for device in self._devices())

    @property
    def keeps_on_disk(self) -> bool:
        return DISK in self._devices()

    def _devices(self) -> set[str]:
        return {*self.planned.values(), *(device for _, device in self.rules)}


def device_name(device: object) -> str:
    """torch's name of a device given as its name, a torch.device or the number of a GPU. There is one CPU."""
    name = f"cuda:{device}" if type(device) is int else str(device)
    return "cpu" if name == "cpu:0" else name


def known_device(device: object) -> str:
    """`device_name`; ValueError when torch knows no such device. Whether it is there is another question."""
    import torch

    name = device_name(device)
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device that torch knows; write cpu, cuda:0 or another one") from error
    return name


def _catches(prefix: str, key: str) -> bool:
    if not key.startswith(prefix):
        return False
    return not prefix or len(key) == len(prefix) or prefix.endswith(_SEPARATORS) or key[len(prefix)] in _SEPARATORS
