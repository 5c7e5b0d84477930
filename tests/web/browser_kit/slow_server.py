"""SlowServer: stack editors on nodes of their own, with a server whose answers and a clock that the test holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .stub_host import PACK

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .fake_backend import FakeBackend

_START = f"""async () => {{
  const load = (name) => import('{PACK}/lib/' + name)
  const [{{ CatalogRows }}, {{ StatusStore }}, {{ attachEditor }}] =
    await Promise.all(['catalog.js', 'store.js', 'stack_nodes.js'].map(load))
  const asked = []
  const answered = (body) => ({{ ok: true, json: async () => body }})
  const server = {{ asked, isGone: false, mostOpen: 0 }}
  server.count = (route) => asked.filter((one) => one.route === route).length
  server.open = () => asked.filter((one) => one.route === 'plan' && !one.isDone)
  const fetchApi = async (path, init) => {{
    const route = path.split('/')[3].split('?')[0]
    if (server.isGone) throw new TypeError('Failed to fetch')
    if (route !== 'plan') {{
      asked.push({{ route }})
      return answered(server[route])
    }}
    return new Promise((done) => {{
      const one = {{ route, isDone: false, prompt: JSON.parse(init.body).prompt }}
      one.answer = (body) => {{
        one.isDone = true
        done(answered(body))
      }}
      asked.push(one)
      server.mostOpen = Math.max(server.mostOpen, server.open().length)
    }})
  }}
  const api = Object.assign(new EventTarget(), {{ fetchApi }})
  const store = new StatusStore(api)
  const catalog = new CatalogRows(store)
  const host = {{ locale: () => 'en', edited: () => {{}}, refused: (error) => kit.refused.push(error.message) }}
  const box = document.createElement('main')
  document.body.replaceChildren(box)
  const add = (text) => {{
    const node = {{
      comfyClass: 'WarmStackLoadLoraStack', size: [300, 200], inputs: [],
      widgets: [{{ name: 'loras', value: text, options: {{}} }}],
      isInputConnected: () => false, findInputSlot: () => -1, computeSize: () => [300, 200], setSize: () => {{}},
      addDOMWidget: (name, type, element) => {{
        box.append(element)
        return {{}}
      }},
    }}
    attachEditor(node, {{ store, catalog, bases: {{ of: async () => '' }}, host }})
    return node
  }}
  window.kit = {{ api, server, catalog, add, nodes: [], refused: [] }}
}}"""


class SlowServer:
    """Time stands still but for `wait`; a plan is answered by `answer` alone, everything else at once."""

    def __init__(self, page: Page, backend: FakeBackend) -> None:
        self.page = page
        self._backend = backend
        page.clock.install(time=0)
        page.clock.pause_at(1000)
        page.evaluate(_START)
        self.push()

    @property
    def plans(self) -> int:
        """Asked so far."""
        plans: int = self.page.evaluate("kit.server.count('plan')")
        return plans

    @property
    def catalogs(self) -> int:
        """Asked for so far."""
        catalogs: int = self.page.evaluate("kit.server.count('adapters')")
        return catalogs

    @property
    def open_plans(self) -> int:
        plans: int = self.page.evaluate("kit.server.open().length")
        return plans

    @property
    def most_open_plans(self) -> int:
        """At any one time."""
        most: int = self.page.evaluate("kit.server.mostOpen")
        return most

    def add_node(self, *rows: dict[str, Any], text: str = "") -> None:
        self.page.evaluate("(text) => void kit.nodes.push(kit.add(text))", text or json.dumps(rows))

    def wait(self, ms: int) -> None:
        self.page.clock.run_for(ms)

    def push(self) -> None:
        """The state as it is now."""
        adapters = sorted(self._backend.rows.values(), key=lambda row: row.name)
        self.page.evaluate(
            """([status, adapters]) => {
              Object.assign(kit.server, { status, adapters })
              kit.api.dispatchEvent(new CustomEvent('warmstack.status', { detail: status }))
            }""",
            [self._backend.status(), {"total": len(adapters), "adapters": [row.sent() for row in adapters]}],
        )

    def move(self) -> None:
        """A file of the library has grown."""
        self._backend.catalog_revision += 1
        self._backend.revision += 1
        self.push()

    def finish_run(self, *rows: dict[str, object]) -> None:
        """Of the first node."""
        report = json.dumps({"rows": rows, "notes": []})
        self.page.evaluate("(report) => kit.nodes[0].onExecuted({ warmstack_report: [report] })", report)

    def answer(self) -> None:
        """Every plan that is open now."""
        prompts = self.page.evaluate("(kit.answering = kit.server.open()).map(({ prompt }) => prompt)")
        answers = [self._backend.plan(prompt, None) for prompt in prompts]
        self.page.evaluate("(answers) => answers.forEach((body, index) => kit.answering[index].answer(body))", answers)

    def disconnect(self) -> None:
        self.page.evaluate("kit.server.isGone = true; void kit.api.dispatchEvent(new Event('reconnecting'))")

    def reconnect(self) -> None:
        self.page.evaluate("kit.server.isGone = false; void kit.api.dispatchEvent(new Event('reconnected'))")
