"""DeviceMap: which tensor goes where, by the prefix of its key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_SEPARATORS = (".", "_")
DISK = "disk"
"""The device of tensors that are not loaded."""


@dataclass(frozen=True, slots=True)
class DeviceMap:
    """Prefix rules, of which the longest decides. A prefix catches a key that equals it or goes on with `.` or `_`, so
    that the Kohya block `lora_unet_down_blocks_2` does not catch `lora_unet_down_blocks_20`."""

    rules: tuple[tuple[str, str], ...]
    """(prefix, device) pairs; the prefix "" is the default."""
    planned: Mapping[str, str] = field(default_factory=dict, hash=False)
    """key -> device of single tensors, before any rule."""
    _by_length: Mapping[int, Mapping[str, str]] = field(init=False, repr=False, compare=False)
    """The rules by the length of their prefixes, longest first: there may be one for every module of a model."""
    _devices: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_length: dict[int, dict[str, str]] = {}
        for prefix, device in sorted(self.rules, key=lambda rule: -len(rule[0])):
            by_length.setdefault(len(prefix), {})[prefix] = device
        object.__setattr__(self, "_by_length", by_length)
        object.__setattr__(self, "_devices", frozenset((*self.planned.values(), *(device for _, device in self.rules))))

    @classmethod
    def of(cls, rules: Mapping[str, object]) -> DeviceMap:
        """From `{prefix: device}`; a device is `"cpu"`, `"cuda:1"`, `"disk"`, a torch.device, or the number of a
        GPU."""
        if not isinstance(rules, Mapping):
            raise ValueError(f"{rules!r} is no device map; write {{prefix: device}}, as in {{'': 'cuda:0'}}")
        return cls(tuple((prefix, device_name(device)) for prefix, device in rules.items()))

    def device_of(self, key: str) -> str | None:
        """The device planned for `key`, or of the longest prefix that catches it, or None when none does and there is
        no default."""
        if key in self.planned:
            return self.planned[key]
        for length, rules in self._by_length.items():
            device = rules.get(key[:length])
            if device is not None and _ends_a_name(key, length):
                return device
        return None

    def assign(self, keys: Iterable[str], default: str) -> dict[str, str]:
        """key -> device of all `keys` that are loaded at all: those on disk are left out."""
        devices = ((key, self.device_of(key) or default) for key in keys)
        return {key: device for key, device in devices if device != DISK}

    @property
    def moves(self) -> bool:
        """True when some tensors end up elsewhere than on the CPU."""
        return not self._devices <= {"cpu", DISK}

    @property
    def keeps_on_disk(self) -> bool:
        return DISK in self._devices


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


def _ends_a_name(key: str, length: int) -> bool:
    """Whether a prefix of that length catches `key`, which begins with it."""
    return length in (0, len(key)) or key[length - 1] in _SEPARATORS or key[length] in _SEPARATORS
