/** Puts the stack editor on every node that has a `loras` text: in place of the text, which stays what is saved and queued. */

import { FoldedText } from './folded_text.js'
import { StackEditor } from './stack_editor.js'
import { CSS, addStyles } from './styles.js'
import { parseReport } from './stack_report.js'
import { STACK_CSS } from './stack_styles.js'
import { translator } from './text.js'

const INPUT = 'loras'
const CATEGORY = 'category'
const NODES = new Set(['WarmStackLoadLoraStack', 'WarmStackLoraStack', 'WarmStackWarm'])
const EDITOR = 'warmstack_rows'
const SETTLING_FRAMES = 5

/** Gives `node` its editor; other nodes are left alone. `host` as for the panel, plus `edited()` for the undo history. */
export function attachEditor(node, { store, catalog, bases, host }) {
  const text = node.widgets?.find((widget) => widget.name === INPUT)
  if (!NODES.has(node.comfyClass) || !text || typeof node.addDOMWidget !== 'function') return
  addStyles('panel', CSS)
  addStyles('stack', STACK_CSS)
  let fit = () => {}
  const folded = new FoldedText(node, text, () => fit())
  const editor = new StackEditor({
    t: translator(host.locale()), catalog, plan: (value) => planned(store, value, categoryOf(node)), inTurn: store.inTurn, refused: host.refused,
    onEdit: (value) => {
      write(text, value)
      host.edited()
    },
    showText: (isShown) => folded.show(isShown), focusText: () => folded.focus(editor.element),
  })
  node.addDOMWidget(EDITOR, EDITOR, editor.element, {
    // The text beside it holds the state: a second copy in the workflow could only disagree.
    serialize: false, hideOnZoom: false, getMinHeight: () => editor.heightPx,
  }).serialize = false
  followText(node, text, editor)
  followCategory(node, editor)
  followLink(node, editor)
  followWarmth(node, store, editor)
  followCatalog(node, catalog, editor)
  fit = followHeight(node, editor)
  followRuns(node, editor)
  followModel(node, { store, bases, editor })
  takePlace(node, editor.element)
}

/** The host tells nobody when a text changes by loading, undo or typing: these are the ways it can. */
function followText(node, text, editor) {
  const show = () => editor.show(String(text.value ?? ''))
  after(text, 'callback', show)
  after(node, 'onConfigure', show)
  text.element?.addEventListener('input', show)
  editor.element.addEventListener('pointerenter', show)
  show()
}

/** One node has it: it decides for the rows that have none of their own. */
function followCategory(node, editor) {
  const widget = categoryWidget(node)
  if (widget) after(widget, 'callback', () => editor.planChanged())
}

function categoryWidget(node) {
  return node.widgets.find(({ name }) => name === CATEGORY)
}

/** '' also while a link brings it: only the run will tell. */
function categoryOf(node) {
  const widget = categoryWidget(node)
  return !widget || node.isInputConnected(node.findInputSlot(CATEGORY)) ? '' : String(widget.value ?? '')
}

/** What a link brings is known only when the prompt runs. */
function followLink(node, editor) {
  const isLinked = () => node.isInputConnected(node.findInputSlot(INPUT))
  const look = () => editor.linked(isLinked())
  // A frame later the links of a workflow that is being loaded are in place.
  const soon = () => requestAnimationFrame(look)
  // At once where there is one: through the edge of a subgraph it is about to copy how the text looks.
  const linked = (isOurs) => {
    if (isOurs) editor.linked(true)
    soon()
  }
  after(node, 'onConfigure', (saved) => linked(saved?.inputs?.some(({ name, link }) => name === INPUT && link != null)))
  after(node, 'onConnectInput', (slot) => linked(slot === node.findInputSlot(INPUT)))
  after(node, 'onConnectionsChange', () => linked(isLinked()))
}

function write(text, value) {
  text.value = value
  text.callback?.(value)
}

function followWarmth(node, store, editor) {
  showWarmth(editor, store.state)
  after(node, 'onRemoved', watchWeakly(store, editor, showWarmth))
}

function showWarmth(editor, { link, status }) {
  editor.online(link === 'live')
  if (status) editor.warmth(new Map(status.adapters.map((adapter) => [adapter.name, adapter.state])), status.tellsAllAdapters)
}

/** A large library arrives after the node, and perhaps after the first letters of a name. */
function followCatalog(node, catalog, editor) {
  catalog.stayCurrent()
  after(node, 'onRemoved', watchWeakly(catalog, editor, showNames))
}

function showNames(editor) {
  editor.catalogChanged()
}

/** The host calls this with what the node has told, also for a node inside a subgraph. */
function followRuns(node, editor) {
  after(node, 'onExecuted', (output) => {
    const report = parseReport(output)
    if (report) editor.ran(report)
  })
}

/** Nor does the host tell of a loader further up that reads another file: looked up whenever it matters to a person. */
function followModel(node, { store, bases, editor }) {
  let asked = 0
  const look = async () => {
    const mine = (asked += 1)
    const base = await bases.of(node)
    if (mine === asked) editor.follows(base)
  }
  // A frame later the links and the widgets of the other nodes are in place.
  const soon = () => requestAnimationFrame(look)
  after(node, 'onConfigure', soon)
  after(node, 'onConnectionsChange', soon)
  for (const type of ['pointerenter', 'focusin']) editor.element.addEventListener(type, look)
  after(node, 'onRemoved', watchWeakly(store, look, call))
}

function call(look) {
  look()
}

/**
 * Calls `then(follower, news)` at every change of `source` for as long as anybody else holds `follower`; returns the way
 * out. The host makes nodes that no graph ever holds (one per copy), and drops others with their subgraph, and tells
 * nobody. `then` is a function of this module: one made beside the follower would hold it.
 */
function watchWeakly(source, follower, then) {
  const held = new WeakRef(follower)
  const leave = source.watch((news) => {
    const alive = held.deref()
    if (alive) then(alive, news)
    else leave()
  })
  return leave
}

/**
 * After an undo the newer way of drawing nodes keeps the widgets of the node that is gone where those of the new node of
 * the same id belong: edits would go nowhere. The new editor takes the place of the old one.
 */
function takePlace(node, element) {
  after(node, 'onRemoved', () => { element.dataset.gone = node.id })
  after(node, 'onConfigure', () => requestAnimationFrame(() => {
    const old = [...document.querySelectorAll('.ws-stack[data-gone]')].find((other) => other.dataset.gone === String(node.id))
    if (!element.isConnected) old?.replaceWith(element)
  }))
}

/** Grows the node with its rows and shrinks it again, unless a person has made it larger. Returns what does so now. */
function followHeight(node, editor) {
  // A node that was just made has the size that the host has worked out.
  let fitted = node.size[1]
  // Where it draws nodes as elements, the older host measures them some frames later, and takes that for the size.
  const settle = (frames = SETTLING_FRAMES) => requestAnimationFrame(() => {
    fitted = node.size[1]
    if (frames > 1) settle(frames - 1)
  })
  const fit = () => {
    // Out of view, or in another graph: the host hides it then, and it has no height of its own.
    if (editor.body.offsetHeight === 0) return
    const [width, height] = node.computeSize()
    if (node.size[1] <= height || node.size[1] === fitted) {
      node.setSize([Math.max(node.size[0], width), height])
      fitted = node.size[1]
      settle()
    }
    node.setDirtyCanvas?.(true, true)
  }
  const observer = new ResizeObserver(fit)
  observer.observe(editor.body)
  after(node, 'onRemoved', () => observer.disconnect())
  return fit
}

/** Calls `then` after `owner[hook]` and with its arguments, whoever has set that. */
function after(owner, hook, then) {
  const before = owner[hook]
  owner[hook] = function (...values) {
    const result = before?.apply(this, values)
    then(...values)
    return result
  }
}

async function planned(store, text, category) {
  const prompt = { 1: { class_type: 'WarmStackLoraStack', inputs: { [INPUT]: text, [CATEGORY]: category } } }
  return store.ask('plan', { prompt })
}
