"""ComponentPage: the panel alone on a page, without the front end: for what needs many boots or odd states."""

from __future__ import annotations

from .opened import OpenedStub
from .stub_host import PACK

# The variables are those of the host's own palettes; `api` is what the panel knows of the host.
PAGE = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>panel</title>
<style>
  :root {{ color-scheme: dark; --fg-color: #fff; --comfy-menu-bg: #171718; }}
  :root.light {{ color-scheme: light; --fg-color: #222; --comfy-menu-bg: #f5f5f5; }}
  :root.solarized {{ color-scheme: dark; --fg-color: #fdf6e3; --comfy-menu-bg: #073642; }}
  :root.nord {{ color-scheme: dark; --fg-color: #e5eaf0; --comfy-menu-bg: #161b22; }}
  body {{ margin: 0; font-family: sans-serif }}
  main {{ block-size: 100vh }}
</style>
<main></main>
<script type="module">
  import {{ CatalogRows }} from '{PACK}/lib/catalog.js'
  import {{ WarmStackPanel }} from '{PACK}/lib/panel.js'
  import {{ StatusStore }} from '{PACK}/lib/store.js'
  const api = Object.assign(new EventTarget(), {{ fetchApi: (route, init) => fetch('/api' + route, init) }})
  const reports = []
  const locale = new URLSearchParams(location.search).get('locale') ?? 'en'
  const host = {{ locale: () => locale, report: (summary, detail) => reports.push(`${{summary}}: ${{detail}}`) }}
  const store = new StatusStore(api)
  const catalog = new CatalogRows(store)
  const show = () => document.querySelector('main').replaceChildren(WarmStackPanel.create(store, catalog, host))
  const push = (status) => api.dispatchEvent(new CustomEvent('warmstack.status', {{ detail: status }}))
  window.kit = {{ api, store, catalog, reports, show, push }}
  show()
</script>
</html>"""


class ComponentPage(OpenedStub):
    """Same watch over faults as the whole front end; `push` hands a status to the panel as an event would."""

    def boot(self, query: str = "") -> None:
        self.page.goto(f"{self.url}component{query}")
        self.panel.wait_for()

    def push(self, status: object) -> None:
        self.page.evaluate("(status) => kit.push(status)", status)
