/**
 * The last jobs, told from the running totals: what the totals grew by while a job ran is that job's. Pure.
 * Two jobs shorter than the pause between two pushes become one entry.
 */

const KEPT_JOBS = 48

/** `jobs` is `[{ id, loadS, waitS }]`, oldest first; the rest is what the next step needs. */
export const NO_HISTORY = Object.freeze({ boot: '', runningId: '', startLoadS: 0, startWaitS: 0, loadS: 0, waitS: 0, jobs: Object.freeze([]) })

/** The history after `status`, which is newer than all that went in before. */
export function nextHistory(history, { boot, prefetch, queue }) {
  const runningId = queue.find((job) => job.running)?.id ?? ''
  const { loadS, waitS } = prefetch
  if (boot !== history.boot) return { ...NO_HISTORY, boot, runningId, startLoadS: loadS, startWaitS: waitS, loadS, waitS }
  if (runningId === history.runningId) return { ...history, loadS, waitS }
  // The push that first shows a job may already count its loads: the old job ends with what was seen of it.
  return { ...history, runningId, startLoadS: history.loadS, startWaitS: history.waitS, loadS, waitS, jobs: withFinished(history) }
}

function withFinished({ jobs, runningId, startLoadS, startWaitS, loadS, waitS }) {
  const job = { id: runningId, loadS: loadS - startLoadS, waitS: waitS - startWaitS }
  const loaded = runningId !== '' && (job.loadS > 0 || job.waitS > 0)
  return loaded ? [...jobs, job].slice(-KEPT_JOBS) : jobs
}
