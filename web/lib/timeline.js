/** The last jobs, drawn: a column per job, as tall as its LoRA load time; the part that the job waited for stands out. */

import { h, keyed, setAttribute, setText } from './dom.js'
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

  /** A job without LoRAs has nothing to tell. One that read them through the file cache alone has no seconds, and gets a stub. */
  update({ history }) {
    const jobs = history.filter((job) => job.hits + job.joins + job.misses > 0)
    this.element.hidden = jobs.length === 0
    const longestS = Math.max(0.001, ...jobs.map(totalS))
    keyed(this.columns, jobs, (job) => job.id, () => h('li', {}, h('i', { class: 'ws-fill-ours' }), h('i', { class: 'ws-fill-waited' }), h('span', { class: 'ws-hear' })), (column, job) => {
      const [hidden, waited, words] = column.children
      const { hiddenS, waitedS } = totalS(job) > 0 ? { hiddenS: totalS(job) - job.waitS, waitedS: job.waitS } : stub(job, longestS)
      hidden.style.blockSize = `${(hiddenS / longestS) * 100}%`
      waited.style.blockSize = `${(waitedS / longestS) * 100}%`
      setText(words, this.#words(job))
      setAttribute(column, 'title', words.textContent)
    })
  }

  #words(job) {
    const counts = this.#t('outcomes', job)
    if (totalS(job) === 0) return counts
    return `${this.#t('historyItem', { load: formatSeconds(job.loadS, this.#locale), wait: formatSeconds(job.waitS, this.#locale) })} (${counts})`
  }
}

/** An eighth of the height, in the colour of what most of its files were. */
function stub({ hits, joins, misses }, longestS) {
  const heightS = longestS / 8
  return hits > joins + misses ? { hiddenS: heightS, waitedS: 0 } : { hiddenS: 0, waitedS: heightS }
}

/** A job can wait longer than its files took to load, behind another job's load. */
function totalS(job) {
  return Math.max(job.loadS, job.waitS)
}
