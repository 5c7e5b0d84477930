/** The one entry: registers the tab, the commands and the event listener. Everything below lib/ is free of side effects. */

import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { CatalogRows } from './lib/catalog.js'
import { ModelBases } from './lib/model_base.js'
import { TAG, WarmStackPanel } from './lib/panel.js'
import { SettingsLink } from './lib/settings.js'
import { problemNames } from './lib/status.js'
import { attachEditor } from './lib/stack_nodes.js'
import { StatusStore } from './lib/store.js'
import { translator } from './lib/text.js'

const TAB = 'warmstack'
// The place to break: a wide screen shows the label below a narrow icon.
const LABEL = 'Warm\u200bStack'

// At load, not in the panel: a push that nobody listens to is an error in the console of every open browser.
const store = new StatusStore(api)
const catalog = new CatalogRows(store)
const bases = new ModelBases(store)

const host = {
  locale: () => app.extensionManager.setting.get('Comfy.Locale') || navigator.language || 'en',
  report: (summary, detail) => app.extensionManager.toast.add({ severity: 'error', summary, detail, life: 6000 }),
  getSetting: (id) => app.extensionManager.setting.get(id),
  setSetting: (id, value) => app.extensionManager.setting.set(id, value),
  edited: () => {
    const tracker = app.extensionManager.workflow?.activeWorkflow?.changeTracker
    if (tracker?.captureCanvasState) tracker.captureCanvasState()
    else tracker?.checkState?.()
  },
  refused: (error) => host.report(translator(host.locale())('failedAction'), error.message),
}

const settings = new SettingsLink(store, host)

/**
 * The host re-uses one box for all custom tabs and does not call destroy() when another tab takes it over, so the panel
 * leaves by itself when foreign content arrives.
 */
function render(box) {
  const panel = WarmStackPanel.create(store, catalog, host)
  box.style.height = '100%'
  box.replaceChildren(panel)
  const observer = new MutationObserver(() => {
    if (panel.parentElement === box && box.childElementCount === 1) return
    panel.remove()
    observer.disconnect()
  })
  observer.observe(box, { childList: true })
}

async function togglePrefetch() {
  const t = translator(host.locale())
  try {
    if (store.state.status === null) await store.refresh()
    const enabled = !store.state.status?.prefetch.enabled
    await store.act('settings', { enabled })
    app.extensionManager.toast.add({ severity: 'info', summary: t('title'), detail: t(enabled ? 'prefetchOn' : 'prefetchOff'), life: 4000 })
  } catch (error) {
    host.refused(error)
  }
}

/** The badge counts LoRAs that need a person, until the panel was looked at. */
function followProblems(tabs) {
  let seen = ''
  store.watch(({ status }) => {
    const tab = tabs.getSidebarTabs?.().find((entry) => entry.id === TAB)
    if (!tab || !status) return
    const names = problemNames(status)
    if (document.querySelector(TAG) || names.length === 0) seen = names.join('\n')
    tab.iconBadge = names.join('\n') === seen ? null : String(names.length)
  })
}

app.registerExtension({
  name: 'WarmStack',
  settings: settings.entries,
  commands: [{ id: 'WarmStack.TogglePrefetch', label: 'WarmStack: turn prefetch on or off', icon: 'pi pi-bolt', function: togglePrefetch }],
  refreshComboInNodes: () => {
    bases.forget()
    return catalog.refresh()
  },
  nodeCreated: (node) => attachEditor(node, { store, catalog, bases, host }),
  setup() {
    settings.follow()
    store.refresh() // not awaited: the host shows nothing until setup has returned
    const tabs = app.extensionManager?.registerSidebarTab ? app.extensionManager : app.extensionManager?.sidebarTab
    if (!tabs?.registerSidebarTab) {
      console.warn('WarmStack: this front end has no sidebar; the nodes work, the panel is not shown')
      return
    }
    tabs.registerSidebarTab({ id: TAB, icon: 'pi pi-bolt', title: 'WarmStack', label: LABEL, tooltip: 'WarmStack', type: 'custom', render })
    followProblems(tabs)
  },
})
