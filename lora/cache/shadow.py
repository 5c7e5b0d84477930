"""ShadowCache: what a plain cache of the same size, without prefetch, would hold now. Names and sizes, no bytes."""

from __future__ import annotations

from collections import OrderedDict

from ..library.file import AdapterKey


class ShadowCache:
    """LRU on demand. Knows nothing of leases and pins: where they bind, it claims more than such a cache could keep."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[AdapterKey, int] = OrderedDict()
        self._used_bytes = 0

    def demand(self, key: AdapterKey, nbytes: int, limit_bytes: int) -> bool:
        """Whether it had `key`; from now on it has, if that fits at all."""
        had = self._forget(key)
        while self._sizes and self._used_bytes + nbytes > limit_bytes:
            self._used_bytes -= self._sizes.popitem(last=False)[1]
        if nbytes <= limit_bytes:
            self._sizes[key] = nbytes
            self._used_bytes += nbytes
        return had

    def drop(self, key: AdapterKey) -> None:
        """Somebody asked for it to go."""
        self._forget(key)

    def _forget(self, key: AdapterKey) -> bool:
        nbytes = self._sizes.pop(key, None)
        self._used_bytes -= nbytes or 0
        return nbytes is not None
