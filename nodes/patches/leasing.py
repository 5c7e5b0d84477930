"""Acquiring every adapter of a stack, and the holder that keeps the leases as long as a patcher needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from ...lora.cache.lease import Lease
from ...lora.library.file import LoraFile
from ...lora.stacks.stack import LoraRow


class Acquirer(Protocol):
    """The cache, as far as a stack needs it."""

    def acquire(self, file: LoraFile, *, cancelled: Callable[[], bool]) -> Lease: ...


@dataclass(frozen=True, slots=True)
class LeasedRow:
    """One row of a stack with its adapter in memory."""

    row: LoraRow
    file: LoraFile
    lease: Lease


class LeaseHolder:
    """Leases that end when the last patcher that carries this holder is gone. The host copies attachments by reference
    when it clones a patcher, so the clones that later nodes make keep the adapters too."""

    __slots__ = ("_leases",)

    def __init__(self, leases: Iterable[Lease], earlier: object = None) -> None:
        """`earlier` is the attachment of the patcher that this stack builds on, whose patches use those adapters."""
        inherited: tuple[Lease, ...] = earlier._leases if isinstance(earlier, LeaseHolder) else ()
        self._leases: tuple[Lease, ...] = (*inherited, *leases)


def lease_rows(
    rows: Iterable[LoraRow],
    find: Callable[[LoraRow], LoraFile],
    cache: Acquirer,
    cancelled: Callable[[], bool],
    on_row: Callable[[], None] = lambda: None,
) -> tuple[LeasedRow, ...]:
    """All rows or none: the leases already taken are released when one row fails. `on_row` is called after each."""
    # Every name first: a stack with a bad name must not read gigabytes before it says so.
    named = [(row, find(row)) for row in rows]
    leased: list[LeasedRow] = []
    try:
        for row, file in named:
            leased.append(LeasedRow(row, file, cache.acquire(file, cancelled=cancelled)))
            on_row()
    except BaseException:
        for taken in leased:
            taken.lease.release()
        raise
    return tuple(leased)
