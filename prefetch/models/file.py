"""ModelFile: one file of a model, and who finds it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...loaders.files.checkpoint import checkpoint_format
from ...lora.library.file import AdapterKey


@dataclass(frozen=True, slots=True)
class ModelFile:
    """As it was found on disk. Nothing in it has been read."""

    kind: str
    """The host's name of the folders that hold it."""
    name: str
    """Path below its folder, with `/`; a shard has a name of its own. The one name that leaves us."""
    path: str
    """Absolute path. Never sent to a client, never logged above DEBUG."""
    size_bytes: int
    mtime_ns: int
    key: AdapterKey = field(init=False, compare=False)
    """Identity by content, as a LoRA has it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", AdapterKey(self.path, self.size_bytes, self.mtime_ns))

    @property
    def is_pickle(self) -> bool:
        """True when reading it means unpickling: a background reader leaves it alone."""
        return checkpoint_format(self.path) == "pickle"


class ModelFinder(Protocol):
    """Blocking, since it looks at the disk; called from threads. Given by the front end."""

    def __call__(self, kind: str, name: str, /) -> Sequence[ModelFile]:
        """`name` as written. Several files for a model in shards, none when there is no such model."""
