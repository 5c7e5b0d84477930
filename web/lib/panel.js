/** <warmstack-panel>: the sidebar's content. Light DOM, because in a shadow root the host's copy and paste act on nodes. */

import { AdaptersSection } from './adapters.js'
import { h, icon, keyed, setAttribute, setText } from './dom.js'
import { MemorySection } from './memory.js'
import { QueueSection } from './queue_map.js'
import { refusals } from './status.js'
import { CSS, addStyles } from './styles.js'
import { SummarySection } from './summary.js'
import { translator } from './text.js'
import { TimelineSection } from './timeline.js'

/** At most two redraws a second for pushes; what the user did is drawn at once. */
const REDRAW_MS = 500

export const TAG = 'warmstack-panel'

export class WarmStackPanel extends HTMLElement {
  #drawnAt = -Infinity
  #timer = 0
  #asked = 0
  #leave = []

  /** @param host `{ locale(): string, report(summary, detail) }` */
  static create(store, catalog, host) {
    defineOnce()
    const panel = document.createElement(TAG)
    panel.store = store
    panel.catalog = catalog
    panel.host = host
    return panel
  }

  connectedCallback() {
    const locale = this.host.locale()
    this.t = translator(locale)
    this.lang = this.t.language
    this.#build({ t: this.t, locale })
    this.adapters.virtual.connect(this)
    const onVisible = () => this.#request()
    document.addEventListener('visibilitychange', onVisible)
    this.#leave = [
      this.store.watch(() => this.#request()), this.catalog.watch(() => this.#request()), this.store.open(),
      () => document.removeEventListener('visibilitychange', onVisible), () => this.adapters.virtual.disconnect(),
    ]
    // Of files that came or went while nobody looked, the server has not heard either: the first page makes it look.
    this.catalog.expire()
    this.#draw()
  }

  disconnectedCallback() {
    clearTimeout(this.#timer)
    this.#timer = 0
    for (const leave of this.#leave.splice(0)) leave()
  }

  #build(words) {
    const { t } = this
    this.link = h('span', { class: 'ws-link', role: 'status' })
    this.refreshButton = h('button', { type: 'button', class: 'ws-tool', title: t('refresh'), 'aria-label': t('refresh'), onclick: () => this.#refresh() }, icon('refresh'))
    this.note = h('div')
    this.waiting = h('div', { class: 'ws-waiting', 'aria-hidden': 'true' })
    this.summary = new SummarySection({ ...words, onToggle: (enabled) => this.#act('settings', { enabled }) })
    this.memory = new MemorySection(words)
    this.queue = new QueueSection(words)
    this.timeline = new TimelineSection(words)
    this.adapters = new AdaptersSection({ ...words, onAction: (action, name) => this.#onAdapter(action, name) })
    const pair = h('div', { class: 'ws-pair' }, this.timeline.element, this.memory.element)
    this.content = h('div', { class: 'ws-body' }, this.summary.element, this.queue.element, pair, this.adapters.element)
    this.replaceChildren(h('header', { class: 'ws-head' }, h('h2', {}, t('title')), this.link, this.refreshButton), h('div', { class: 'ws-body ws-notes' }, this.note, this.waiting), this.content)
  }

  #request() {
    if (this.#timer || document.visibilityState !== 'visible') return
    const dueMs = Math.max(0, this.#drawnAt + REDRAW_MS - performance.now())
    this.#timer = setTimeout(() => requestAnimationFrame(() => this.#draw()), dueMs)
  }

  #draw() {
    clearTimeout(this.#timer)
    this.#timer = 0
    if (!this.isConnected) return
    this.#drawnAt = performance.now()
    const { link, status, message } = this.store.state
    this.link.dataset.link = link
    setText(this.link, this.t(link))
    this.waiting.hidden = status !== null || link === 'error'
    this.#drawNote(link, message)
    this.content.hidden = status === null
    if (status === null) return
    for (const section of [this.summary, this.queue, this.timeline]) section.update(status)
    this.catalog.follow(status)
    this.adapters.update(status, this.catalog.rows)
    this.memory.update(status, this.adapters.cachedBytes)
  }

  #drawNote(link, message) {
    const notes = link === 'error' || link === 'stale' ? [link] : []
    keyed(this.note, notes, (kind) => kind, (kind) => this.#createNote(kind), (note) => setText(note.querySelector('.ws-dim'), message))
    setAttribute(this.note.parentElement, 'hidden', notes.length === 0 && this.waiting.hidden ? '' : null)
  }

  #createNote(kind) {
    const { t } = this
    return h('div', { class: 'ws-note', role: 'alert', 'data-link': kind },
      h('strong', {}, t('errorHead')), h('span', {}, t(kind === 'stale' ? 'staleBody' : 'errorBody')), h('span', { class: 'ws-dim' }),
      h('button', { type: 'button', class: 'ws-button', onclick: () => this.#refresh() }, t('tryAgain')))
  }

  #onAdapter(action, name) {
    if (action === 'pin' || action === 'unpin') this.#act('pin', { names: [name], pinned: action === 'pin' })
    else this.#act(action, { names: [name] })
  }

  async #act(action, body) {
    try {
      const answer = await this.#visibly(this.store.act(action, body))
      for (const { name, state, reason } of refusals(answer)) this.host.report(this.t('failedAction'), `${name}: ${reason || this.t(`stateHint.${state}`)}`)
      this.catalog.refresh()
    } catch (error) {
      this.host.report(this.t('failedAction'), error.message)
    }
    this.#draw()
  }

  async #refresh() {
    await this.#visibly(Promise.all([this.store.refresh(), this.catalog.refresh()]))
    this.#draw()
  }

  /** Shows at once that what a person pressed is under way: of a server that is slow, nothing else would for a while. */
  async #visibly(underWay) {
    this.#asked += 1
    setAttribute(this.refreshButton, 'aria-busy', true)
    try {
      return await underWay
    } finally {
      this.#asked -= 1
      setAttribute(this.refreshButton, 'aria-busy', this.#asked > 0)
    }
  }
}

/** Not at import: the host imports every file below web/ as an extension, and reading a file must change nothing. */
function defineOnce() {
  if (customElements.get(TAG)) return
  addStyles('panel', CSS)
  customElements.define(TAG, WarmStackPanel)
}
