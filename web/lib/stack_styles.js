/** The stack editor's look: the panel's colours on a node. */
export const STACK_CSS = `
.ws-stack {
  box-sizing: border-box; block-size: 100%; overflow: auto; padding: 4px;
  color: var(--ws-ink); font-size: 12px; line-height: 1.4; scrollbar-width: thin;
}
.ws-stack-body { display: flex; flex-direction: column; gap: 4px; }
.ws-stack [hidden] { display: none !important; }
.ws-stack :is(ol, ul, p) { margin: 0; padding: 0; list-style: none; }
.ws-stack-rows { display: flex; flex-direction: column; gap: 4px; }
.ws-stack-row { display: grid; position: relative; grid-template-columns: 10px 16px 16px minmax(40px, 1fr) 44px 44px auto; gap: 4px; align-items: center; min-block-size: 28px; }
.ws-stack-row.ws-off > :is(.ws-input, .ws-picker-field, .ws-glyph) { opacity: .5; }
.ws-stack-row > input[type=checkbox] { margin: 0; inline-size: 16px; block-size: 16px; accent-color: #2f9e5f; }
.ws-grip { inline-size: 10px; block-size: 24px; overflow: hidden; display: grid; place-items: center; color: var(--ws-dim); cursor: grab; touch-action: none; }
.ws-grip:active { cursor: grabbing; }
.ws-stack-row[data-drop]::after { content: ''; position: absolute; inset-inline: 0; block-size: 2px; background: var(--ws-ink); }
.ws-stack-row[data-drop=before]::after { inset-block-start: -3px; }
.ws-stack-row[data-drop=after]::after { inset-block-end: -3px; }
.ws-stack [data-fit=bad] input[role=combobox] { border-color: var(--ws-warn); }
.ws-stack-report { display: flex; flex-direction: column; padding-block-start: 4px; border-block-start: 1px solid var(--ws-line); overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.ws-stack-report .ws-warning { display: block; color: var(--ws-warn); }
.ws-stack-report .ws-warning:empty { display: none; }
.ws-stack .ws-glyph { display: grid; place-items: center; inline-size: 16px; color: var(--ws-state, var(--ws-cold)); }
.ws-stack :is([data-state=missing], [data-state=failed]) input[role=combobox] { border-color: var(--ws-bad); }
.ws-stack [data-state=ambiguous] input[role=combobox] { border-color: var(--ws-warn); }
.ws-stack .ws-input { inline-size: 100%; min-inline-size: 0; padding: 0 6px; text-overflow: ellipsis; }
.ws-picker-field { position: relative; display: grid; min-inline-size: 0; }
.ws-picker-cover { position: absolute; inset: 1px; display: flex; align-items: center; padding: 2px 6px 0; overflow: hidden; border-radius: 5px; background: var(--ws-card); white-space: pre; direction: ltr; pointer-events: none; }
.ws-picker-cover > * { min-inline-size: 0; overflow: hidden; text-overflow: ellipsis; }
.ws-picker-cover > .ws-dim { flex-shrink: 99999; direction: rtl; }
.ws-picker-cover > b { font-weight: 600; }
.ws-picker-field > :is(:focus, :placeholder-shown) + .ws-picker-cover { display: none; }
.ws-stack .ws-strength { cursor: ew-resize; touch-action: pan-y; text-align: end; font-variant-numeric: tabular-nums; }
.ws-stack .ws-strength:focus { cursor: text; }
.ws-stack-tools { display: flex; }
.ws-stack-tools .ws-tool { inline-size: 22px; }
.ws-picker { grid-column: 4 / -1; order: 1; display: flex; flex-direction: column; gap: 4px; padding: 4px; border: 1px solid var(--ws-line); border-radius: 6px; background: var(--ws-card); }
.ws-picker-filters { display: flex; gap: 4px; }
.ws-stack .ws-picker-filters .ws-input { block-size: 24px; padding: 0 2px; font-size: 11px; }
.ws-picker-list { max-block-size: 168px; overflow: auto; scrollbar-width: thin; }
.ws-picker-list li { display: flex; gap: 2px; padding: 4px 4px; border-radius: 4px; cursor: pointer; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.ws-picker-list li > :last-child { margin-inline-start: auto; padding-inline-start: 8px; }
.ws-picker-list li:is(:hover, [aria-selected=true]) { background: var(--ws-tint); }
.ws-picker-list [data-fit=good] > :last-child::before { content: '✓ '; color: var(--ws-ready); }
.ws-picker-list [data-fit=bad] > :last-child { color: var(--ws-warn); }
.ws-picker-note { padding: 2px 4px; }
.ws-candidates { grid-column: 4 / -1; order: 2; display: flex; flex-wrap: wrap; gap: 4px; }
.ws-stack .ws-chip { color: inherit; font-family: inherit; cursor: pointer; }
.ws-stack-other { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; color: var(--ws-dim); }
.ws-fault { overflow-wrap: anywhere; color: var(--ws-bad); }
.ws-stack-notice { color: var(--ws-warn); }
.ws-stack-foot { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center; justify-content: space-between; }
.ws-stack .ws-quiet { padding: 0 6px; border-color: transparent; background: none; color: var(--ws-dim); }
.ws-stack .ws-quiet:hover { background: var(--ws-tint); color: var(--ws-ink); }
@media (forced-colors: active) {
  .ws-stack { background: Canvas; }
}
`
