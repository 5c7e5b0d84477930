"""The device tier: which adapters go there, when, and what stays away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warmstack.loaders.transfer import DeviceTransfer
from warmstack.loaders.upload.fake_device import FakeDevice
from warmstack.lora.cache.budget import ByteBudget
from warmstack.lora.device.device_shelf import DeviceShelf
from warmstack.prefetch.settings import PrefetchSettings

from .world import World

SIZE = 4096


class Upstairs:
    """A world with a shelf on a fake device; adapters are of about SIZE bytes."""

    def __init__(self, root: Path, *, budget_bytes: int = 1 << 20, **settings: Any) -> None:
        self.device = FakeDevice(lag=0)
        self.budget = ByteBudget(budget_bytes)
        transfer = DeviceTransfer(self.device, slots=2, slot_bytes=1024, fillers=1)
        self.shelf = DeviceShelf(transfer, self.budget)
        self.world = World(root, **{"device_tier": True, **settings})
        self.world.build(shelf=self.shelf)
        for name in "abc":
            self.world.lora(name, SIZE)

    def submit(self, job_id: str, *names: str) -> None:
        self.world.submit(job_id, *(f"{name}.safetensors" for name in names), resident=True)

    async def settle(self) -> None:
        """Readings come to rest, the poll comes round, and uploads come to rest."""
        for _ in range(3):
            await self.world.settle()
            self.world.now_s += 1.0

    async def read_only(self) -> None:
        """One file becomes resident, and its upload waits for a thread."""
        await self.world.settle(reads=False)
        self.world.reads.run_next()
        await self.world.settle(reads=False)
        assert len(self.world.reads.waiting) == 1

    @property
    def there(self) -> set[str]:
        return {Path(view.key.path).stem for view in self.shelf.snapshot().adapters}


async def test_adapters_of_the_next_jobs_go_up_once_they_are_resident(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    house.submit("2", "b", "a")
    await house.settle()
    assert house.there == {"a", "b"}
    status = house.world.prefetcher.status()
    assert (status.device.state, status.device.adapters, status.device.problem) == ("on", 2, "")
    assert status.device.prefetched_bytes == house.budget.used_bytes
    # An upload is nobody's demand.
    assert (status.hits, status.joins, status.misses) == (0, 0, 0)
    assert all(view.leases == 0 for view in house.world.cache.snapshot().adapters)
    await house.world.close()


async def test_the_budget_ends_the_reach_in_queue_order(tmp_path: Path):
    house = Upstairs(tmp_path, budget_bytes=2 * SIZE + 2000)
    for index, name in enumerate("cab"):
        house.submit(str(index), name)
    await house.settle()
    assert house.there == {"c", "a"}
    assert house.budget.peak_bytes <= house.budget.limit_bytes
    house.world.remove("0")
    await house.settle()
    assert house.there == {"a", "b"}
    await house.world.close()


async def test_nothing_overtakes_what_does_not_fit(tmp_path: Path):
    house = Upstairs(tmp_path, budget_bytes=2 * SIZE + 2000)
    house.world.lora("big", 2 * SIZE)
    for index, name in enumerate(("a", "big", "b")):
        house.submit(str(index), name)
    await house.settle()
    assert house.there == {"a"}
    await house.world.close()


async def test_what_never_fits_is_in_nobodys_way(tmp_path: Path):
    house = Upstairs(tmp_path, budget_bytes=2 * SIZE + 2000)
    house.world.lora("huge", 3 * SIZE)
    for index, name in enumerate(("a", "huge", "b")):
        house.submit(str(index), name)
    await house.settle()
    assert house.there == {"a", "b"}
    await house.world.close()


async def test_what_the_running_job_uses_is_not_sent_after_it(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    house.submit("2", "b")
    house.world.start("1")
    await house.settle()
    assert house.there == {"b"}
    await house.world.close()


@pytest.mark.parametrize("settings", [{"device_tier": False}, {"enabled": False}])
async def test_off_is_off(tmp_path: Path, settings: dict[str, Any]):
    house = Upstairs(tmp_path, **settings)
    house.submit("1", "a")
    await house.settle()
    assert house.there == set()
    assert house.world.prefetcher.status().device.state == "off"
    assert house.device.copies == 0
    await house.world.close()


async def test_switching_off_gives_the_memory_back_and_on_takes_it_again(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    await house.settle()
    on = house.world.prefetcher.settings
    house.world.prefetcher.configure(on.updated({"device_tier": False}))
    await house.settle()
    assert (house.there, house.device.allocated_bytes) == (set(), 0)
    house.world.prefetcher.configure(on)
    await house.settle()
    assert house.there == {"a"}
    await house.world.close()


async def test_the_budget_follows_the_setting(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    house.submit("2", "b")
    await house.settle()
    house.world.prefetcher.configure(house.world.prefetcher.settings.updated({"device_budget_bytes": SIZE + 1000}))
    await house.settle()
    assert house.there == {"a"}
    assert house.world.prefetcher.status().device.limit_bytes == SIZE + 1000
    await house.world.close()


async def test_other_loaders_files_stay_where_they_are(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.world.submit("1", "a.safetensors")
    await house.settle()
    assert house.there == set()
    await house.world.close()


async def test_a_device_without_memory_is_not_asked_again_and_again(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.device.memory_limit_bytes = 10
    house.submit("1", "a")
    for _ in range(5):
        await house.settle()
    assert "no room" in house.world.prefetcher.status().device.problem
    assert house.device.copies == 0
    await house.world.close()


async def test_without_a_shelf_the_status_says_why(tmp_path: Path):
    world = World(tmp_path, device_tier=True)
    world.build(shelf_refusal="the host stages patches itself")
    await world.settle()
    assert world.prefetcher.status().device._asdict()["problem"] == "the host stages patches itself"
    assert world.prefetcher.status().device.state == "refused"
    assert world.prefetcher.status().as_json()["device"]
    await world.close()


async def test_a_job_that_leaves_the_queue_stops_its_upload(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    await house.read_only()
    house.world.remove("1")
    await house.settle()
    assert (house.there, house.device.copies) == (set(), 0)
    await house.world.close()


async def test_the_end_leaves_no_upload_waiting(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    await house.read_only()
    await house.world.close()
    assert house.device.copies == 0
    house.shelf.close()
    assert house.device.pinned_bytes == 0


async def test_the_revision_grows_with_what_happens_on_the_device(tmp_path: Path):
    house = Upstairs(tmp_path)
    house.submit("1", "a")
    await house.settle()
    before = house.world.prefetcher.status()
    house.shelf.clear()
    after = house.world.prefetcher.status()
    assert after.revision > before.revision
    assert house.world.prefetcher.status() == after
    await house.world.close()


def test_settings_by_environment():
    environ = {"WARMSTACK_DEVICE_TIER": "on", "WARMSTACK_DEVICE_BUDGET": "2 GiB", "WARMSTACK_PINNED_BUDGET": "32MiB"}
    expected = PrefetchSettings(device_tier=True, device_budget_bytes=2 << 30, pinned_budget_bytes=32 << 20)
    assert PrefetchSettings.from_environment(environ) == expected
    assert not PrefetchSettings().device_tier


@pytest.mark.parametrize(
    "change", [{"device_budget_bytes": -1}, {"pinned_budget_bytes": 1.5}, {"device_tier": 1}, {"device_tier": "often"}]
)
def test_wrong_settings_name_themselves(change: dict[str, object]):
    with pytest.raises(ValueError, match=next(iter(change))):
        PrefetchSettings().updated(change)
