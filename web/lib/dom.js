/** Building and updating elements. Text is only ever set as text: a file name can never become markup. */

const SVG = 'http://www.w3.org/2000/svg'

/** `h('button', { class: 'x', onclick: f, 'aria-label': 'y' }, 'text', child)` */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else setAttribute(element, name, value)
  }
  element.append(...children)
  return element
}

/** Writes only what changed: an equal write still wakes the style engine and, in a live region, the screen reader. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text
}

/** null, undefined and false remove the attribute. */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name)
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value))
}

/**
 * Children of `parent` = one per item, in order; an item's element is kept while its key stays, and with it focus and
 * hover. Of items with one key the last is drawn. `update(element, item, index)` runs for every item.
 */
export function keyed(parent, items, key, create, update) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null
  const wanted = new Map(items.map((item, index) => [String(key(item, index)), item]))
  const old = new Map()
  for (const child of [...parent.children]) {
    if (wanted.has(child.dataset.key)) old.set(child.dataset.key, child)
    else child.remove()
  }
  let cursor = parent.firstElementChild
  let index = 0
  for (const [id, item] of wanted) {
    const element = old.get(id) ?? create(item)
    element.dataset.key = id
    if (element === cursor) cursor = cursor.nextElementSibling
    else parent.insertBefore(element, cursor)
    update(element, item, index)
    index += 1
  }
  // An element that is moved loses the focus, and the next key would go to the host.
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true })
}

const PATHS = {
  refresh: 'M13 8a5 5 0 1 1-1.5-3.5M13 2v3h-3',
  pin: 'M6 2h4M6.5 2v5L4 9.5V11h8V9.5L9.5 7V2M8 11v3.5',
  evict: 'M3.5 4.5h9M6.5 4.5V3h3v1.5M4.5 4.5l.6 8.5h5.8l.6-8.5',
  warm: 'M8 2c1 2.5 3.5 3.5 3.5 7a3.5 3.5 0 0 1-7 0c0-1.7.9-2.6 1.6-3.6.4 1 .9 1.4 1.4 1.5C8.2 5.5 7.6 3.5 8 2',
  search: 'M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10M10.7 10.7 14 14',
  ready: 'M3 8.5 6.5 12 13 4.5',
  loading: 'M8 2.5v8M4.5 7.5 8 11l3.5-3.5M3 13.5h10',
  cold: 'M8 2v12M2.8 5l10.4 6M13.2 5 2.8 11',
  missing: 'M4 4l8 8M12 4l-8 8',
  ambiguous: 'M5.5 5.5a2.5 2.5 0 1 1 3.7 2.2C8.3 8.2 8 8.7 8 9.7M8 12.7v.3',
  failed: 'M8 3v6M8 12.5v.3',
  unknown: 'M4 8h.1M8 8h.1M12 8h.1',
  up: 'M8 13V3M4 7l4-4 4 4',
  grip: 'M6 4h.1M10 4h.1M6 8h.1M10 8h.1M6 12h.1M10 12h.1',
  copy: 'M6 6h7v7.5H6zM3.5 10.5v-8H10',
  page: 'M4 2.5h5l3 3v8H4zM9 2.5v3h3',
}

/** A 16-unit line drawing in the colour of the text. Names are the keys of PATHS; decorative to a screen reader. */
export function icon(name) {
  const drawing = document.createElementNS(SVG, 'svg')
  drawing.setAttribute('viewBox', '0 0 16 16')
  drawing.setAttribute('aria-hidden', 'true')
  drawing.setAttribute('class', 'ws-icon')
  const path = document.createElementNS(SVG, 'path')
  path.setAttribute('d', PATHS[name] ?? PATHS.unknown)
  drawing.append(path)
  return drawing
}

export function setIcon(element, name) {
  if (element.dataset.icon === name) return
  element.dataset.icon = name
  element.querySelector('path').setAttribute('d', PATHS[name] ?? PATHS.unknown)
}

/** A ring that `setRing` fills clockwise from the top. */
export function ring() {
  const drawing = document.createElementNS(SVG, 'svg')
  drawing.setAttribute('viewBox', '0 0 36 36')
  drawing.setAttribute('aria-hidden', 'true')
  for (const name of ['track', 'value']) {
    const circle = document.createElementNS(SVG, 'circle')
    for (const [key, value] of Object.entries({ cx: 18, cy: 18, r: 15, pathLength: 100 })) circle.setAttribute(key, value)
    circle.setAttribute('class', `ws-ring-${name}`)
    drawing.append(circle)
  }
  return drawing
}

export function setRing(drawing, share) {
  drawing.lastElementChild.setAttribute('stroke-dasharray', `${(share * 100).toFixed(1)} 100`)
}
