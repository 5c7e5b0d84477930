/** Sharing an answer that is on its way, but never with who asked after it was made. */

/**
 * `ask` as a function that runs it once at a time: while it runs, all who call share one more run after it, since what is on
 * its way can be older than what they ask for. A run that fails fails for those who share it. @param ask `() => Promise`
 */
export function latest(ask) {
  let running = null
  let next = null
  const start = () => {
    next = null
    running = ask().finally(() => { running = null })
    return running
  }
  return () => {
    if (running && !next) next = running.then(start, start)
    return next ?? start()
  }
}
