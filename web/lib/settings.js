/**
 * The host's settings page for what the server can be told. The server is the truth (an API client or another browser may
 * have changed it); what the host has stored is brought in line with it, never the other way round.
 */

const GIB = 1024 ** 3
const MIB = 1024 ** 2
const rounded = (value) => Math.round(value * 100) / 100
const AUTOMATIC = {
  toHost: (value, unit) => (value === null ? 0 : rounded(value / unit)),
  toServer: (value, unit) => (value > 0 ? Math.round(value * unit) : null),
}
const PLAIN = { toHost: (value) => value, toServer: (value) => value }
const SCALED = { toHost: (value, unit) => rounded(value / unit), toServer: (value, unit) => Math.round(value * unit) }

const number = (id, key, form, unit, defaultValue, attrs, name, tooltip) => ({ id, key, form, unit, type: 'number', defaultValue, attrs, name, tooltip })
const flag = (id, key, name, tooltip) => ({ id, key, form: PLAIN, unit: 1, type: 'boolean', defaultValue: true, name, tooltip })

const ENTRIES = [
  flag('WarmStack.Prefetch', 'enabled', 'Prefetch', 'Load the LoRAs of queued jobs before the jobs start.'),
  flag('WarmStack.KeepInMemory', 'resident_tier', 'Keep LoRAs in memory', 'For WarmStack nodes: LoRAs are held ready to use.'),
  flag('WarmStack.ReadAhead', 'page_tier', 'Read files ahead', 'For every loader node: LoRA files are read into the system’s file cache.'),
  number('WarmStack.Budget', 'budget_bytes', AUTOMATIC, GIB, 0, { min: 0, max: 1024, step: 0.5 },
    'Memory for LoRAs (GiB)', '0: a quarter of the memory, at most 8 GiB, and less when memory is short.'),
  number('WarmStack.Headroom', 'headroom_bytes', SCALED, GIB, 1, { min: 0, max: 1024, step: 0.5 },
    'Memory to leave free (GiB)', 'Below this WarmStack keeps less and stops reading ahead.'),
  number('WarmStack.ReadLimit', 'read_limit_bytes_per_s', AUTOMATIC, MIB, 0, { min: 0, max: 100000, step: 50 },
    'Background reading at most (MiB/s)', '0: as fast as the disk.'),
  number('WarmStack.Concurrency', 'concurrency', PLAIN, 1, 1, { min: 1, max: 16, step: 1 },
    'Files read at a time', 'More than one pays on fast solid-state disks only.'),
  number('WarmStack.Depth', 'depth_jobs', AUTOMATIC, 1, 0, { min: 0, max: 1000, step: 1 },
    'Jobs to look ahead', '0: as far as the memory reaches.'),
]

export class SettingsLink {
  #store
  #host
  #known = new Map()

  /** @param host `{ getSetting(id), setSetting(id, value), refused(error) }` */
  constructor(store, host) {
    this.#store = store
    this.#host = host
  }

  /** For `registerExtension({ settings })`. */
  get entries() {
    return ENTRIES.map(({ key, form, unit, ...entry }, index) => ({
      ...entry, category: ['WarmStack', 'Prefetch', entry.id], sortOrder: ENTRIES.length - index, onChange: (value, before) => this.#changed(ENTRIES[index], value, before),
    }))
  }

  /** Shows the server's settings on the host's page from now on. */
  follow() {
    this.#store.watch(({ status }) => {
      for (const entry of status ? ENTRIES : []) this.#take(entry, status.settings[entry.key])
    })
  }

  #take({ id, form, unit }, serverValue) {
    if (serverValue === undefined) return
    const value = form.toHost(serverValue, unit)
    if (this.#known.get(id) === value) return
    this.#known.set(id, value)
    if (this.#host.getSetting(id) !== value) this.#host.setSetting(id, value)
  }

  /** The host also calls this at registration, with what it has stored and no earlier value: that is no wish. */
  async #changed({ id, key, form, unit }, value, hostBefore) {
    const before = this.#known.get(id)
    if (hostBefore === undefined || before === undefined || before === value) return
    this.#known.set(id, value)
    try {
      await this.#store.act('settings', { [key]: form.toServer(value, unit) })
    } catch (error) {
      this.#known.set(id, before)
      this.#host.setSetting(id, before)
      this.#host.refused(error)
    }
  }
}
