/** What the last run of a node told about its stack: how much of each LoRA found its weights, what was skipped, what looks wrong. */

import { h, keyed, setAttribute, setText } from './dom.js'
import { formatShare, splitName } from './format.js'

const OUTPUT = 'warmstack_report'

/** `{ rows: [{ name, share, baseModel, outcome, warning }], notes: [string] }` of a node's output; null when it holds no report. */
export function parseReport(output) {
  try {
    const { rows, notes } = JSON.parse(output?.[OUTPUT]?.[0])
    return {
      rows: rows.map((row) => ({
        name: String(row.name), share: Number(row.share), baseModel: String(row.base_model ?? ''), outcome: String(row.outcome ?? ''), warning: String(row.warning ?? ''),
      })),
      notes: notes.map(String),
    }
  } catch {
    return null
  }
}

/** Base models that fit: those of the LoRAs that found their weights in the last run; before that, what the model's file tells of itself. */
export function fittingBases(report, modelBase) {
  const proven = (report?.rows ?? []).filter((row) => !row.warning && row.share >= 0.5).map((row) => row.baseModel).filter(Boolean)
  return new Set(proven.length > 0 || !modelBase ? proven : [modelBase])
}

export class StackReport {
  #t

  constructor({ t }) {
    this.#t = t
    this.lines = h('ul', { 'aria-label': t('lastRun') })
    this.element = h('section', { class: 'ws-stack-report' }, h('span', { class: 'ws-dim', 'aria-hidden': 'true' }, t('lastRun')), this.lines)
    this.element.hidden = true
  }

  update({ rows, notes }) {
    this.element.hidden = rows.length + notes.length === 0
    const lines = [...rows, ...notes.map((note) => ({ note }))]
    keyed(this.lines, lines, (_, index) => index, () => h('li', {}, h('span'), h('span', { class: 'ws-warning' })), (line, row) => {
      const [fact, warning] = line.children
      setText(fact, row.note ?? this.#fact(row))
      setText(warning, row.warning ?? '')
      setAttribute(line, 'data-fit', row.warning ? 'bad' : null)
    })
  }

  #fact({ name, share, outcome }) {
    const { stem } = splitName(name)
    return this.#t('matched', { name: stem, share: formatShare(share), outcome: this.#t(`outcome.${outcome}`) })
  }
}
