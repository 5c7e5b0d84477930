/** A combobox over the catalog: type some letters of the name, the folder, the category or the base model, choose. */

import { h, keyed, setAttribute, setText } from './dom.js'
import { splitName } from './format.js'
import { selectRows } from './rows.js'

const SHOWN_NAMES = 40

let ids = 0

export class LoraPicker {
  #t
  #rows
  #fitting
  #filters
  #onPick
  #onPaste
  #found = []
  #at = 0
  #typed = false
  #shown = ''

  /**
   * @param rows `() => rows of the catalog`; `fitting()` Set of base models that fit, empty when that is not known; `filters` a
   * PickerFilters; `onPick(name)` also for text that no file answers to; `onPaste(text)` true when it has taken the text
   */
  constructor({ t, rows, fitting, filters, onPick, onPaste }) {
    this.#t = t
    this.#rows = rows
    this.#fitting = fitting
    this.#filters = filters
    this.#onPick = onPick
    this.#onPaste = onPaste
    const [id, label] = [`warmstack-picker-${ids += 1}`, t('pickLora')]
    this.list = h('ul', { id, class: 'ws-picker-list', role: 'listbox', 'aria-label': label })
    this.note = h('p', { class: 'ws-picker-note ws-dim' })
    this.popup = h('div', { class: 'ws-picker', hidden: '', onkeydown: (event) => this.#onPopupKey(event), onfocusout: (event) => this.#onLeave(event) }, this.list, this.note)
    this.input = h('input', {
      type: 'text', class: 'ws-input', role: 'combobox', 'aria-label': label, 'aria-expanded': 'false', 'aria-controls': id, 'aria-autocomplete': 'list',
      autocomplete: 'off', spellcheck: 'false', placeholder: label,
      oninput: () => this.#onType(), onfocus: () => this.input.select(), onclick: () => this.#show(''), onpaste: (event) => this.#onPasted(event),
      onkeydown: (event) => this.#onKey(event), onfocusout: (event) => this.#onLeave(event),
    })
    this.cover = h('span', { class: 'ws-picker-cover', 'aria-hidden': 'true' }, h('span', { class: 'ws-dim' }, h('bdi', { dir: 'ltr' })), h('b', { dir: 'auto' }))
    this.field = h('span', { class: 'ws-picker-field' }, this.input, this.cover)
    // The press would blur the input, and with it the list, before the click arrives.
    for (const type of ['pointerdown', 'mousedown']) this.list.addEventListener(type, (event) => event.preventDefault())
  }

  /** `hint` is shown with the name when the pointer rests on it. */
  setValue(name, hint) {
    // Every file has the ending, and a node is narrow; without it the name means the same file.
    this.#shown = name.replace(/\.safetensors$/, '')
    if (!this.#typed && document.activeElement !== this.input) this.#write(this.#shown)
    setAttribute(this.input, 'title', hint ? `${name}\n${hint}` : name)
  }

  #write(text) {
    this.input.value = text
    this.#drawCover()
  }

  /** Without the focus the folder gives way and not the name: a node is narrow, and in a library of folders many names begin alike. */
  #drawCover() {
    const [folder, name] = this.cover.children
    const text = this.input.value
    const cut = splitName(text).folder.length
    setText(folder.firstElementChild, text.slice(0, cut))
    setText(name, text.slice(cut))
  }

  /** The rows are others now. */
  refresh() {
    if (this.#typed || !this.popup.hidden) this.#show(this.#typed ? this.input.value : '', this.#found[this.#at]?.name)
  }

  #show(search, marked) {
    const [rows, bases] = [this.#rows(), this.#fitting()]
    const fits = (row) => bases.size === 0 || !row.baseModel || bases.has(row.baseModel)
    if (this.popup.hidden) this.popup.prepend(this.#filters.element)
    this.#filters.offer(rows, bases, () => this.refresh())
    const found = selectRows(this.#filters.select(rows, fits), search, 'name')
    // What fits comes first; the rest stays within reach, since the metadata of a file can be wrong.
    const ordered = [...found.filter(fits), ...found.filter((row) => !fits(row))]
    this.#found = ordered.slice(0, SHOWN_NAMES).map((row) => ({ ...row, fit: bases.size > 0 && row.baseModel ? (fits(row) ? 'good' : 'bad') : null }))
    this.#at = this.#found.findIndex(({ name }) => name === marked)
    setText(this.note, this.#noteFor(found.length, search))
    this.note.hidden = this.note.textContent === ''
    this.#draw(rows.length > 0)
  }

  #noteFor(count, search) {
    if (count > SHOWN_NAMES) return this.#t('moreNames', { count: count - SHOWN_NAMES })
    return count === 0 ? this.#t(search ? 'noMatch' : 'noneHere', { filter: search }) : ''
  }

  #draw(open) {
    this.popup.hidden = !open
    setAttribute(this.input, 'aria-expanded', String(open))
    setAttribute(this.input, 'aria-activedescendant', open && this.#at >= 0 ? `${this.list.id}-${this.#at}` : null)
    if (!open) return
    keyed(this.list, this.#found, (row) => row.name, (row) => this.#createOption(row), (option, row, index) => {
      setAttribute(option, 'id', `${this.list.id}-${index}`)
      setAttribute(option, 'aria-selected', String(index === this.#at))
      setAttribute(option, 'data-fit', row.fit)
      setAttribute(option, 'title', this.#hint(row))
      if (index === this.#at) option.scrollIntoView({ block: 'nearest' })
    })
  }

  #hint({ name, category, baseModel, fit }) {
    const words = { good: this.#t('fitsModel'), bad: this.#t('otherBase', { base: baseModel }) }
    return [name, category, words[fit]].filter(Boolean).join('\n')
  }

  #createOption({ name, baseModel }) {
    const { folder, stem } = splitName(name)
    const option = h('li', { role: 'option', onclick: () => this.#choose(name) }, h('span', { class: 'ws-dim' }, folder), h('b'), h('span', { class: 'ws-dim' }, baseModel))
    setText(option.children[1], stem)
    return option
  }

  #onType() {
    this.#typed = true
    this.#drawCover()
    this.#show(this.input.value)
  }

  #onPasted(event) {
    if (this.#onPaste(event.clipboardData.getData('text/plain'))) event.preventDefault()
  }

  #onKey(event) {
    // Of an input method: this Enter confirms a word of it. Older browsers tell by the number.
    if (event.isComposing || event.keyCode === 229) return
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      // Moves the row: left to who has the rows.
      if (event.altKey) return this.#settle()
      if (this.popup.hidden) this.#show('')
      this.#at = Math.min(this.#found.length - 1, Math.max(0, this.#at + (event.key === 'ArrowDown' ? 1 : -1)))
      this.#draw(!this.popup.hidden)
    } else if (event.key === 'Enter') this.#settle(this.#found[this.popup.hidden ? -1 : this.#at]?.name)
    else if (event.key === 'Escape' && !this.popup.hidden) this.#close()
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  #onPopupKey(event) {
    if (event.key !== 'Escape') return
    this.input.focus()
    this.#close()
    event.stopPropagation()
  }

  /** Going on to the filters is no choice yet. */
  #onLeave({ relatedTarget }) {
    if (relatedTarget === this.input || this.popup.contains(relatedTarget)) return
    this.#settle()
  }

  /** Takes `name`, else what was typed. What was not changed is no choice: it is shown without its ending. */
  #settle(name = this.#typed ? this.input.value.trim() : this.#shown) {
    if (name === this.#shown) this.#close()
    else this.#choose(name)
  }

  #choose(name) {
    this.#write(name || this.#shown)
    this.#typed = false
    this.#draw(false)
    if (name) this.#onPick(name)
  }

  /** What was typed and not chosen is forgotten. */
  #close() {
    this.#write(this.#shown)
    this.#typed = false
    this.#draw(false)
  }
}
