"""Jobs without a LoRA on a real ComfyUI, prefetch on and off in turn: what it costs a job that it does nothing for."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import HostClient
from .graphs import flux_graph
from .queue_run import require_success
from .server import HostInstall, HostServer

STEPS = 30
"""A job of a few hundred milliseconds: the host's own times are whole milliseconds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds of every job of the two sides, block by block."""

    first: tuple[tuple[float, ...], ...]
    second: tuple[tuple[float, ...], ...]

    def summary(self) -> dict[str, Any]:
        ratios = [
            statistics.median(second) / statistics.median(first)
            for first, second in zip(self.first, self.second, strict=True)
        ]
        sides = [[seconds for block in side for seconds in block] for side in (self.first, self.second)]
        low, high = spread_of_median(ratios)
        return {
            "jobs_each": len(sides[0]),
            "median_ms": [1000 * statistics.median(side) for side in sides],
            "ratio_of_medians": statistics.median(sides[1]) / statistics.median(sides[0]),
            "median_of_block_ratios": statistics.median(ratios),
            "block_ratios_95": [low, high],
        }


def compare_idle(install: HostInstall, base: Path, blocks: int, block_jobs: int) -> dict[str, Any]:
    """Twice on one server: off against off, which is the noise, and off against on."""
    with HostServer(install, base) as server:
        client = server.client
        require_success(client.run(*(job(f"warm {i}") for i in range(4))))
        return {
            "off_off": compared(client, (False, False), blocks, block_jobs).summary(),
            "off_on": compared(client, (False, True), blocks, block_jobs).summary(),
        }


def compared(client: HostClient, enabled: tuple[bool, bool], blocks: int, block_jobs: int) -> Comparison:
    """Blocks in turn; which side begins changes with every pair, so that a drift of the machine counts for neither."""
    sides: tuple[list[tuple[float, ...]], ...] = ([], [])
    for pair in range(blocks):
        for side in (0, 1) if pair % 2 else (1, 0):
            client.post("/warmstack/v1/settings", {"enabled": enabled[side]})
            ids = [client.queue(job(f"{enabled} {pair} {side} {index}")) for index in range(block_jobs)]
            finished = client.wait(ids)
            require_success(finished)
            sides[side].append(tuple(done.run_s for done in finished))
    return Comparison(tuple(sides[0]), tuple(sides[1]))


def job(tag: str) -> Any:
    prompt = flux_graph(tag=tag)
    prompt["sampler"]["inputs"] |= {"steps": STEPS, "seed": random.Random(tag).getrandbits(32)}
    return prompt


def spread_of_median(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Where the median of such values lies in 95 of 100 draws with replacement."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]
