"""ReferenceBook: the references of every visible job, read once per job, in slices of the event loop's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from .job import JobKey, QueuedJob, References

SLICE_S = 0.001
"""How long the event loop is held between two breaths."""
READ_S = 0.1
"""How long a plan waits for the graphs of further jobs: as they are read, the queue may have moved."""
LARGE_INPUTS = 1500
"""A graph with more inputs is read in a thread: one reading cannot be sliced."""


class ReferenceBook:
    """Owned by the event loop. Payloads are immutable while queued, so a job is read once."""

    def __init__(
        self,
        references: Callable[[object], References],
        offload: Callable[[Callable[[], References]], Awaitable[References]],
    ) -> None:
        self._references = references
        self._offload = offload
        self._known: dict[JobKey, References] = {}

    def forget(self, jobs: Iterable[JobKey]) -> None:
        """Drops the references of jobs that are out of sight."""
        for key in jobs:
            self._known.pop(key, None)

    async def read(self, jobs: Sequence[QueuedJob]) -> Mapping[JobKey, References]:
        """References per job, those of `jobs` read now unless they are known, as many as `READ_S` is enough for."""
        deadline_s = time.perf_counter() + SLICE_S
        end_s = time.perf_counter() + READ_S
        for job in jobs:
            if time.perf_counter() >= end_s:
                break
            if job.key in self._known:
                continue
            if _is_large(job.payload):
                self._known[job.key] = await self._offload(partial(self._references, job.payload))
            else:
                self._known[job.key] = self._references(job.payload)
            if time.perf_counter() >= deadline_s:
                await asyncio.sleep(0)
                deadline_s = time.perf_counter() + SLICE_S
        return self._known


def _is_large(payload: object) -> bool:
    prompt = payload[0] if isinstance(payload, tuple) and payload else payload
    if not isinstance(prompt, dict):
        return False
    if len(prompt) > LARGE_INPUTS:
        return True
    nodes = [node for node in prompt.values() if isinstance(node, dict)]
    return sum(len(inputs) for node in nodes if isinstance(inputs := node.get("inputs"), dict)) > LARGE_INPUTS
