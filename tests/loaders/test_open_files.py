"""One load opens each of its files once, and leaves none open."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import (
    DeviceMap,
    LoadCancelledError,
    LoadProgress,
    LoadRequest,
    ModelLoader,
    Pace,
    SafetensorsLoadError,
    StrategyRegistry,
    drop_file,
    fill_module,
    load_loras_batch,
    load_module,
    load_safetensors_robust,
    read_header,
    stream_tensors,
)
from warmstack.loaders.reading import opened
from warmstack.loaders.reading.opened import OpenFiles
from warmstack.loaders.robust import load_request

STRATEGIES = ("auto", *StrategyRegistry.default().strategies)


@pytest.fixture
def opens(audited: list[str]) -> Callable[[str], int]:
    audited.clear()
    return audited.count


@pytest.fixture
def two(large: tuple[str, dict[str, torch.Tensor]], tmp_path: Path) -> list[str]:
    """A large file and a small one."""
    save_file({"other": torch.ones(3)}, tmp_path / "other.safetensors")
    return [large[0], str(tmp_path / "other.safetensors")]


def open_now(paths: list[str]) -> set[str]:
    return {file.path for file in psutil.Process().open_files()} & {os.path.realpath(path) for path in paths}


@pytest.mark.parametrize("cold", [True, False])
@pytest.mark.parametrize("choice", [{}, {"dtype": torch.float16}, {"device_map": {"layer_1": "meta"}}])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_opens_a_file_once(two: list[str], opens, strategy: str, choice: dict[str, Any], cold: bool):
    files = two[:1] if strategy == "fast_single_file" else two
    if cold:
        drop_file(two[0])
    before = [opens(path) for path in files]
    assert ModelLoader(strategy, **choice).load_shards(files)
    assert [opens(path) for path in files] == [count + 1 for count in before]
    if strategy != "lazy":
        # Its mappings keep theirs.
        assert not open_now(files)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "parallel"])
@pytest.mark.parametrize("choice", [{}, {"dtype": torch.float16}])
def test_one_file_without_a_loader(large, opens, strategy: str, choice: dict[str, Any]):
    assert load_safetensors_robust(large[0], strategy=strategy, **choice)
    assert opens(large[0]) == 1


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "lazy"])
@pytest.mark.parametrize("choice", [{}, {"dtype": torch.float16}])
def test_none_stays_open_when_a_load_is_cancelled_or_fails(two: list[str], strategy: str, choice: dict[str, Any]):
    files = two[:1] if strategy == "fast_single_file" else two
    for calls in (0, 1, 2):
        answers = iter([False] * calls)
        lock = threading.Lock()

        def cancelled(answers=answers, lock=lock) -> bool:
            with lock:
                return next(answers, True)

        with pytest.raises(LoadCancelledError) as caught:
            ModelLoader(strategy, **choice).load_shards(files, cancelled=cancelled)
        # The error keeps the frames of the load, and with them whatever those hold.
        assert caught.value.__traceback__ is not None
        assert not open_now(files)
    (Path(files[-1])).write_bytes(b"no header")
    with pytest.raises(SafetensorsLoadError):
        ModelLoader(strategy, **choice).load_shards(files)
    assert not open_now(files)


def test_a_file_that_is_replaced_after_its_header_is_loaded_as_it_was(tmp_path: Path, saved: str, state_dict):
    """The name leads to another file then; what is open is still the one that the header is of."""
    save_file({"other": torch.ones(3)}, tmp_path / "new.safetensors")

    def replace_it() -> bool:
        if (tmp_path / "new.safetensors").exists():
            os.replace(tmp_path / "new.safetensors", saved)
        return False

    request = LoadRequest((saved,), pace=Pace(replace_it))
    assert load_request(request, "eager").tensors.keys() == state_dict.keys()


def test_filling_a_module_opens_a_file_once(tmp_path: Path, opens):
    path = tmp_path / "model.safetensors"
    save_file(torch.nn.Linear(3, 4).state_dict(), path)
    before = opens(str(path))
    fill_module(torch.nn.Linear(3, 4), [path])
    load_module(lambda: torch.nn.Linear(3, 4), path)
    assert opens(str(path)) - before == 2
    assert not open_now([str(path)])


def test_every_file_of_a_batch_once(two: list[str], opens):
    before = [opens(path) for path in two]
    assert len(load_loras_batch(two)) == 2
    assert [opens(path) for path in two] == [count + 1 for count in before]


def test_what_auto_asks_of_the_page_cache_needs_no_second_file(large, opens):
    request = LoadRequest((large[0],), device_map=DeviceMap.of({"layer_1": "meta"}))
    assert "page cache" in load_request(request, "auto").reasons[1]
    assert opens(large[0]) == 1


def test_more_files_than_may_be_open_are_opened_as_needed(tmp_path: Path, opens, monkeypatch):
    monkeypatch.setattr(opened, "_MOST_OPEN", 2)
    files = [str(tmp_path / f"{number}.safetensors") for number in range(4)]
    for number, path in enumerate(files):
        save_file({f"{number}": torch.ones(2)}, path)
    before = [opens(path) for path in files]
    assert len(ModelLoader("parallel").load_shards(files)) == 4
    assert [opens(path) - count for path, count in zip(files, before, strict=True)] == [1, 1, 2, 2]


class Many(NamedTuple):
    files: list[str]
    build: Callable[[], torch.nn.Module]


@pytest.fixture
def many(tmp_path: Path, monkeypatch) -> Many:
    """40 shards of a model, 2 of which may be open at once, in a folder of their own."""
    monkeypatch.setattr(opened, "_MOST_OPEN", 2)
    (tmp_path / "many").mkdir()
    files = [str(tmp_path / "many" / f"{number}.safetensors") for number in range(40)]
    for number, path in enumerate(files):
        save_file({f"{number}.weight": torch.ones(2, 2), f"{number}.bias": torch.ones(2)}, path)
    return Many(files, lambda: torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in files)))


class Watch:
    """A progress that counts the descriptors of `files`, a mapping's own included."""

    def __init__(self, files: list[str]) -> None:
        self._files = {os.path.realpath(path) for path in files}
        self.calls = self.most = 0

    def __call__(self, _: LoadProgress) -> None:
        self.calls += 1
        self.most = max(self.most, sum(file.path in self._files for file in psutil.Process().open_files()))


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name not in ("lazy", "fast_single_file")])
@pytest.mark.parametrize("choice", [{}, {"dtype": torch.float16}])
def test_few_of_many_files_are_open_at_once(many: Many, strategy: str, choice: dict[str, Any]):
    watch = Watch(many.files)
    assert len(ModelLoader(strategy, **choice).load_shards(many.files, progress=watch)) == 80
    assert watch.calls > 20
    # Two that their headers were read from, and those of the readers.
    assert watch.most <= 2 + 5


def test_filling_opens_few_of_many_files_at_once(many: Many):
    for fill in (
        lambda progress: fill_module(many.build(), many.files, progress=progress),
        lambda progress: load_module(many.build, index_of(many.files), progress=progress),
    ):
        watch = Watch(many.files)
        fill(watch)
        assert watch.calls > 20
        assert watch.most <= 2 + 5


@pytest.mark.parametrize("populate", [False, True])
def test_a_file_that_is_mapped_is_not_open_beside(many: Many, monkeypatch, populate: bool):
    monkeypatch.setattr(opened, "_MOST_OPEN", 100)
    watch = Watch(many.files)
    loaded = ModelLoader("lazy", populate=populate).load_shards(many.files, progress=watch)
    assert len(loaded) == 80
    # Before Python 3.13 a mapping keeps a descriptor of its own. The headers of all are read before any is mapped.
    assert watch.most <= 40 + 1
    last = Watch(many.files)
    last(LoadProgress(0, 0, "", ""))
    assert last.most == (0 if sys.version_info >= (3, 13) and sys.platform != "win32" else 40)


def index_of(files: list[str]) -> str:
    """One index of `files`, beside them."""
    names = {f"{Path(path).stem}.{key}": Path(path).name for path in files for key in ("weight", "bias")}
    index = Path(files[0]).with_name("model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": names}))
    return str(index)


def test_a_stream_that_stops_half_way_leaves_no_file_open(many: Many):
    wanted = [(header, list(header.tensors)) for header in map(read_header, many.files)]
    stream = stream_tensors(wanted, Pace(), max_bytes=1)
    next(stream)
    stream.close()
    assert not open_now(many.files)


def test_threads_share_one_file(saved: str, opens):
    with OpenFiles() as files, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: files.file(saved), range(64)))
        assert opens(saved) == 1
        assert len({id(file) for file in found}) == 1
    assert found[0] is not None
    assert found[0].closed
