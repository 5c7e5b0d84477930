"""Alarm: rings once for all who asked, never later than the earliest wants."""

from __future__ import annotations

import asyncio

from warmstack.prefetch.alarm import Alarm

LONG_S = 3600.0


async def test_it_rings_once_for_many() -> None:
    rung: list[int] = []
    alarm = Alarm(lambda: rung.append(1))
    for _ in range(3):
        alarm.within(0.001)
    await asyncio.sleep(0.02)
    assert rung == [1]
    alarm.within(0.0)
    await asyncio.sleep(0.01)
    assert rung == [1, 1]


async def test_who_is_in_a_hurry_does_not_wait_for_those_who_are_not() -> None:
    rung = asyncio.Event()
    alarm = Alarm(rung.set)
    alarm.within(LONG_S)
    alarm.within(0.0)
    await asyncio.wait_for(rung.wait(), 10.0)


async def test_who_is_not_in_a_hurry_does_not_put_it_off() -> None:
    rung = asyncio.Event()
    alarm = Alarm(rung.set)
    alarm.within(0.001)
    alarm.within(LONG_S)
    await asyncio.wait_for(rung.wait(), 10.0)


async def test_stopped_it_does_not_ring() -> None:
    rung: list[int] = []
    alarm = Alarm(lambda: rung.append(1))
    alarm.within(0.0)
    alarm.stop()
    await asyncio.sleep(0.01)
    assert not rung
