"""LoraFile: one LoRA on disk, and the identity under which its content is cached."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...loaders.files.header import SAFETENSORS_SUFFIXES


class AdapterKey(NamedTuple):
    """Identity by content as far as a stat can tell: a rewritten file is another adapter."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class LoraFile:
    """One LoRA file as the catalog knows it. Built from a stat and the safetensors header alone, never from weights."""

    name: str
    """Path below its LoRA folder, with `/` and the extension: `styles/ink.safetensors`. The one name that leaves us."""
    path: str
    """Absolute path. Never sent to a client, never logged above DEBUG."""
    size_bytes: int
    mtime_ns: int
    category: str = ""
    category_evidence: str = ""
    """Why that category, for a person: `folder styles/` or `metadata ss_tag_frequency`."""
    base_model: str = ""
    """`sd15`, `sdxl`, `flux`, ...; "" when nothing in the header tells."""
    base_model_evidence: str = ""
    alias: str = ""
    """`ss_output_name` of the header: the name that A1111 shows and writes into `<lora:...>`."""
    hashes: tuple[str, ...] = ()
    """Lower-case hex digests that the header carries (sshs_model_hash, sshs_legacy_hash, modelspec.hash_sha256)."""
    rank: int | None = None
    problem: str = ""
    """Why the header could not be read, in one line; "" when it could. Such a file is listed and refuses to load."""
    key: AdapterKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", AdapterKey(self.path, self.size_bytes, self.mtime_ns))

    @property
    def is_pickle(self) -> bool:
        """True when reading it means unpickling: a background reader must leave it alone."""
        return not self.path.lower().endswith(SAFETENSORS_SUFFIXES)


def as_on_disk(file: LoraFile) -> LoraFile | None:
    """`file` with its present size and mtime; None when it cannot be reached. What was wrong with other content is
    forgotten."""
    try:
        found = os.stat(file.path)
    except OSError:
        return None
    if (found.st_size, found.st_mtime_ns) == (file.size_bytes, file.mtime_ns):
        return file
    return replace(file, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, problem="")
