"""A share that is gone: a read or a look there may take for ever, and models elsewhere are read all the same. Real
threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from warmstack.loaders.system.daemon_pool import DaemonPool
from warmstack.loaders.system.disk_kind import Disk
from warmstack.prefetch.models.board import LOOKS_IN_FOLDER, RELOOK_S
from warmstack.prefetch.models.file import ModelFile
from warmstack.prefetch.reading.gate import STALL_S
from warmstack.prefetch.rest import LONGEST_REST_S

from ..patience import DEADLINE_S, until
from ..world import CHUNK_BYTES
from .model_world import ModelWorld


class Share:
    """What lies on it has a name with `far`, and whoever looks at it stands still until it is back."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.is_back = threading.Event()

    def look(self, path: str) -> None:
        if "far" in Path(path).name:
            self.looks.append(Path(path).name)
            assert self.is_back.wait(DEADLINE_S)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ModelWorld]:
    """Everything runs in threads; a job without files is running."""
    world = ModelWorld(tmp_path)
    world.machine = replace(world.machine, make_pool=DaemonPool)
    world.disk_under = lambda path: Disk("far" if "far" in path else "near", "network")
    world.build()
    world.submit_models("running")
    world.start("running")
    yield world
    await world.close()


@pytest.fixture
async def share(world: ModelWorld) -> AsyncIterator[Share]:
    """Reads stand still."""
    share = Share()
    world.on_chunk = lambda path, done: share.look(path)
    yield share
    share.is_back.set()


@pytest.fixture
async def names(world: ModelWorld) -> AsyncIterator[Share]:
    """Finding a model stands still."""
    names = Share()

    def find(kind: str, name: str) -> tuple[ModelFile, ...]:
        names.look(name)
        return world.find(kind, name)

    world.build(models=find)
    yield names
    names.is_back.set()


async def until_ready(world: ModelWorld, job_id: str, model: str) -> None:
    await until(world, lambda: world.model_states().get(job_id, {}).get(model) == "ready")


@pytest.mark.parametrize("readers", [None, 1, 2])
@pytest.mark.parametrize("is_there", [True, False])
async def test_a_lora_whose_read_hangs_holds_up_no_model_of_another_disk(
    world: ModelWorld, share: Share, is_there: bool, readers: int | None
) -> None:
    """Nor any at all once nobody needs it. Also when the user has set how many files are read at a time."""
    world.prefetcher.configure(world.settings.updated({"concurrency": readers}))
    if not is_there:
        world.disk_under = lambda path: Disk("near", "network")
    world.submit("lora", world.lora("far/far"))
    await until(world, lambda: bool(share.looks))
    world.now_s += STALL_S
    if not is_there:
        world.remove("lora")
    world.submit_models("2", model := world.model("near.safetensors"))
    await until_ready(world, "2", model)


@pytest.mark.parametrize("concurrency", [None, 1])
async def test_a_model_whose_read_hangs_holds_up_none_of_another_disk(
    world: ModelWorld, share: Share, concurrency: int | None
) -> None:
    world.prefetcher.configure(world.settings.updated({"concurrency": concurrency}))
    far, near = world.model("far/far.safetensors"), world.model("near.safetensors")
    world.submit_models("2", far, near)
    await until(world, lambda: bool(share.looks))
    world.now_s += STALL_S
    await until_ready(world, "2", near)
    assert world.model_states()["2"][far] == "loading"
    world.submit_models("3", later := world.model("later.safetensors"))
    await until_ready(world, "3", later)
    assert share.looks == ["far.safetensors"]


async def test_a_model_that_nobody_needs_any_more_holds_up_none_and_is_not_begun_twice(
    world: ModelWorld, share: Share
) -> None:
    world.disk_under = lambda path: Disk("near", "network")
    world.submit_models("2", far := world.model("far.safetensors"))
    await until(world, lambda: bool(share.looks))
    world.remove("2")
    await until(world, lambda: not world.prefetcher.status().in_flight)
    world.submit_models("3", far, near := world.model("near.safetensors"))
    await until_ready(world, "3", near)
    assert share.looks == [far]
    share.is_back.set()
    await until_ready(world, "3", far)


async def test_disks_are_measured_beside_a_read_that_hangs_but_not_its_own(world: ModelWorld, share: Share) -> None:
    probed: list[str] = []

    def probe(paths: Sequence[str], cancelled: Callable[[], bool]) -> tuple[float, ...]:
        probed.extend(Path(path).name for path in paths)
        return (1.0,)

    world.probe = probe
    world.disk_under = lambda path: Disk("far" if "far" in path else "near", "flash")
    world.submit("lora", world.lora("far/far"))
    world.lora("near")
    world.catalog.refresh()
    await until(world, lambda: bool(share.looks))
    world.queue.clear()
    await until(world, lambda: bool(probed))
    assert probed == ["near.safetensors"]
    share.is_back.set()
    await until(world, lambda: len(probed) == 2)


async def test_a_model_that_cannot_be_looked_up_holds_up_no_other_name(world: ModelWorld, names: Share) -> None:
    """Neither one that was named before it, nor one that comes later, nor one of the same job."""
    first, far, second, beside, later, far2, last = (
        world.model(f"{name}.safetensors") for name in ("first", "far", "second", "beside", "later", "far2", "last")
    )
    world.submit_models("1", first)
    world.submit_models("2", far, beside)
    world.submit_models("3", second)
    await until_ready(world, "1", first)
    await until_ready(world, "2", beside)
    await until_ready(world, "3", second)
    world.submit_models("4", later)
    await until_ready(world, "4", later)
    world.now_s += RELOOK_S
    world.submit_models("5", far2)
    world.submit_models("6", last)
    await until_ready(world, "6", last)
    assert names.looks == [far, far2], "each hangs once"
    names.is_back.set()
    await until_ready(world, "2", far)
    await until_ready(world, "5", far2)


async def test_a_model_of_the_running_job_that_cannot_be_looked_up_is_counted_when_it_is_found(
    world: ModelWorld, names: Share
) -> None:
    """And holds up no model of a later job."""
    world.remove("running")
    world.submit_models("1", mine := world.model("mine.safetensors"), far := world.model("far.safetensors"))
    world.start("1")
    world.submit_models("2", mine, near := world.model("near.safetensors"))
    await until_ready(world, "2", near)
    assert world.model_states() == {"1": {mine: "in_use"}, "2": {mine: "in_use", near: "ready"}}
    assert world.prefetcher.status().models.misses == 0
    names.is_back.set()
    await until(world, lambda: world.prefetcher.status().models.misses == 2)
    assert world.model_states()["1"] == {mine: "in_use", far: "in_use"}
    assert world.read_models() == [near]


async def test_a_replaced_model_is_noticed_while_names_of_another_disk_hang(world: ModelWorld, names: Share) -> None:
    """They were found before, and are what they were; they hang one for all, and then rest."""
    far = [world.model(f"far/far{number}.safetensors") for number in range(LOOKS_IN_FOLDER + 1)]
    near = world.model("near.safetensors")
    names.is_back.set()
    world.submit_models("2", *far, near)
    await until(world, lambda: set(world.model_states().get("2", {"": ""}).values()) == {"ready"})
    names.is_back.clear()
    names.looks.clear()
    for number in range(2, 5):
        world.model(near, 8 * number * CHUNK_BYTES)
        world.now_s += RELOOK_S
        await until(world, lambda number=number: world.read_models().count(near) == number)
    await until_ready(world, "2", near)
    assert names.looks == ["far0.safetensors"]
    assert set(world.model_states()["2"].values()) == {"ready"}
    world.submit_models("3", new := world.model("new.safetensors"))
    await until_ready(world, "3", new)
    world.model(far[-1], 9 * CHUNK_BYTES)
    names.is_back.set()
    world.now_s += LONGEST_REST_S
    await until(world, lambda: world.read_models().count(far[-1]) == 2)


async def test_names_of_a_folder_that_hang_hold_up_none_of_another_folder(world: ModelWorld, names: Share) -> None:
    far = [world.model(f"far/far{number}.safetensors") for number in range(LOOKS_IN_FOLDER + 2)]
    for number, name in enumerate(far):
        world.submit_models(f"far{number}", name)
    world.submit_models("near", near := world.model("near.safetensors"))
    await until_ready(world, "near", near)
    assert len(names.looks) <= LOOKS_IN_FOLDER, "each takes a thread for ever"
    names.is_back.set()
    await until_ready(world, f"far{LOOKS_IN_FOLDER + 1}", far[-1])
