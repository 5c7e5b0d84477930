/** The LoRA files of the server, page by page, once per catalog revision. */

import { latest } from './latest.js'
import { parseAdapter } from './status.js'

const PAGE_ROWS = 1000
/** What was read ahead changes with every file; a library of 10,000 is not fetched for each of them. */
const PAGES_MS = 15_000
/** A download moves the catalog all the time, and the first page looks at the folders, which finds that it has moved again. */
const REST_MS = 5000

export class CatalogRows {
  #store
  #watchers = new Set()
  #edition = ''
  #wanted = ''
  #isCatchingUp = false
  #isCurrent = false
  #pages = 0
  #fetchedAt = -Infinity
  #byName = new Map()
  /** Never throws: without a catalog the table still shows what is in memory, and the next status asks again. */
  refresh = latest(() => this.#fetch().catch(() => this.expire()))

  constructor(store) {
    this.#store = store
    this.rows = []
  }

  /** The row of a file; undefined when the library has none of that name. */
  named(name) {
    return this.#byName.get(name)
  }

  /** Calls `watcher()` when the rows changed; returns the way out. */
  watch(watcher) {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  /** Fetches again when the server's catalog is another one than that of the rows, and now and then when files were read ahead. */
  follow(status) {
    this.#followNames(status)
    const isDue = status.prefetch.pageWarmedBytes !== this.#pages && performance.now() - this.#fetchedAt > PAGES_MS
    if (isDue) this.refresh()
  }

  /** For who needs the names and follows no status: from now on the rows are those of the server's catalog. */
  stayCurrent() {
    if (this.#isCurrent) return
    this.#isCurrent = true
    const look = ({ status }) => status && this.#followNames(status)
    this.#store.watch(look)
    look(this.#store.state)
  }

  /** The rows may be those of long ago: the next status that is followed fetches them again. */
  expire() {
    this.#edition = this.#wanted = ''
  }

  #followNames({ boot, catalogRevision }) {
    this.#wanted = `${boot} ${catalogRevision}`
    if (!this.#isCatchingUp) this.#catchUp()
  }

  async #catchUp() {
    this.#isCatchingUp = true
    while (this.#edition !== this.#wanted) {
      this.#edition = this.#wanted
      await this.refresh()
      await new Promise((done) => setTimeout(done, REST_MS))
    }
    this.#isCatchingUp = false
  }

  async #fetch() {
    this.#fetchedAt = performance.now()
    this.#pages = this.#store.state.status?.prefetch.pageWarmedBytes ?? 0
    const rows = []
    for (let total = Infinity; rows.length < total;) {
      const page = await this.#store.adapters({ offset: rows.length, limit: PAGE_ROWS })
      const found = page?.adapters ?? []
      rows.push(...found.map(parseAdapter))
      total = found.length > 0 ? page.total ?? 0 : 0
    }
    this.rows = rows
    this.#byName = new Map(rows.map((row) => [row.name, row]))
    for (const watcher of this.#watchers) watcher()
  }
}
