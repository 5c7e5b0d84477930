"""One Chromium per module, the real front ends, and a stub of the host around our real routes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .browser_kit.fake_backend import FakeBackend, a_busy_evening
from .browser_kit.stack_node import SEND, new_workflow
from .fetch_frontends import DEFAULT_DIRECTORY, VERSIONS, static_folder

if TYPE_CHECKING:
    from hostkit.server import HostServer
    from playwright.sync_api import Browser, Page

    from .browser_kit.component import ComponentPage
    from .browser_kit.front_ends import FrontEnds
    from .browser_kit.opened import Opened, OpenedStub

CHROME = os.environ.get("CHROME", "/usr/bin/chromium")
FRONTENDS = Path(os.environ.get("WARMSTACK_FRONTENDS", DEFAULT_DIRECTORY))

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync"]  # fmt: skip


def _missing() -> str:
    """Why no browser test can run here; "" when they can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "needs Playwright: pip install -r tests/web/requirements.txt"
    if not Path(CHROME).is_file():
        return f"needs Chromium: {CHROME} is not there (set CHROME, or apt-get install chromium)"
    if not all(static_folder(FRONTENDS, version).is_dir() for version in VERSIONS):
        return "needs ComfyUI's front ends: python tests/web/fetch_frontends.py"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = _missing()
    for item in items:
        if here in item.path.parents and "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Module-scoped on purpose: Playwright keeps an event loop running in this thread, and every asyncio test that
    ran before its end would fail."""
    from playwright.sync_api import expect, sync_playwright

    # Shorter than the panel's poll (15 s), which would otherwise hide that a push did not arrive.
    expect.set_options(timeout=14_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROME, args=_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=VERSIONS)
def static(request: pytest.FixtureRequest) -> Path:
    return static_folder(FRONTENDS, request.param)


@pytest.fixture
def backend() -> FakeBackend:
    return a_busy_evening()


@pytest.fixture(scope="module")
def front_ends(browser: Browser) -> Iterator[FrontEnds]:
    from .browser_kit.front_ends import FrontEnds

    everything = FrontEnds(browser)
    yield everything
    everything.close()


@pytest.fixture
def opened(static: Path, backend: FakeBackend, front_ends: FrontEnds) -> Iterator[Callable[..., OpenedStub]]:
    """`opened(width=..., settings=...)` boots the front end; at the end nothing of ours may have gone wrong."""
    in_use: list[OpenedStub] = []

    def open_it(*, settings: dict[str, object] | None = None, **kind: Any) -> OpenedStub:
        view = front_ends.boot(static, backend, settings or {}, **kind)
        in_use.append(view)
        return view

    yield open_it
    _check(in_use)
    for view in in_use:
        front_ends.give_back(view)


@pytest.fixture
def view(browser: Browser, host: HostServer) -> Iterator[Opened]:
    """The front end of the module's own `host`, a real ComfyUI; same last check."""
    from .browser_kit.opened import Opened

    opened = Opened(browser, f"{host.client.url}/")
    opened.boot()
    yield opened
    _check([opened])
    opened.close()


@pytest.fixture(scope="module")
def components(browser: Browser) -> Iterator[list[ComponentPage]]:
    """Those that no test uses now."""
    idle: list[ComponentPage] = []
    yield idle
    _close(idle)


@pytest.fixture
def component(
    browser: Browser, backend: FakeBackend, components: list[ComponentPage]
) -> Iterator[Callable[..., ComponentPage]]:
    """`component(width=..., query=...)` opens the panel alone; same last check. No other test uses one that was opened
    `once`: a page whose clock is held cannot give it back."""
    from .browser_kit.component import PAGE, ComponentPage
    from .browser_kit.stub_host import StubHost

    in_use: list[ComponentPage] = []
    for_once: list[ComponentPage] = []

    def open_it(*, query: str = "", width: int = 312, height: int = 900, once: bool = False) -> ComponentPage:
        if once or not components:
            host = StubHost(static_folder(FRONTENDS, VERSIONS[0]), backend, {}, PAGE)
            view = ComponentPage(browser, host, width=width, height=height)
        else:
            view = components.pop()
            view.renew(backend, {}, width=width, height=height)
        (for_once if once else in_use).append(view)
        view.boot(query)
        return view

    yield open_it
    _check(in_use + for_once)
    _close(for_once)
    components += in_use


@pytest.fixture(scope="module", params=[False, True], ids=["litegraph", "nodes2"])
def booted(
    request: pytest.FixtureRequest, static: Path, front_ends: FrontEnds
) -> Iterator[tuple[OpenedStub, FakeBackend]]:
    """One boot for all tests of a version and a way of drawing, which is most of the work."""
    backend = a_busy_evening()
    view = front_ends.boot(static, backend, {"Comfy.VueNodes.Enabled": request.param})
    yield view, backend
    _check([view])
    front_ends.give_back(view)


@pytest.fixture
def editing(booted: tuple[OpenedStub, FakeBackend]) -> FakeBackend:
    """The backend as it was at the start."""
    booted[1].restore(a_busy_evening())
    return booted[1]


@pytest.fixture
def page(booted: tuple[OpenedStub, FakeBackend], editing: FakeBackend) -> Page:
    """An empty graph, and no button of the mouse held down by a test that failed."""
    page = booted[0].page
    page.mouse.up()
    new_workflow(page)
    page.evaluate(SEND, editing.status())
    return page


def _check(views: Sequence[Opened]) -> None:
    """Closes them all when one has a fault: what comes after has to do with another."""
    faults = [fault for view in views for fault in view.faults()]
    if faults:
        _close(views)
    assert faults == []


def _close(views: Sequence[Opened]) -> None:
    for view in views:
        view.close()
