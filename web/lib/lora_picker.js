/** A combobox over the catalog: type some letters of the name, the folder, the category or the base model, choose. */

import { h, keyed, setAttribute, setText } from './dom.js'
import { splitName } from './format.js'
import { selectRows } from './rows.js'

const SHOWN_NAMES = 40

let ids = 0

export class LoraPicker {
  #rows
  #onPick
  #fitting
  #otherBase
  #found = []
  #at = 0

  /**
   * @param rows `() => rows of the catalog`; `fitting()` base models that fit, empty when that is not known; `otherBase(base)` the
   * words for one that does not; `onPick(name)` also for text that no file answers to
   */
  constructor({ label, rows, fitting, otherBase, onPick }) {
    this.#rows = rows
    this.#fitting = fitting
    this.#otherBase = otherBase
    this.#onPick = onPick
    const id = `warmstack-picker-${ids += 1}`
    this.list = h('ul', { id, class: 'ws-picker-list', role: 'listbox', 'aria-label': label, hidden: '' })
    this.list.hidden = true
    this.input = h('input', {
      type: 'text', class: 'ws-input', role: 'combobox', 'aria-label': label, 'aria-expanded': 'false', 'aria-controls': id, 'aria-autocomplete': 'list',
      autocomplete: 'off', spellcheck: 'false', placeholder: label,
      oninput: () => this.#show(this.input.value), onfocus: () => this.input.select(), onclick: () => this.#show(''),
      onkeydown: (event) => this.#onKey(event), onblur: () => this.#close(), onchange: () => this.#pick(this.input.value.trim()),
    })
    // The press would blur the input, and with it the list, before the click arrives.
    this.list.addEventListener('pointerdown', (event) => event.preventDefault())
    this.list.addEventListener('mousedown', (event) => event.preventDefault())
  }

  /** `hint` is shown with the name when the pointer rests on it. */
  setValue(name, hint) {
    // Every file has the ending, and a node is narrow; without it the name means the same file.
    if (document.activeElement !== this.input) this.input.value = name.replace(/\.safetensors$/, '')
    setAttribute(this.input, 'title', hint ? `${name}\n${hint}` : name)
  }

  #show(filter) {
    const bases = this.#fitting()
    const fits = (row) => bases.size === 0 || !row.baseModel || bases.has(row.baseModel)
    const found = selectRows(this.#rows(), filter, 'name')
    // What fits comes first; the rest stays within reach, since the metadata of a file can be wrong.
    this.#found = [...found.filter(fits), ...found.filter((row) => !fits(row))].slice(0, SHOWN_NAMES).map((row) => ({ ...row, fits: fits(row) }))
    this.#at = -1
    this.#draw(this.#found.length > 0)
  }

  #draw(open) {
    this.list.hidden = !open
    setAttribute(this.input, 'aria-expanded', String(open))
    setAttribute(this.input, 'aria-activedescendant', open && this.#at >= 0 ? `${this.list.id}-${this.#at}` : null)
    if (!open) return
    keyed(this.list, this.#found, (row) => row.name, (row) => this.#createOption(row), (option, row, index) => {
      setAttribute(option, 'id', `${this.list.id}-${index}`)
      setAttribute(option, 'aria-selected', String(index === this.#at))
      setAttribute(option, 'data-fit', row.fits ? null : 'bad')
      setAttribute(option, 'title', row.fits ? row.name : `${row.name}\n${this.#otherBase(row.baseModel)}`)
      if (index === this.#at) option.scrollIntoView({ block: 'nearest' })
    })
  }

  #createOption({ name, baseModel }) {
    const { folder, stem } = splitName(name)
    const option = h('li', { role: 'option', onclick: () => this.#choose(name) }, h('span', { class: 'ws-dim' }, folder), h('b'), h('span', { class: 'ws-dim' }, baseModel))
    setText(option.children[1], stem)
    return option
  }

  #onKey(event) {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      if (this.list.hidden) this.#show('')
      this.#at = Math.min(this.#found.length - 1, Math.max(0, this.#at + (event.key === 'ArrowDown' ? 1 : -1)))
      this.#draw(this.#found.length > 0)
    } else if (event.key === 'Enter') this.#choose(this.#found[this.list.hidden ? -1 : this.#at]?.name ?? this.input.value.trim())
    else if (event.key === 'Escape' && !this.list.hidden) this.#close()
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  #choose(name) {
    this.input.value = name
    this.#close()
    this.#pick(name)
  }

  #pick(name) {
    if (name) this.#onPick(name)
  }

  #close() {
    this.#draw(false)
  }
}
