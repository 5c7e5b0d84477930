"""DaemonPool: threads on demand, clean ends."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from warmstack.loaders.system.daemon_pool import DaemonPool


def test_calls_run_and_their_errors_arrive() -> None:
    pool = DaemonPool(2, "test")
    assert [pool.submit(lambda i=i: i * i).result(5) for i in range(10)] == [i * i for i in range(10)]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(5)
    assert pool.submit(lambda: "still alive").result(5) == "still alive"
    pool.close()
    assert pool.join(5)


def test_threads_start_only_when_work_comes_and_no_more_than_asked() -> None:
    before = threading.active_count()
    pool = DaemonPool(3, "test")
    assert threading.active_count() == before
    gate = threading.Event()
    started = threading.Semaphore(0)

    def wait() -> bool:
        started.release()
        return gate.wait(5)

    futures = [pool.submit(wait) for _ in range(8)]
    for _ in range(3):
        assert started.acquire(timeout=5)
    assert threading.active_count() == before + 3
    assert not started.acquire(blocking=False)
    gate.set()
    assert all(future.result(5) for future in futures)
    pool.close()
    assert pool.join(5)
    assert threading.active_count() == before


def test_after_close_taken_calls_still_run_and_no_more_are_taken() -> None:
    pool = DaemonPool(1, "test")
    gate = threading.Event()
    first, second = pool.submit(lambda: gate.wait(5)), pool.submit(lambda: "second")
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: None)
    assert not pool.join(0)
    gate.set()
    assert (first.result(5), second.result(5)) == (True, "second")
    assert pool.join(5)


def test_a_stuck_call_does_not_keep_the_process_alive() -> None:
    code = (
        "import threading; from warmstack.loaders.system.daemon_pool import DaemonPool\n"
        "DaemonPool(1, 'stuck').submit(threading.Event().wait)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_thread_that_could_not_start_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, start, refusals = DaemonPool(1, "test"), threading.Thread.start, [True]

    def refuse_once(thread: threading.Thread) -> None:
        if refusals and thread.name.startswith("test"):
            refusals.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with pytest.raises(RuntimeError, match="new thread"):
        pool.submit(lambda: None)
    assert pool.submit(lambda: "here").result(5) == "here"
    pool.close()
    assert pool.join(5)


def test_an_error_that_nobody_keeps_lets_go_of_what_it_came_through() -> None:
    class Read:
        pass

    def fail() -> None:
        read.append(weakref.ref(held := Read()))
        raise ValueError(held)

    pool, read = DaemonPool(1, "test"), list[weakref.ref[Read]]()
    gc.collect()
    gc.disable()
    try:
        assert isinstance(pool.submit(fail).exception(5), ValueError)
        pool.close()
        assert pool.join(5)
        assert read[0]() is None
    finally:
        gc.enable()
