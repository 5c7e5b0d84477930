"""Runtime: the one object that holds the pack's state inside ComfyUI."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ..loaders.errors import SafetensorsLoadError
from ..loaders.tracking import PerformanceTracker
from ..lora.cache.budget import ByteBudget
from ..lora.cache.cache import AdapterCache
from ..lora.cache.default_budget import default_budget_bytes
from ..lora.library.catalog import Found, LoraCatalog
from ..lora.library.checkpoint_base import read_base_model
from ..lora.library.file import LoraFile
from ..prefetch.machine import Machine, default_headroom_bytes
from ..prefetch.prefetcher import Prefetcher
from ..prefetch.queue.job import QueuedJob
from ..prefetch.references import payload_references
from ..prefetch.reports.prometheus import prometheus_text
from ..prefetch.settings import PrefetchSettings
from .api.actions import Actions
from .api.adapter_query import AdapterQuery
from .api.adapter_table import AdapterTable
from .api.request_body import RequestError
from .api.status_json import Moment, Revision, plan_json, status_json
from .models.found_models import found_models
from .models.linked_names import LinkedNames, lora_state
from .models.model_files import ModelFileError, ModelFiles
from .models.model_weights import model_state
from .patches.target_model import TargetModels
from .server.memory_state import MemoryState
from .server.settings_file import SettingsFile

logger = logging.getLogger("warmstack")


class Host(Protocol):
    """What the runtime asks of the host, from any thread."""

    def lora_folders(self) -> tuple[str, ...]: ...

    def model_folders(self, kind: str) -> tuple[str, ...]: ...

    def state_directory(self) -> Path | None: ...

    def queued_jobs(self) -> Sequence[QueuedJob]: ...

    def memory(self) -> MemoryState: ...

    def headroom_bytes(self) -> int: ...

    def step_progress(self) -> float | None: ...

    def device_tier_refusal(self) -> str: ...


class Runtime:
    """Catalog, cache and prefetcher of one server, and the backend of the routes. Complete without `run`: nodes then
    load their LoRAs on demand. All methods but `run` may be called from any thread."""

    def __init__(self, host: Host) -> None:
        directory = _writable(host.state_directory)
        self._host = host
        self._settings_file = SettingsFile(directory)
        self._changing = threading.Lock()
        self._revision = Revision()
        self.settings = self._settings_file.applied_to(PrefetchSettings.from_environment())
        index_path = None if directory is None else directory / "index.json"
        self.catalog = LoraCatalog(host.lora_folders, index_path=index_path)
        limit_bytes, default_bytes = self.settings.budget_bytes, default_budget_bytes()
        budget = ByteBudget(default_bytes if limit_bytes is None else limit_bytes)
        self.cache = AdapterCache(budget, clock=time.monotonic)
        self.linked_loras = LinkedNames(partial(lora_state, self.catalog))
        self.target_models = TargetModels()
        self.loads = PerformanceTracker()
        self.diffusion_models = ModelFiles(lambda: host.model_folders("diffusion_models"))
        self.checkpoints = ModelFiles(lambda: host.model_folders("checkpoints"))
        self.linked_diffusion_models = LinkedNames(partial(model_state, self.diffusion_models))
        self.linked_checkpoints = LinkedNames(partial(model_state, self.checkpoints))
        self.prefetcher = Prefetcher(
            jobs=host.queued_jobs,
            references=payload_references,
            catalog=self.catalog,
            cache=self.cache,
            models=partial(found_models, host.model_folders),
            settings=self.settings,
            machine=Machine(headroom_bytes=self._headroom_bytes, state_folder=directory, progress=self._step_progress),
            shelf_refusal=_refusal(host.device_tier_refusal),
            default_budget_bytes=default_bytes,
        )
        prefetcher = self.prefetcher
        self._actions = Actions(self.catalog, self.cache, lambda: prefetcher.limiter, prefetcher.count_warmed)

    async def run(self) -> None:
        """Read ahead until cancelled or closed."""
        await self.prefetcher.run()

    def wake(self) -> None:
        """The queue may have changed."""
        self.prefetcher.wake()

    def release(self) -> None:
        """Let go of every adapter that nobody uses. What a model still holds goes with that model."""
        self.cache.clear()

    def embedding_folders(self) -> tuple[str, ...]:
        """Where text encoders find the embeddings that prompts name."""
        return self._host.model_folders("embeddings")

    def close(self) -> None:
        """Stop every reader."""
        self._actions.close()
        self.prefetcher.close()

    def status(self) -> dict[str, Any]:
        """One snapshot, JSON-able."""
        moment = self._moment(with_memory=True)
        return status_json(moment, self._revision.boot, self._revision.observe(moment.fingerprint), self._file_of)

    def revision(self) -> int:
        """What `status` would carry, without building it."""
        return self._revision.observe(self._moment(with_memory=False).fingerprint)

    def metrics(self) -> str:
        """The counters as Prometheus text."""
        return prometheus_text(self.prefetcher.status(), self.cache.snapshot())

    def plan(self, prompt: Mapping[str, Any], outputs: tuple[str, ...] | None = None) -> dict[str, Any]:
        """What `prompt` will load and where it stands; `outputs` limits it to what those nodes need."""
        return plan_json(self.prefetcher.plan_for((prompt, outputs)))

    def adapters(self, query: AdapterQuery) -> dict[str, Any]:
        """One page of the library. The first page looks at the folders: a deleted file must not stay listed."""
        if query.offset == 0:
            self.catalog.refresh()
        files = self.catalog.select(category=query.category, base_model=query.base_model)
        return AdapterTable(files, self.cache.snapshot(), self.prefetcher.status()).page(query)

    def base_model(self, kind: str, name: str) -> dict[str, Any]:
        """What the model file `name` is, as its header tells. Raises RequestError when there is no such file or its
        header is damaged."""
        files = self.checkpoints if kind == "checkpoints" else self.diffusion_models
        try:
            found = read_base_model(files.find(name))
        except ModelFileError as error:
            raise RequestError("unknown_model", str(error), 404) from None
        except SafetensorsLoadError:
            # Its text names the file with its folder.
            raise RequestError(
                "unreadable_model", f"model {name!r}: the header cannot be read; download it again"
            ) from None
        return {"base_model": found.name, "evidence": found.evidence}

    def act(self, verb: str, names: tuple[str, ...] | None) -> dict[str, Any]:
        """`verb`: warm, evict, pin or unpin. `names` None: every unpinned adapter (evict only)."""
        rows = self._actions.evict_unpinned() if names is None else self._actions.act(verb, names)
        return {"results": rows}

    def configure(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Apply and keep changed settings. Raises RequestError that names the setting at fault."""
        with self._changing:
            try:
                settings = self.settings.updated(changes)
            except ValueError as error:
                raise RequestError("invalid_setting", str(error)) from None
            self.prefetcher.configure(settings)
            self.settings = settings
            values = settings.as_json()
            kept = self._settings_file.keep({name: values[name] for name in changes})
        return {"settings": values, "kept": kept}

    def _moment(self, *, with_memory: bool) -> Moment:
        snapshot = self.catalog.snapshot
        return Moment(
            prefetch=self.prefetcher.status(),
            cache=self.cache.snapshot(),
            catalog_revision=snapshot.revision,
            catalog_files=len(snapshot.files),
            settings=self.settings.as_json(),
            memory=self._memory() if with_memory else None,
            now_s=time.monotonic(),
            loads=self.loads.summary(),
        )

    def _step_progress(self) -> float | None:
        """A host that keeps no such record, or another one, costs only this."""
        try:
            return self._host.step_progress()
        except Exception:
            return None

    def _headroom_bytes(self) -> int:
        """Below its headroom the host drops its own caches, which are dearer than ours: ours go first."""
        default_bytes = default_headroom_bytes()
        try:
            return max(default_bytes, self._host.headroom_bytes())
        except Exception:
            return default_bytes

    def _memory(self) -> MemoryState | None:
        """None where the host's account has changed or fails: the status and the budget do without."""
        try:
            return self._host.memory()
        except Exception:
            logger.debug("the host's memory cannot be read", exc_info=True)
            return None

    def _file_of(self, name: str) -> LoraFile | None:
        match = self.catalog.resolve(name)
        return match.file if isinstance(match, Found) else None


def _refusal(reason: Callable[[], str]) -> str:
    """Whatever the host's own modules raise, the device tier is refused and the rest goes on."""
    try:
        return reason()
    except Exception:
        logger.debug("the host's device cannot be told", exc_info=True)
        return "the host does not tell how it uses its device"


def _writable(directory: Callable[[], Path | None]) -> Path | None:
    """The directory, or None when there is none that can be written: state then lasts until the restart."""
    try:
        path = directory()
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
        return path
    except Exception:
        logger.debug("no state directory", exc_info=True)
        return None


class _Current:
    """The process's runtime. Nodes are classes that the host calls, so there is nobody to hand it to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runtime: Runtime | None = None

    def get(self) -> Runtime:
        with self._lock:
            if self._runtime is None:
                self._runtime = Runtime(_detached_host())
            return self._runtime

    def set(self, runtime: Runtime) -> None:
        with self._lock:
            self._runtime = runtime


_current = _Current()


def get_runtime() -> Runtime:
    """The runtime that was set; without one, a runtime that only loads on demand."""
    return _current.get()


def set_runtime(runtime: Runtime) -> None:
    """From now on the nodes work with `runtime`."""
    _current.set(runtime)


def _detached_host() -> Host:
    from .server.host import DetachedHost

    return DetachedHost()
