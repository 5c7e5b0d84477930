/** Which adapters the table shows, in which order. Pure. */

const STATE_ORDER = { loading: 0, ready: 1, page: 2, failed: 3, cold: 4, ambiguous: 5, missing: 6, unknown: 7 }

/** Later than anything that was used. */
const UNUSED_S = Number.MAX_SAFE_INTEGER

export const SORTS = {
  state: (a, b) => Number(b.pinned) - Number(a.pinned) || STATE_ORDER[a.state] - STATE_ORDER[b.state] || b.uses - a.uses,
  name: () => 0,
  size: (a, b) => (b.bytes ?? 0) - (a.bytes ?? 0),
  uses: (a, b) => b.uses - a.uses,
  hits: (a, b) => b.hits - a.hits,
  idle: (a, b) => (a.idleS ?? UNUSED_S) - (b.idleS ?? UNUSED_S),
  category: (a, b) => byText(a.category, b.category),
  base: (a, b) => byText(a.baseModel, b.baseModel),
}

/** A catalog page says so of the moment it was sent; what is in memory now, the status tells. */
const IN_MEMORY = new Set(['ready', 'loading'])
const LEFT = { state: 'cold', pinned: false, leases: 0, hits: 0, idleS: null }

/**
 * The catalog's files and what is in memory, one row per name; the status wins, since it was sent later. Of more adapters
 * than it has room for, the catalog knows best.
 * @param uses Map of name -> queued jobs; `queued` Map of name -> state of its chip
 */
export function mergeRows(catalog, { adapters, tellsAllAdapters }, uses, queued = new Map()) {
  const rows = new Map(catalog.map((row) => [row.name, tellsAllAdapters && IN_MEMORY.has(row.state) ? { ...row, ...LEFT } : row]))
  for (const row of adapters) {
    const known = rows.get(row.name)
    rows.set(row.name, known ? { ...known, ...row, category: row.category || known.category, baseModel: row.baseModel || known.baseModel, bytes: row.bytes ?? known.bytes } : row)
  }
  return [...rows.values()].map((row) => ({ ...row, state: tier(row.state, queued.get(row.name)), uses: uses.get(row.name) ?? 0 }))
}

/** Of a file that is not in memory, the queue knows later than the catalog whether it was read ahead. */
function tier(state, queued) {
  const isOnDisk = state === 'cold' || state === 'page'
  return isOnDisk && (queued === 'cold' || queued === 'page') ? queued : state
}

/** Every word of `filter` must occur somewhere in name, category, base model or state, however its accents are written. */
export function selectRows(rows, filter, sort) {
  const words = folded(filter).split(/\s+/).filter(Boolean)
  const matches = (row) => {
    const text = folded(`${row.name} ${row.category} ${row.baseModel} ${row.state}`)
    return words.every((word) => text.includes(word))
  }
  const selected = words.length > 0 ? rows.filter(matches) : [...rows]
  const order = SORTS[sort] ?? SORTS.state
  return selected.sort((a, b) => order(a, b) || byName(a, b))
}

function folded(text) {
  return text.normalize('NFC').toLowerCase()
}

function byName(a, b) {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0
}

/** What is not known comes last. */
function byText(a, b) {
  if (!a || !b) return Number(!a) - Number(!b)
  return a < b ? -1 : a > b ? 1 : 0
}
