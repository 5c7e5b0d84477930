"""What the prefetcher tells about itself: immutable, JSON-able, names and never paths."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..lora.cache.waits import Waits
from .device_status import DeviceStatus
from .planning.predictor import PredictorStats
from .queue.need import ResolutionState, Tier

AdapterState = Literal["ready", "loading", "cold", "missing", "ambiguous", "failed", "unknown"]
"""`ready`: nothing left to read. `cold`: not read yet, or never read ahead (a pickle).
`unknown`: only a run can name it."""


class AdapterStatus(NamedTuple):
    """One adapter of one job."""

    name: str
    """The catalog's name, or as written when it resolves to no file; "" when only a run can tell."""
    state: AdapterState
    tier: Tier | None
    size_bytes: int
    problem: str = ""


ModelState = Literal["ready", "loading", "cold", "failed", "in_use"]
"""`in_use`: the running job names it, so the host has it. `cold` as for an adapter."""


class ModelStatus(NamedTuple):
    """One model file of one job: a checkpoint, a text encoder, a shard, ..."""

    name: str
    """Path below its folder."""
    kind: str
    """The host's name of that folder."""
    state: ModelState
    size_bytes: int
    problem: str = ""


class JobStatus(NamedTuple):
    """One visible job, in running order."""

    job_id: str
    running: bool
    adapters: tuple[AdapterStatus, ...]
    models: tuple[ModelStatus, ...] = ()
    """As far as they have been looked up; those that the host does not find are left out."""


class JobRecord(NamedTuple):
    """One job that has ended, with its own demands; `wait_s` and `load_s` as in `PrefetchStatus`."""

    job_id: str
    finished_s: float
    """By the prefetcher's clock."""
    hits: int
    joins: int
    misses: int
    wait_s: float
    load_s: float
    page_hits: int
    page_joins: int
    page_misses: int


class FetchStatus(NamedTuple):
    """One file being read now. `bytes_done` counts whole chunks: a file of one stands at 0 until it is there."""

    name: str
    tier: Tier | Literal["model"]
    bytes_done: int
    bytes_total: int


class PageStatus(NamedTuple):
    """Demands on the page-cache tier, counted once per file and job when the job starts."""

    hits: int = 0
    """The whole file was in the page cache."""
    joins: int = 0
    """It was being read."""
    misses: int = 0
    demand_bytes: int = 0
    hit_bytes: int = 0
    warmed_bytes: int = 0
    wasted_bytes: int = 0
    """Read for jobs that left the queue without running."""
    warmed_s: float = 0.0
    """Seconds that reading `warmed_bytes` took, those under a read limit included."""

    @property
    def hidden_share(self) -> float | None:
        """Share of the demanded bytes that were in the page cache in time; None before the first demand."""
        return self.hit_bytes / self.demand_bytes if self.demand_bytes else None

    def as_json(self) -> dict[str, object]:
        return self._asdict() | {"hidden_share": self.hidden_share}


class PrefetchStatus(NamedTuple):
    """One moment. `hits`, `joins`, `misses`, `wait_s`, `load_s` and `hidden_share` are those of the resident tier."""

    revision: int
    """Grows when, and only when, something else in here has changed."""
    enabled: bool
    hits: int
    joins: int
    misses: int
    wait_s: float
    """Seconds that demands were blocked."""
    load_s: float
    """Seconds that the same demands would have been blocked if each had read its file."""
    hidden_share: float | None
    """1 - wait_s / load_s, from 0 to 1; None before the first demand."""
    wasted_bytes: int
    """Both tiers: warmed, and dropped before anybody used them."""
    page: PageStatus
    under_pressure: bool
    """Memory is short: the resident budget is cut and no pages are warmed ahead."""
    in_flight: tuple[FetchStatus, ...]
    queued_jobs: int
    """All visible jobs; `queue` holds the first of them."""
    queue: tuple[JobStatus, ...]
    predictor: PredictorStats = PredictorStats(0, 0, False)
    """How good guesses beyond the queue were; `active` when they are acted upon, if the setting allows."""
    history: tuple[JobRecord, ...] = ()
    """The last jobs that ended, oldest first."""
    paused: str = ""
    """Why files that are due are not being read just now; "" when nothing holds them."""
    models: PageStatus = PageStatus()
    """Demands on the model files that jobs needed beyond those of the job before them. Counted in nothing else."""
    waits: Waits = Waits()
    """The demands of the resident tier by how long they were blocked."""
    demand_bytes: int = 0
    """Of the resident tier, each demand anew; so are the next two."""
    read_bytes: int = 0
    prefetched_bytes: int = 0
    pollution: int = 0
    """Misses that an LRU cache of the same size without prefetch would have spared."""
    device: DeviceStatus = DeviceStatus()

    @property
    def hit_rate(self) -> float | None:
        """Share of the demands that found their adapter ready; None before the first."""
        demands = self.hits + self.joins + self.misses
        return self.hits / demands if demands else None

    @property
    def amplification(self) -> float | None:
        """Bytes read per byte demanded; None before the first demand."""
        return self.read_bytes / self.demand_bytes if self.demand_bytes else None

    def as_json(self) -> dict[str, object]:
        """The figures as plain dicts and lists; who shows `queue` and `history` makes rows of its own."""
        values = self._asdict()
        for name in ("revision", "queue", "history", "waits"):
            del values[name]
        return {
            **values,
            "hit_rate": self.hit_rate,
            "amplification": self.amplification,
            "wait_p50_s": self.waits.quantile_s(0.5),
            "wait_p99_s": self.waits.quantile_s(0.99),
            "page": self.page.as_json(),
            "models": self.models.as_json(),
            "device": self.device._asdict(),
            "predictor": self.predictor._asdict() | {"hit_rate": self.predictor.hit_rate},
            "in_flight": [fetch._asdict() for fetch in self.in_flight],
        }


class PlannedLora(NamedTuple):
    """One LoRA of a prompt that is not queued (yet), for the plan route."""

    name: str
    """As written."""
    state: ResolutionState | Literal["unknown"]
    file: str
    """The catalog's name when found, else ""."""
    tier: Tier | None
    """Where it would be warmed; None when it would not be."""
    size_bytes: int
    candidates: tuple[str, ...] = ()
    """Files that answer to an ambiguous name, near misses of a missing one."""
    warm: AdapterState = "cold"
    strength_model: float | None = None
    strength_clip: float | None = None
    node_id: str = ""
    class_type: str = ""
    reason: str = ""
    """Why it is unknown."""
