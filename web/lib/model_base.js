/** Which base model a node's `model` is, before anything runs: the file that the graph loads it from tells. */

const KINDS = { ckpt_name: 'checkpoints', unet_name: 'diffusion_models' }

export class ModelBases {
  #store
  #answers = new Map()

  constructor(store) {
    this.#store = store
  }

  /** Files that nobody could tell of may be there now: asks again. */
  forget() {
    this.#answers.clear()
  }

  /** The base model of `node`'s model; '' when nobody can tell. Asks a server once per file, also of those that it lacks. */
  of(node) {
    const file = modelFile(node)
    if (!file) return Promise.resolve('')
    const key = `${this.#store.state.status?.boot} ${file.kind}/${file.name}`
    if (!this.#answers.has(key)) this.#answers.set(key, this.#store.baseModel(file.kind, file.name).then((answer) => String(answer?.base_model ?? ''), () => ''))
    return this.#answers.get(key)
  }
}

/** `{ kind, name }` of the file that a loader upstream of `node` reads; null when the graph does not show it. */
function modelFile(node) {
  const seen = new Set()
  for (let at = above(node); at && !seen.has(at); at = above(at)) {
    seen.add(at)
    const widget = at.widgets?.find(({ name }) => name in KINDS)
    if (!widget) continue
    const name = shownValue(at, widget)
    return typeof name === 'string' && name ? { kind: KINDS[widget.name], name } : null
  }
  return null
}

/** The node whose model `node` passes on or changes. */
function above(node) {
  const inputs = node.inputs ?? []
  // A reroute takes anything.
  const takesModel = ({ type }) => type === 'MODEL' || (type === '*' && inputs.length === 1)
  return source(node.graph, inputs.map((input, slot) => (takesModel(input) ? linkInto(node, slot) : null)).find(Boolean))
}

/** The node that `link` of `graph` comes from, through the edges of subgraphs; null when there is none, or several. */
function source(graph, link) {
  if (!link) return null
  if (isEdge(link)) {
    const { holder, slot } = outside(graph, link)
    return holder ? source(holder.graph, linkInto(holder, slot)) : null
  }
  const node = graph.getNodeById(link.origin_id)
  return node?.subgraph ? source(node.subgraph, node.subgraph.outputs?.[link.origin_slot]?.getLinks?.()[0]) : node
}

/** What a widget shows that may be promoted to the outside of a subgraph; null when another node fills it in as it runs. */
function shownValue(node, widget) {
  const link = linkInto(node, (node.inputs ?? []).findIndex((input) => input.name === widget.name))
  if (!link) return widget.value
  if (!isEdge(link)) return null
  const { holder, slot } = outside(node.graph, link)
  const promoted = holder?.widgets?.find(({ name }) => name === holder.inputs[slot]?.name)
  return promoted ? shownValue(holder, promoted) : null
}

/** Read from the graph: the newer front end warns of `input.link`, and a subgraph's node answers for its outputs instead. */
function linkInto(node, slot) {
  for (const link of node.graph?.links?.values() ?? []) {
    if (String(link.target_id) === String(node.id) && link.target_slot === slot) return link
  }
  return null
}

/** True for a link that comes in through the edge of a subgraph. */
function isEdge(link) {
  return String(link.origin_id) === '-10'
}

/** The node that shows `subgraph` and its slot for `link`; empty when several nodes show it, each with a model of its own. */
function outside(subgraph, link) {
  const holders = holdersOf(subgraph.rootGraph, subgraph)
  const name = subgraph.inputs?.[link.origin_slot]?.name
  return holders.length === 1 ? { holder: holders[0], slot: holders[0].inputs.findIndex((input) => input.name === name) } : {}
}

function holdersOf(graph, subgraph, seen = new Set()) {
  if (!graph || seen.has(graph)) return []
  seen.add(graph)
  return graph.nodes.flatMap((node) => (node.subgraph === subgraph ? [node] : node.subgraph ? holdersOf(node.subgraph, subgraph, seen) : []))
}
