/**
 * The host's settings page for what the server can be told. The server is the truth (an API client or another browser may
 * have changed it); what the host has stored is brought in line with it, never the other way round.
 */

const GIB = 1024 ** 3
const MIB = 1024 ** 2
const rounded = (value) => Math.round(value * 100) / 100
const AUTOMATIC = {
  // 0 stands for null on the page: a true 0, and what rounds to it, is shown as the least that is not.
  toHost: (value, unit) => (value === null ? 0 : Math.max(unit === 1 ? 1 : 0.01, rounded(value / unit))),
  toServer: (value, unit) => (value > 0 ? Math.round(value * unit) : null),
}
const PLAIN = { toHost: (value) => value, toServer: (value) => value }

const number = (group, id, key, form, unit, defaultValue, attrs, name, tooltip) => ({ group, id, key, form, unit, type: 'number', defaultValue, attrs, name, tooltip })
const flag = (group, id, key, defaultValue, name, tooltip) => ({ group, id, key, form: PLAIN, unit: 1, type: 'boolean', defaultValue, name, tooltip })

const GIBS = { min: 0, max: 1024, step: 0.5 }
const READERS = { min: 0, max: 16, step: 1 }

/** Groups as the host shows them, from the top. */
const ENTRIES = [
  flag('Prefetch', 'WarmStack.Prefetch', 'enabled', true, 'Prefetch', 'Load the LoRAs of queued jobs before the jobs start.'),
  flag('Prefetch', 'WarmStack.KeepInMemory', 'resident_tier', true, 'Keep LoRAs in memory', 'For WarmStack nodes: LoRAs are held ready to use.'),
  flag('Prefetch', 'WarmStack.ReadAhead', 'page_tier', true, 'Read files ahead', 'For every loader node: LoRA files are read into the system’s file cache.'),
  flag('Prefetch', 'WarmStack.ReadModels', 'model_tier', true, 'Read models ahead', 'Checkpoints and other models of queued jobs too, when no LoRA is to be read.'),
  number('Prefetch', 'WarmStack.Depth', 'depth_jobs', AUTOMATIC, 1, 0, { min: 0, max: 1000, step: 1 }, 'Jobs to look ahead', '0: as far as the memory reaches.'),
  flag('Prefetch', 'WarmStack.JustInTime', 'just_in_time', true, 'Read just in time', 'As late as the length of your jobs allows; off: as early as memory allows.'),
  flag('Prefetch', 'WarmStack.Predict', 'predict', false, 'Guess the next job', 'With nothing else to read, bring in what past jobs suggest, into free memory only.'),
  number('LoRA memory', 'WarmStack.Budget', 'budget_bytes', AUTOMATIC, GIB, 0, GIBS, 'Memory for LoRAs (GiB)', '0: a quarter of the memory, at most 8 GiB, and less when memory is short.'),
  number('LoRA memory', 'WarmStack.PageBudget', 'page_budget_bytes', AUTOMATIC, GIB, 0, GIBS, 'File cache to fill ahead (GiB)', '0: half of the free memory.'),
  number('LoRA memory', 'WarmStack.Headroom', 'headroom_bytes', AUTOMATIC, GIB, 0, GIBS, 'Memory to leave free (GiB)', 'Below this WarmStack keeps less and stops reading ahead. 0: as much as ComfyUI keeps free.'),
  number('Disks', 'WarmStack.ReadLimit', 'read_limit_bytes_per_s', AUTOMATIC, MIB, 0, { min: 0, max: 100000, step: 50 }, 'Background reading at most (MiB/s)', '0: as fast as the disk.'),
  flag('Disks', 'WarmStack.YieldToJob', 'yield_to_job', true, 'Let the running job read first', 'While it reads a disk, files of later jobs on that disk wait for a while.'),
  number('Disks', 'WarmStack.Concurrency', 'concurrency', AUTOMATIC, 1, 0, READERS, 'Files read at a time', 'On all disks together. 0: on each disk as many as its kind takes.'),
  number('Disks', 'WarmStack.ReadersFlash', 'readers_flash', AUTOMATIC, 1, 0, READERS, 'Files at a time, solid-state disk', '0: as many as was measured to pay.'),
  number('Disks', 'WarmStack.ReadersRotating', 'readers_rotating', AUTOMATIC, 1, 0, READERS, 'Files at a time, hard disk', '0: one, since two make it seek.'),
  number('Disks', 'WarmStack.ReadersNetwork', 'readers_network', AUTOMATIC, 1, 0, READERS, 'Files at a time, network drive', '0: one.'),
  flag('Graphics card', 'WarmStack.Device', 'device_tier', false, 'Keep the next LoRAs on the graphics card', 'Where it is of use: not where ComfyUI moves the patches itself.'),
  number('Graphics card', 'WarmStack.DeviceBudget', 'device_budget_bytes', AUTOMATIC, GIB, 0, GIBS, 'Graphics memory for LoRAs (GiB)', '0: an eighth of what is free at the start, at most 2 GiB.'),
  number('Graphics card', 'WarmStack.PinnedBudget', 'pinned_budget_bytes', AUTOMATIC, MIB, 0, { min: 0, max: 4096, step: 16 }, 'Pinned memory for the way there (MiB)', '0: 128 MiB. Counts from the next start.'),
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
    return ENTRIES.map(({ key, form, unit, group, ...entry }, index) => ({
      ...entry, category: ['WarmStack', group, entry.id], sortOrder: ENTRIES.length - index, onChange: (value, before) => this.#changed(ENTRIES[index], value, before),
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
