/** Draws only the rows in view, so that 10,000 adapters cost what 20 cost. All rows have one height, `--ws-row` in pixels. */

import { keyed } from './dom.js'

/** Rows drawn beyond each edge: enough for one notch of a wheel without a blank strip. */
const MARGIN_ROWS = 6

export class VirtualRows {
  #items = []
  #rowHeight = 0
  #frame = 0
  #kept = -1

  /**
   * @param element the box of the rows; gets the height of all of them
   * @param create,update as in `keyed`; every item needs a `name`
   */
  constructor({ element, create, update }) {
    this.element = element
    this.create = create
    this.update = update
    this.observer = new ResizeObserver(() => this.measure())
  }

  /** Starts following `scroller`, the ancestor that scrolls. */
  connect(scroller) {
    this.scroller = scroller
    this.onScroll = () => { this.#frame ||= requestAnimationFrame(() => this.draw()) }
    scroller.addEventListener('scroll', this.onScroll, { passive: true })
    this.observer.observe(scroller)
  }

  disconnect() {
    this.scroller?.removeEventListener('scroll', this.onScroll)
    this.observer.disconnect()
    cancelAnimationFrame(this.#frame)
    this.#frame = 0
  }

  /** `kept` is drawn wherever it is: a row that left the page would take the keyboard focus with it. */
  show(items, kept) {
    this.#items = items
    this.#kept = kept
    this.draw()
  }

  measure() {
    this.#rowHeight = 0
    this.draw()
  }

  draw() {
    this.#frame = 0
    this.#rowHeight ||= Number.parseFloat(getComputedStyle(this.element).getPropertyValue('--ws-row')) || 46
    this.element.style.blockSize = `${this.#items.length * this.#rowHeight}px`
    const rows = this.#visible().map((index) => ({ index, item: this.#items[index] }))
    keyed(this.element, rows, ({ item }) => item.name, ({ item }) => this.create(item), (element, { item, index }) => {
      element.style.transform = `translateY(${index * this.#rowHeight}px)`
      this.update(element, item, index)
    })
  }

  /** How many rows a page key should move. */
  get pageRows() {
    return Math.max(1, Math.floor((this.scroller?.clientHeight ?? 0) / (this.#rowHeight || 46)) - 2)
  }

  #visible() {
    if (!this.scroller || this.#items.length === 0) return []
    const above = this.scroller.getBoundingClientRect().top - this.element.getBoundingClientRect().top
    const first = Math.max(0, Math.floor(above / this.#rowHeight) - MARGIN_ROWS)
    const last = Math.min(this.#items.length - 1, Math.ceil((above + this.scroller.clientHeight) / this.#rowHeight) + MARGIN_ROWS)
    const indexes = []
    for (let index = first; index <= last; index += 1) indexes.push(index)
    if (this.#kept >= 0 && this.#kept < this.#items.length && !indexes.includes(this.#kept)) indexes.push(this.#kept)
    return indexes.sort((a, b) => a - b)
  }
}
