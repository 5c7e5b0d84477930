/** The first glance: how much waiting was hidden, whether prefetch is on, and what is being loaded now. */

import { h, icon, keyed, ring, setAttribute, setRing, setText } from './dom.js'
import { formatBytesOf, formatCount, formatSeconds, formatShare, ratio, splitName } from './format.js'

/** Models are read ahead as LoRAs for other packs' loaders are. */
const TIERS = { resident: 'tierResident', device: 'tierDevice' }

export class SummarySection {
  #t
  #locale
  #enabled = true

  constructor({ t, locale, onToggle }) {
    this.#t = t
    this.#locale = locale
    this.ring = ring()
    this.share = h('strong', { class: 'ws-share' })
    this.shareLabel = h('span', { class: 'ws-share-label' })
    this.times = h('p', { class: 'ws-times' })
    this.outcomes = h('p', { class: 'ws-dim', title: t('outcomesHint') })
    this.toggle = h('button', {
      type: 'button', role: 'switch', class: 'ws-switch', 'aria-label': t('prefetch'), onclick: () => onToggle(!this.#enabled),
    }, h('span', { class: 'ws-knob' }))
    this.toggleHint = h('p', { class: 'ws-dim' })
    this.loads = h('ul', { class: 'ws-loads', 'aria-label': t('loadingNow') })
    this.element = h('section', { class: 'ws-card', 'aria-label': t('prefetch') }, this.#hero(), this.#switchRow(), this.loads)
  }

  #hero() {
    const dial = h('div', { class: 'ws-dial', title: this.#t('hiddenHint') }, this.ring, this.share)
    return h('div', { class: 'ws-hero' }, dial, h('div', { class: 'ws-facts' }, this.shareLabel, this.times, this.outcomes))
  }

  #switchRow() {
    const words = h('div', {}, h('h3', {}, this.#t('prefetch')), this.toggleHint)
    return h('div', { class: 'ws-switch-row' }, words, this.toggle)
  }

  update({ prefetch }) {
    const t = this.#t
    // Stock loaders read the page cache: for a queue of only those, bytes read ahead are what there is to show.
    const timed = prefetch.hiddenShare !== null
    const share = prefetch.hiddenShare ?? prefetch.pageShare
    this.#enabled = prefetch.enabled
    setRing(this.ring, share ?? 0)
    setText(this.share, formatShare(share))
    setText(this.shareLabel, t(timed ? 'hidden' : share === null ? 'hiddenNone' : 'hiddenPage'))
    setText(this.times, !timed ? '' : unbroken(`${this.#time('saved', prefetch.savedS)} · ${this.#time('waited', prefetch.waitS)}`))
    setText(this.outcomes, share === null ? '' : unbroken(this.#outcomes(prefetch)))
    setAttribute(this.toggle, 'aria-checked', String(prefetch.enabled))
    setText(this.toggleHint, t(prefetch.enabled ? 'prefetchOn' : 'prefetchOff'))
    this.element.classList.toggle('ws-off', !prefetch.enabled)
    this.loads.hidden = prefetch.inFlight.length === 0
    keyed(this.loads, prefetch.inFlight, (item) => `${item.tier} ${item.name}`, () => this.#createLoad(), (row, item) => this.#updateLoad(row, item))
  }

  #outcomes({ hits, joins, misses }) {
    const [h, j, m] = [hits, joins, misses].map((count) => formatCount(count, this.#locale))
    return this.#t('outcomesTotal', { hits: h, joins: j, misses: m, share: formatShare(ratio(hits, hits + joins + misses)) })
  }

  #time(key, seconds) {
    return this.#t(key, { time: formatSeconds(seconds, this.#locale) })
  }

  #createLoad() {
    return h('li', {},
      h('div', { class: 'ws-load-line' }, icon('loading'), h('span', { class: 'ws-load-name' }), h('span', { class: 'ws-load-size' })),
      h('div', { class: 'ws-track', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100 }, h('div', { class: 'ws-fill ws-fill-loading' })))
  }

  #updateLoad(row, item) {
    const [done, total] = formatBytesOf(item.bytesDone, item.bytesTotal, this.#locale)
    const tier = this.#t(TIERS[item.tier] ?? 'tierPage')
    const track = row.querySelector('.ws-track')
    const share = ratio(item.bytesDone, item.bytesTotal)
    setText(row.querySelector('.ws-load-name'), splitName(item.name).stem)
    setText(row.querySelector('.ws-load-size'), share > 0 ? this.#t('of', { used: done, total }) : total)
    setAttribute(row, 'title', `${item.name}: ${tier}`)
    setAttribute(track, 'aria-label', `${item.name}, ${tier}`)
    // Without a number the bar says "busy": no chunk has come yet.
    setAttribute(track, 'aria-valuenow', share > 0 ? Math.floor(share * 100) : null)
    track.firstElementChild.style.inlineSize = share > 0 ? `${share * 100}%` : ''
  }
}

/** "1 min 5 s saved · 0.9 s waited" may break behind the dot only. */
function unbroken(phrases) {
  return phrases.split(' · ').map((phrase) => phrase.replaceAll(' ', '\u00a0')).join('\u00a0· ')
}
