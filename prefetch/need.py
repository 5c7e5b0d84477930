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
    """Guesses that the catalog does not know were no LoRAs and are left out."""
    needs = []
    for reference in references.loras:
        resolution = resolutions.get(reference.name, UNRESOLVED)
        if resolution.state == "found" or not reference.guessed:
            needs.append(Need(reference, resolution))
    return JobNeeds(job, references, tuple(needs))


def shown_name(name: str) -> str:
    """`name` as a status may show it: an absolute path, which some nodes post, is cut to its last part."""
    is_absolute = name.startswith(("/", "\\", "~")) or name[1:3] in (":\\", ":/")
    return name.replace("\\", "/").rsplit("/", 1)[-1] if is_absolute else name
