"""DeviceAdapter: the use that one stream makes of an adapter on a device."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

import torch

from ...loaders.reading.flat_views import FlatViews, TensorSpec, address_of
from ...loaders.upload.copy_device import CopyEvent, Fence
from ..cache.adapter import Adapter
from ..cache.lease import AcquireOutcome
from ..library.file import AdapterKey

Twin = Callable[[torch.Tensor], torch.Tensor]


class Use:
    """One stream that works with a buffer, and what tells when it is through."""

    __slots__ = ("count", "ended", "fence")

    def __init__(self, count: Holds, fence: Fence) -> None:
        self.count = count
        self.fence = fence
        self.ended: CopyEvent | None = None
        """Known once the last work was queued; a use that was dropped has none, and its stream is asked later."""


class Holds:
    """The uses of one buffer. It does not know the buffer: ends of uses queue up, and must not keep memory alive."""

    __slots__ = ("count", "moments")

    def __init__(self) -> None:
        self.count = 0
        self.moments: list[CopyEvent] = []
        """When each stream is through with it."""

    def take_in(self, use: Use) -> None:
        """`use` has ended."""
        self.count -= 1
        self.moments = [moment for moment in self.moments if not moment.done]
        self.moments.append(use.fence() if use.ended is None else use.ended)

    @property
    def is_free(self) -> bool:
        return not self.count and all(moment.done for moment in self.moments)


class DeviceAdapter:
    """Tensors for the stream that was current when it was handed out, until `release` or until this is garbage
    collected: the memory stays theirs until that stream is through with what was queued by then. A tensor that is kept
    longer keeps the memory, but nobody waits any more for what a stream does with it: clone it.

    `outcome`: `hit` (it was there), `join` (it was on its way: the stream waits, the thread as a rule does not), `miss`
    (this demand sent it). `wait_s`: seconds that the thread was blocked."""

    __slots__ = ("__weakref__", "_dropped", "_ended", "_tensors", "_use", "key", "outcome", "wait_s")

    def __init__(
        self,
        key: AdapterKey,
        tensors: FlatViews,
        outcome: AcquireOutcome,
        wait_s: float,
        use: Use,
        ended: deque[Use],
    ) -> None:
        self.key = key
        self.outcome: AcquireOutcome = outcome
        self.wait_s = wait_s
        self._tensors: FlatViews | None = tensors
        self._use = use
        self._ended = ended
        self._dropped = weakref.finalize(self, ended.append, use)
        self._dropped.atexit = False

    @property
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The file's tensors. Raises RuntimeError after `release()`."""
        return self._views()

    def mirrors(self, specs: Mapping[str, TensorSpec]) -> bool:
        """Whether the file's tensors stand in the device's memory as `specs` says. Always, but for one that was read
        in another way since."""
        return self._views().specs == specs

    def twins(self, adapter: Adapter) -> Twin:
        """What turns views of `adapter`, the same file in host memory, into the same views on the device. Tensors that
        are no views of it come back as they are. Raises RuntimeError after `release()`."""
        views = self._views()
        if adapter.key != self.key or adapter.buffer is None:
            raise ValueError("another file, or one without memory of its own, has no twins here")
        origin = address_of(adapter.buffer)

        def twin(tensor: torch.Tensor) -> torch.Tensor:
            found = views.twin(tensor, origin)
            return tensor if found is None else found

        return twin

    def release(self) -> None:
        """The last work with the tensors was queued on the stream. Idempotent."""
        self._tensors = None
        if self._dropped.detach() is not None:
            self._use.ended = self._use.fence()
            self._ended.append(self._use)

    def _views(self) -> FlatViews:
        if self._tensors is None:
            raise RuntimeError("the device adapter was released; ask the shelf for it again")
        return self._tensors

    def __enter__(self) -> DeviceAdapter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
