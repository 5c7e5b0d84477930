/** Few at a time, in the order in which they came: for questions that many ask and none is urgent. */

/** What takes longer stands in nobody's way: a question about a share that is gone may never be answered. */
const MOST_MS = 15_000

/** @returns `(work) => Promise` of what `work()` resolves to; at most `count` of them run at once. */
export function turns(count) {
  let free = count
  const waiting = []
  return async (work) => {
    if (free > 0) free -= 1
    else await new Promise((go) => waiting.push(go))
    const end = once(() => {
      const next = waiting.shift()
      if (next) next()
      else free += 1
    })
    const timer = setTimeout(end, MOST_MS)
    try {
      return await work()
    } finally {
      clearTimeout(timer)
      end()
    }
  }
}

function once(call) {
  let isDone = false
  return () => {
    if (!isDone) call()
    isDone = true
  }
}
