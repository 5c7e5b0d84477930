/** Dragging a row by its grip: where it would land is marked, and told once, at the end, so that undo has one step. */

import { setAttribute } from './dom.js'

/** @param row a child of `list`; `onDrop(index)` where it was let go, also when that is where it was */
export function dragRow(event, list, row, onDrop) {
  if (event.button !== 0) return
  event.preventDefault()
  const grip = event.currentTarget
  let landing = null
  const onMove = (move) => {
    landing = landingAt(move.clientY, list, row)
    mark(list, row, landing)
  }
  const onEnd = (end) => {
    grip.removeEventListener('pointermove', onMove)
    for (const type of ['pointerup', 'pointercancel']) grip.removeEventListener(type, onEnd)
    mark(list, row, null)
    if (end.type === 'pointerup' && landing !== null) onDrop(landing)
  }
  grip.setPointerCapture(event.pointerId)
  grip.addEventListener('pointermove', onMove)
  for (const type of ['pointerup', 'pointercancel']) grip.addEventListener(type, onEnd)
}

/** The index that `row` has if it is let go at `y`, in pixels of the window. */
function landingAt(y, list, row) {
  const others = [...list.children].filter((other) => other !== row)
  const below = others.findIndex((other) => {
    const box = other.getBoundingClientRect()
    return y < box.top + box.height / 2
  })
  return below < 0 ? others.length : below
}

/** A line where the row would land; none for `landing` null, or where it is already. */
function mark(list, row, landing) {
  const rows = [...list.children]
  const from = rows.indexOf(row)
  rows.forEach((other, index) => {
    const place = landing === index && index !== from ? (index < from ? 'before' : 'after') : null
    setAttribute(other, 'data-drop', place)
  })
}
