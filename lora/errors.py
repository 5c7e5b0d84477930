"""Errors of `lora`.

LoraError                   base; its text is one line that names the file and the cure, never an absolute path
├── LoraNotFoundError       no file of that name; `suggestions` are near misses
├── AmbiguousLoraError      several files answer to the name; `candidates` lists them
├── LoraSyntaxError         a stack, tag or request that cannot be read
└── AdapterLoadError        the file is there and cannot be loaded (truncated, pickled, no LoRA in it)
    ├── AdapterUnavailableError     not this time (gone, changing, no memory); never remembered
    └── AdapterLoadCancelledError   the caller gave up before the load was done
"""

from __future__ import annotations

from collections.abc import Sequence


class LoraError(Exception):
    """Base of everything `lora` raises on purpose."""


class LoraNotFoundError(LoraError):
    """`name` matches no file in the catalog."""

    def __init__(self, name: str, suggestions: Sequence[str] = ()) -> None:
        hint = (
            f"; did you mean {', '.join(map(repr, suggestions))}?"
            if suggestions
            else "; check the name and the LoRA folders"
        )
        super().__init__(f"LoRA {name!r} not found{hint}")
        self.name = name
        self.suggestions = tuple(suggestions)


class AmbiguousLoraError(LoraError):
    """`name` matches several files; guessing would load the wrong one in silence."""

    def __init__(self, name: str, candidates: Sequence[str], *, not_in: str = "") -> None:
        """`not_in`: the category that was asked for and holds none of them."""
        said = f"; none of them is in category {not_in!r}" if not_in else ""
        super().__init__(f"LoRA {name!r} is ambiguous: {', '.join(map(repr, candidates))}; write one of these{said}")
        self.name = name
        self.candidates = tuple(candidates)


class LoraSyntaxError(LoraError):
    """A stack text, tag or request JSON that cannot be understood."""


class AdapterLoadError(LoraError):
    """The file of adapter `name` exists and cannot be loaded; `reason` says why and what to do."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"LoRA {name!r} cannot be loaded: {reason}")
        self.name = name
        self.reason = reason


class AdapterUnavailableError(AdapterLoadError):
    """The file or the memory is not there this time; its content is not to blame, so another try may succeed."""


class AdapterLoadCancelledError(AdapterLoadError):
    """Whoever asked gave up before adapter `name` was loaded."""
