/** The rows of a `loras` input: on/off, name, strengths, order. Edits the same text that an API client writes. */

import { h, icon, keyed, setAttribute, setIcon, setText } from './dom.js'
import { Inquiry } from './inquiry.js'
import { LoraPicker } from './lora_picker.js'
import { PickerFilters } from './picker_filters.js'
import { dragRow } from './row_drag.js'
import { StackReport, fittingBases } from './stack_report.js'
import { looksLikeStack, moved, plannedRows, readRows, strength, writeRows } from './stack_text.js'

/** Pixels of a sideways drag per step of 0.05. */
const DRAG_PX = 6
/** No node is as narrow: the host has not placed the editor yet. */
const UNPLACED_PX = 100

export class StackEditor {
  #t
  #plan
  #refused
  #text
  #onEdit
  #catalog
  #rows = []
  #planned = new Map()
  #live = null
  #isAllLive = true
  #reported = null
  #modelBase = ''
  #isLinked = false
  #isTextOpen = false
  #fault = ''
  #showText
  #focusText
  #inquiry
  #ids = 0

  /**
   * @param plan `(text) => Promise<{ loras }>`, the server's view of the text; `inTurn(work)` waits for the other editors;
   * `onEdit(text)` after every change here; `showText(isShown)` shows the text itself or folds it away; `focusText()` when a
   * person goes on there; `refused(error)`
   */
  constructor({ t, catalog, plan, inTurn, onEdit, showText, focusText, refused }) {
    this.#t = t
    this.#plan = plan
    this.#showText = showText
    this.#focusText = focusText
    this.#inquiry = new Inquiry(() => inTurn(() => this.#lookUp()))
    this.#onEdit = onEdit
    this.#refused = refused
    this.#catalog = catalog
    this.list = h('ol', { class: 'ws-stack-rows', 'aria-label': t('stack') })
    this.convert = h('button', { type: 'button', class: 'ws-button', onclick: () => this.#convert() }, t('editAsRows'))
    this.filters = new PickerFilters({ t })
    this.linkedNote = h('p', { class: 'ws-stack-other', hidden: '' }, t('linkedText'))
    this.otherNote = h('span')
    this.other = h('p', { class: 'ws-stack-other' }, this.otherNote, this.convert)
    this.add = h('button', { type: 'button', class: 'ws-button', onclick: () => this.#append() }, t('addLora'))
    this.textSwitch = h('button', { type: 'button', class: 'ws-button ws-quiet', onclick: () => this.#openText(!this.#isTextOpen) })
    this.foot = h('div', { class: 'ws-stack-foot' }, this.add, this.textSwitch)
    this.notice = h('p', { class: 'ws-stack-notice' })
    this.report = new StackReport({ t })
    this.body = h('div', { class: 'ws-stack-body' }, this.linkedNote, this.list, this.other, this.notice, this.foot, this.report.element)
    this.element = h('div', { class: 'ws-stack', lang: t.language }, this.body)
    for (const type of ['keydown', 'keyup']) this.element.addEventListener(type, keepFromHost)
    for (const type of ['pointerdown', 'mousedown', 'dblclick', 'contextmenu']) this.element.addEventListener(type, (event) => event.stopPropagation())
  }

  /** Shows `text`; nothing happens when it is what is shown already. */
  show(text) {
    if (text === this.#text) return
    this.#text = text
    const rows = readRows(text)
    // What is being typed may be a list of rows in between: it is not folded away under the hands of who types.
    if (rows === null) this.#isTextOpen = true
    this.#fault = ''
    this.#rows = this.#withIds(rows ?? [])
    this.#draw()
    this.#inquiry.soon()
  }

  /** True while a link feeds the input: the text, and with it the rows, then mean nothing. */
  linked(isLinked) {
    if (isLinked === this.#isLinked) return
    this.#isLinked = isLinked
    this.#draw()
  }

  /** Pixels that everything needs, an open list of names included. */
  get heightPx() {
    // In no width every word has a line of its own, and the node would stay as tall as that.
    if (this.element.offsetWidth < UNPLACED_PX) return 0
    return this.body.offsetHeight + 20 // the host's own margin around a widget of elements
  }

  /** What is in memory now: Map of name -> state, and whether that is all. Newer than what the server said when the text was last edited. */
  warmth(live, isAll) {
    this.#live = live
    this.#isAllLive = isAll
    this.#draw()
  }

  /** Whether the server can be reached. */
  online(isOnline) {
    this.#inquiry.online(isOnline)
  }

  catalogChanged() {
    this.#inquiry.soon()
    this.#draw()
    for (const row of this.list.children) row.picker.refresh()
  }

  /** What the node's last run told: see parseReport. */
  ran(report) {
    this.#reported = report
    this.report.update(report)
    this.#inquiry.soon()
    this.#draw()
  }

  /** What the node says beside the text has changed, and with it perhaps which files the names mean. */
  planChanged() {
    this.#inquiry.soon()
  }

  /** The base model that the file of the node's model is; '' when nobody can tell. */
  follows(modelBase) {
    if (modelBase === this.#modelBase) return
    // What the last run has shown, it has shown of another model.
    if (this.#modelBase && modelBase) this.#reported = null
    this.#modelBase = modelBase
    this.#draw()
  }

  #edit(rows) {
    this.#rows = rows
    this.#text = writeRows(named(rows))
    this.#draw()
    this.#inquiry.soon()
    this.#onEdit(this.#text)
  }

  #change(id, change) {
    this.#edit(this.#rows.map((row) => (row.id === id ? { ...row, ...change } : row)))
  }

  #append() {
    const row = { name: '', model: 1, clip: 1, on: true, category: '', id: (this.#ids += 1) }
    // Not an edit yet: a row without a name is no row, and would fail the prompt.
    this.#rows = [...this.#rows, row]
    this.#draw()
    this.list.lastElementChild.picker.input.focus()
  }

  #openText(isOpen) {
    this.#isTextOpen = isOpen
    this.#draw()
    if (isOpen) this.#focusText()
  }

  async #convert() {
    const asker = document.activeElement
    const rows = await this.#read(this.#text)
    if (!rows) return
    this.#isTextOpen = false
    this.#edit(rows)
    this.#focusFrom(asker, 0)
  }

  /** A stack that is pasted where a name goes takes the place of its row. True when `text` is one. */
  #paste(id, text) {
    if (!looksLikeStack(text)) return false
    const asker = document.activeElement
    this.#read(text).then((rows) => {
      const index = this.#indexOf(id)
      if (!rows || index < 0) return
      this.#edit(this.#rows.flatMap((row) => (row.id === id ? rows : [row])))
      this.#focusFrom(asker, index)
    })
    return true
  }

  /** The rows of a text in any form; null when the server cannot read it, which the person is told. */
  async #read(text) {
    // The server tells only of rows that are on.
    const rows = readRows(text)
    if (rows) return this.#withIds(rows)
    try {
      const { loras, unknown } = await this.#plan(text)
      // Of a text that is broken somewhere it tells no row at all.
      if (unknown.length > 0) throw new SyntaxError(unknown[0].reason)
      const rows = plannedRows(loras)
      const open = rows.find(({ model, clip }) => model === null || clip === null)
      if (open) throw new SyntaxError(this.#t('strengthUnknown', { name: open.name }))
      return this.#withIds(rows)
    } catch (error) {
      this.#refused(error)
      return null
    }
  }

  #withIds(rows) {
    return rows.map((row) => ({ ...row, id: (this.#ids += 1) }))
  }

  #draw() {
    const isOther = this.#isOther
    this.linkedNote.hidden = !this.#isLinked
    this.list.hidden = this.#isLinked
    this.other.hidden = this.#isLinked || !isOther
    setText(this.otherNote, this.#fault ? this.#t('unreadable', { reason: this.#fault }) : this.#t('otherText'))
    setAttribute(this.otherNote, 'class', this.#fault ? 'ws-fault' : null)
    this.foot.hidden = this.#isLinked || isOther
    setText(this.textSwitch, this.#t(this.#isTextOpen ? 'hideText' : 'editAsText'))
    this.#showText(this.#isLinked || isOther || this.#isTextOpen)
    keyed(this.list, this.#rows, (row) => row.id, (row) => this.#createRow(row.id), (element, row, index) => this.#updateRow(element, row, index))
    const bases = this.#basesOf(this.#rows)
    this.notice.hidden = this.#isLinked || bases.size < 2
    setText(this.notice, bases.size < 2 ? '' : this.#t('mixedBases', { bases: [...bases].sort().join(', ') }))
  }

  /** Whether the text is in another form than the rows. */
  get #isOther() {
    return readRows(this.#text ?? '') === null
  }

  #basesOf(rows) {
    return new Set(rows.filter((row) => row.on).map((row) => this.#baseModel(row)).filter(Boolean))
  }

  #baseModel(row) {
    return this.#catalog.named(this.#fileOf(row))?.baseModel ?? ''
  }

  #fileOf(row) {
    return this.#planned.get(askedOf(row))?.file || row.name
  }

  /** The last run or the model's file knows which base models fit; else the other rows have to. Empty: nothing is known. */
  #fitting(id) {
    const known = fittingBases(this.#reported, this.#modelBase)
    return known.size > 0 ? known : this.#basesOf(this.#rows.filter((row) => row.id !== id))
  }

  /** Why a row does not fit the model; '' when it does, or when nobody can tell. */
  #misfit(row) {
    if (!row.on) return ''
    const told = this.#reported?.rows.find(({ name }) => name === this.#fileOf(row))
    if (told) return told.warning
    const [base, fitting] = [this.#baseModel(row), fittingBases(this.#reported, this.#modelBase)]
    return base && fitting.size > 0 && !fitting.has(base) ? this.#t('otherBase', { base }) : ''
  }

  #createRow(id) {
    const t = this.#t
    const picker = new LoraPicker({
      t, rows: () => this.#catalog.rows, fitting: () => this.#fitting(id), filters: this.filters, onPick: (name) => this.#pick(id, name), onPaste: (text) => this.#paste(id, text),
    })
    const number = (field) => this.#createNumber(id, field)
    const tool = (name, drawing, act) => h('button', { type: 'button', class: 'ws-tool', 'data-tool': name, title: t(name), onclick: act }, icon(drawing))
    // Alt with the arrow keys, and a button, do the same: a grip is for the pointer alone.
    const grip = h('span', { class: 'ws-grip', title: t('dragRow'), 'aria-hidden': 'true', onpointerdown: (event) => dragRow(event, this.list, element, (to) => this.#moveTo(id, to)) }, icon('grip'))
    const element = h('li', { class: 'ws-stack-row', onkeydown: (event) => this.#onRowKey(event, id) }, grip,
      h('input', { type: 'checkbox', title: t('onOff'), onchange: (event) => this.#change(id, { on: event.target.checked }) }),
      h('span', { class: 'ws-glyph' }, icon('unknown')), picker.field, picker.popup, number('model'), number('clip'),
      h('span', { class: 'ws-stack-tools' }, tool('moveUp', 'up', () => this.#move(id, -1)), tool('duplicate', 'copy', () => this.#duplicate(id)), tool('remove', 'evict', () => this.#remove(id))),
      h('span', { class: 'ws-candidates' }))
    return Object.assign(element, { picker })
  }

  #createNumber(id, field) {
    const input = h('input', {
      type: 'text', inputmode: 'decimal', class: 'ws-input ws-strength', 'data-field': field, title: this.#t(field === 'model' ? 'strengthModel' : 'strengthClip'),
      onchange: () => this.#change(id, { [field]: strength(input.value, this.#row(id)[field]) }), onfocus: () => input.select(),
      onkeydown: (event) => this.#onNumberKey(event, id, field), onpointerdown: (event) => this.#drag(event, id, field),
    })
    return input
  }

  #updateRow(element, row, index) {
    const [, toggle, glyph] = element.children
    const planned = row.on ? this.#planned.get(askedOf(row)) : undefined
    const known = planned !== undefined
    const state = known ? this.#state(planned) : 'unknown'
    element.dataset.state = known ? state : 'off'
    element.classList.toggle('ws-off', !row.on)
    toggle.checked = row.on
    setAttribute(toggle, 'aria-label', `${this.#t('onOff')} ${row.name}`)
    setIcon(glyph.firstElementChild, known ? state : 'unknown')
    setAttribute(glyph, 'title', known ? `${this.#t(`state.${state}`)}: ${this.#t(`stateHint.${state}`)}` : '')
    const misfit = this.#misfit(row)
    setAttribute(element, 'data-fit', misfit ? 'bad' : null)
    element.picker.setValue(row.name, misfit)
    for (const input of element.querySelectorAll('.ws-strength')) {
      setAttribute(input, 'aria-label', `${input.title} ${row.name}`)
      if (document.activeElement !== input) input.value = String(row[input.dataset.field])
    }
    for (const button of element.querySelectorAll('[data-tool]')) setAttribute(button, 'aria-label', `${this.#t(button.dataset.tool)} ${row.name}`)
    setAttribute(element.querySelector('[data-tool=moveUp]'), 'aria-disabled', index === 0 ? 'true' : null)
    this.#updateCandidates(element.lastElementChild, row, planned)
  }

  #state({ state, file, warm }) {
    if (state !== 'found') return state
    if (this.#live === null) return warm
    return this.#live.get(file) ?? (this.#isAllLive && (warm === 'ready' || warm === 'loading') ? 'cold' : warm)
  }

  #updateCandidates(box, { id }, planned) {
    const candidates = planned && planned.state !== 'found' ? planned.candidates ?? [] : []
    box.hidden = candidates.length === 0
    const choose = (name) => {
      this.#pick(id, name)
      this.#focus(this.#indexOf(id))
    }
    keyed(box, candidates.slice(0, 4), (name) => name, (name) => h('button', { type: 'button', class: 'ws-chip', onclick: () => choose(name) }, name), () => {})
  }

  #row(id) {
    return this.#rows.find((row) => row.id === id)
  }

  #indexOf(id) {
    return this.#rows.findIndex((row) => row.id === id)
  }

  /** What was pressed is gone, and with it the focus: the next key would be the host's, and Delete removes nodes. */
  #focus(index, selector = 'input') {
    const target = this.list.children[index]?.querySelector(selector) ?? this.add
    target.focus({ preventScroll: true })
  }

  /** For who has waited where they asked: others have gone on, and type into something else. */
  #focusFrom(asker, index) {
    if ([asker, document.body].includes(document.activeElement)) this.#focus(index)
  }

  #pick(id, name) {
    const row = this.#row(id)
    if (row && row.name !== name) this.#change(id, { name })
  }

  #move(id, by) {
    this.#moveTo(id, this.#indexOf(id) + by)
  }

  #moveTo(id, to) {
    const from = this.#indexOf(id)
    if (to >= 0 && to < this.#rows.length && to !== from) this.#edit(moved(this.#rows, from, to))
  }

  #duplicate(id) {
    this.#edit(this.#rows.flatMap((row) => (row.id === id ? [row, { ...row, id: (this.#ids += 1) }] : [row])))
  }

  #remove(id) {
    const index = this.#indexOf(id)
    this.#edit(this.#rows.filter((row) => row.id !== id))
    this.#focus(index, '[data-tool=remove]')
  }

  #onRowKey(event, id) {
    if (!event.altKey || (event.key !== 'ArrowUp' && event.key !== 'ArrowDown')) return
    event.preventDefault()
    this.#move(id, event.key === 'ArrowUp' ? -1 : 1)
  }

  #onNumberKey(event, id, field) {
    if (event.altKey || (event.key !== 'ArrowUp' && event.key !== 'ArrowDown')) return
    event.preventDefault()
    const step = (event.key === 'ArrowUp' ? 1 : -1) * (event.shiftKey ? 0.1 : 0.05)
    event.target.value = String(strength(strength(event.target.value, this.#row(id)[field]) + step, 0))
    this.#change(id, { [field]: strength(event.target.value, 0) })
  }

  /** Dragging sideways changes the strength; the text is written once, at the end, so that undo has one step. */
  #drag(event, id, field) {
    const input = event.currentTarget
    const [startX, before] = [event.clientX, this.#row(id)[field]]
    const value = (x) => strength(before + Math.trunc((x - startX) / DRAG_PX) * 0.05, before)
    const onMove = (move) => { if (move.buttons && Math.abs(move.clientX - startX) >= DRAG_PX) input.value = String(value(move.clientX)) }
    const onEnd = (end) => {
      input.removeEventListener('pointermove', onMove)
      for (const type of ['pointerup', 'pointercancel']) input.removeEventListener(type, onEnd)
      if (Math.abs(end.clientX - startX) < DRAG_PX) return
      if (end.type === 'pointerup') this.#change(id, { [field]: value(end.clientX) })
      else input.value = String(before)
    }
    input.setPointerCapture(event.pointerId)
    input.addEventListener('pointermove', onMove)
    for (const type of ['pointerup', 'pointercancel']) input.addEventListener(type, onEnd)
  }

  /** What a name means, and where its file is, changes with the rows, the library, the server and every run. */
  async #lookUp() {
    if (this.#isOther) return this.#lookForFault(this.#text)
    const rows = named(this.#rows)
    if (rows.length === 0) return
    const { loras } = await this.#plan(writeRows(rows))
    // Also when the rows are others by now: it holds for those that it is about.
    this.#planned = matched(rows, loras)
    this.#draw()
  }

  /** What would fail the prompt is told while the text is being written. */
  async #lookForFault(text) {
    const { unknown } = await this.#plan(text)
    if (text !== this.#text) return
    this.#fault = unknown[0]?.reason ?? ''
    this.#draw()
  }
}

/** A row that was added and not yet filled in is nowhere but on the screen. */
function named(rows) {
  return rows.filter((row) => row.name)
}

/** Rows that ask for the same get the same answer, also one that is only about to be asked for again. */
function askedOf({ name, category }) {
  return `${category}\n${name}`
}

/** What each row asks for -> its answer. The server answers in the order of the rows, and leaves out what does nothing. */
function matched(rows, answers) {
  const rest = [...answers]
  const active = rows.filter(({ on, model, clip }) => on && (model !== 0 || clip !== 0))
  return new Map(active.flatMap((row) => (row.name === rest[0]?.name ? [[askedOf(row), rest.shift()]] : [])))
}

/** Plain keys are ours: Delete would remove the node. Shortcuts with Ctrl stay the host's. */
function keepFromHost(event) {
  if (!event.ctrlKey && !event.metaKey) event.stopPropagation()
}
