/** The adapters table: filter, sort, pin, evict, warm; a grid for the keyboard and the screen reader. */

import { h, icon, setAttribute, setIcon, setText } from './dom.js'
import { formatAge, formatBytes, formatCount, splitName } from './format.js'
import { SORTS, mergeRows, selectRows } from './rows.js'
import { statesByName, usesByName } from './status.js'
import { VirtualRows } from './virtual_rows.js'

const KEYS = { p: 'pin', w: 'warm', Delete: 'evict' }

export class AdaptersSection {
  #t
  #locale
  #onAction
  #rows = []
  #shown = []
  #active = ''

  /** @param onAction called with ('pin' | 'unpin' | 'evict' | 'warm', name) */
  constructor({ t, locale, onAction }) {
    this.#t = t
    this.#locale = locale
    this.#onAction = onAction
    this.count = h('span', { class: 'ws-count' })
    this.filter = h('input', { type: 'search', class: 'ws-input', placeholder: t('filter'), 'aria-label': t('filter'), oninput: () => this.#redraw() })
    const sorts = Object.keys(SORTS).map((name) => h('option', { value: name }, t(`sort${name[0].toUpperCase()}${name.slice(1)}`)))
    this.sort = h('select', { class: 'ws-input', 'aria-label': t('sort'), onchange: () => this.#redraw() }, ...sorts)
    this.tools = h('div', { class: 'ws-tools' }, this.filter, this.sort)
    this.box = h('div', { class: 'ws-rows', role: 'rowgroup' })
    this.grid = h('div', { role: 'grid', 'aria-label': t('adapters'), onkeydown: (event) => this.#onKey(event), onfocusin: (event) => this.#onFocus(event) }, this.box)
    this.emptyNote = h('div', { class: 'ws-empty' }, h('p'), h('p', { class: 'ws-dim' }))
    this.element = h('section', { class: 'ws-card ws-adapters' }, h('h3', {}, t('adapters'), this.count), this.tools, this.grid, this.emptyNote)
    this.virtual = new VirtualRows({ element: this.box, create: (row) => this.#createRow(row), update: (element, row, index) => this.#updateRow(element, row, index) })
  }

  update(status, catalog) {
    this.#rows = mergeRows(catalog, status, usesByName(status.queue), statesByName(status.queue))
    this.#redraw()
  }

  /** Of LoRA files that are in the system's file cache and not in memory. */
  get cachedBytes() {
    return this.#rows.reduce((sum, row) => sum + (row.state === 'page' ? row.bytes ?? 0 : 0), 0)
  }

  #redraw() {
    const t = this.#t
    const filter = this.filter.value.trim()
    const focused = this.#hasFocus() ? this.#activeIndex() : -1
    this.#shown = selectRows(this.#rows, filter, this.sort.value)
    const [all, shown] = [this.#rows.length, this.#shown.length]
    this.tools.hidden = all === 0
    this.grid.hidden = shown === 0
    this.emptyNote.hidden = shown > 0
    setText(this.emptyNote.firstElementChild, all === 0 ? t('empty') : t('noMatch', { filter }))
    setText(this.emptyNote.lastElementChild, all === 0 ? t('emptyHint') : '')
    setText(this.count, shown === all ? this.#number(all) : t('of', { used: this.#number(shown), total: this.#number(all) }))
    setAttribute(this.grid, 'aria-rowcount', shown)
    this.virtual.show(this.#shown, this.#activeIndex())
    if (focused >= 0 && shown > 0 && this.#activeIndex() < 0) this.#focusRow(focused)
  }

  #hasFocus() {
    return this.box.contains(document.activeElement)
  }

  #number(count) {
    return formatCount(count, this.#locale)
  }

  #activeIndex() {
    return this.#shown.findIndex((row) => row.name === this.#active)
  }

  #createRow({ name }) {
    const button = (action) => h('button', { type: 'button', class: 'ws-tool', 'data-action': action, onclick: (event) => this.#onClick(event, name) }, icon(action))
    const { folder, stem } = splitName(name)
    return h('div', { class: 'ws-row', role: 'row' },
      h('div', { class: 'ws-cell ws-name', role: 'gridcell' }, h('span', { class: 'ws-glyph' }, icon('unknown')), h('span', { class: 'ws-folder' }, folder), h('b', {}, stem)),
      h('div', { class: 'ws-cell ws-meta', role: 'gridcell' }, ...['state', 'size', 'uses', 'base', 'hits', 'idle', 'category'].map((part) => h('span', { class: `ws-${part}` }))),
      h('div', { class: 'ws-cell ws-actions', role: 'gridcell' }, button('warm'), button('pin'), button('evict')))
  }

  #updateRow(element, row, index) {
    const t = this.#t
    const [nameCell, meta, actions] = element.children
    const reachable = row.name === this.#active || (index === 0 && this.#activeIndex() < 0) ? 0 : -1
    setAttribute(element, 'aria-rowindex', index + 1)
    setAttribute(element, 'tabindex', reachable)
    element.dataset.state = row.state
    setIcon(nameCell.firstElementChild.firstElementChild, row.state)
    const words = [
      t(`state.${row.state}`), formatBytes(row.bytes, this.#locale), row.uses > 0 ? t('uses', { count: row.uses }) : '',
      row.baseModel, row.hits > 0 ? t('hits', { count: row.hits }) : '', this.#idle(row), row.category,
    ]
    words.forEach((word, column) => setText(meta.children[column], word))
    setAttribute(element, 'title', [row.name, words.filter(Boolean).join(' · ')].join('\n'))
    setAttribute(meta.firstElementChild, 'title', row.problem || t(`stateHint.${row.state}`))
    this.#updateActions(actions, row, reachable)
  }

  #idle({ idleS }) {
    return idleS == null ? '' : this.#t('idle', { time: formatAge(idleS, this.#locale) })
  }

  #updateActions(cell, row, reachable) {
    const [warm, pin, evict] = cell.children
    const inMemory = row.state === 'ready'
    this.#button(warm, 'warm', row, reachable, !inMemory && ['cold', 'page', 'failed'].includes(row.state), '')
    this.#button(pin, row.pinned ? 'unpin' : 'pin', row, reachable, inMemory || row.pinned, '')
    this.#button(evict, 'evict', row, reachable, inMemory, this.#whyKept(row))
    setAttribute(pin, 'aria-pressed', String(row.pinned))
  }

  /** Why a row cannot be evicted; '' when it can. */
  #whyKept({ pinned, leases }) {
    return pinned ? this.#t('isPinned') : leases > 0 ? this.#t('inUse') : ''
  }

  #button(button, action, { name }, reachable, visible, refusal) {
    button.hidden = !visible
    setAttribute(button, 'tabindex', reachable)
    setAttribute(button, 'aria-disabled', refusal ? 'true' : null)
    setAttribute(button, 'aria-label', this.#t(action === 'unpin' ? 'pin' : action, { name }))
    setAttribute(button, 'title', refusal || this.#t(`${action}Hint`))
  }

  #onClick(event, name) {
    // The pressed button is about to disappear, and would drop the focus to the page.
    event.currentTarget.closest('.ws-row').focus({ preventScroll: true })
    this.#run(event.currentTarget.dataset.action, name)
  }

  #run(action, name) {
    const row = this.#rows.find((entry) => entry.name === name)
    if (!row) return
    if (action === 'evict' && (this.#whyKept(row) || row.state !== 'ready')) return
    if (action === 'warm' && row.state === 'ready') return
    if (action === 'evict' && this.#hasFocus()) this.#focusRow(this.#activeIndex() + 1)
    this.#onAction(action === 'pin' && row.pinned ? 'unpin' : action, name)
  }

  #onFocus(event) {
    const row = event.target.closest('.ws-row')
    if (!row || row.dataset.key === this.#active) return
    this.#active = row.dataset.key
    this.virtual.show(this.#shown, this.#activeIndex())
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return
    const from = Math.max(0, this.#activeIndex())
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: this.virtual.pageRows, PageUp: -this.virtual.pageRows, Home: -Infinity, End: Infinity }
    if (event.key in steps) this.#focusRow(from + steps[event.key])
    else if (event.key in KEYS && event.target.classList.contains('ws-row')) this.#run(KEYS[event.key], event.target.dataset.key)
    else return
    // The host has its own meaning for these keys: Delete removes nodes from the graph.
    event.preventDefault()
    event.stopPropagation()
  }

  #focusRow(index) {
    const target = Math.min(this.#shown.length - 1, Math.max(0, index))
    this.#active = this.#shown[target].name
    this.virtual.show(this.#shown, target)
    const row = [...this.box.children].find((element) => element.dataset.key === this.#active)
    row.focus({ preventScroll: true })
    row.scrollIntoView({ block: 'nearest' })
  }
}
