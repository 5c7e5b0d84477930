"""Before anything has run, the file that the graph loads the model from tells which LoRAs fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from .browser_kit.fake_backend import FakeBackend
from .browser_kit.stack_node import APP, ROOT, add_row, applied, finish_run, new_workflow, reopen

if TYPE_CHECKING:
    from .browser_kit.component import ComponentPage
    from .browser_kit.opened import OpenedStub

NAMES = ["styles/ink_wash_v3.safetensors", "styles/risograph_two_tone.safetensors"]
"""Made for sdxl and for sd15."""

BUILD = f"""(text) => {{
  const add = (type, x) => {{
    const node = LiteGraph.createNode(type)
    node.pos = [x, 120]
    {APP}.graph.add(node)
    return node
  }}
  const stack = add('WarmStackLoadLoraStack', 500)
  stack.widgets.find((widget) => widget.name === 'loras').value = text
  const loader = add('CheckpointLoaderSimple', 0)
  const [reroute, other] = [add('Reroute', 300), add('LoraLoaderModelOnly', 400)]
  loader.widgets[0].value = 'xl.safetensors'
  loader.connect(0, reroute, 0)
  reroute.connect(0, other, 0)
  other.connect(0, stack, stack.inputs.findIndex((input) => input.name === 'model'))
  stack.onConfigure?.({{}})
  {APP}.canvas.ds.reset()
}}"""


def test_a_misfit_is_outlined_before_the_first_run(opened: Callable[..., OpenedStub], backend: FakeBackend) -> None:
    from playwright.sync_api import expect

    backend.base_models = {("checkpoints", "xl.safetensors"): "sdxl", ("checkpoints", "flux.safetensors"): "flux"}
    page = opened().page
    new_workflow(page)
    page.evaluate(BUILD, json.dumps([{"name": name, "strength_model": 1, "strength_clip": 1} for name in NAMES]))
    rows = page.locator(".ws-stack-row")
    expect(rows.nth(1)).to_have_attribute("data-fit", "bad")
    expect(rows.nth(0)).not_to_have_attribute("data-fit", "bad")
    reopen(page)
    expect(rows.nth(1)).to_have_attribute("data-fit", "bad")

    add_row(page.locator(".ws-stack")).fill("o")
    options = page.locator(".ws-stack").get_by_role("option")
    expect(options.last).to_have_attribute("data-fit", "bad")
    expect(options.first).not_to_have_attribute("data-fit", "bad")
    page.keyboard.press("Escape")

    told = [applied(NAMES[0], 0, "sdxl", "looks made for sdxl"), applied(NAMES[1], 1, "sd15")]
    finish_run(page, *told)
    expect(rows.nth(0)).to_have_attribute("data-fit", "bad")
    expect(rows.nth(1)).not_to_have_attribute("data-fit", "bad")

    loader = f"{APP}.graph.nodes.find((node) => node.type === 'CheckpointLoaderSimple')"
    page.evaluate(f"{loader}.widgets[0].value = 'flux.safetensors'")
    page.mouse.move(5, 5)
    rows.nth(0).hover()
    expect(rows.nth(1)).to_have_attribute("data-fit", "bad")
    expect(rows.nth(0)).to_have_attribute("data-fit", "bad")


def test_a_model_that_could_not_be_asked_of_is_asked_of_again(component: Callable[..., ComponentPage]) -> None:
    """By a server that has started again, or when a person asks for what is new."""
    bases = component().page.evaluate(
        """async () => {
          const { ModelBases } = await import('/extensions/comfyui-warmstack/lib/model_base.js')
          const answers = []
          const baseModel = () => answers.shift() ?? Promise.reject(new Error('gone'))
          const store = { state: { status: { boot: 'a' } }, baseModel }
          const bases = new ModelBases(store)
          const node = {}
          const loader = { widgets: [{ name: 'ckpt_name', value: 'xl.safetensors' }] }
          const links = new Map([[1, { origin_id: 1, target_id: 2, target_slot: 0 }]])
          const graph = { links, getNodeById: () => loader }
          Object.assign(node, { id: 2, graph, inputs: [{ type: 'MODEL' }] })
          const found = [await bases.of(node)]
          answers.push(Promise.resolve({ base_model: 'sdxl' }), Promise.resolve({ base_model: 'flux' }))
          found.push(await bases.of(node))
          store.state.status.boot = 'b'
          found.push(await bases.of(node))
          bases.forget()
          return [...found, await bases.of(node), await bases.of(node)]
        }"""
    )
    assert bases == ["", "", "sdxl", "flux", "flux"]


HOLDER = f"(type) => {ROOT}.nodes.find((node) => node.subgraph?.nodes.some((inner) => inner.type === type))"

MOVE_INSIDE = f"""(type) => {{
  const graph = {ROOT}
  graph.convertToSubgraph(new Set(graph.nodes.filter((node) => node.type === type)))
}}"""

PROMOTE = f"""() => {{
  const {{ subgraph }} = ({HOLDER})('CheckpointLoaderSimple')
  const loader = subgraph.nodes.find((node) => node.type === 'CheckpointLoaderSimple')
  subgraph.addInput('ckpt_name', 'COMBO').connect(loader.inputs[0], loader)
}}"""


def test_the_file_is_found_across_the_edges_of_subgraphs(
    opened: Callable[..., OpenedStub], backend: FakeBackend
) -> None:
    """The stack in one subgraph, the loader in another, and its file name promoted to the outside of that."""
    from playwright.sync_api import expect

    backend.base_models = {("checkpoints", "xl.safetensors"): "sdxl", ("checkpoints", "flux.safetensors"): "flux"}
    page = opened().page
    new_workflow(page)
    page.evaluate(BUILD, json.dumps([{"name": name, "strength_model": 1, "strength_clip": 1} for name in NAMES]))
    page.evaluate(MOVE_INSIDE, "WarmStackLoadLoraStack")
    page.evaluate(MOVE_INSIDE, "CheckpointLoaderSimple")
    page.evaluate(f"void {APP}.canvas.setGraph(({HOLDER})('WarmStackLoadLoraStack').subgraph)")
    rows = page.locator(".ws-stack:visible .ws-stack-row")
    expect(rows.nth(1)).to_have_attribute("data-fit", "bad")
    expect(rows.nth(0)).not_to_have_attribute("data-fit", "bad")

    page.evaluate(PROMOTE)
    page.evaluate(f"({HOLDER})('CheckpointLoaderSimple').widgets[0].value = 'flux.safetensors'")
    page.mouse.move(5, 5)
    rows.nth(0).hover()
    expect(rows.nth(0)).to_have_attribute("data-fit", "bad")

    page.evaluate(
        f"""() => {{
          const holder = ({HOLDER})('WarmStackLoadLoraStack')
          holder.graph.add(holder.clone())
        }}"""
    )
    page.mouse.move(5, 5)
    rows.nth(0).hover()
    expect(rows.nth(0)).not_to_have_attribute("data-fit", "bad")
