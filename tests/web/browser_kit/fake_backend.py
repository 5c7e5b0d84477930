"""FakeBackend: a small warm cache behind the real routes, whose state a test sets and reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from warmstack.lora.errors import LoraSyntaxError
from warmstack.lora.stacks.row import LoraRow
from warmstack.lora.stacks.stack import parse_stack
from warmstack.nodes.api.adapter_query import AdapterQuery
from warmstack.nodes.api.status_json import MAX_ADAPTERS
from warmstack.prefetch.settings import PrefetchSettings

MIB = 1 << 20
GIB = 1 << 30

_GPU = {"name": "cuda:0", "total_bytes": 24 * GIB, "free_bytes": 9 * GIB}

_FOUND = ("hits", "joins", "misses", "wait_s", "load_s", "page_hits", "page_joins", "page_misses")


@dataclass(slots=True)
class Row:
    """One LoRA file, in memory or not."""

    name: str
    size_bytes: int
    state: str = "cold"
    base_model: str = "sdxl"
    pinned: bool = False
    leases: int = 0
    hits: int = 0
    idle_s: float | None = None

    def sent(self) -> dict[str, object]:
        category = self.name.rpartition("/")[0]
        return {
            "name": self.name, "bytes": self.size_bytes, "state": self.state, "category": category,
            "base_model": self.base_model, "pinned": self.pinned, "leases": self.leases, "hits": self.hits,
            "idle_s": self.idle_s, "problem": "",
        }  # fmt: skip


class FakeBackend:
    """Implements `warmstack.nodes.api.routes.Backend`. Every change makes a new revision."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = {row.name: row for row in rows}
        self.boot = "boot-1"
        self.revision = 1
        self.settings: dict[str, object] = dict(PrefetchSettings().as_json())
        self.prefetch: dict[str, object] = {}
        self.queue: list[dict[str, object]] = []
        self.history: list[dict[str, object]] = []
        self.catalog_revision = 1
        self.base_models: dict[tuple[str, str], str] = {}
        self.actions: list[tuple[str, tuple[str, ...] | None]] = []

    def job(self, job_id: str, *names: str, running: bool = False, **states: str) -> None:
        """Queue a job; a LoRA's state is its row's, or the one given as `name=state`."""
        adapters = [_chip(name, states.get(name) or self.rows[name].state) for name in names]
        self.queue.append({"job_id": job_id, "running": running, "adapters": adapters})
        self.revision += 1

    def restore(self, start: FakeBackend) -> None:
        """Back to `start`; only the revision goes on, as a client demands."""
        revision = self.revision + 1
        self.__dict__.update(start.__dict__)
        self.revision = revision

    def finish_jobs(self, jobs: int = 18) -> None:
        """`jobs` jobs have ended, some of which waited."""
        for index in range(jobs):
            load_s, wait_s = 1.2 + (index * 37 % 11) / 6, {0: 1.1, 3: 0.4, 11: 0.3}.get(index, 0.0)
            self.finish(f"old-{index}", hits=2 - bool(wait_s), misses=int(bool(wait_s)), load_s=load_s, wait_s=wait_s)

    def finish(self, job_id: str, **found: float) -> None:
        self.history.append({"job_id": job_id, "ago_s": 1.0, **dict.fromkeys(_FOUND, 0), **found})
        self.revision += 1

    def set(self, name: str, **changes: Any) -> None:
        for field, value in changes.items():
            setattr(self.rows[name], field, value)
        self.revision += 1

    def status(self) -> dict[str, object]:
        live = [row for row in self.rows.values() if row.state in ("ready", "loading")]
        used_bytes = sum(row.size_bytes for row in live if row.state == "ready")
        return {
            "schema": 1, "boot": self.boot, "revision": self.revision,
            "prefetch": {"enabled": self.settings["enabled"], "hits": 0, "joins": 0, "misses": 0,
                         "wait_s": 0.0, "load_s": 0.0, "hidden_share": None, "wasted_bytes": 0,
                         "in_flight": [], **self.prefetch},
            "budget": {"limit_bytes": 4 * GIB, "used_bytes": used_bytes, "peak_bytes": used_bytes + 200 * MIB,
                       "spare_bytes": 0},
            "memory": {"total_bytes": 32 * GIB, "available_bytes": 19 * GIB, "page_cache_bytes": 6 * GIB,
                       "headroom_bytes": GIB, "devices": [_GPU]},
            "adapters": [row.sent() for row in live[:MAX_ADAPTERS]], "adapters_total": len(live),
            "queue": self.queue, "history": self.history,
            "catalog": {"files": len(self.rows), "revision": self.catalog_revision},
            "settings": self.settings,
        }  # fmt: skip

    def metrics(self) -> str:
        return ""

    def plan(self, prompt: Mapping[str, Any], outputs: tuple[str, ...] | None) -> dict[str, object]:
        loras, unknown = [], []
        for node_id, node in prompt.items():
            category = node["inputs"].get("category", "")
            try:
                rows = parse_stack(str(node["inputs"]["loras"]), category_of=lambda name: None).active
            except LoraSyntaxError as error:
                unknown.append({"node_id": node_id, "class_type": node["class_type"], "reason": str(error)})
            else:
                loras += [self._planned(row, row.category or category) for row in rows]
        return {"loras": loras, "unknown": unknown}

    def _planned(self, row: LoraRow, category: str) -> dict[str, object]:
        files = [name for name in self.rows if row.name in _names_of(name)]
        if len(files) > 1 and category:
            files = [name for name in files if name.startswith(f"{category}/")]
        near = [name for name in self.rows if name.rpartition("/")[2][:3] == row.name.rpartition("/")[2][:3]]
        state = "found" if len(files) == 1 else "ambiguous" if files else "missing"
        strengths: tuple[float | None, float | None] = row.strength_model, row.strength_clip
        if row.weights is not None:
            weight = row.weights.of(files[0].rpartition("/")[0]) if state == "found" else None
            strengths = (None, None) if weight is None else (strengths[0] * weight, strengths[1] * weight)
        return {
            "name": row.name, "state": state, "file": files[0] if state == "found" else "",
            "candidates": {"found": [], "ambiguous": files, "missing": near}[state],
            "warm": self.rows[files[0]].state if state == "found" else "cold",
            "strength_model": strengths[0], "strength_clip": strengths[1],
        }  # fmt: skip

    def adapters(self, query: AdapterQuery) -> dict[str, object]:
        rows = [self.rows[name].sent() for name in sorted(self.rows)]
        return {"total": len(rows), "adapters": rows[query.offset : query.offset + query.limit]}

    def base_model(self, kind: str, name: str) -> dict[str, object]:
        return {"base_model": self.base_models.get((kind, name), ""), "evidence": ""}

    def act(self, verb: str, names: tuple[str, ...] | None) -> dict[str, object]:
        self.actions.append((verb, names))
        self.revision += 1
        return {"results": [{"name": name, "file": name, **self._acted(verb, self.rows[name])} for name in names or ()]}

    def _acted(self, verb: str, row: Row) -> dict[str, object]:
        """What it asks for is done at once, where the real one only begins to read."""
        if verb == "evict":
            return _evicted(row)
        if verb == "warm":
            return _warmed(row)
        row.pinned = verb == "pin"
        return {**(_warmed(row) if row.pinned else {"state": row.state}), "pinned": row.pinned}

    def configure(self, changes: Mapping[str, Any]) -> dict[str, object]:
        self.settings.update(changes)
        self.revision += 1
        return {"settings": self.settings}


def _evicted(row: Row) -> dict[str, object]:
    if row.pinned or row.leases:
        return {"state": row.state, "reason": "pinned" if row.pinned else "in use"}
    row.state = "cold"
    return {"state": "cold", "bytes": row.size_bytes}


def _warmed(row: Row) -> dict[str, object]:
    if row.state in ("ready", "loading"):
        return {"state": row.state}
    if not row.name.endswith(".safetensors"):
        return {"state": "refused", "reason": "a pickle is only read when a job loads it"}
    row.state = "ready"
    return {"state": "loading"}


def _names_of(file: str) -> set[str]:
    """What a row may call it: with its folder or without, with the ending or without."""
    return {name for full in (file, file.rpartition("/")[2]) for name in (full, full.rpartition(".")[0])}


def _chip(name: str, state: str) -> dict[str, object]:
    tier, state = ("page", "ready") if state == "page" else ("resident", state)
    return {"name": name, "file": name, "state": state, "tier": tier, "bytes": 0, "reason": ""}


def a_library() -> list[Row]:
    """A dozen LoRAs as an artist has them."""
    return [
        Row("characters/aurora_knight.safetensors", 228 * MIB, "ready", hits=14, pinned=True, idle_s=48),
        Row("characters/old_fisherman.safetensors", 114 * MIB, "ready", hits=3, idle_s=400),
        Row("characters/tea_house_spirit.safetensors", 218 * MIB),
        Row("concepts/double_exposure.safetensors", 91 * MIB, "page"),
        Row("concepts/floating_islands.safetensors", 171 * MIB, "loading"),
        Row("concepts/glass_anatomy.safetensors", 86 * MIB),
        Row("flux/kodak_portra_flux.safetensors", 306 * MIB, base_model="flux"),
        Row("flux/soft_volume_flux.safetensors", 612 * MIB, "page", base_model="flux"),
        Row("styles/gouache_night.safetensors", 457 * MIB, "ready", hits=9, leases=1, idle_s=2),
        Row("styles/ink_wash_v3.safetensors", 228 * MIB, "ready", hits=22, idle_s=2),
        Row("styles/linocut.safetensors", 37 * MIB, "ready", hits=5, idle_s=95),
        Row("styles/risograph_two_tone.safetensors", 74 * MIB, base_model="sd15"),
    ]


def a_busy_evening() -> FakeBackend:
    """A queue in all the states that a chip can have."""
    backend = FakeBackend(a_library())
    backend.job("5b1e", "styles/ink_wash_v3.safetensors", "characters/aurora_knight.safetensors", running=True)
    backend.job("7c02", "styles/gouache_night.safetensors", "characters/old_fisherman.safetensors")
    backend.job("9d44", "concepts/floating_islands.safetensors", "styles/linocut.safetensors")
    backend.job("a310", "concepts/double_exposure.safetensors", "characters/tea_house_spirit.safetensors")
    backend.job("b7f9", "styles/risograph_two_tone.safetensors", "ghost", "detail", ghost="missing", detail="ambiguous")
    backend.job("c001")
    backend.prefetch = {
        "hits": 37, "joins": 4, "misses": 1, "load_s": 41.4, "wait_s": 0.6, "hidden_share": 0.985,
        "in_flight": [{"name": "concepts/floating_islands.safetensors", "tier": "resident",
                       "bytes_done": 96 * MIB, "bytes_total": 171 * MIB}],
    }  # fmt: skip
    return backend
