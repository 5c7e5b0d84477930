"""What the visible jobs need: references joined with the files they resolve to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ...lora.library.file import AdapterKey, LoraFile
from .job import Asked, LoraReference, QueuedJob, References

Tier = Literal["resident", "page"]
ResolutionState = Literal["found", "ambiguous", "missing"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the catalog and a fresh stat say about one name. What every plan asks of it is worked out once."""

    state: ResolutionState
    file: LoraFile | None = None
    candidates: tuple[str, ...] = ()
    """Names: the files that answer to an ambiguous name, or near misses of a missing one."""
    is_categorised: bool = True
    """False while only its header would tell the category of the file, and nobody has read it."""
    is_away: bool = False
    """True when the last scan has found a file that cannot be reached now."""
    key: AdapterKey | None = field(init=False, compare=False)
    is_readable: bool = field(init=False, compare=False)
    """False when it must not be read in the background: no file, a pickle, a broken header."""

    def __post_init__(self) -> None:
        file = self.file
        object.__setattr__(self, "key", None if file is None else file.key)
        object.__setattr__(self, "is_readable", file is not None and not file.is_pickle and not file.problem)


UNRESOLVED = Resolution("missing")
AWAY = Resolution("missing", is_away=True)


class Need(NamedTuple):
    """One adapter that a job will load."""

    reference: LoraReference
    resolution: Resolution

    @property
    def file(self) -> LoraFile | None:
        return self.resolution.file

    @property
    def key(self) -> AdapterKey | None:
        return self.resolution.key

    @property
    def is_readable(self) -> bool:
        return self.resolution.is_readable


class Use(NamedTuple):
    """One file that a job reads, in one of the two ways."""

    key: AdapterKey
    file: LoraFile
    via_cache: bool


@dataclass(frozen=True, slots=True)
class JobNeeds:
    """One visible job, its references resolved as far as they can be."""

    job: QueuedJob
    references: References
    needs: tuple[Need, ...]
    uses: tuple[Use, ...] = field(init=False)
    """What of `needs` can be warmed, each once."""
    keys: frozenset[AdapterKey] = field(init=False, compare=False)
    """The files of `uses`."""

    def __post_init__(self) -> None:
        uses: dict[tuple[AdapterKey, bool], Use] = {}
        for reference, found in self.needs:
            if found.is_readable and found.key is not None and found.file is not None:
                uses[found.key, reference.via_cache] = Use(found.key, found.file, reference.via_cache)
        object.__setattr__(self, "uses", tuple(uses.values()))
        object.__setattr__(self, "keys", frozenset([key for key, _ in uses]))

    def marked(self, *, running: bool) -> JobNeeds:
        """The same job, started or put back. What it needs is not worked out again: this happens twice to every job."""
        other = object.__new__(JobNeeds)
        object.__setattr__(other, "job", QueuedJob(self.job.job_id, self.job.payload, running, self.job.ticket))
        for name in ("references", "needs", "uses", "keys"):
            object.__setattr__(other, name, getattr(self, name))
        return other


def need_of(reference: LoraReference, resolution: Resolution) -> Need | None:
    """None when nothing will be loaded: a guess that the catalog does not know was no LoRA, and a row may weigh nothing
    in the category of its file."""
    if reference.guessed and resolution.state != "found":
        return None
    if reference.weights is None:
        return Need(reference, resolution)
    file = resolution.file
    weighed = reference.weighed(None if file is None or not resolution.is_categorised else file.category)
    return None if weighed.strength_model == weighed.strength_clip == 0 else Need(weighed, resolution)


def needs_of(job: QueuedJob, references: References, resolutions: Mapping[Asked, Resolution]) -> JobNeeds:
    """What a job needs; what is not resolved yet counts as missing."""
    needs = [need_of(reference, resolutions.get(reference.asks, UNRESOLVED)) for reference in references.loras]
    return JobNeeds(job, references, tuple([need for need in needs if need is not None]))


def shown_name(name: str) -> str:
    """`name` as a status may show it: an absolute path, which some nodes post, is cut to its last part."""
    is_absolute = name.startswith(("/", "\\", "~")) or name[1:3] in (":\\", ":/")
    return name.replace("\\", "/").rsplit("/", 1)[-1] if is_absolute else name
