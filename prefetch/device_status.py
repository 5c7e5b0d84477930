"""DeviceStatus: what a status tells of the device tier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from ..lora.device.shelf_stats import ShelfSnapshot


class DeviceStatus(NamedTuple):
    """Adapters that are kept on the device beside the model, at one moment."""

    state: Literal["off", "on", "refused"] = "off"
    problem: str = ""
    """Why it is refused, or slow; "" when nothing is wrong."""
    device: str = ""
    limit_bytes: int = 0
    used_bytes: int = 0
    peak_bytes: int = 0
    pinned_bytes: int = 0
    """Of the host, for what is on its way."""
    adapters: int = 0
    hits: int = 0
    joins: int = 0
    misses: int = 0
    wait_s: float = 0.0
    """Seconds that demanding threads were blocked; what the device itself waits for a copy is not in it."""
    uploaded_bytes: int = 0
    prefetched_bytes: int = 0
    wasted_bytes: int = 0


def device_status(enabled: bool, refusal: str, shelf: ShelfSnapshot | None) -> DeviceStatus:
    """`refusal`: why there is no shelf although the tier is on."""
    if not enabled:
        return DeviceStatus()
    if shelf is None:
        return DeviceStatus("refused", refusal)
    stats = shelf.stats
    return DeviceStatus(
        state="on",
        problem=shelf.problem,
        device=shelf.device,
        limit_bytes=shelf.limit_bytes,
        used_bytes=shelf.used_bytes,
        peak_bytes=shelf.peak_bytes,
        pinned_bytes=shelf.pinned_bytes,
        adapters=len(shelf.adapters),
        hits=stats.hits,
        joins=stats.joins,
        misses=stats.misses,
        wait_s=stats.wait_s,
        uploaded_bytes=stats.uploaded_bytes,
        prefetched_bytes=stats.prefetched_bytes,
        wasted_bytes=stats.wasted_bytes,
    )
