/**
 * The text of a `loras` input as rows, and back. Pure. Only the JSON list is read here: tags and request JSON have one
 * parser, the server's.
 */

const NAMES = ['name', 'lora', 'lora_name']
const MODEL = ['strength_model', 'strength', 'weight', 'model_strength', 'strengthModel']
const CLIP = ['strength_clip', 'clipStrength', 'strengthTwo', 'clip_strength', 'strengthClip']
const SWITCHES = ['on', 'active', 'enabled']
const ON = new Set(['true', 'on', 'yes', '1'])
const OFF = new Set(['false', 'off', 'no', '0'])
const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?$/i

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
  return /<(?:lora|lyco):/i.test(text) || isJson(text)
}

/** Rows of the plan route's `loras`: how tags and requests become rows. A file's full name needs no category beside it. */
export function plannedRows(loras) {
  return loras.map(({ name, file, strength_model: model, strength_clip: clip }) => ({ name: file || name, model, clip, on: true, category: '' }))
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
    return JSON.parse(text) instanceof Object
  } catch {
    return false
  }
}

function written({ name, model, clip, on, category }) {
  return { name, strength_model: model, strength_clip: clip, ...(category ? { category } : {}), ...(on ? {} : { on }) }
}

/** @throws {SyntaxError} for what the server would refuse, and for what would be lost on the next edit. */
function readRow(entry) {
  if (typeof entry === 'string') return { name: entry, model: 1, clip: 1, on: true, category: '' }
  if (Array.isArray(entry)) return readTuple(entry)
  const known = [...NAMES, ...MODEL, ...CLIP, ...SWITCHES, 'category']
  if (Object.keys(entry).some((key) => !known.includes(key))) throw new SyntaxError('unknown key')
  const model = readNumber(only(entry, MODEL) ?? 1)
  return {
    name: readText(only(entry, NAMES)), model, clip: readNumber(only(entry, CLIP) ?? model), category: readText(entry.category ?? ''),
    on: SWITCHES.every((key) => !(key in entry) || readSwitch(entry[key])),
  }
}

function readTuple(parts) {
  if (parts.length !== 2 && parts.length !== 3) throw new SyntaxError('neither [name, strength] nor [name, model, clip]')
  return { name: readText(parts[0]), model: readNumber(parts[1]), clip: readNumber(parts.at(-1)), on: true, category: '' }
}

function readText(value) {
  if (typeof value !== 'string') throw new SyntaxError('no text')
  return value
}

/** As written: what is rounded here would change on the next edit of any other row. */
function readNumber(value) {
  const number = typeof value === 'string' && NUMBER.test(value.trim()) ? Number(value) : value
  if (!Number.isFinite(number)) throw new SyntaxError('no number')
  return number
}

function readSwitch(value) {
  const word = String(value).trim().toLowerCase()
  if (!ON.has(word) && !OFF.has(word)) throw new SyntaxError('neither on nor off')
  return ON.has(word)
}

/** What stands under whichever of `keys` is there. */
function only(entry, keys) {
  const [found, ...others] = keys.map((key) => entry[key]).filter((value) => value !== undefined && value !== null)
  if (others.some((value) => value !== found)) throw new SyntaxError('two values contradict each other')
  return found
}
