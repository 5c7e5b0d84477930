"""What the visible jobs need: references joined with the files they resolve to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..lora.file import AdapterKey, LoraFile
from .job import LoraReference, QueuedJob, References

Tier = Literal["resident", "page"]
ResolutionState = Literal["found", "ambiguous", "missing"]


class Resolution(NamedTuple):
    """What the catalog and a fresh stat say about one name."""

    state: ResolutionState
    file: LoraFile | None = None
    candidates: tuple[str, ...] = ()
    """Names: the files that answer to an ambiguous name, or near misses of a missing one."""


@dataclass(frozen=True, slots=True)
class Need:
    """One adapter that a job will load."""

    reference: LoraReference
    resolution: Resolution

    @property
    def file(self) -> LoraFile | None:
        return self.resolution.file

    @property
    def is_certain(self) -> bool:
        """False for a guess that the catalog does not know: it was no LoRA."""
        return self.resolution.state == "found" or not self.reference.guessed

    @property
    def key(self) -> AdapterKey | None:
        return None if self.file is None else self.file.key


@dataclass(frozen=True, slots=True)
class JobNeeds:
    """One visible job, its references resolved as far as they can be."""

    job: QueuedJob
    references: References
    needs: tuple[Need, ...]


UNRESOLVED = Resolution("missing")


def needs_of(job: QueuedJob, references: References, resolutions: dict[str, Resolution]) -> JobNeeds:
    """The certain needs of a job; one not resolved yet counts as missing."""
    needs = (Need(reference, resolutions.get(reference.name, UNRESOLVED)) for reference in references.loras)
    return JobNeeds(job, references, tuple(need for need in needs if need.is_certain))


def shown_name(name: str) -> str:
    """`name` as a status may show it: an absolute path, which some nodes post, is cut to its last part."""
    is_absolute = name.startswith(("/", "\\", "~")) or name[1:3] in (":\\", ":/")
    return name.replace("\\", "/").rsplit("/", 1)[-1] if is_absolute else name
