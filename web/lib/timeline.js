/** The last jobs, drawn: a column per job, as tall as its LoRA load time; the part that the job waited for stands out. */

import { h, keyed, setAttribute } from './dom.js'
import { formatSeconds } from './format.js'

export class TimelineSection {
  #t
  #locale

  constructor({ t, locale }) {
    this.#t = t
    this.#locale = locale
    this.columns = h('ol', { class: 'ws-timeline', 'aria-label': t('history') })
    const legend = h('p', { class: 'ws-legend ws-dim' }, h('i', { class: 'ws-swatch ws-fill-ours' }), t('wasHidden'), h('i', { class: 'ws-swatch ws-fill-waited' }), t('wasWaited'))
    this.element = h('section', { class: 'ws-card', title: t('historyHint') }, h('h3', {}, t('history'), legend), this.columns)
  }

  update({ jobs }) {
    this.element.hidden = jobs.length === 0
    const longestS = Math.max(0.001, ...jobs.map(totalS))
    keyed(this.columns, jobs, (job) => job.id, () => h('li', {}, h('i', { class: 'ws-fill-ours' }), h('i', { class: 'ws-fill-waited' }), h('span', { class: 'ws-hear' })), (column, job) => {
      const [hidden, waited, words] = column.children
      hidden.style.blockSize = `${((totalS(job) - job.waitS) / longestS) * 100}%`
      waited.style.blockSize = `${(job.waitS / longestS) * 100}%`
      words.textContent = this.#t('historyItem', { load: formatSeconds(job.loadS, this.#locale), wait: formatSeconds(job.waitS, this.#locale) })
      setAttribute(column, 'title', words.textContent)
    })
  }
}

/** A job can wait longer than its files took to load, behind another job's load. */
function totalS(job) {
  return Math.max(job.loadS, job.waitS)
}
