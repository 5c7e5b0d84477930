"""Forecast: the predictor's names as files that can be read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from ..queue.need import JobNeeds, Use
from .predictor import LoRAPrefetchPredictor, PredictorStats

MAX_FILES = 512


class Forecast:
    """Owned by the event loop. Knows only files that a job has used, in the way in which it used them."""

    def __init__(self) -> None:
        self._predictor = LoRAPrefetchPredictor()
        self._uses: OrderedDict[str, Use] = OrderedDict()

    def record(self, needs: JobNeeds) -> None:
        """A job has started."""
        for use in needs.uses:
            self._uses[use.file.name] = use
            self._uses.move_to_end(use.file.name)
        while len(self._uses) > MAX_FILES:
            self._uses.popitem(last=False)
        self._predictor.record([use.file.name for use in needs.uses])

    def next_uses(self) -> Iterator[Use]:
        """Most probable first."""
        for name in self._predictor.predict_next_loras():
            if name in self._uses:
                yield self._uses[name]

    def stats(self) -> PredictorStats:
        return self._predictor.stats()
