/** Which base model a node's `model` is, before anything runs: the file that the graph loads it from tells. */

const KINDS = { ckpt_name: 'checkpoints', unet_name: 'diffusion_models' }

export class ModelBases {
  #store
  #answers = new Map()

  constructor(store) {
    this.#store = store
  }

  /** The base model of `node`'s model; '' when nobody can tell. Asks the server once per file, also of those that it lacks. */
  of(node) {
    const file = modelFile(node)
    if (!file) return Promise.resolve('')
    const key = `${file.kind}/${file.name}`
    if (!this.#answers.has(key)) this.#answers.set(key, this.#store.baseModel(file.kind, file.name).then((answer) => String(answer?.base_model ?? ''), () => ''))
    return this.#answers.get(key)
  }
}

/** `{ kind, name }` of the file that a loader upstream of `node` reads; null when the graph does not show it. */
export function modelFile(node) {
  const seen = new Set()
  for (let at = above(node); at && !seen.has(at); at = above(at)) {
    seen.add(at)
    const widget = at.widgets?.find(({ name }) => name in KINDS)
    if (!widget) continue
    // What another node puts there is known only when it runs.
    const fed = at.inputs?.some((input) => input.name === widget.name && input.link != null)
    return !fed && typeof widget.value === 'string' && widget.value ? { kind: KINDS[widget.name], name: widget.value } : null
  }
  return null
}

/** The node whose model `node` passes on or changes. */
function above(node) {
  const inputs = node.inputs ?? []
  // A reroute takes anything.
  const slot = inputs.findIndex((input) => input.link != null && (input.type === 'MODEL' || (input.type === '*' && inputs.length === 1)))
  return slot < 0 || !node.graph ? null : node.getInputNode(slot)
}
