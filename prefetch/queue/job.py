"""What the prefetcher sees of a queue: jobs in running order and the adapters each one names."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from ...lora.stacks.request_weights import RequestWeights


class Asked(NamedTuple):
    """What the catalog is asked: all of a reference that decides which file it means."""

    name: str
    category: str = ""


@dataclass(frozen=True, slots=True)
class LoraReference:
    """One adapter that a job will load. `name` is as written by the user, not yet resolved."""

    name: str
    strength_model: float | None = None
    """None when the graph computes it: unknown is not zero."""
    strength_clip: float | None = None
    node_id: str = ""
    class_type: str = ""
    via_cache: bool = False
    """True when the reader is ours (a WarmStack node, the worker), which can use an `Adapter` from the cache.
    Every other loader profits from the page cache alone."""
    guessed: bool = False
    """True when only the generic rules found it: it counts when the catalog knows the name, else it was no LoRA."""
    category: str = ""
    """As written beside the name, where it decides between several files of that name."""
    weights: RequestWeights | None = None
    """Still to be multiplied in: they go by the category of the file."""

    @property
    def asks(self) -> Asked:
        return Asked(self.name, self.category)

    def weighed(self, category: str | None) -> LoraReference:
        """With its weights multiplied in; None for a category that is not known, and then nor are the strengths."""
        if self.weights is None:
            return self
        weight = math.nan if category is None else _weight(self.weights, category)
        model, clip = _times(self.strength_model, weight), _times(self.strength_clip, weight)
        # Not `replace`, which takes three times as long: a queue may hold tens of thousands of rows.
        return LoraReference(
            self.name, model, clip, self.node_id, self.class_type, self.via_cache, self.guessed, self.category
        )


@lru_cache(maxsize=1024)
def _weight(weights: RequestWeights, category: str) -> float:
    """The rows of a request lie in a few categories."""
    return weights.of(category)


def _times(strength: float | None, weight: float) -> float | None:
    if strength is None:
        return None
    product = strength * weight
    return product if math.isfinite(product) else None


@dataclass(frozen=True, slots=True)
class UnknownReference:
    """A node that will load an adapter which the prompt alone does not name. Reported, never guessed."""

    node_id: str
    class_type: str
    reason: str


class ModelReference(NamedTuple):
    """One model file that a job will load: a checkpoint, a diffusion model, a text encoder, a VAE, a ControlNet, ..."""

    kind: str
    """The host's name of the folders that hold it: `checkpoints`, `diffusion_models`, `text_encoders`, `vae`, ..."""
    name: str
    """As written: a path below one of those folders."""
    node_id: str = ""
    class_type: str = ""


@dataclass(frozen=True, slots=True)
class References:
    """Everything one job names, in the order in which the nodes run as far as the graph tells."""

    loras: tuple[LoraReference, ...] = ()
    unknown: tuple[UnknownReference, ...] = ()
    models: tuple[ModelReference, ...] = ()


class JobKey(NamedTuple):
    """Which job is meant. A host may take one id twice, for two prompts."""

    job_id: str
    ticket: float


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """One job in the queue. `payload` is whatever the front end's `references` function reads (a ComfyUI prompt, a
    worker request); it is immutable while queued, so its references are computed once per `key`."""

    job_id: str
    """For people: as the host shows it."""
    payload: object
    running: bool = False
    ticket: float = 0
    """Tells jobs of one id apart; the same from the submission to the end."""
    key: JobKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", JobKey(self.job_id, self.ticket))
