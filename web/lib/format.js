/** Numbers for people. Bytes and seconds everywhere inside; MiB and minutes only here. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** 1536 -> "1.5 KiB". Unknown (null, NaN) is a dash, never zero. */
export function formatBytes(bytes, locale = 'en') {
  if (!Number.isFinite(bytes)) return '–'
  const power = Math.min(UNITS.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, Math.abs(bytes))) / 10)))
  const value = bytes / 1024 ** power
  const digits = power === 0 || value >= 100 ? 0 : 1
  return `${number(value, digits, locale)} ${UNITS[power]}`
}

/** "3.0 of 15.0 GiB": both in the unit of the second, because two units in one line are not compared at a glance. */
export function formatBytesOf(bytes, totalBytes, locale = 'en') {
  const total = formatBytes(totalBytes, locale)
  if (!Number.isFinite(bytes) || !Number.isFinite(totalBytes)) return [formatBytes(bytes, locale), total]
  const unit = total.slice(total.lastIndexOf(' ') + 1)
  const value = bytes / 1024 ** UNITS.indexOf(unit)
  return [number(value, value >= 100 || unit === 'B' ? 0 : 1, locale), total]
}

/** 0.042 -> "42 ms", 1.234 -> "1.2 s", 185 -> "3 min 5 s". */
export function formatSeconds(seconds, locale = 'en') {
  if (!Number.isFinite(seconds)) return '–'
  if (seconds > 0 && seconds < 0.0995) return `${number(seconds * 1000, 0, locale)} ms`
  if (seconds < 59.95) return `${number(seconds, seconds < 9.95 ? 1 : 0, locale)} s`
  const whole = Math.round(seconds)
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)]
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`
}

/** How long ago, in one unit: 48.7 -> "48 s", 400 -> "6 min". */
export function formatAge(seconds, locale = 'en') {
  if (seconds < 60) return `${number(Math.floor(seconds), 0, locale)} s`
  if (seconds < 3600) return `${number(Math.floor(seconds / 60), 0, locale)} min`
  return `${number(Math.floor(seconds / 3600), 0, locale)} h`
}

/** 0.996 -> "99%": rounded down, so that "100%" is said only of the whole. */
export function formatShare(share) {
  if (!Number.isFinite(share)) return '–'
  return `${Math.floor(clampShare(share) * 100 + 1e-9)}%`
}

export function formatCount(count, locale = 'en') {
  return Number.isFinite(count) ? number(count, 0, locale) : '–'
}

/** "styles/ink.safetensors" -> { folder: "styles/", stem: "ink" }. */
export function splitName(name) {
  const cut = Math.max(name.lastIndexOf('/'), name.lastIndexOf('\\')) + 1
  return { folder: name.slice(0, cut), stem: name.slice(cut).replace(/\.(safetensors|sft|pt|pth|ckpt|bin)$/i, '') }
}

/** part/total as 0..1; 0 when the total is unknown or empty. */
export function ratio(part, total) {
  return Number.isFinite(part) && total > 0 ? clampShare(part / total) : 0
}

function clampShare(share) {
  return Math.min(1, Math.max(0, share))
}

function number(value, digits, locale) {
  return value.toLocaleString(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
