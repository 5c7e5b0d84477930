"""Whereabouts: which files are where, as a status tells it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

from ...lora.library.file import AdapterKey
from ..planning.plan import FetchKey, Limits, tier_of
from ..queue.need import Need, Tier, Use
from ..status import AdapterState


class Whereabouts(NamedTuple):
    """In memory, in the page cache, on the way there, or refused."""

    limits: Limits = Limits(None, None)
    resident: Container[AdapterKey] = frozenset()
    pages: Container[AdapterKey] = frozenset()
    loading: Container[FetchKey] = frozenset()
    no_room: Container[AdapterKey] = frozenset()
    failed: Mapping[AdapterKey, str] = {}

    def tier_of(self, need: Need) -> Tier | None:
        """Where the file is, or is being brought to; where it belongs while it is in neither tier."""
        key = need.key
        if not need.is_readable or key is None or need.file is None:
            return None
        if need.reference.via_cache and key in self.resident:
            return "resident"
        if key in self.pages or FetchKey(key, "page") in self.loading:
            return "page"
        return tier_of(Use(key, need.file, need.reference.via_cache), self.limits, self.no_room)

    def state_of(self, need: Need) -> AdapterState:
        file, key = need.file, need.key
        if file is None or key is None:
            return "ambiguous" if need.resolution.state == "ambiguous" else "missing"
        if file.problem:
            return "failed"
        tier = self.tier_of(need)
        if tier is not None and FetchKey(key, tier) in self.loading:
            return "loading"
        if key in (self.resident if tier == "resident" else self.pages):
            return "ready"  # a demand may have loaded what could not be read ahead
        return "failed" if key in self.failed else "cold"
