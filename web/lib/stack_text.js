/**
 * The text of a `loras` input as rows, and back. Pure. Only the JSON list is read here: tags and request JSON have one
 * parser, the server's.
 */

const NAMES = ['name', 'lora', 'lora_name']
const MODEL = ['strength_model', 'strength', 'weight']
const CLIP = ['strength_clip', 'clipStrength', 'strengthTwo']
const SWITCHES = ['on', 'active', 'enabled']

/** `[{ name, model, clip, on, category }]`; null when the text is not a list of rows that this editor can write back. */
export function readRows(text) {
  if (text.trim() === '') return []
  try {
    const entries = JSON.parse(text)
    return Array.isArray(entries) ? entries.map(readRow) : null
  } catch {
    return null
  }
}

/** One row per line, keys in the order of the documentation; what has its default is left out where that reads better. */
export function writeRows(rows) {
  if (rows.length === 0) return ''
  return `[\n${rows.map((row) => `  ${JSON.stringify(written(row))}`).join(',\n')}\n]`
}

/** Whether pasted text is a stack in one of its forms, and not a name: names may begin with a bracket too. */
export function looksLikeStack(text) {
  return /<lora:/i.test(text) || isJson(text)
}

/** Rows of the plan route's `loras`: how tags and requests become rows. A file's full name needs no category beside it. */
export function plannedRows(loras) {
  return loras.map((lora) => {
    const model = Number.isFinite(lora.strength_model) ? lora.strength_model : 1
    return { name: lora.file || lora.name, model, clip: Number.isFinite(lora.strength_clip) ? lora.strength_clip : model, on: true, category: '' }
  })
}

/** The row at `from` moved to `to`. */
export function moved(rows, from, to) {
  const target = Math.min(rows.length - 1, Math.max(0, to))
  const rest = rows.filter((_, index) => index !== from)
  return [...rest.slice(0, target), rows[from], ...rest.slice(target)]
}

/** 0.30000000000000004 -> 0.3; text that is no number keeps the old strength. */
export function strength(text, before) {
  const value = Number.parseFloat(String(text).replace(',', '.'))
  return Number.isFinite(value) ? Math.round(value * 1000) / 1000 : before
}

function isJson(text) {
  try {
    return typeof JSON.parse(text) === 'object'
  } catch {
    return false
  }
}

function written({ name, model, clip, on, category }) {
  return { name, strength_model: model, strength_clip: clip, ...(category ? { category } : {}), ...(on ? {} : { on }) }
}

function readRow(entry) {
  if (typeof entry === 'string') return { name: entry, model: 1, clip: 1, on: true, category: '' }
  if (Array.isArray(entry)) return readRow({ name: entry[0], strength: entry[1], strength_clip: entry[2] ?? entry[1] })
  const known = [...NAMES, ...MODEL, ...CLIP, ...SWITCHES, 'category']
  // A key that the editor does not know would be lost on the next edit.
  if (Object.keys(entry).some((key) => !known.includes(key))) throw new SyntaxError('unknown key')
  const name = first(entry, NAMES)
  if (typeof name !== 'string') throw new SyntaxError('a row without a name')
  const model = strength(first(entry, MODEL) ?? 1, 1)
  const off = [false, 0, 'false', 'off', 'no', '0'].includes(first(entry, SWITCHES))
  return { name, model, clip: strength(first(entry, CLIP) ?? model, model), on: !off, category: entry.category ?? '' }
}

function first(entry, keys) {
  return entry[keys.find((key) => entry[key] !== undefined && entry[key] !== null)]
}
