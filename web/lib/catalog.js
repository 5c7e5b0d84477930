/** The LoRA files of the server, page by page, once per catalog revision. */

import { parseAdapter } from './status.js'

const PAGE_ROWS = 1000

export class CatalogRows {
  #store
  #watchers = new Set()
  #pending = null

  constructor(store) {
    this.#store = store
    this.rows = []
  }

  /** Calls `watcher()` when the rows changed; the first watcher makes them come. Returns the way out. */
  watch(watcher) {
    this.#watchers.add(watcher)
    this.refresh()
    return () => this.#watchers.delete(watcher)
  }

  /** Never throws: without a catalog the table still shows what is in memory. */
  refresh() {
    this.#pending ??= this.#fetch().catch(() => {}).finally(() => { this.#pending = null })
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
