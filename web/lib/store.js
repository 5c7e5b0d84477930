/** The one place that talks to the server: its events, its snapshots, its actions. Draws nothing. */

import { latest } from './latest.js'
import { isNewer, parseStatus } from './status.js'
import { turns } from './turns.js'

const ROOT = '/warmstack/v1'
const EVENT = 'warmstack.status'
/** Events carry every change; the poll only finds out that they stopped. */
const POLL_MS = 15_000
/** A browser has six connections to a server, and Run needs one of them, however slow the answers are. */
const TURNS = 2
/** Who has not said by then what it knows, hangs. Shorter than a poll, a slow server would seem to come and go. */
const ANSWER_MS = POLL_MS

/**
 * `state` is `{ link, status, message }`.
 * link: loading | live | stale (data kept, server silent) | error (no data) | reconnecting
 */
export class StatusStore {
  #api
  #watchers = new Set()
  #openPanels = 0
  #timer = null
  #isCut = false
  /** Resolves when an answer from after the call was taken in, whatever it was. */
  refresh = latest(() => this.#fetchStatus())
  /** Runs `work` once few others run: for what asks by itself and not because a person does. */
  inTurn = turns(TURNS)

  /** @param api the host's `api`: an EventTarget with `fetchApi(route, init)` */
  constructor(api) {
    this.#api = api
    this.state = Object.freeze({ link: 'loading', status: null, message: '' })
    api.addEventListener(EVENT, (event) => this.#accept(event.detail))
    api.addEventListener('reconnecting', () => {
      this.#isCut = true
      this.#set({ link: this.state.status ? 'reconnecting' : 'loading' })
    })
    api.addEventListener('reconnected', () => {
      this.#isCut = false
      this.refresh()
    })
    document.addEventListener('visibilitychange', () => this.#schedule(document.visibilityState === 'visible'))
  }

  /** Calls `watcher(state)` at every change; returns the way out. Costs no request. */
  watch(watcher) {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  /** Keeps the state fresh until the returned function is called: fetches now, then polls while the page is visible. */
  open() {
    this.#openPanels += 1
    this.#schedule(true)
    let open = true
    return () => {
      if (open) this.#openPanels -= 1
      open = false
      if (this.#openPanels === 0) clearTimeout(this.#timer)
    }
  }

  /** POST `body` to an action; resolves to its answer, with the new state taken in. @throws {Error} with the server's one line. */
  async act(action, body) {
    const answer = await this.#promptly(`/${action}`, post(body))
    await this.refresh()
    return answer
  }

  /** POST a question that changes nothing. @throws {Error} with the server's one line. */
  ask(route, body) {
    return this.#json(`/${route}`, post(body))
  }

  /** GET what a model file is. @throws {Error} with the server's one line. */
  baseModel(kind, name) {
    return this.#json(`/base_model?${new URLSearchParams({ kind, name })}`)
  }

  /** GET a page of the catalog. @throws {Error} with the server's one line. */
  adapters(query) {
    return this.#json(`/adapters?${new URLSearchParams(query)}`)
  }

  async #fetchStatus() {
    try {
      this.#accept(await this.#promptly('/status'))
    } catch (error) {
      this.#set({ link: this.state.status ? 'stale' : 'error', message: error.message })
    }
  }

  /**
   * For what waits for no disk. The library, a plan and a model's file do, and have no limit: a share may take minutes, and
   * asked again the server would wait for it again, in one more thread.
   */
  async #promptly(route, init) {
    const signal = AbortSignal.timeout(ANSWER_MS)
    try {
      const body = await this.#json(route, { ...init, signal })
      signal.throwIfAborted()
      return body
    } catch (error) {
      throw signal.aborted ? new Error(`no answer for ${ANSWER_MS / 1000} s`) : error
    }
  }

  async #json(route, init) {
    const response = await this.#api.fetchApi(ROOT + route, init)
    const body = await response.json().catch(() => null)
    if (!response.ok) throw new Error(body?.error?.message ?? body?.error ?? `HTTP ${response.status}`)
    return body
  }

  #accept(raw) {
    let status
    try {
      status = parseStatus(raw)
    } catch (error) {
      this.#set({ link: this.state.status ? 'stale' : 'error', message: error.message })
      return
    }
    const news = isNewer(status, this.state.status) ? { status } : {}
    // An answer that was on its way brings no pushes back.
    this.#set({ link: this.#isCut ? 'reconnecting' : 'live', message: '', ...news })
  }

  #set(change) {
    this.state = Object.freeze({ ...this.state, ...change })
    for (const watcher of this.#watchers) watcher(this.state)
  }

  #schedule(now) {
    clearTimeout(this.#timer)
    if (this.#openPanels === 0 || document.visibilityState !== 'visible') return
    if (now) this.refresh()
    this.#timer = setTimeout(() => this.#schedule(true), POLL_MS)
  }
}

function post(body) {
  return { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
}
