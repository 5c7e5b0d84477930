"""Lease: the promise that one adapter stays resident while somebody uses it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .adapter import Adapter

AcquireOutcome = Literal["hit", "join", "miss"]


class Lease:
    """One use of an adapter. Lives until released or garbage collected; attach it to whatever holds the tensors.

    `outcome`: `hit` (it was there), `join` (its load was in flight), `miss` (this acquire loaded it).
    `wait_s`: seconds that the acquire blocked.
    """

    __slots__ = ("__weakref__", "_adapter", "_end", "outcome", "wait_s")

    def __init__(self, adapter: Adapter, outcome: AcquireOutcome, wait_s: float, ended: Callable[[], None]) -> None:
        """`ended` runs once, in whichever thread drops the lease, perhaps inside the garbage collector: no locks."""
        self._adapter: Adapter | None = adapter
        self.outcome = outcome
        self.wait_s = wait_s
        self._end = weakref.finalize(self, ended)
        self._end.atexit = False

    @property
    def adapter(self) -> Adapter:
        """The leased adapter. Raises RuntimeError after `release()`: its buffer may be gone."""
        if self._adapter is None:
            raise RuntimeError("the lease was released; acquire the adapter again")
        return self._adapter

    def release(self) -> None:
        """Ends the lease. Idempotent; takes no lock, so a host's finalizer may call it."""
        self._adapter = None
        self._end()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
