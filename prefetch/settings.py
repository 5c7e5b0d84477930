"""PrefetchSettings: every knob of the prefetcher, from the environment, the host's settings or a flag."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace

from ..loaders.sizes import parse_bytes

logger = logging.getLogger(__name__)

MOST_READERS = 16
_SWITCHES = (
    "enabled",
    "just_in_time",
    "predict",
    "page_tier",
    "resident_tier",
    "model_tier",
    "yield_to_job",
    "device_tier",
)
_READERS = ("concurrency", "readers_rotating", "readers_network", "readers_flash")
_WORDS = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True)
class PrefetchSettings:
    """Immutable; a change is a new object handed to `Prefetcher.configure`."""

    enabled: bool = True
    budget_bytes: int | None = None
    """Ceiling of the resident tier; None: what whoever built the prefetcher has for it."""
    page_budget_bytes: int | None = None
    """How far ahead the page cache is warmed; None: half of the available memory."""
    headroom_bytes: int | None = None
    """Available memory below which the resident budget shrinks and page warming pauses; None: the machine's."""
    concurrency: int | None = None
    """Files read at a time, on all disks together; None: on each disk as many as its kind of storage takes."""
    readers_rotating: int | None = None
    """Files read at a time on one rotating disk; None: one, since two make it seek."""
    readers_network: int | None = None
    """On one network drive; None: one."""
    readers_flash: int | None = None
    """On one flash disk, and on one of unknown kind; None: as many as was measured to pay."""
    yield_to_job: bool = True
    """While the running job reads a disk, files of later jobs on it wait, for a while."""
    read_limit_bytes_per_s: int | None = None
    """Ceiling of background reads; None: as fast as the disk."""
    depth_jobs: int | None = None
    """Jobs looked ahead at most; None: as far as the budgets reach."""
    just_in_time: bool = True
    """Read a file as late as measured job and read times allow; False: as early as the budgets allow."""
    predict: bool = False
    """With nothing else to read, bring in what past jobs say the next one will use, into free space only."""
    page_tier: bool = True
    resident_tier: bool = True
    device_tier: bool = False
    """Keep the next jobs' adapters on the GPU too, where that is of use: see the status."""
    device_budget_bytes: int | None = None
    """Ceiling of the device tier; None: an eighth of what is free there at the start, at most 2 GiB."""
    pinned_budget_bytes: int | None = None
    """Pinned host memory for what is on its way there, read at the start; None: 128 MiB."""
    model_tier: bool = True
    """Warm the page cache with checkpoints and other models too, when no LoRA is to be read."""

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")
        for name, least in (
            ("budget_bytes", 0),
            ("page_budget_bytes", 0),
            ("headroom_bytes", 0),
            ("device_budget_bytes", 0),
            ("pinned_budget_bytes", 0),
            ("read_limit_bytes_per_s", 1),
            ("depth_jobs", 0),
        ):
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), least, 1 << 60)
        for name in _READERS:
            if getattr(self, name) is not None:
                _check_whole(name, getattr(self, name), 1, MOST_READERS)

    def updated(self, changes: Mapping[str, object]) -> PrefetchSettings:
        """With `changes` applied (sizes also as text, "8 GiB"). Raises ValueError that names the setting at fault."""
        known = {field.name for field in fields(self)}
        for name in changes:
            if name not in known:
                raise ValueError(f"no setting {name!r}; there are {', '.join(sorted(known))}")
        return replace(self, **{name: _parsed(name, value) for name, value in changes.items()})  # type: ignore[arg-type]  # checked by __post_init__

    def as_json(self) -> dict[str, bool | int | None]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> PrefetchSettings:
        """Defaults overridden by WARMSTACK_*; a value that cannot be read is reported and left out."""
        settings = cls()
        for variable, name in ENVIRONMENT.items():
            text = environ.get(variable, "").strip()
            if text:
                try:
                    settings = settings.updated({name: text})
                except ValueError as error:
                    logger.warning("%s is ignored: %s", variable, error)
        return settings


ENVIRONMENT: Mapping[str, str] = {
    "WARMSTACK_PREFETCH": "enabled",
    "WARMSTACK_BUDGET": "budget_bytes",
    "WARMSTACK_PAGE_BUDGET": "page_budget_bytes",
    "WARMSTACK_HEADROOM": "headroom_bytes",
    "WARMSTACK_CONCURRENCY": "concurrency",
    "WARMSTACK_READERS_ROTATING": "readers_rotating",
    "WARMSTACK_READERS_NETWORK": "readers_network",
    "WARMSTACK_READERS_FLASH": "readers_flash",
    "WARMSTACK_YIELD_TO_JOB": "yield_to_job",
    "WARMSTACK_READ_LIMIT": "read_limit_bytes_per_s",
    "WARMSTACK_DEPTH_JOBS": "depth_jobs",
    "WARMSTACK_JUST_IN_TIME": "just_in_time",
    "WARMSTACK_PREDICT": "predict",
    "WARMSTACK_PAGE_TIER": "page_tier",
    "WARMSTACK_RESIDENT_TIER": "resident_tier",
    "WARMSTACK_DEVICE_TIER": "device_tier",
    "WARMSTACK_DEVICE_BUDGET": "device_budget_bytes",
    "WARMSTACK_PINNED_BUDGET": "pinned_budget_bytes",
    "WARMSTACK_MODEL_TIER": "model_tier",
}


def _parsed(name: str, value: object) -> object:
    if not isinstance(value, str):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if value.strip().lower() in ("", "auto", "none"):
        return None
    parse: Callable[[str], object] = _word if name in _SWITCHES else parse_bytes
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _word(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither on nor off") from None


def _check_whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
