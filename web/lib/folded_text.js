/** The host's own text on a node, folded away while rows show what it says. It stays what is saved, queued and linked. */

/** The host draws a widget some frames after it was told to. */
const FRAMES = 20

export class FoldedText {
  #node
  #text
  #onChange
  #isShown = true

  /** @param onChange `()` when it was shown or folded away */
  constructor(node, text, onChange) {
    this.#node = node
    this.#text = text
    this.#onChange = onChange
  }

  show(isShown) {
    if (isShown === this.#isShown) return
    this.#isShown = isShown
    this.#text.hidden = !isShown
    if (Boolean(this.#text.options.hidden) === isShown) this.#tellOlderHost()
    this.#onChange()
  }

  /** Moves the focus there. @param editor an element of the same node */
  focus(editor, frames = FRAMES) {
    const areas = [this.#text.element, ...(editor.closest('[data-node-id]')?.querySelectorAll('textarea') ?? [])]
    const drawn = areas.find((area) => area?.offsetHeight > 0)
    if (drawn) drawn.focus({ preventScroll: true })
    else if (frames > 0) requestAnimationFrame(() => this.focus(editor, frames - 1))
  }

  /** Where it draws nodes as elements, it looks at the options, and again when the list of widgets has changed. */
  #tellOlderHost() {
    this.#text.options.hidden = !this.#isShown
    const { widgets } = this.#node
    widgets.push(widgets.pop())
  }
}
