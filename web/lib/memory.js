/** Memory as bars: what is ours, what is everybody else's, what is free. */

import { h, icon, keyed, setAttribute, setText } from './dom.js'
import { formatBytes, formatBytesOf, ratio } from './format.js'

export class MemorySection {
  #t
  #locale

  constructor({ t, locale }) {
    this.#t = t
    this.#locale = locale
    this.bars = h('div', { class: 'ws-bars' })
    this.short = h('p', { class: 'ws-verdict', 'data-kind': 'cold' }, icon('failed'), t('underPressure'))
    this.element = h('section', { class: 'ws-card' }, h('h3', {}, t('memory')), this.short, this.bars)
  }

  /** @param cachedBytes of LoRA files in the file cache */
  update(status, cachedBytes) {
    this.short.hidden = !status.prefetch.underPressure
    keyed(this.bars, this.#rows(status, cachedBytes), (row) => row.id, () => createBar(), (element, row) => this.#updateBar(element, row))
  }

  /** `{ id, label, hint, usedBytes, totalBytes, parts: [[kind, bytes]], peakBytes? }`; a bar whose total is unknown is left out. */
  #rows({ budget, memory }, cachedBytes) {
    const t = this.#t
    const oursBytes = budget.usedBytes
    const rows = [{
      id: 'budget', label: t('budget'), hint: t('budgetHint', { peak: formatBytes(budget.peakBytes, this.#locale) }),
      usedBytes: oursBytes, totalBytes: budget.limitBytes, parts: [['ours', oursBytes]], peakBytes: budget.peakBytes,
    }]
    const ramUsedBytes = memory.totalBytes === null || memory.availableBytes === null ? null : memory.totalBytes - memory.availableBytes
    rows.push({
      id: 'ram', label: t('ram'), hint: t('ramHint'), usedBytes: ramUsedBytes, totalBytes: memory.totalBytes,
      parts: [['ours', Math.min(oursBytes, ramUsedBytes)], ['other', Math.max(0, ramUsedBytes - oursBytes)]],
    })
    for (const [index, device] of memory.devices.entries()) {
      const usedBytes = device.totalBytes - device.freeBytes
      rows.push({
        id: `vram${index}`, label: t('vram', { name: device.name }), hint: t('vramHint'), usedBytes, totalBytes: device.totalBytes, parts: [['other', usedBytes]],
      })
    }
    if (memory.pageCacheBytes !== null) {
      const lorasBytes = Math.min(cachedBytes, memory.pageCacheBytes)
      rows.push({
        id: 'page', label: t('pageCache'), hint: t('pageCacheHint', { loras: formatBytes(lorasBytes, this.#locale) }), usedBytes: memory.pageCacheBytes, totalBytes: memory.totalBytes,
        parts: [['page', lorasBytes], ['other', memory.pageCacheBytes - lorasBytes]],
      })
    }
    return rows.filter((row) => row.totalBytes > 0 && row.usedBytes !== null)
  }

  #updateBar(element, row) {
    const [label, value, track] = [element.querySelector('.ws-bar-label'), element.querySelector('.ws-bar-value'), element.querySelector('.ws-track')]
    const [used, total] = formatBytesOf(row.usedBytes, row.totalBytes, this.#locale)
    const amount = this.#t('of', { used, total })
    setAttribute(element, 'title', row.hint)
    setText(label, row.label)
    setText(value, amount)
    setAttribute(track, 'aria-label', row.label)
    setAttribute(track, 'aria-valuenow', Math.round(ratio(row.usedBytes, row.totalBytes) * 100))
    setAttribute(track, 'aria-valuetext', amount)
    track.classList.toggle('ws-over', row.usedBytes > row.totalBytes)
    keyed(track, row.parts, ([kind]) => kind, ([kind]) => h('div', { class: `ws-fill ws-fill-${kind}` }), (fill, [, bytes]) => {
      fill.style.inlineSize = `${ratio(bytes, row.totalBytes) * 100}%`
    })
  }
}

function createBar() {
  return h('div', { class: 'ws-bar' },
    h('div', { class: 'ws-bar-line' }, h('span', { class: 'ws-bar-label' }), h('span', { class: 'ws-bar-value' })),
    h('div', { class: 'ws-track', role: 'meter', 'aria-valuemin': 0, 'aria-valuemax': 100 }))
}
