"""JobReads: whether the running job is reading from disk just now, told from how its bytes grow."""

from __future__ import annotations

BUSY_BYTES_PER_S = 8 << 20
"""Below this it is the small change of a server: modules, configurations, logs."""
LEAST_S = 0.2
"""Samples that are nearer to each other say more about one chunk than about a rate."""
STALE_S = 2.0
QUIET_S = 0.6
"""A job reads in bursts; with a pause for each gap of them, ours would fall into all the others."""
MOST_S = 10.0
"""How long one burst of reading is yielded to: a job that never stops reading must not starve the next."""


class JobReads:
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._sample: tuple[int, float] | None = None
        self._read_at_s = float("-inf")
        self._since_s: float | None = None
        """When the burst began that is going on, or whose end is too recent to be sure of."""

    @property
    def has_sample(self) -> bool:
        """The next sample of this job can be told from an earlier one."""
        return self._sample is not None

    def observe(self, read_bytes: int | None, now_s: float, *, waits: bool = False) -> None:
        """`read_bytes`: what the job has read so far, None when nobody counts. `waits`: it waits for a read of ours."""
        if waits or self._is_busy(read_bytes, now_s):
            self._read_at_s = now_s
            if self._since_s is None:
                self._since_s = now_s
        elif now_s - self._read_at_s > QUIET_S:
            self._since_s = None

    def forget(self) -> None:
        """No job runs any more, or another does."""
        self._sample = self._since_s = None

    def wants_disk(self, now_s: float) -> bool:
        """Others should keep off the job's disks."""
        return self._since_s is not None and now_s - self._since_s < MOST_S and now_s - self._read_at_s <= QUIET_S

    def _is_busy(self, read_bytes: int | None, now_s: float) -> bool:
        if read_bytes is None:
            self._sample = None
            return False
        if self._sample is None:
            self._sample = read_bytes, now_s
            return False
        before_bytes, before_s = self._sample
        seconds = now_s - before_s
        if seconds < LEAST_S:
            return False
        self._sample = read_bytes, now_s
        return seconds < STALE_S and read_bytes - before_bytes >= BUSY_BYTES_PER_S * seconds
