/**
 * The panel's look. Only variables that both the old and the new front end have (--fg-color,
 * --comfy-menu-bg); own accents through light-dark(), which follows the host's `color-scheme`.
 */
export const CSS = `
warmstack-panel, .ws-stack {
  --ws-ink: var(--fg-color, #ddd);
  --ws-paper: var(--comfy-menu-bg, #222);
  --ws-dim: color-mix(in srgb, var(--ws-ink) 74%, var(--ws-paper));
  --ws-line: color-mix(in srgb, var(--ws-ink) 14%, transparent);
  --ws-card: color-mix(in srgb, var(--ws-ink) 5%, var(--ws-paper));
  --ws-tint: color-mix(in srgb, var(--ws-ink) 10%, transparent);
  --ws-ready: light-dark(#0f7a3d, #58d68d);
  --ws-page: light-dark(#0b7285, #5cc8d7);
  --ws-loading: light-dark(#1a5fb4, #7db7ff);
  --ws-cold: light-dark(#54606e, #a9b4c0);
  --ws-warn: light-dark(#8a5a00, #f2c14e);
  --ws-bad: light-dark(#b3261e, #ff8f87);
  --ws-bar-ours: light-dark(#1f9d57, #4fc985);
  --ws-bar-other: light-dark(#8793a1, #848f9b);
  --ws-bar-waited: light-dark(#d99100, #f2c14e);
}
warmstack-panel {
  container-type: inline-size; display: block; block-size: 100%; min-block-size: 0; overflow: auto; overflow-x: hidden;
  box-sizing: border-box; background: var(--ws-paper); color: var(--ws-ink);
  font-size: 12px; font-weight: 400; line-height: 1.45; scrollbar-width: thin; overflow-anchor: none;
}
:is(warmstack-panel, .ws-stack) *, warmstack-panel *::before { box-sizing: border-box; }
warmstack-panel [hidden] { display: none !important; }
warmstack-panel :is(p, ul, ol, h2, h3) { margin: 0; padding: 0; list-style: none; font-size: inherit; }
:is(warmstack-panel, .ws-stack) :focus-visible { outline: 2px solid var(--ws-loading); outline-offset: -2px; border-radius: 6px; }
:is(warmstack-panel, .ws-stack) .ws-icon { inline-size: 14px; block-size: 14px; flex: none; fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
:is(warmstack-panel, .ws-stack) .ws-dim { color: var(--ws-dim); }
warmstack-panel .ws-hear { position: absolute; inline-size: 1px; block-size: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

warmstack-panel .ws-head { position: sticky; inset-block-start: 0; z-index: 2; display: flex; align-items: center; gap: 8px; padding: 10px 12px; background: var(--ws-paper); border-block-end: 1px solid var(--ws-line); }
warmstack-panel .ws-head h2 { flex: 1; font-size: 14px; font-weight: 600; }
warmstack-panel .ws-link { display: inline-flex; align-items: center; gap: 6px; color: var(--ws-dim); white-space: nowrap; }
warmstack-panel .ws-link::before { content: ''; inline-size: 8px; block-size: 8px; border-radius: 50%; background: var(--ws-warn); }
warmstack-panel .ws-link[data-link=live]::before { background: var(--ws-ready); }
warmstack-panel .ws-link[data-link=error]::before { background: var(--ws-bad); }
warmstack-panel :is(.ws-body, .ws-pair) { display: flex; flex-direction: column; gap: 8px; }
warmstack-panel .ws-body { padding: 8px; }
warmstack-panel .ws-card { display: flex; flex-direction: column; gap: 8px; padding: 12px; background: var(--ws-card); border: 1px solid var(--ws-line); border-radius: 10px; }
warmstack-panel h3 { display: flex; align-items: center; flex-wrap: wrap; gap: 4px 8px; font-size: 12px; font-weight: 600; }
warmstack-panel .ws-count { padding: 0 7px; border-radius: 9px; background: var(--ws-tint); color: var(--ws-dim); font-weight: 500; font-variant-numeric: tabular-nums; }
warmstack-panel .ws-count:empty { display: none; }
:is(warmstack-panel, .ws-stack) .ws-tool { display: inline-grid; place-items: center; inline-size: 28px; block-size: 28px; flex: none; padding: 0; border: 0; border-radius: 6px; background: none; color: var(--ws-dim); cursor: pointer; }
:is(warmstack-panel, .ws-stack) .ws-tool:hover { background: var(--ws-tint); color: var(--ws-ink); }
warmstack-panel .ws-tool[aria-busy] .ws-icon { animation: ws-turn 1s .3s linear infinite; }
@keyframes ws-turn { to { rotate: 1turn; } }
warmstack-panel .ws-tool[aria-pressed=true] { color: var(--ws-loading); }
warmstack-panel .ws-tool[aria-pressed=true] .ws-icon { fill: color-mix(in srgb, currentColor 40%, transparent); }
:is(warmstack-panel, .ws-stack) .ws-tool[aria-disabled] { opacity: .4; cursor: not-allowed; }

warmstack-panel .ws-hero { display: flex; align-items: center; gap: 14px; }
warmstack-panel .ws-dial { position: relative; display: grid; place-items: center; inline-size: 68px; block-size: 68px; flex: none; }
warmstack-panel .ws-dial svg { position: absolute; inset: 0; rotate: -90deg; fill: none; stroke-width: 3.5; }
warmstack-panel .ws-ring-track { stroke: var(--ws-tint); }
warmstack-panel .ws-ring-value { stroke: var(--ws-bar-ours); }
warmstack-panel .ws-off .ws-ring-value { stroke: var(--ws-cold); }
warmstack-panel .ws-share { font-size: 16px; font-weight: 650; font-variant-numeric: tabular-nums; }
warmstack-panel .ws-facts { display: flex; flex-direction: column; min-inline-size: 0; }
warmstack-panel .ws-share-label { font-weight: 600; }
warmstack-panel .ws-times { font-variant-numeric: tabular-nums; }
warmstack-panel .ws-switch-row { display: flex; align-items: center; justify-content: space-between; gap: 12px; padding-block-start: 8px; border-block-start: 1px solid var(--ws-line); }
warmstack-panel .ws-switch { inline-size: 40px; block-size: 28px; flex: none; padding: 4px 2px; color: inherit; border: 0; background: none; cursor: pointer; }
warmstack-panel .ws-knob { display: block; block-size: 20px; padding: 2px; border-radius: 10px; background: color-mix(in srgb, var(--ws-ink) 38%, var(--ws-paper)); }
warmstack-panel .ws-knob::before { content: ''; display: block; inline-size: 16px; block-size: 16px; border-radius: 50%; background: #fff; }
warmstack-panel .ws-switch[aria-checked=true] .ws-knob { background: light-dark(#1f8a4c, #2f9e5f); }
warmstack-panel .ws-switch[aria-checked=true] .ws-knob::before { margin-inline-start: auto; }
warmstack-panel :is(.ws-loads, .ws-bars) { display: flex; flex-direction: column; gap: 8px; }
warmstack-panel .ws-load-line { display: flex; align-items: center; gap: 6px; color: var(--ws-loading); }
warmstack-panel .ws-load-name { flex: 1; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--ws-ink); }
warmstack-panel :is(.ws-load-size, .ws-bar-value) { color: var(--ws-dim); white-space: nowrap; font-variant-numeric: tabular-nums; }
warmstack-panel .ws-bar-line { display: flex; justify-content: space-between; gap: 8px; }
warmstack-panel .ws-bar-label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
warmstack-panel .ws-track { display: flex; gap: 1px; block-size: 6px; margin-block-start: 3px; overflow: hidden; border-radius: 3px; background: var(--ws-tint); }
warmstack-panel .ws-fill-ours { background: var(--ws-bar-ours); }
warmstack-panel .ws-fill-other { background: var(--ws-bar-other); }
warmstack-panel .ws-fill-page { background: var(--ws-page); }
warmstack-panel .ws-fill-loading { background: var(--ws-loading); }
warmstack-panel .ws-fill-waited { background: var(--ws-bar-waited); }
warmstack-panel .ws-track:not([aria-valuenow]) .ws-fill { inline-size: 35%; animation: ws-busy 1.4s ease-in-out infinite alternate; }
@keyframes ws-busy { to { margin-inline-start: 65%; } }
warmstack-panel .ws-over .ws-fill { background: var(--ws-bad); }

warmstack-panel .ws-verdict { display: flex; align-items: flex-start; gap: 6px; overflow-wrap: anywhere; color: var(--ws-dim); }
warmstack-panel .ws-verdict .ws-icon { margin-block-start: 1.5px; }
warmstack-panel .ws-verdict[data-kind=ready] { color: var(--ws-ready); }
warmstack-panel .ws-verdict[data-kind=loading] { color: var(--ws-loading); }
warmstack-panel .ws-verdict[data-kind=cold] { color: var(--ws-warn); }
warmstack-panel .ws-verdict[data-kind=problem] { color: var(--ws-bad); }
warmstack-panel .ws-job { position: relative; display: grid; grid-template-columns: 50px minmax(0, 1fr); gap: 4px; align-items: baseline; padding-block: 4px; border-block-start: 1px solid var(--ws-line); }
warmstack-panel .ws-where { color: var(--ws-dim); font-variant-numeric: tabular-nums; }
warmstack-panel .ws-running .ws-where { color: var(--ws-ready); font-weight: 600; }
warmstack-panel .ws-chips { display: flex; flex-wrap: wrap; gap: 4px; min-inline-size: 0; }
:is(warmstack-panel, .ws-stack) .ws-chip { --ws-state: var(--ws-cold); position: relative; display: inline-flex; align-items: center; gap: 4px; max-inline-size: 100%; min-inline-size: 0; padding: 1px 7px 1px 5px; font-size: 11px; border: 1px solid color-mix(in srgb, var(--ws-state) 45%, transparent); border-radius: 10px; background: color-mix(in srgb, var(--ws-state) 13%, transparent); }
warmstack-panel .ws-chip .ws-icon { inline-size: 10px; block-size: 10px; color: var(--ws-state); stroke-width: 2; }
warmstack-panel .ws-chip-name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
:is(warmstack-panel, .ws-stack) [data-state=ready] { --ws-state: var(--ws-ready); }
:is(warmstack-panel, .ws-stack) [data-state=page] { --ws-state: var(--ws-page); }
:is(warmstack-panel, .ws-stack) [data-state=loading] { --ws-state: var(--ws-loading); }
:is(warmstack-panel, .ws-stack) [data-state=cold] { --ws-state: var(--ws-cold); }
:is(warmstack-panel, .ws-stack) [data-state=ambiguous] { --ws-state: var(--ws-warn); }
:is(warmstack-panel, .ws-stack) :is([data-state=missing], [data-state=failed]) { --ws-state: var(--ws-bad); }
warmstack-panel .ws-chip:is([data-state=cold], [data-state=unknown]) { border-style: dashed; background: none; }

warmstack-panel .ws-tools { display: flex; gap: 6px; }
:is(warmstack-panel, .ws-stack) .ws-input { min-inline-size: 0; block-size: 28px; padding: 0 8px; border: 1px solid color-mix(in srgb, var(--ws-ink) 28%, transparent); border-radius: 6px; background: var(--ws-card); color: var(--ws-ink); font: inherit; }
warmstack-panel input.ws-input { flex: 1; }
:is(warmstack-panel, .ws-stack) .ws-input::placeholder { color: var(--ws-dim); opacity: 1; }
warmstack-panel .ws-adapters { padding-inline: 0; }
warmstack-panel .ws-adapters > :is(h3, .ws-tools, .ws-empty) { margin-inline: 12px; }
warmstack-panel .ws-rows { --ws-row: 46; position: relative; overflow: hidden; }
warmstack-panel .ws-row { position: absolute; inset-inline: 0; inset-block-start: 0; block-size: calc(var(--ws-row) * 1px); display: grid; grid-template: 'name actions' auto 'meta actions' auto / minmax(0, 1fr) auto; align-content: center; column-gap: 6px; padding-inline: 12px 6px; border-block-start: 1px solid var(--ws-line); }
warmstack-panel .ws-row:is(:hover, :focus-within) { background: var(--ws-tint); }
warmstack-panel .ws-cell { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
warmstack-panel .ws-name { grid-area: name; }
warmstack-panel .ws-name b { font-weight: 600; }
warmstack-panel .ws-glyph { display: inline-block; inline-size: 18px; color: var(--ws-state, var(--ws-cold)); }
warmstack-panel .ws-glyph .ws-icon { vertical-align: -2px; }
warmstack-panel .ws-folder { color: var(--ws-dim); }
warmstack-panel .ws-meta { grid-area: meta; padding-inline-start: 18px; color: var(--ws-dim); font-variant-numeric: tabular-nums; }
warmstack-panel .ws-meta .ws-state { color: var(--ws-state, var(--ws-cold)); }
warmstack-panel :is(.ws-meta span:empty, .ws-meta .ws-category) { display: none; }
warmstack-panel .ws-meta span:not(:empty) + span:not(:empty)::before, warmstack-panel .ws-meta span:empty + span:not(:empty)::before { content: ' · '; color: var(--ws-dim); }
warmstack-panel .ws-actions { grid-area: actions; display: flex; align-items: center; }
warmstack-panel .ws-empty { padding-block: 8px; text-align: center; }

warmstack-panel .ws-legend { display: inline-flex; align-items: center; gap: 4px; margin-inline-start: auto; font-weight: 400; }
warmstack-panel .ws-swatch { inline-size: 9px; block-size: 9px; margin-inline-start: 6px; border-radius: 2px; }
warmstack-panel .ws-timeline { display: flex; align-items: stretch; gap: 2px; block-size: 44px; border-block-end: 1px solid var(--ws-line); }
warmstack-panel .ws-timeline li { position: relative; display: flex; flex: 0 1 14px; flex-direction: column; justify-content: flex-end; min-inline-size: 2px; }
warmstack-panel .ws-timeline .ws-fill-waited { order: -1; }
warmstack-panel .ws-note { display: flex; flex-direction: column; align-items: flex-start; gap: 8px; padding: 12px; border: 1px solid color-mix(in srgb, var(--ws-bad) 50%, transparent); border-radius: 10px; overflow-wrap: anywhere; }
warmstack-panel .ws-note[data-link=stale] { border-color: color-mix(in srgb, var(--ws-warn) 50%, transparent); }
:is(warmstack-panel, .ws-stack) .ws-button { min-block-size: 28px; padding: 0 12px; border: 1px solid var(--ws-line); border-radius: 6px; background: var(--ws-tint); color: inherit; font: inherit; cursor: pointer; }
warmstack-panel .ws-waiting { block-size: 96px; border-radius: 10px; background: var(--ws-card); }

@container (max-width: 259px) {
  warmstack-panel .ws-card { padding: 10px; }
  warmstack-panel .ws-adapters { padding-inline: 0; }
  warmstack-panel .ws-job { grid-template-columns: minmax(0, 1fr); gap: 2px; }
  warmstack-panel .ws-hero { gap: 10px; }
  warmstack-panel .ws-dial { inline-size: 54px; block-size: 54px; }
  warmstack-panel .ws-share { font-size: 13px; }
  warmstack-panel .ws-tools { flex-direction: column; }
  warmstack-panel input.ws-input { flex: none; }
  warmstack-panel .ws-folder { display: none; }
}
@container (min-width: 560px) {
  warmstack-panel .ws-rows { --ws-row: 34; }
  warmstack-panel .ws-row { align-items: center; grid-template: 'name meta actions' auto / minmax(0, 1fr) minmax(0, 1.3fr) 62px; }
  warmstack-panel .ws-meta { display: grid; grid-template-columns: 1.2fr 1fr 1.1fr .8fr .9fr; padding: 0; column-gap: 8px; }
  warmstack-panel .ws-rows .ws-meta span { display: block; }
  warmstack-panel .ws-rows .ws-meta :is(.ws-idle, .ws-category) { display: none; }
  warmstack-panel .ws-meta span { overflow: hidden; text-overflow: ellipsis; }
  warmstack-panel .ws-meta span::before { content: none !important; }
  warmstack-panel .ws-actions { justify-content: flex-end; }
  warmstack-panel .ws-pair { flex-direction: row; }
  warmstack-panel .ws-pair > * { flex: 1; }
  warmstack-panel .ws-timeline { flex: 1; }
}
@container (min-width: 800px) {
  warmstack-panel .ws-row { grid-template-columns: minmax(0, 1fr) minmax(0, 1.8fr) 62px; }
  warmstack-panel .ws-meta { grid-template-columns: 1fr .9fr 1fr .7fr .7fr 1.1fr 1fr; }
  warmstack-panel .ws-rows .ws-meta :is(.ws-idle, .ws-category) { display: block; }
}
@media (prefers-reduced-motion: reduce) {
  warmstack-panel .ws-track .ws-fill { animation: none; }
  warmstack-panel .ws-tool[aria-busy] { opacity: .4; }
  warmstack-panel .ws-tool[aria-busy] .ws-icon { animation: none; }
}
@media (forced-colors: active) {
  warmstack-panel :is(.ws-fill, .ws-knob, .ws-swatch, .ws-timeline i) { forced-color-adjust: none; }
}
`

/** Once per document and `name`, as a sheet: a style element in the page would go with the page's part it stands in. */
export function addStyles(name, css) {
  const sheets = document.adoptedStyleSheets
  if (sheets.some((sheet) => sheet.warmstack === name)) return
  const sheet = Object.assign(new CSSStyleSheet(), { warmstack: name })
  sheet.replaceSync(css)
  document.adoptedStyleSheets = [...sheets, sheet]
}
