"""FrontEnds: those of one browser, each of which boots again for one test after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from .opened import OpenedStub
from .stub_host import StubHost


class FrontEnds:
    """Booting one that nobody uses any more takes a third of what a new one takes."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._idle: list[OpenedStub] = []

    def boot(
        self,
        static: Path,
        backend: Any,
        settings: Mapping[str, object],
        *,
        touch: bool = False,
        sharp: bool = False,
        **size: int,
    ) -> OpenedStub:
        kind = static, touch, sharp
        found = next((one for one in self._idle if (one.host.static, one.touch, one.sharp) == kind), None)
        if found is None:
            view = OpenedStub(self._browser, StubHost(static, backend, settings), touch=touch, sharp=sharp, **size)
        else:
            view = found
            self._idle.remove(view)
            view.renew(backend, settings, **size)
        view.boot()
        return view

    def give_back(self, view: OpenedStub) -> None:
        self._idle.append(view)

    def close(self) -> None:
        for view in self._idle:
            view.close()
