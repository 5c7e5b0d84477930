"""Opened: the front end in a browser, watched for everything that must not happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page

from .stub_host import PACK, StubHost

SERVER_GONE = ("net::ERR_CONNECTION_REFUSED", "net::ERR_CONNECTION_RESET", "net::ERR_EMPTY_RESPONSE")
"""What Chromium itself says of a server that was stopped: before a request, or in the middle of one."""


class Opened:
    """One browser context on the host at `url`. `faults()` is what our files did wrong so far. A `sharp` one is for
    pictures: it draws four pixels for one."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        width: int = 1440,
        height: int = 1000,
        touch: bool = False,
        sharp: bool = True,
    ) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
            device_scale_factor=2 if sharp else 1,
            has_touch=touch,
        )
        self.page: Page = self.context.new_page()
        self._faults: list[str] = []
        self._follow_calls()
        self.page.on("pageerror", lambda error: self._faults.append(f"pageerror: {error}"))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self._requested(request.url))

    @property
    def panel(self) -> Locator:
        return self.page.locator("warmstack-panel")

    def boot(self) -> None:
        """The whole front end, until its splash is gone."""
        self.page.goto(self.url)
        self.page.locator("#splash-loader").wait_for(state="detached", timeout=60_000)
        self.tab.wait_for(timeout=60_000)

    @property
    def tab(self) -> Locator:
        return self.page.get_by_role("button", name="WarmStack").first

    def open_panel(self) -> None:
        self.tab.click()
        self.panel.wait_for()

    def only_pushes(self) -> None:
        """No answer to a poll from here on: what is shown then, an event has brought."""
        self.page.route("**/warmstack/v1/status", lambda route: None)

    def row(self, name: str) -> Locator:
        return self.panel.locator(f'.ws-row[data-key="{name}"]')

    def chip(self, job: str, name: str) -> Locator:
        return self.panel.locator(f'.ws-job[data-key="{job}"] .ws-chip', has_text=name)

    def faults(self) -> list[str]:
        return list(self._faults)

    def close(self) -> None:
        self.context.close()

    def _follow_calls(self) -> None:
        """A warning of the host that one of our files has caused names the host's file: the calls below it tell."""
        self._session = self.context.new_cdp_session(self.page)
        self._session.on("Runtime.consoleAPICalled", self._called)
        self._session.send("Runtime.enable")

    def _called(self, event: dict[str, Any]) -> None:
        frames = event.get("stackTrace", {}).get("callFrames", [])
        caused = any(PACK in frame["url"] or "warmstack" in frame["url"].lower() for frame in frames)
        if caused and event["type"] in ("error", "warning"):
            self._faults.append(f"{event['type']} caused by ours: {[arg.get('value') for arg in event['args']]}")

    def _heard(self, message: ConsoleMessage) -> None:
        text, source = message.text, message.location.get("url", "")
        ours = PACK in source or PACK in text or "warmstack" in text.lower() or "warmstack" in source.lower()
        if any(reason in text for reason in SERVER_GONE) or "missingModelMetadata" in source:
            return  # about a server that a test has stopped; the host's own question about its default graph's models
        if "Content Security Policy" in text or (ours and message.type in ("error", "warning")):
            self._faults.append(f"{message.type}: {text} ({source})")

    def _requested(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self._faults.append(f"request outside: {url}")


class OpenedStub(Opened):
    """On a stub host of its own, which ends with it."""

    def __init__(
        self,
        browser: Browser,
        host: StubHost,
        *,
        width: int = 1440,
        height: int = 1000,
        touch: bool = False,
        sharp: bool = False,
    ) -> None:
        super().__init__(browser, host.url, width=width, height=height, touch=touch, sharp=sharp)
        self.host = host
        self.touch = touch
        self.sharp = sharp

    def renew(self, backend: Any, settings: Mapping[str, object], *, width: int = 1440, height: int = 1000) -> None:
        """For another boot, at the cost of a third: nothing is left but what Chromium has read and compiled."""
        self.page.unroute_all()
        self.page.goto("about:blank")
        self.page.mouse.up()
        self.page.mouse.move(0, 0)
        self._session.send("Storage.clearDataForOrigin", {"origin": self.url.rstrip("/"), "storageTypes": "all"})
        self.page.set_viewport_size({"width": width, "height": height})
        self.host.serve(backend, settings)
        self._faults.clear()

    def close(self) -> None:
        super().close()
        self.host.close()
