"""What the nodes read from their inputs: stacks from text, checks of names before a prompt is queued, file states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from ..lora.errors import LoraError, LoraSyntaxError
from ..lora.library.file import LoraFile
from ..lora.stacks.row import shown
from ..lora.stacks.stack import LoraRow, LoraStack, parse_stack
from .server.off_loop import ask_disk

logger = logging.getLogger("warmstack")


class Names(Protocol):
    """The catalog, as far as names need it. It blocks: it looks at the disk."""

    def find(self, name: str, category: str = "") -> LoraFile: ...

    def category_of(self, name: str, category: str = "") -> str: ...


def read_stack(names: Names, text: str | None, before: object = None, *, category: str = "") -> LoraStack:
    """The rows of `before` (another pack's LORA_STACK, or None), then those that `text` writes: a JSON list, request
    JSON, tags, or one bare name, which is what a list of names hands over. Rows without a category get `category`; a
    target becomes a warning. Raises LoraSyntaxError."""
    earlier = LoraStack.from_tuples(_entries(before))
    if not isinstance(text, str) or not text.strip():
        return earlier
    written = parse_stack(text, category_of=lambda name: names.category_of(name, category))
    return earlier + LoraStack(tuple(map(_without_target, written.in_category(category))))


def with_file_names(names: Names, stack: LoraStack) -> LoraStack:
    """Every active row under the full name of its file, which any other pack's loader understands. Raises LoraError."""
    return LoraStack(tuple(replace(row, name=_file_name(names, row)) for row in stack.active))


def tell_warnings(stack: LoraStack) -> None:
    """One line in the log for each row with something that has no effect: the LORA_STACK that a row goes on as has no
    place for it, and the loader that reports its rows does not learn of it."""
    for warning in stack.warnings:
        logger.warning("WarmStack: %s", warning)


async def check(names: Names, read: Callable[[], LoraStack]) -> bool | str:
    """True, or one line that says what is wrong with the stack that `read()` returns and what it could have been.

    All of it runs in a thread: validation happens on the server's loop, and looking up a name may ask the disk.
    """
    return await ask_disk(_verdict, names, read)


def file_states(names: Names, stack: LoraStack, *, changes: int | None) -> str:
    """Changes whenever a strength or a file of the stack does, or a file starts or ceases to exist.

    A strength may come from a weight per category, which the text does not name. What comes over a link is told only
    when the node runs: for that, `changes` of `LinkedNames`; None for constants."""
    states = repr([(file_state(names, row), row.strength_model, row.strength_clip) for row in stack.active])
    return states if changes is None else f"{states} {changes}"


def file_state(names: Names, row: LoraRow) -> tuple[object, ...]:
    """Changes whenever the row means another file, or that file does."""
    try:
        file = names.find(row.name, row.category)
    except LoraError:
        return (row.name,)
    return (file.name, file.mtime_ns, file.size_bytes)


def _without_target(row: LoraRow) -> LoraRow:
    """Here each denoiser is a model with a wire of its own, and the row goes onto whichever is connected."""
    if not row.target:
        return row
    cure = "a stack node loads onto the model that is connected to it; keep rows for others out of it"
    return replace(row, target="", warning=f"no effect in ComfyUI: target {shown(row.target)} of {row.name!r}; {cure}")


def _file_name(names: Names, row: LoraRow) -> str:
    file = names.find(row.name, row.category)
    if file.name != row.name and names.find(file.name).path != file.path:
        # By its path, or through a link. Other packs go by the name, and would load the other file in silence.
        raise LoraError(
            f"LoRA {file.name!r} is hidden by a file of the same name in an earlier folder; rename one of them"
        )
    return file.name


def _verdict(names: Names, read: Callable[[], LoraStack]) -> bool | str:
    try:
        rows = read().active
    except LoraSyntaxError as problem:
        return str(problem)
    return "; ".join(filter(None, (_problem(names, row) for row in rows))) or True


def _problem(names: Names, row: LoraRow) -> str:
    try:
        file = names.find(row.name, row.category)
    except LoraError as problem:
        return str(problem)
    return f"LoRA {file.name!r} cannot be loaded: {file.problem}" if file.problem else ""


def _entries(stack: object) -> Sequence[object] | None:
    if stack is None or isinstance(stack, list | tuple):
        return stack
    raise LoraSyntaxError(f"a LORA_STACK is a list of (name, strength_model, strength_clip), not {shown(stack)}")
