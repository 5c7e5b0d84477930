/** Few at a time, in the order in which they came: for questions that many ask and none is urgent. */

/** @returns `(work) => Promise` of what `work()` resolves to; at most `count` of them run at once. */
export function turns(count) {
  let free = count
  const waiting = []
  return async (work) => {
    if (free > 0) free -= 1
    else await new Promise((go) => waiting.push(go))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else free += 1
    }
  }
}
