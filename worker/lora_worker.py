"""LoRAWorker: LoRAs for diffusers pipelines, from one catalog and one cache."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import psutil

from ..lora.cache.budget import ByteBudget
from ..lora.cache.cache import AdapterCache
from ..lora.cache.default_budget import default_budget_bytes
from ..lora.device.device_adapter import DeviceAdapter
from ..lora.device.device_shelf import DeviceShelf
from ..lora.device.device_tier import DeviceRefusedError, open_shelf
from ..lora.errors import LoraError
from ..lora.fusing.fuse import PlainLora
from ..lora.library.catalog import LoraCatalog
from ..lora.library.file import LoraFile
from ..lora.stacks.stack import LoraStack
from .application import Application, WorkerStatus
from .base_weights import BaseWeights
from .config import LoRAWorkerConfig
from .errors import StackError
from .fitted_row import FittedRow, strength_for
from .fitting import fit_adapter
from .lora_pipeline import LoraPipeline, Place
from .originals import Originals
from .stack_of import StackLike, stack_of

logger = logging.getLogger(__name__)


class LoRAWorker:
    """Applies stacks to pipelines and takes them off again to the last bit.

    A pipeline must not run while its stack changes. What others write into its weights (`fuse_lora`,
    `load_state_dict`) while it has a stack goes with the stack; while it has none, it is the pipeline's own. Pipelines
    that share models (`from_pipe`) are one pipeline there: the stack that was applied last, through whichever of them,
    is the one that a shared model has. Serve pipelines that share models with one worker: it alone knows their own
    weights. `catalog` and `cache` may be shared with a prefetcher that warms the adapters of the next request
    meanwhile.
    """

    def __init__(self, config: LoRAWorkerConfig, *, shelf: DeviceShelf | None = None) -> None:
        """`shelf` keeps adapters on the pipelines' device; without one, `config.device` decides. The worker closes
        it."""
        self.config = config
        self.catalog = LoraCatalog(self._folders, index_path=config.index_path)
        self.cache = AdapterCache(ByteBudget(_budget_bytes(config)))
        self.shelf, self._device_problem = (shelf, "") if shelf is not None else _open_shelf(config)
        self._originals = Originals()
        self._lock = threading.Lock()

    def discover(self) -> tuple[LoraFile, ...]:
        """Scans the directories again (headers only); every LoRA found, sorted by name."""
        return self.catalog.refresh().files

    def apply_to_pipeline(
        self, pipeline: LoraPipeline, adapter_names: StackLike, strengths: Sequence[float] | None = None
    ) -> Application:
        """Makes `adapter_names` the pipeline's stack, whatever was applied before. What it may be: see `stack_of`.

        UNet or transformer take a row's `strength_model`, text encoders its `strength_clip`. Of two transformers (Wan
        2.2) a row is for the one that its `target` or else its file names. The weights are computed from the originals
        and rounded once. Raises LoraSyntaxError for what cannot be read, and StackError when any row is missing,
        ambiguous, unreadable or for another model: the pipeline then has its base weights. Raises
        OffloadedError, and changes nothing, for weights that are offloaded layer by layer or to disk, and
        QuantisedError for those that were quantised while a stack was on.
        """
        stack = stack_of(adapter_names, strengths, category_of=self.catalog.category_of)
        with self._lock, ExitStack() as leases:
            weights = BaseWeights(pipeline, self._originals)
            try:
                fitted = self._fit(pipeline, weights, stack, leases)
                started_s = time.perf_counter()
                used = self._on_device(weights, fitted, leases)
                updates = _updates(fitted, used)
                weights.update(updates)
            except BaseException:
                weights.restore()
                raise
            apply_s = time.perf_counter() - started_s + sum(item.fit_s for item in fitted)
            reached = {component for item in fitted for component in item.components}
            rows = tuple(item.applied(there, reached) for item, there in zip(fitted, used, strict=True))
            applied = Application(rows, len(updates), apply_s)
            files = [item.file for item in fitted]
            del fitted, used, updates
        self._trim(files)
        self._log_memory()
        return applied

    def remove_from_pipeline(self, pipeline: LoraPipeline) -> None:
        """Gives the pipeline its own weights back, bit for bit, whoever of those that share them has applied a stack.
        Raises OffloadedError and QuantisedError. A component that was replaced since keeps what it had."""
        with self._lock:
            BaseWeights(pipeline, self._originals).restore()

    def forget(self, pipeline: LoraPipeline) -> None:
        """`remove_from_pipeline`, and drops the copies of its weights: they are taken anew at the next application."""
        with self._lock:
            BaseWeights(pipeline, self._originals).forget()

    def yield_device_memory(self) -> bool:
        """The device is full: lets go of every adapter there, and keeps half as much from now on. False when there was
        nothing to give."""
        if self.shelf is None or not self.shelf.snapshot().used_bytes:
            return False
        self.shelf.resize(self.shelf.limit_bytes // 2)
        self.shelf.clear()
        return True

    def close(self) -> None:
        """Gives back what is held on the device. Pipelines keep their weights as they are."""
        if self.shelf is not None:
            self.shelf.close()

    def status(self) -> WorkerStatus:
        """What is known, in memory and on the device at this moment."""
        view = self.cache.snapshot()
        device = None if self.shelf is None else self.shelf.snapshot()
        return WorkerStatus(
            files=len(self.catalog.snapshot.files),
            resident_bytes=view.used_bytes,
            budget_bytes=view.limit_bytes,
            base_copy_bytes=self._originals.nbytes,
            hits=view.stats.hits,
            joins=view.stats.joins,
            misses=view.stats.misses,
            evictions={str(reason): count for reason, count in view.stats.evictions.items()},
            process_bytes=psutil.Process().memory_info().rss if self.config.enable_memory_monitoring else None,
            device=device,
            device_problem=self._device_problem if device is None else device.problem,
        )

    def _folders(self) -> list[str]:
        return [str(folder) for folder in self.config.lora_directories]

    def _fit(
        self, pipeline: LoraPipeline, weights: BaseWeights, stack: LoraStack, leases: ExitStack
    ) -> list[FittedRow]:
        """All rows, or a StackError with every problem, so that a person mends a request once."""
        fitted: list[FittedRow] = []
        problems: list[LoraError] = []
        for row in stack.active:
            try:
                file = self.catalog.find(row.name, row.category)
                lease = leases.enter_context(self.cache.acquire(file))
                started_s = time.perf_counter()
                fit = fit_adapter(pipeline, weights, file.name, row.target, lease.adapter, self.cache)
                fit.require_open(file.name, partial(strength_for, row))
                fitted.append(FittedRow(row, file, lease, fit, time.perf_counter() - started_s))
            except LoraError as problem:
                problems.append(problem)
        if problems:
            raise StackError(tuple(problems))
        return fitted

    def _on_device(
        self, weights: BaseWeights, fitted: Sequence[FittedRow], uses: ExitStack
    ) -> list[DeviceAdapter | None]:
        """For each row its adapter on the device of the weights, or None; until `uses` ends."""
        if self.shelf is None or weights.device != self.shelf.device:
            return [None] * len(fitted)
        found = [self.shelf.acquire(item.lease.adapter) for item in fitted]
        for used in filter(None, found):
            uses.enter_context(used)
        return found

    def _trim(self, files: Sequence[LoraFile]) -> None:
        """Holds the cache to `enable_caching` and `cache_size`, least recently used first."""
        if not self.config.enable_caching:
            for file in files:
                self.cache.evict(file.key)
        elif self.config.cache_size is not None:
            ready = [view for view in self.cache.snapshot().adapters if view.storage == "private" and not view.leases]
            used = [view for view in ready if view.last_used_s is not None]
            used.sort(key=lambda view: view.last_used_s or 0.0)
            for view in used[: max(0, len(ready) - self.config.cache_size)]:
                self.cache.evict(view.key)

    def _log_memory(self) -> None:
        if self.config.enable_memory_monitoring:
            logger.info("memory after application: %s", self.status())


def _budget_bytes(config: LoRAWorkerConfig) -> int:
    limit_bytes = config.memory_limit_bytes
    return default_budget_bytes() if limit_bytes is None else limit_bytes


def _open_shelf(config: LoRAWorkerConfig) -> tuple[DeviceShelf | None, str]:
    if config.device is None or config.device_budget_mb == 0:
        return None, ""
    try:
        return open_shelf(config.device, config.device_budget_bytes, config.pinned_budget_bytes), ""
    except DeviceRefusedError as problem:
        logger.info("%s", problem)
        return None, str(problem)


def _updates(fitted: Sequence[FittedRow], used: Sequence[DeviceAdapter | None]) -> dict[Place, list[PlainLora]]:
    """Per weight the updates of all rows."""
    updates: dict[Place, list[PlainLora]] = {}
    for item, there in zip(fitted, used, strict=True):
        for place, lora in item.updates(there):
            updates.setdefault(place, []).append(lora)
    return updates
