"""Running a converter of diffusers over a file's tensors: it never writes into them, and which ones it used is told.

Some converters scale factors in place (`state[key] *= alpha / rank`). Those tensors are views of the adapter's memory:
the next conversion would find them scaled already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

Parts = dict[str, dict[str, torch.Tensor]]


class Conversion(NamedTuple):
    """What a converter made of a file."""

    parts: Parts
    """Tensors that it only renamed are those of the file."""
    used: frozenset[str]
    """Keys of the file that any tensor of `parts` was made of."""


def convert(tensors: Mapping[str, torch.Tensor], converter: Callable[[dict[str, torch.Tensor]], Parts]) -> Conversion:
    """Runs `converter` on `tensors`, and anew with copies of those that it would have written into.

    Memory for copies is taken for these alone. A copy that comes back as it was is given up for the original.
    """
    written: set[str] = set()
    while True:
        copies = {key: tensors[key].clone() for key in written}
        given = {**tensors, **copies}
        with _Trace(given, guarded=given.keys() - written) as trace:
            parts = converter(dict(given))
        if not trace.written:
            break
        written |= trace.written
    used = frozenset(key for part in parts.values() for tensor in part.values() for key in trace.origins(tensor))
    same = {id(copy): tensors[key] for key, copy in copies.items() if torch.equal(copy, tensors[key])}
    renamed = {part: {key: same.get(id(found), found) for key, found in keys.items()} for part, keys in parts.items()}
    return Conversion(renamed, used)


class _Trace(TorchFunctionMode):
    """Follows every tensor back to the `tensors` that it comes from; writes to `guarded` ones go to a copy instead."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], guarded: Iterable[str]) -> None:
        super().__init__()
        self.written: set[str] = set()
        self._key_of = {id(tensor): key for key, tensor in tensors.items()}
        self._guarded = {key: _extent(tensors[key]) for key in guarded}
        self._origins: Any = WeakTensorKeyDictionary()

    def origins(self, tensor: torch.Tensor) -> frozenset[str]:
        own = self._key_of.get(id(tensor))
        found: frozenset[str] = self._origins.get(tensor, frozenset())
        return found if own is None else found | {own}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        touched = self._touched(func, args, options)
        if touched:
            self.written |= touched
            args = (*_copied(args[:1]), *args[1:])
            options |= {"out": _copied(options["out"])} if "out" in options else {}
        result = func(*args, **options)
        made = [*_tensors(result)]
        given = frozenset(key for tensor in _tensors((args, options)) for key in self.origins(tensor)) if made else ()
        for tensor in made:
            self._origins[tensor] = self.origins(tensor).union(given)
        return result

    def _touched(self, func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> set[str]:
        """The guarded tensors that the call would write into."""
        return {key for target in _targets(func, args, options) for key in self._guarded_at(target)}

    def _guarded_at(self, target: torch.Tensor) -> Iterator[str]:
        own = self._key_of.get(id(target))
        if own is not None:
            yield from (own,) if own in self._guarded else ()
            return
        start, _ = _extent(target)
        yield from (key for key, (first, end) in self._guarded.items() if first <= start < end)


def _targets(func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Iterator[torch.Tensor]:
    """What the call writes into. `x *= 2` arrives as `mul_`."""
    name = getattr(func, "__name__", "")
    if name in ("__setitem__", "__set__") or (name.endswith("_") and not name.endswith("__")):
        yield from _tensors(args[:1])
    yield from _tensors(options.get("out"))


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value


def _tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First address, and the one past the end; of no use for tensors with gaps, which files do not have."""
    return tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
