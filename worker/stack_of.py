"""stack_of: whatever a caller may hand to `apply_to_pipeline` -> LoraStack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from ..lora.errors import LoraSyntaxError
from ..lora.stacks.row import number, shown
from ..lora.stacks.stack import LoraStack, parse_stack

StackLike: TypeAlias = "LoraStack | str | Mapping[str, object] | Iterable[object]"


def stack_of(
    adapters: StackLike,
    strengths: Sequence[float] | None = None,
    *,
    category_of: Callable[[str], str] | None = None,
) -> LoraStack:
    """The stack that `adapters` means:

    - a LoraStack; one name; text with `<lora:...>` tags; the text of a JSON list or request;
    - a request, `{"lora": {...}}` or its inner object; `{name: weight}`;
    - names, (name, weight), (name, model, clip) and row objects (`{"name", "weight", "category", "target"}`) in any
      mixture.

    `strengths` multiplies the rows one by one. Raises LoraSyntaxError.
    """
    stack = _stack_of(adapters, category_of)
    if strengths is None:
        return stack
    if len(strengths) != len(stack.rows):
        raise LoraSyntaxError(f"{len(strengths)} strengths for {len(stack.rows)} adapters; give one for each")
    weighted = zip(stack.rows, strengths, strict=True)
    return LoraStack(tuple(row.scaled(number(weight, f"strength of {row.name!r}")) for row, weight in weighted))


def _stack_of(adapters: StackLike, category_of: Callable[[str], str] | None) -> LoraStack:
    if isinstance(adapters, LoraStack):
        return adapters
    if isinstance(adapters, str):
        return parse_stack(adapters, category_of=category_of)
    if isinstance(adapters, Mapping):
        if adapters and all(type(value) in (int, float) for value in adapters.values()):
            return LoraStack.from_rows(list(adapters.items()))
        return LoraStack.from_request(adapters, category_of)
    if not isinstance(adapters, Iterable):
        raise LoraSyntaxError(f"{shown(adapters)} names no LoRA; write a name, tags, a list of rows or a request")
    return LoraStack.from_rows(adapters)
