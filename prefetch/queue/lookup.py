"""Lookup: which files the names mean that jobs ask for, as far as that is known by now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import TypeAlias

from ..rest import rest_s
from .job import Asked
from .need import Resolution
from .resolver import Resolver

RESTAT_S = 2.0
"""How late a replaced file may be noticed while it is being waited for, later where a look takes long; a demand always
looks for itself."""
AWAY_S = 10.0
"""From a look that could not reach what the last scan has found to the next, however long looks take: a share that hung
is back soon."""
PATIENCE_S = 0.25
"""How long planning waits for the disk: about as long as between two looks at the queue."""

Looked: TypeAlias = Mapping[Asked, Resolution]


class Lookup:
    """Owned by the event loop.

    A look at the disk takes milliseconds, or for ever if one file lies on a share that is gone. Once it takes long,
    nobody waits for it: names mean what they meant, new ones what the last scan has found. There is no second look
    before the first has ended.
    """

    def __init__(
        self,
        resolver: Resolver,
        begin: Callable[[Callable[[], Looked]], asyncio.Task[Looked]],
        clock: Callable[[], float],
        ended: Callable[[], None],
    ) -> None:
        """`begin` starts a blocking call in a thread. `ended()` is called on the loop when a look has ended for which
        nobody waited."""
        self._resolver = resolver
        self._begin = begin
        self._clock = clock
        self._ended = ended
        self._known: dict[Asked, Resolution] = {}
        self._unchecked: set[Asked] = set()
        """Of these only the scan has told."""
        self._look: asyncio.Task[Looked] | None = None
        self._revision: int | None = None
        self._scanned: int | None = None
        """The revision that `by_scan` has been asked of."""
        self._looked_at_s = 0.0
        """When the last look at all the names began."""
        self._looked_s = 0.0
        """How long looks took since then."""
        self._look_s = 0.0
        """How long the last one took, as its thread saw it: the event loop may stand still for reasons of its own."""
        self._missed_at_s = float("inf")
        """When a look that could not reach a file has ended."""

    @property
    def known(self) -> Looked:
        return self._known

    @property
    def is_stale(self) -> bool:
        """The disk should be asked again about all the names."""
        if self._look is not None:
            return False
        now_s = self._clock()
        is_old = now_s - self._looked_at_s >= rest_s(RESTAT_S, self._looked_s) or now_s - self._missed_at_s >= AWAY_S
        return bool(self._unchecked) or is_old or self._resolver.revision != self._revision

    def take_landed(self) -> bool:
        """Takes in what a look has found, or a scan while it goes on; True when a known name means another file now."""
        if self._look is None:
            return False
        if not self._look.done():
            return self._take_scanned()
        look, self._look = self._look, None
        self._looked_s += self._look_s
        found = look.result()
        moved = any(self._known.get(one, resolution) != resolution for one, resolution in found.items())
        self._known |= found
        self._unchecked -= found.keys()
        if any(resolution.is_away for resolution in found.values()):
            self._missed_at_s = self._clock()
        return moved

    async def find(self, asked: Set[Asked], stop: Callable[[], bool], *, anew: bool) -> bool:
        """Makes `asked` known; True when a name that was known means another file now. `anew`: these are all the
        names, and those that are known are looked at too."""
        if anew:
            self._known = {one: resolution for one, resolution in self._known.items() if one in asked}
            self._unchecked &= asked
            self._revision, self._looked_at_s = self._resolver.revision, self._clock()
            self._looked_s, self._missed_at_s = 0.0, float("inf")
        else:
            asked = asked - self._known.keys()
        if not asked:
            return False
        moved = await self._wait_for(partial(self._resolver.resolve, asked, stop)) if self._look is None else False
        for one in asked - self._known.keys():
            self._known[one] = self._resolver.by_scan(one)
            self._unchecked.add(one)
        return moved

    def _take_scanned(self) -> bool:
        """Of what no look has found to be there."""
        revision, moved = self._resolver.revision, False
        if revision != self._scanned:
            self._scanned = revision
            for one, known in self._known.items():
                if one in self._unchecked or known.state != "found":
                    scanned = self._known[one] = self._resolver.by_scan(one)
                    self._unchecked.add(one)
                    moved |= scanned != known
        return moved

    async def _wait_for(self, look: Callable[[], Looked]) -> bool:
        self._look = self._begin(partial(self._timed, look))
        await asyncio.wait({self._look}, timeout=PATIENCE_S)
        if not self._look.done():
            self._look.add_done_callback(lambda _: self._ended())
        return self.take_landed()

    def _timed(self, look: Callable[[], Looked]) -> Looked:
        """In a thread."""
        began_s = self._clock()
        try:
            return look()
        finally:
            self._look_s = self._clock() - began_s
