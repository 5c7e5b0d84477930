/** A question that is asked again: when what it is about has changed, when nobody answered, when the server is back. */

import { latest } from './latest.js'

/** Typing in a text must not ask the server at every letter. */
const DELAY_MS = 250
/** A server that starts again takes longer than one answer; one that never answers is not asked for ever. */
const RETRY_MS = 1000
const RETRIES = 6

export class Inquiry {
  #ask
  #timer = 0
  #failures = 0
  #isOnline = false

  /** @param ask `() => Promise`, rejected when nobody answered; never called while it runs */
  constructor(ask) {
    this.#ask = latest(ask)
  }

  /** Asks, after what is on its way. */
  soon() {
    this.#failures = 0
    this.#in(DELAY_MS)
  }

  /** Whether the server can be reached. */
  online(isOnline) {
    if (isOnline && !this.#isOnline && this.#failures > 0) this.soon()
    this.#isOnline = isOnline
  }

  #in(delayMs) {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#now(), delayMs)
  }

  async #now() {
    this.#timer = 0
    try {
      await this.#ask()
      this.#failures = 0
    } catch {
      this.#failures += 1
      if (this.#failures <= RETRIES && this.#timer === 0) this.#in(RETRY_MS * 2 ** (this.#failures - 1))
    }
  }
}
