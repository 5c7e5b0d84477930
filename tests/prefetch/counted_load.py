"""CountedLoad: the cache's real loader, counting what runs, what failed and which buffers live."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable

from warmstack.loaders.reading.tensor_file import Storage
from warmstack.loaders.system.rate_limit import RateLimit
from warmstack.lora.cache.adapter import Adapter, load_adapter
from warmstack.lora.errors import AdapterLoadError
from warmstack.lora.library.file import AdapterKey, LoraFile

from .held_reads import Passing
from .world import ManualPool


class CountedLoad:
    """Background reads come by `reads` before every chunk."""

    def __init__(self, reads: ManualPool) -> None:
        self.most_active = 0
        """The most loads of one content that ever ran at once."""
        self.failures: Counter[AdapterKey] = Counter()
        """Loads that found the content at fault."""
        self.reserved_bytes = 0
        """Of the private loads that run now."""
        self.background: Counter[AdapterKey] = Counter()
        """Loads that run now for a prefetch."""
        self._reads = reads
        self._lock = threading.Lock()
        self._active: Counter[AdapterKey] = Counter()
        self._buffers: list[tuple[weakref.ref[object], int]] = []

    @property
    def live_bytes(self) -> int:
        """File bytes of every private buffer that is still in memory."""
        return sum(nbytes for buffer, nbytes in self._buffers if buffer() is not None)

    def __call__(
        self, file: LoraFile, *, cancelled: Callable[[], bool], storage: Storage, limiter: RateLimit | None = None
    ) -> Adapter:
        reserved_bytes = file.size_bytes if storage == "private" else 0
        self._count(file.key, 1, reserved_bytes, limiter is not None)
        try:
            slowed = None if limiter is None else Passing(limiter, self._reads)
            adapter = load_adapter(file, cancelled=cancelled, limiter=slowed, storage=storage)
            if adapter.buffer is not None:
                self._buffers.append((weakref.ref(adapter.buffer), file.size_bytes))
            return adapter
        except AdapterLoadError as error:
            self.failures[file.key] += type(error) is AdapterLoadError
            raise
        finally:
            self._count(file.key, -1, -reserved_bytes, limiter is not None)

    def _count(self, key: AdapterKey, loads: int, reserved_bytes: int, is_background: bool) -> None:
        with self._lock:
            self._active[key] += loads
            self.background[key] += loads * is_background
            self.reserved_bytes += reserved_bytes
            self.most_active = max(self.most_active, self._active[key])
