"""Which resident adapters to give up: a pure choice. The rules that hold under every policy are here."""

from __future__ import annotations

from collections.abc import Iterable

from .policies import Candidate, EvictionPolicy


def eviction_order(candidates: Iterable[Candidate], policy: EvictionPolicy) -> list[Candidate]:
    """First to go first: what nobody has asked for, then as the policy ranks."""
    return sorted(candidates, key=lambda candidate: (not candidate.is_unasked, policy.rank(candidate)))


def choose_victims(candidates: Iterable[Candidate], needed_bytes: int, policy: EvictionPolicy) -> list[Candidate]:
    """The first of `eviction_order` that together free `needed_bytes`; all of them when that is not enough."""
    victims: list[Candidate] = []
    for candidate in eviction_order(candidates, policy):
        if needed_bytes <= 0:
            break
        victims.append(candidate)
        needed_bytes -= candidate.nbytes
    return victims


def victims_that_free(
    candidates: Iterable[Candidate], needed_bytes: int, policy: EvictionPolicy
) -> list[Candidate] | None:
    """`choose_victims`, all or nothing: None when they do not free enough. An adapter given up without gaining the room
    is a loss on both sides."""
    victims = choose_victims(candidates, needed_bytes, policy)
    return victims if sum(victim.nbytes for victim in victims) >= needed_bytes else None


def yields_to_prefetch(candidate: Candidate, next_use: int | None) -> bool:
    """Whether a prefetch for queue position `next_use` may displace `candidate`: do no harm. A prefetch that no queued
    job asked for (None) lives in free space alone.
    """
    return next_use is not None and (candidate.next_use is None or candidate.next_use > next_use)
