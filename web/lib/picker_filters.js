/** What the list of LoRA names is narrowed to: a category, a base model, or what fits the model. One for all rows of a node. */

import { h, keyed, setText } from './dom.js'

/** The value of the base model select that means whatever fits; no base model has a name with a blank in front. */
const FITTING = ' fits'

export class PickerFilters {
  #t
  #onChange = () => {}

  constructor({ t }) {
    this.#t = t
    this.category = h('select', { class: 'ws-input', 'aria-label': t('category') })
    this.base = h('select', { class: 'ws-input', 'aria-label': t('baseModel') })
    this.element = h('div', { class: 'ws-picker-filters', onchange: () => this.#onChange() }, this.category, this.base)
  }

  /** Offers what occurs among `rows`, and what fits when `fitting` (a Set of base models) is known; `onChange()` after a choice. */
  offer(rows, fitting, onChange) {
    this.#onChange = onChange
    const bases = distinct(rows.map((row) => row.baseModel))
    const fits = fitting.size > 0 ? [[FITTING, this.#t('fitsModel')]] : []
    offered(this.category, [['', this.#t('allCategories')], ...categoriesOf(rows).map(same)])
    offered(this.base, [['', this.#t('allBases')], ...fits, ...bases.map(same)])
  }

  /** @param fits `(row) => boolean` */
  select(rows, fits) {
    const [category, base] = [this.category.value, this.base.value]
    return rows.filter((row) => isBelow(row.category, category) && (base === FITTING ? fits(row) : !base || row.baseModel === base))
  }
}

/** As the server does it: `characters` covers `characters/anime` too. */
function isBelow(category, wanted) {
  return !wanted || category === wanted || category.startsWith(`${wanted}/`)
}

/** Every category, and every folder above one. */
function categoriesOf(rows) {
  const parts = distinct(rows.map((row) => row.category)).map((category) => category.split('/'))
  return distinct(parts.flatMap((path) => path.map((_, depth) => path.slice(0, depth + 1).join('/'))))
}

function distinct(words) {
  return [...new Set(words)].filter(Boolean).sort()
}

function same(word) {
  return [word, word]
}

/** A choice that has gone is no choice any more. */
function offered(select, options) {
  const chosen = select.value
  keyed(select, options, ([value]) => value, ([value]) => h('option', { value }), (option, [, label]) => setText(option, label))
  select.value = options.some(([value]) => value === chosen) ? chosen : ''
}
