"""QueueRequest: one line of a JSONL queue.

A line is an object, `{"id", "prompt", "negative_prompt", "seed", "steps", "guidance_scale", "width", "height",
"lora"}`, in which only `prompt` is needed, or a string: the prompt. `lora` is a request (`{"enabled", "global_weight",
"category_weights", "models"}`), a list of rows, one name, or text with tags. `<lora:name:weight>` tags in either form's
prompt are taken out of it and added to the stack.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..lora.errors import LoraSyntaxError
from ..lora.stacks.stack import LoraStack
from ..lora.stacks.tags import extract_tags
from .stack_of import stack_of

_UNSAFE = re.compile(r"[^\w.-]+")
_DEVICE = re.compile("(?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:[.]|$)", re.IGNORECASE)
"""What Windows takes for a device whatever follows the dot."""
_LONGEST_ID = 80


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """One picture to make. Immutable: the prefetcher reads its references once."""

    id: str
    """Unique in its queue and safe as a file name."""
    line: int
    prompt: str
    """Without tags."""
    stack: LoraStack
    seed: int = 0
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    width: int | None = None
    height: int | None = None

    @property
    def image(self) -> str:
        """File name of its picture."""
        return f"{self.id}.png"


@dataclass(frozen=True, slots=True)
class MalformedLine:
    """A line that is no request. Reported; the queue goes on."""

    line: int
    reason: str


QueueLine: TypeAlias = "QueueRequest | MalformedLine"
CategoryOf: TypeAlias = Callable[[str], str]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str
    id: str | int = ""
    negative_prompt: str = ""
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    width: int | None = Field(default=None, ge=8, le=8192, multiple_of=8)
    height: int | None = Field(default=None, ge=8, le=8192, multiple_of=8)
    lora: Any = None


def read_queue(path: Path, category_of: CategoryOf | None = None) -> tuple[QueueLine, ...]:
    """Every line of the file, in order. Raises OSError, and ValueError for one that is not UTF-8 or one JSON list."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path} is not UTF-8 (byte {problem.start} of it); save it as UTF-8") from problem
    if _is_list(text):
        raise ValueError(f"{path} is one JSON list; write a request a line, without brackets around and commas between")
    # Not splitlines(): a JSON string may hold U+2028 as it is.
    return parse_queue(text.split("\n"), category_of)


def parse_queue(lines: Iterable[str], category_of: CategoryOf | None = None) -> tuple[QueueLine, ...]:
    """One entry per line; blank lines are skipped. `category_of(name)` tells the category of rows that name none."""
    taken: set[str] = set()
    return tuple(_parse(text, line, taken, category_of) for line, text in enumerate(lines, 1) if text.strip())


def _parse(text: str, line: int, taken: set[str], category_of: CategoryOf | None) -> QueueLine:
    try:
        value = json.loads(text)
        if not isinstance(value, (dict, str)):
            return MalformedLine(line, "neither an object nor a string")
        read = _Line.model_validate({"prompt": value} if isinstance(value, str) else value)
        prompt, stack = _stack(read, category_of)
        # JSON can spell what no tokenizer takes. A LoRA may be called so: Linux keeps names that are not UTF-8.
        (prompt + read.negative_prompt).encode()
    except json.JSONDecodeError as problem:
        return MalformedLine(line, f"not JSON at column {problem.colno}: {problem.msg}")
    except UnicodeEncodeError:
        return MalformedLine(line, r"half of a character (one of \ud800 to \udfff alone); write the character itself")
    except ValidationError as problem:
        return MalformedLine(line, "; ".join(map(_told, problem.errors())))
    # ValueError: a number of more than 4,300 digits.
    except (LoraSyntaxError, RecursionError, ValueError) as problem:
        return MalformedLine(line, str(problem))
    return QueueRequest(
        id=_unique(str(read.id), line, taken),
        line=line,
        prompt=prompt,
        stack=stack,
        seed=read.seed,
        negative_prompt=read.negative_prompt,
        steps=read.steps,
        guidance_scale=read.guidance_scale,
        width=read.width,
        height=read.height,
    )


def _is_list(text: str) -> bool:
    try:
        return text.lstrip().startswith("[") and isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def _stack(read: _Line, category_of: CategoryOf | None) -> tuple[str, LoraStack]:
    prompt, tagged = extract_tags(read.prompt)
    stack = LoraStack() if read.lora is None else stack_of(read.lora, category_of=category_of)
    return prompt.strip(), stack + LoraStack(tagged)


def _told(error: Any) -> str:
    where = ".".join(map(str, error["loc"])) or "line"
    return f"{where}: {error['msg']}"


def _unique(written: str, line: int, taken: set[str]) -> str:
    """`written` as a file name of its own: `../x` would leave the output folder, `a` twice would overwrite."""
    name = _UNSAFE.sub("_", written).strip("._")[:_LONGEST_ID] or f"line-{line:04}"
    if _DEVICE.match(name):
        name = f"_{name}"
    found = name if _folded(name) not in taken else f"{name}-{line}"
    while _folded(found) in taken:
        found += "_"
    taken.add(_folded(found))
    return found


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one: Windows and macOS ignore case, macOS how accents are
    written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
