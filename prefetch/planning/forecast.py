"""Forecast: the predictor's names as files that can be read."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator

from ...lora.library.catalog import LoraCatalog
from ...lora.library.file import LoraFile
from ..queue.need import JobNeeds, Tier, Use
from .habits import Habits, NamedLora, Run
from .predictor import LoRAPrefetchPredictor, PredictorStats

MAX_FILES = 512


class Forecast:
    """Owned by the event loop. Knows only files that a job has used, in the way in which it used them."""

    def __init__(self, catalog: LoraCatalog | None = None) -> None:
        """`catalog` finds the files of jobs before the restart."""
        self._catalog = catalog
        self._predictor = LoRAPrefetchPredictor()
        self._habits = Habits()
        self._uses: OrderedDict[str, Use] = OrderedDict()
        self._tiers: dict[str, Tier] = {}

    def record(self, needs: JobNeeds) -> None:
        """A job has started."""
        for use in needs.uses:
            self._uses[use.file.name] = use
            self._uses.move_to_end(use.file.name)
        while len(self._uses) > MAX_FILES:
            self._uses.popitem(last=False)
        run = Run(tuple(map(_named, needs.uses)), 1)
        self._predictor.record(run.names)
        self._habits.add(run)

    def next_uses(self) -> Iterator[Use]:
        """Most probable first."""
        for name in self._predictor.predict_next_loras():
            use = self._uses.get(name) or self._past_use(name)
            if use is not None:
                yield use

    def stats(self) -> PredictorStats:
        return self._predictor.stats()

    def go_on_from(self, past: Habits, predictor: LoRAPrefetchPredictor) -> None:
        """`past` came before everything recorded; `predictor` has learnt it and nothing else."""
        self._tiers = {lora.name: lora.tier for run in past for lora in run.loras}
        predictor.learn(self._habits.stacks())
        self._predictor, self._habits = predictor, Habits([*past, *self._habits])

    def _past_use(self, name: str) -> Use | None:
        tier = self._tiers.get(name)
        file = None if tier is None or self._catalog is None else _file_named(name, self._catalog)
        if file is None or file.is_pickle or file.problem:
            return None
        return Use(file.key, file, tier == "resident")


def _file_named(name: str, catalog: LoraCatalog) -> LoraFile | None:
    """By its very name: whatever else the file of habits may hold names nothing."""
    files = catalog.snapshot.files
    place = bisect_left(files, name, key=lambda file: file.name)
    return files[place] if place < len(files) and files[place].name == name else None


def _named(use: Use) -> NamedLora:
    return NamedLora(use.file.name, "resident" if use.via_cache else "page")
