/** The queue map: one row per job, one chip per LoRA, so that one look tells whether the next job waits, and for what. */

import { h, icon, keyed, setAttribute, setIcon, setText } from './dom.js'
import { formatCount, splitName } from './format.js'
import { nextVerdict } from './status.js'

/** Farther jobs are counted, not drawn: nobody reads row 40, and the browser would lay it out at every push. */
const SHOWN_JOBS = 24

export class QueueSection {
  #t
  #locale

  constructor({ t, locale }) {
    this.#t = t
    this.#locale = locale
    this.count = h('span', { class: 'ws-count' })
    this.verdict = h('p', { class: 'ws-verdict' }, icon('ready'), h('span'))
    this.rows = h('ol', { class: 'ws-jobs', 'aria-label': t('queue') })
    this.more = h('p', { class: 'ws-dim' })
    this.element = h('section', { class: 'ws-card' }, h('h3', {}, t('queue'), this.count), this.verdict, this.rows, this.more)
  }

  update({ queue, queuedJobs }) {
    this.#updateVerdict(nextVerdict(queue), queuedJobs)
    setText(this.count, queuedJobs > 0 ? formatCount(queuedJobs, this.#locale) : '')
    keyed(this.rows, this.#numbered(queue), (row) => row.job.id, () => createJob(), (element, row) => this.#updateJob(element, row))
    this.rows.hidden = queue.length === 0
    const farther = queuedJobs - Math.min(queue.length, SHOWN_JOBS)
    // With prefetch off the server counts jobs and tells of none: more than nothing would be said of them.
    this.more.hidden = queue.length === 0 || farther === 0
    setText(this.more, this.#t('queueMore', { count: formatCount(farther, this.#locale) }))
  }

  #updateVerdict({ kind, names }, jobs) {
    this.verdict.hidden = kind === 'idle' && jobs > 0
    this.verdict.dataset.kind = kind
    setIcon(this.verdict.firstElementChild, { idle: 'unknown', problem: 'failed' }[kind] ?? kind)
    const key = { idle: 'queueEmpty', ready: 'nextReady', loading: 'nextLoading', cold: 'nextCold', problem: 'nextProblem' }[kind]
    setText(this.verdict.lastElementChild, this.#t(key, { names: this.#listed(names) }))
  }

  #listed(names) {
    const first = splitName(names[0] ?? '').stem || this.#t('state.unknown')
    return names.length > 1 ? this.#t('andMore', { first, count: names.length - 1 }) : first
  }

  #numbered(queue) {
    let waiting = 0
    return queue.slice(0, SHOWN_JOBS).map((job) => {
      if (!job.running) waiting += 1
      const label = job.running ? this.#t('running') : waiting === 1 ? this.#t('next') : this.#t('jobNumber', { number: waiting })
      return { job, label }
    })
  }

  #updateJob(element, { job, label }) {
    const [where, chips] = element.children
    setText(where, label)
    setAttribute(element, 'title', [job.id, ...job.models.map((model) => `${model.name}: ${this.#t(`state.${model.state}`)}`)].join('\n'))
    element.classList.toggle('ws-running', job.running)
    const items = job.adapters.length > 0 ? job.adapters : [null]
    keyed(chips, items, (item, index) => (item ? `${index} ${item.name}` : 'none'), (item) => createChip(item), (chip, item) => this.#updateChip(chip, item))
  }

  #updateChip(chip, item) {
    if (item === null) {
      setText(chip, this.#t('noLoras'))
      return
    }
    const [drawing, name, state] = chip.children
    chip.dataset.state = item.state
    setIcon(drawing, item.state)
    setText(name, splitName(item.name).stem || this.#t('state.unknown'))
    setText(state, `, ${this.#t(`state.${item.state}`)}`)
    setAttribute(chip, 'title', `${item.name}\n${this.#t(`state.${item.state}`)}: ${item.reason || this.#t(`stateHint.${item.state}`)}`)
  }
}

function createJob() {
  return h('li', { class: 'ws-job' }, h('span', { class: 'ws-where' }), h('ul', { class: 'ws-chips' }))
}

function createChip(item) {
  if (item === null) return h('li', { class: 'ws-dim' })
  return h('li', { class: 'ws-chip' }, icon(item.state), h('span', { class: 'ws-chip-name' }), h('span', { class: 'ws-hear' }))
}
