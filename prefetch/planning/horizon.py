"""Horizon: which visible job uses each file first, kept in step with the queue instead of being read anew per plan."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence, Set
from operator import is_, itemgetter

from ...lora.library.file import AdapterKey, LoraFile
from ..queue.need import JobNeeds, Tier, Use
from .plan import Fetch, Limits, Plan, Warm

_USE_BITS = 20
"""The order of a use is the ordinal of its job, shifted by this, plus its place in the job: they sort as needs do."""

NEAREST = 16
"""Fetches of every disk that a plan names. Most plans are replaced after a few reads; what comes later is counted, not
named."""

SPILLED_JOBS = 4
"""Jobs behind the first whose files get warm pages while the resident tier does not reach them: as many as the margins
of a timetable may make due at once. Those behind them have time until it does."""


_Cold = tuple[int, AdapterKey, Tier]
"""What has to be read, behind the order of its first use."""


class _Firsts:
    """The order of each file's earliest use, and the files themselves."""

    __slots__ = ("files", "largest_bytes", "orders", "total_bytes")

    def __init__(self) -> None:
        self.orders: dict[AdapterKey, int] = {}
        self.files: dict[AdapterKey, LoraFile] = {}
        self.total_bytes = 0
        self.largest_bytes = 0
        """No file is larger; the largest of all may be gone."""

    def copy(self) -> _Firsts:
        other = _Firsts()
        other.orders, other.files = self.orders.copy(), self.files.copy()
        other.total_bytes, other.largest_bytes = self.total_bytes, self.largest_bytes
        return other

    def put(self, key: AdapterKey, file: LoraFile, order: int) -> None:
        """Keeps the earlier order of a file that is there."""
        known = self.orders.get(key)
        if known is None:
            self.files[key] = file
            self.total_bytes += file.size_bytes
            self.largest_bytes = max(self.largest_bytes, file.size_bytes)
        self.orders[key] = order if known is None else min(known, order)

    def drop(self, key: AdapterKey) -> None:
        del self.orders[key]
        self.total_bytes -= self.files.pop(key).size_bytes

    def parted(self, limit_bytes: int | None, refused: Set[AdapterKey]) -> tuple[_Firsts, _Firsts]:
        """Those that may be resident, and those that have to do with warm pages."""
        if limit_bytes is None:
            return _Firsts(), self
        out = self.orders.keys() & refused
        if self.largest_bytes > limit_bytes:
            out |= {key for key, file in self.files.items() if file.size_bytes > limit_bytes}
        if not out:
            return self, _Firsts()
        kept, spilled = self.copy(), _Firsts()
        for key in out:
            spilled.put(key, kept.files[key], kept.orders[key])
            kept.drop(key)
        return kept, spilled

    def merged(self, others: _Firsts) -> _Firsts:
        if not others.orders:
            return self
        both = self.copy()
        for key, order in others.orders.items():
            both.put(key, others.files[key], order)
        return both


class _Uses:
    """Every use of one kind."""

    def __init__(self) -> None:
        self.firsts = _Firsts()
        self._later: dict[AdapterKey, deque[int]] = {}

    def append(self, use: Use, order: int) -> None:
        """`order` is later than every other."""
        if use.key in self.firsts.orders:
            self._later.setdefault(use.key, deque()).append(order)
        else:
            self.firsts.put(use.key, use.file, order)

    def pop(self, key: AdapterKey) -> None:
        """Forgets the earliest use of `key`."""
        later = self._later.get(key)
        if later is None:
            self.firsts.drop(key)
            return
        self.firsts.orders[key] = later.popleft()
        if not later:
            del self._later[key]


class _Positions(Mapping[AdapterKey, int]):
    """Position of the job of each use, worked out when somebody asks: a copy of the orders costs less by far."""

    __slots__ = ("_head", "_orders")

    def __init__(self, orders: dict[AdapterKey, int], head: int) -> None:
        self._orders = orders
        self._head = head

    def __getitem__(self, key: AdapterKey) -> int:
        return (self._orders[key] >> _USE_BITS) - self._head

    def __iter__(self) -> Iterator[AdapterKey]:
        return iter(self._orders)

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, key: object) -> bool:
        return key in self._orders

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Positions) and self._head == other._head:
            return self._orders == other._orders
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and all(other.get(key) == position for key, position in self.items())


class _Rest(Collection[tuple[AdapterKey, int]]):
    """Files and positions, worked out when somebody asks: most plans are followed without."""

    __slots__ = ("_cold", "_head")

    def __init__(self, cold: Sequence[_Cold], head: int) -> None:
        self._cold = cold
        self._head = head

    def __len__(self) -> int:
        return len(self._cold)

    def __iter__(self) -> Iterator[tuple[AdapterKey, int]]:
        return ((key, (order >> _USE_BITS) - self._head) for order, key, _ in self._cold)

    def __contains__(self, read: object) -> bool:
        return read in tuple(self)


class Horizon:
    """`follow` the queue, then ask for a `plan`. Owned by the event loop.

    Most looks at a queue find its first job gone and a new last one: that costs by the job, not by the horizon.
    """

    def __init__(self, nearest: int = NEAREST) -> None:
        """`nearest`: how many fetches of every disk a plan names."""
        self._nearest = nearest
        self._jobs: tuple[JobNeeds, ...] = ()
        self._head = 0
        """Ordinal of the first job."""
        self._acquired = _Uses()
        """What our own readers take from the cache."""
        self._read = _Uses()
        """What everybody else reads through the page cache."""

    def follow(self, jobs: Sequence[JobNeeds]) -> None:
        """Takes in the visible jobs as they are now, in running order, running first."""
        previous, self._jobs = self._jobs, tuple(jobs)
        gone = _gone_from_the_front(previous, self._jobs)
        for job in previous[:gone]:
            for use in job.uses:
                self._uses_of(use).pop(use.key)
        self._head += gone
        stayed = len(previous) - gone
        for ordinal, job in enumerate(self._jobs[stayed:], self._head + stayed):
            for order, use in enumerate(job.uses, ordinal << _USE_BITS):
                self._uses_of(use).append(use, order)

    def plan(self, limits: Limits, warm: Warm, disk_of: Callable[[str], Hashable] | None = None) -> Plan:
        """Earliest need first, each tier just as deep as its bytes reach. `disk_of` tells paths of several disks apart:
        what is due on one that is slow, or hangs, keeps no file of another out of the plan."""
        acquired, read, pages = self._acquired.firsts, self._read.firsts, _Firsts()
        resident, spilled = acquired.parted(limits.resident_bytes, warm.no_room)
        end = self._end_of_reach(resident, limits.resident_bytes or 0)
        cold = self._cold(resident, "resident", end, limits.depth_jobs, warm.resident, warm.failed)
        if limits.page_bytes is not None:
            spilled = spilled.merged(self._beyond(resident, end))
            pages = read.merged(spilled)
            end = self._end_of_reach(pages, limits.page_bytes)
            # Our own readers have no use for the pages of what they find in the cache.
            held = (spilled.orders.keys() - read.orders.keys()) & warm.resident
            cold += self._cold(pages, "page", end, limits.depth_jobs, warm.pages, warm.failed, held)
        cold.sort(key=itemgetter(0))
        named, rest = self._nearest_of(cold, disk_of)
        files, head = {"resident": resident.files, "page": pages.files}, self._head
        return Plan(
            tuple([Fetch(files[tier][key], tier, (order >> _USE_BITS) - head) for order, key, tier in named]),
            frozenset(resident.orders),
            frozenset(pages.orders),
            _Positions(acquired.orders.copy(), head),
            _Rest(rest, head) if rest else (),
        )

    def _nearest_of(
        self, cold: list[_Cold], disk_of: Callable[[str], Hashable] | None
    ) -> tuple[Sequence[_Cold], Sequence[_Cold]]:
        """What a plan names, and what it counts."""
        if disk_of is None or len(cold) <= self._nearest:
            return cold[: self._nearest], cold[self._nearest :]
        named: list[_Cold] = []
        rest: list[_Cold] = []
        counts: dict[Hashable, int] = {}
        for one in cold:
            disk = disk_of(one[1].path)
            count = counts[disk] = counts.get(disk, 0) + 1
            (named if count <= self._nearest else rest).append(one)
        return named, rest

    def _uses_of(self, use: Use) -> _Uses:
        return self._acquired if use.via_cache else self._read

    def _beyond(self, resident: _Firsts, end: float) -> _Firsts:
        """What the next jobs acquire that the resident tier does not reach: until it does, warm pages have to do."""
        beyond = _Firsts()
        if end == math.inf:
            return beyond
        for job in self._jobs[: SPILLED_JOBS + 1]:
            for use in job.uses:
                order = resident.orders.get(use.key) if use.via_cache else None
                if order is not None and order >= end:
                    beyond.put(use.key, use.file, order)
        return beyond

    def _cold(
        self, firsts: _Firsts, tier: Tier, end: float, depth_jobs: int | None, *warm: Iterable[AdapterKey]
    ) -> list[_Cold]:
        """What is needed before `end` and not `warm`, with the order of its first use."""
        orders = firsts.orders
        if depth_jobs is not None:
            end = min(end, (self._head + depth_jobs + 1) << _USE_BITS)
        cold = set(orders).difference(*warm)
        return [(order, key, tier) for key in cold if (order := orders[key]) < end]

    def _end_of_reach(self, firsts: _Firsts, limit_bytes: int) -> float:
        """The order of the first use that is out of reach.

        What is warm counts too, so that a plan stays right while its fetches are carried out. The first file that does
        not fit ends the reach, so that nothing overtakes it; the first job gets its own.
        """
        if limit_bytes <= 0:
            return 0
        if firsts.total_bytes > limit_bytes:
            left_bytes = limit_bytes
            for key, order in sorted(firsts.orders.items(), key=itemgetter(1)):
                left_bytes -= firsts.files[key].size_bytes
                if left_bytes < 0 and order >> _USE_BITS > self._head:
                    return order
        return math.inf


def make_plan(jobs: Sequence[JobNeeds], limits: Limits, warm: Warm) -> Plan:
    """The plan for a queue seen once. `jobs` in running order, running first."""
    horizon = Horizon()
    horizon.follow(jobs)
    return horizon.plan(limits, warm)


def _gone_from_the_front(before: tuple[JobNeeds, ...], after: tuple[JobNeeds, ...]) -> int:
    """How many jobs of `before` have to go so that the others are the beginning of `after`."""
    # A job that has merely started is another object with the same needs.
    needed, needed_now = [job.needs for job in before], [job.needs for job in after]
    for gone, needs in enumerate(needed):
        stayed = len(needed) - gone
        if needed_now and needs is needed_now[0] and all(map(is_, needed[gone:], needed_now)) and stayed <= len(after):
            return gone
    return len(before)
