/** The LoRA files of the server, page by page, once per catalog revision. */

import { parseAdapter } from './status.js'

const PAGE_ROWS = 1000
/** What was read ahead changes with every file; a library of 10,000 is not fetched for each of them. */
const PAGES_MS = 15_000

export class CatalogRows {
  #store
  #watchers = new Set()
  #pending = null
  #edition = ''
  #pages = 0
  #fetchedAt = -Infinity

  constructor(store) {
    this.#store = store
    this.rows = []
  }

  /** Calls `watcher()` when the rows changed; returns the way out. */
  watch(watcher) {
    this.#watchers.add(watcher)
    return () => this.#watchers.delete(watcher)
  }

  /** Fetches again when the server's catalog is another one than that of the rows, and now and then when files were read ahead. */
  follow({ boot, catalogRevision, prefetch }) {
    const edition = `${boot} ${catalogRevision}`
    const isDue = prefetch.pageWarmedBytes !== this.#pages && performance.now() - this.#fetchedAt > PAGES_MS
    if (edition === this.#edition && !isDue) return
    this.#edition = edition
    this.#pages = prefetch.pageWarmedBytes
    this.refresh()
  }

  /** For who needs the names but follows no status: fetches unless that has happened. */
  refreshOnce() {
    if (this.rows.length === 0) this.refresh()
  }

  /** Never throws: without a catalog the table still shows what is in memory, and the next status asks again. */
  refresh() {
    this.#fetchedAt = performance.now()
    this.#pending ??= this.#fetch().catch(() => { this.#edition = '' }).finally(() => { this.#pending = null })
    return this.#pending
  }

  async #fetch() {
    const rows = []
    for (let total = Infinity; rows.length < total;) {
      const page = await this.#store.adapters({ offset: rows.length, limit: PAGE_ROWS })
      const found = page?.adapters ?? []
      rows.push(...found.map(parseAdapter))
      total = found.length > 0 ? page.total ?? 0 : 0
    }
    this.rows = rows
    for (const watcher of this.#watchers) watcher()
  }
}
