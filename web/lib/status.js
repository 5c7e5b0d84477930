/**
 * The server's status as the panel uses it. Unknown fields are ignored and absent ones get a value that draws as "not
 * known", so that a newer or an older server never breaks the panel.
 */

const SCHEMA = 1

/** What a chip can say. Anything else the server sends is drawn as `unknown`. */
const STATES = ['ready', 'page', 'loading', 'cold', 'missing', 'ambiguous', 'failed', 'unknown']

/** A job with one of these will not get better by waiting: somebody has to act. */
const PROBLEMS = new Set(['missing', 'ambiguous', 'failed'])

/** @throws {RangeError} when the server speaks another schema. */
export function parseStatus(raw) {
  if (raw?.schema !== SCHEMA) throw new RangeError(`schema ${raw?.schema} is not ${SCHEMA}`)
  return Object.freeze({
    boot: String(raw.boot ?? ''),
    revision: count(raw.revision),
    prefetch: parsePrefetch(raw.prefetch ?? {}),
    budget: { limitBytes: known(raw.budget?.limit_bytes), usedBytes: count(raw.budget?.used_bytes), peakBytes: count(raw.budget?.peak_bytes) },
    memory: parseMemory(raw.memory ?? {}),
    adapters: list(raw.adapters).map(parseAdapter),
    tellsAllAdapters: list(raw.adapters).length >= count(raw.adapters_total),
    catalogRevision: count(raw.catalog?.revision),
    settings: raw.settings ?? {},
    queue: list(raw.queue).map(parseJob),
    history: list(raw.history).map(parseRecord),
    queuedJobs: Math.max(count(raw.prefetch?.queued_jobs), list(raw.queue).length),
  })
}

/** True when `next` should replace `current`: an event and a poll may cross on the wire. */
export function isNewer(next, current) {
  return current === null || next.boot !== current.boot || next.revision >= current.revision
}

/** `{ kind: idle | ready | loading | cold | problem, job, names }`: will the next job wait, and for what? */
export function nextVerdict(queue) {
  const job = queue.find((entry) => !entry.running)
  if (!job) return { kind: 'idle', job: null, names: [] }
  for (const [kind, wanted] of [['problem', PROBLEMS], ['cold', new Set(['cold', 'unknown'])], ['loading', new Set(['loading'])]]) {
    const names = job.adapters.filter((adapter) => wanted.has(adapter.state)).map((adapter) => adapter.name)
    if (names.length > 0) return { kind, job, names }
  }
  return { kind: 'ready', job, names: [] }
}

/** `[{ name, state, reason }]` of what `answer` to an action did not do, or cannot; `reason` '' when the state says it all. */
export function refusals(answer) {
  return list(answer?.results)
    .map((row) => ({ name: String(row.name ?? ''), state: knownState(row.state), reason: String(row.reason ?? '') }))
    .filter(({ state, reason }) => reason || PROBLEMS.has(state))
}

/** Names that somebody has to do something about, once each. */
export function problemNames(status) {
  const names = status.queue.flatMap((job) => job.adapters.filter((adapter) => PROBLEMS.has(adapter.state)).map((adapter) => adapter.name))
  return [...new Set(names)].sort()
}

/** name -> how many queued jobs use it. */
export function usesByName(queue) {
  const uses = new Map()
  for (const job of queue) {
    for (const name of new Set(job.adapters.map((adapter) => adapter.name))) uses.set(name, (uses.get(name) ?? 0) + 1)
  }
  return uses
}

/** name -> what its chip says, of the job that comes first. */
export function statesByName(queue) {
  const states = new Map()
  for (const { name, state } of queue.flatMap((job) => job.adapters)) {
    if (!states.has(name)) states.set(name, state)
  }
  return states
}

export function parseAdapter(raw) {
  return {
    name: String(raw.name ?? ''),
    bytes: known(raw.bytes ?? raw.size_bytes),
    state: knownState(raw.state),
    category: String(raw.category ?? ''),
    baseModel: String(raw.base_model ?? ''),
    pinned: raw.pinned === true,
    leases: count(raw.leases),
    hits: count(raw.hits),
    idleS: known(raw.idle_s),
    problem: String(raw.problem ?? ''),
  }
}

function parsePrefetch(raw) {
  const [loadS, waitS] = [count(raw.load_s), count(raw.wait_s)]
  const page = raw.page ?? { hits: raw.page_hits, joins: raw.page_joins, misses: raw.page_misses }
  return {
    enabled: raw.enabled === true,
    hits: count(raw.hits) + count(page.hits),
    joins: count(raw.joins) + count(page.joins),
    misses: count(raw.misses) + count(page.misses),
    pageShare: known(page.hidden_share),
    pageWarmedBytes: count(page.warmed_bytes),
    waitS,
    loadS,
    savedS: Math.max(0, loadS - waitS),
    hiddenShare: known(raw.hidden_share),
    wastedBytes: count(raw.wasted_bytes),
    underPressure: raw.under_pressure === true,
    inFlight: list(raw.in_flight).map((item) => ({
      name: String(item.name ?? ''), tier: String(item.tier ?? ''), bytesDone: count(item.bytes_done), bytesTotal: known(item.bytes_total),
    })),
  }
}

function parseMemory(raw) {
  return {
    totalBytes: known(raw.total_bytes), availableBytes: known(raw.available_bytes), pageCacheBytes: known(raw.page_cache_bytes),
    devices: list(raw.devices).map((device) => ({
      name: String(device.name ?? ''), totalBytes: known(device.total_bytes), freeBytes: known(device.free_bytes),
    })),
  }
}

function parseJob(raw) {
  return {
    id: String(raw.job_id ?? ''),
    running: raw.running === true,
    adapters: list(raw.adapters).map((item) => ({ name: String(item.name ?? ''), state: chipState(item), reason: String(item.reason ?? '') })),
    models: list(raw.models).map((item) => ({ name: String(item.name ?? ''), state: item.state === 'in_use' ? 'in_use' : chipState({ ...item, tier: 'page' }) })),
  }
}

function parseRecord(raw) {
  return {
    id: String(raw.job_id ?? ''), loadS: count(raw.load_s), waitS: count(raw.wait_s),
    hits: count(raw.hits) + count(raw.page_hits), joins: count(raw.joins) + count(raw.page_joins), misses: count(raw.misses) + count(raw.page_misses),
  }
}

/** Ready in the page cache is not ready in memory: the load is short, but it is still to be done. */
function chipState({ state, tier }) {
  return state === 'ready' && tier === 'page' ? 'page' : knownState(state)
}

function knownState(state) {
  return STATES.includes(state) ? state : 'unknown'
}

function known(value) {
  return Number.isFinite(value) ? value : null
}

function count(value) {
  return Number.isFinite(value) ? value : 0
}

function list(value) {
  return Array.isArray(value) ? value.filter((item) => item !== null && typeof item === 'object') : []
}
