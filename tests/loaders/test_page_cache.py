from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from warmstack.loaders import (
    LoadCancelledError,
    RateLimit,
    SafetensorsLoadError,
    drop_file,
    kernel,
    resident_bytes,
    warm_file,
)
from warmstack.loaders.page_cache import cached_share

SIZE = (20 << 20) + 123
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux to drop and count pages")


def never() -> bool:
    return False


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    path = tmp_path / "cold.bin"
    path.write_bytes(os.urandom(1 << 20) * 20 + b"x" * 123)
    drop_file(path)
    return path


@linux_only
def test_warming_brings_in_every_page_and_dropping_none_stays(cold: Path):
    assert resident_bytes(cold) == 0
    assert warm_file(cold, cancelled=never) == SIZE
    assert resident_bytes(cold) == SIZE
    drop_file(cold)
    assert resident_bytes(cold) == 0


@linux_only
def test_mincore_and_cachestat_agree_on_a_half_read_file(cold: Path):
    with cold.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.read(5 << 20)
        counted = kernel.mapped_resident_pages(file.fileno(), SIZE)
        assert counted == (5 << 20) // mmap.PAGESIZE
        assert kernel.cached_pages(file.fileno()) in (counted, None)


@linux_only
@pytest.mark.parametrize("ask", ["cachestat", "mincore"])
def test_the_share_of_some_parts(cold: Path, monkeypatch: pytest.MonkeyPatch, ask: str):
    if ask == "mincore":
        monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    page, mib = mmap.PAGESIZE, 1 << 20
    with cold.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), mib, 4 * mib)
        share = partial(cached_share, file)
        assert share([(4 * mib, 5 * mib)]) == 1
        assert share([(3 * mib, 4 * mib), (5 * mib, 6 * mib)]) == 0
        assert share([(3 * mib, 5 * mib)]) == 0.5
        assert share([(4 * mib + 1, 4 * mib + 2), (page, page + 1)]) == 0.5
        assert share([(5 * mib - 1, 5 * mib + 1)]) == 0.5
        assert share([(0, SIZE)]) == (mib / page) / -(-SIZE // page)
        assert share([]) == share([(7, 7)]) == 1


def test_where_nobody_can_say_the_share_is_unknown(cold: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    monkeypatch.setattr(kernel, "mapped_resident_pages", lambda fd, nbytes, start: None)
    with cold.open("rb", buffering=0) as file:
        assert cached_share(file, [(0, 1)]) is None


@linux_only
def test_without_cachestat_mincore_answers(cold: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    warm_file(cold, cancelled=never)
    assert resident_bytes(cold) == SIZE


@linux_only
def test_of_an_overlay_where_cachestat_sees_nothing_mincore_answers(cold: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: 0)
    assert resident_bytes(cold) == 0
    warm_file(cold, cancelled=never)
    assert resident_bytes(cold) == SIZE
    with cold.open("rb", buffering=0) as file:
        assert cached_share(file, [(0, SIZE)]) == 1


@pytest.fixture
def nobody() -> Iterator[None]:
    """The test runs as a user who owns no file of the system."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@linux_only
@pytest.mark.usefixtures("nobody")
def test_the_pages_of_a_stranger_are_unknown_and_not_all_there(monkeypatch: pytest.MonkeyPatch):
    """mincore says of a file that one may only read that every page is in memory."""
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    path = Path("/etc/passwd")
    assert path.stat().st_uid != os.geteuid()
    assert resident_bytes(path) is None
    with path.open("rb", buffering=0) as file:
        assert cached_share(file, [(0, 100)]) is None


def test_where_nobody_can_say_the_answer_is_unknown(cold: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    monkeypatch.setattr(kernel, "mapped_resident_pages", lambda fd, nbytes, start: None)
    assert resident_bytes(cold) is None


@linux_only
def test_populate_reads_the_whole_mapping(cold: Path):
    with cold.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if not kernel.populate(mapping):
        pytest.skip("this kernel has no MADV_POPULATE_READ")
    assert resident_bytes(cold) == SIZE


def test_warming_stops_between_two_chunks(cold: Path):
    answers = iter([False, False, True])
    with pytest.raises(LoadCancelledError, match=f"cancelled after {2 << 20} of {SIZE} bytes"):
        warm_file(cold, cancelled=lambda: next(answers), chunk_bytes=1 << 20)


def test_warming_pays_for_each_byte_once(cold: Path):
    slept: list[float] = []
    limit = RateLimit(1e6, clock=lambda: sum(slept), sleep=slept.append)
    warm_file(cold, cancelled=never, chunk_bytes=3 << 20, limiter=limit)
    assert sum(slept) == pytest.approx(SIZE / 1e6)


def test_an_empty_file(tmp_path: Path):
    path = tmp_path / "empty"
    path.touch()
    assert resident_bytes(path) == 0
    assert warm_file(path, cancelled=never) == 0


@pytest.mark.parametrize("ask", [resident_bytes, drop_file, lambda path: warm_file(path, cancelled=never)])
def test_a_missing_file_is_a_load_error(tmp_path: Path, ask):
    with pytest.raises(SafetensorsLoadError, match="No such file"):
        ask(tmp_path / "absent")
