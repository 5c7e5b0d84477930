from __future__ import annotations

import errno
import json
import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from warmstack.loaders import LoadCancelledError, RateLimit, SafetensorsLoadError, drop_file, resident_bytes, warm_file
from warmstack.loaders.system import kernel
from warmstack.loaders.system.page_cache import about_resident_bytes, cached_share

SIZE = (20 << 20) + 123
NOBODY = 65534
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
        assert share([(0, SIZE)]) == pytest.approx(mib / SIZE, abs=0.02)
        assert share([]) == share([(7, 7)]) == 1


@linux_only
@pytest.mark.parametrize("ask", ["cachestat", "mincore"])
@pytest.mark.parametrize("first", [0.0, 0.3])
@pytest.mark.parametrize("share", [0.1, 0.88, 0.92])
def test_the_share_of_a_long_span_is_known_to_a_hundredth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str, first: float, share: float
):
    if ask == "mincore":
        monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    path, size_bytes = tmp_path / "long.bin", 64 << 20
    path.write_bytes(bytes(size_bytes))
    drop_file(path)
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        # As in a ring: what would go beyond the end is at the beginning.
        for part in (first, first - 1):
            start, end = (int(max(0.0, min(1.0, at)) * size_bytes) for at in (part, part + share))
            os.pread(file.fileno(), end - start, start)
        assert cached_share(file, [(0, size_bytes)]) == pytest.approx(share, abs=0.015)
        assert about_resident_bytes(path) == pytest.approx(share * size_bytes, abs=0.015 * size_bytes)


@linux_only
def test_little_is_asked_about_a_long_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "sparse.bin"
    with path.open("wb") as file:
        file.truncate(64 << 30)
    asked = []
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: asked.append(nbytes) or 1)
    about_resident_bytes(path)
    assert sum(asked) <= 8 << 20


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
    monkeypatch.setattr(os, "major", lambda device: 0)
    assert resident_bytes(cold) == 0
    warm_file(cold, cancelled=never)
    assert resident_bytes(cold) == SIZE
    with cold.open("rb", buffering=0) as file:
        assert cached_share(file, [(0, SIZE)]) == 1


@linux_only
def test_of_a_disk_where_cachestat_sees_nothing_no_page_is_looked_up(cold: Path, monkeypatch: pytest.MonkeyPatch):
    """That is what it says of every cold file, of which a library lists terabytes."""
    asked: list[int] = []
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: 0)
    monkeypatch.setattr(kernel, "mapped_resident_pages", lambda fd, nbytes, start: asked.append(nbytes))
    monkeypatch.setattr(os, "major", lambda device: 8)
    assert resident_bytes(cold) == 0
    assert asked == []


@linux_only
def test_a_file_that_was_cut_meanwhile_is_unknown(cold: Path):
    with cold.open("rb", buffering=0) as file:
        assert kernel.mapped_resident_pages(file.fileno(), 2 * SIZE) is None


@linux_only
def test_a_file_for_which_no_mapping_is_allowed_is_unknown(cold: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **options: object) -> mmap.mmap:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    monkeypatch.setattr(mmap, "mmap", refuse)
    assert resident_bytes(cold) is None


def as_nobody(ask: Callable[[], float | None]) -> float | None:
    """What `ask` answers a user who owns no file: in a process of its own, which may give root up for good."""
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(answer, json.dumps(ask()).encode())
        finally:
            os._exit(0)
    os.close(answer)
    with open(answers) as reader:
        said = reader.read()
    os.waitpid(child, 0)
    return json.loads(said)


@linux_only
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("mode", "share"), [(0o644, None), (0o666, 0.5)], ids=["may read", "may write"])
def test_the_pages_of_a_stranger_are_known_to_who_may_write(
    cold: Path, monkeypatch: pytest.MonkeyPatch, mode: int, share: float | None
):
    """mincore says of a file that one may only read that every page is in memory."""
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    cold.chmod(mode)
    # Opened by its owner, because nobody else may enter the folder.
    with cold.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(file.fileno(), 1 << 20, 0)
        assert as_nobody(lambda: cached_share(file, [(0, 2 << 20)])) == share


@linux_only
@pytest.mark.skipif(not os.path.exists("/etc/passwd") or os.access("/etc/passwd", os.W_OK), reason="may write to it")
def test_a_file_of_the_system_is_unknown_to_its_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, "cached_pages", lambda fd, start, nbytes: None)
    assert resident_bytes("/etc/passwd") is None


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
