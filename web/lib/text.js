/** The panel's words. The host translates settings and commands itself (locales/); these it never sees. */

const EN = {
  title: 'WarmStack',
  live: 'Live', loading: 'Connecting…', stale: 'Not updating', reconnecting: 'Reconnecting…', error: 'No connection',
  refresh: 'Refresh', tryAgain: 'Try again',
  errorHead: 'The server does not answer',
  errorBody: 'Is ComfyUI still running, and is the WarmStack pack enabled?',
  staleBody: 'Showing the last known state.',
  prefetch: 'Prefetch',
  prefetchOn: 'LoRAs are loaded before their job starts.',
  prefetchOff: 'Off: every job loads its own LoRAs and waits for them.',
  hidden: 'of load time hidden', hiddenPage: 'of LoRA bytes read ahead', hiddenNone: 'Nothing loaded yet',
  hiddenHint: 'Share of the LoRA load time that no job had to wait for, since the server started.',
  saved: '{time} saved', waited: '{time} waited',
  outcomes: '{hits} hit · {joins} joined · {misses} missed',
  outcomesTotal: '{hits} hit ({share}) · {joins} joined · {misses} missed',
  outcomesHint: 'Hit: it was there. Joined: it was on its way. Missed: the job had to load it.',
  loadingNow: 'Loading now', tierResident: 'into memory', tierPage: 'reading ahead', tierDevice: 'onto the graphics card',
  memory: 'Memory',
  budget: 'Adapters', budgetHint: 'LoRAs that WarmStack holds in memory, and the most it may hold. Peak: {peak}.',
  ram: 'RAM', ramHint: 'Main memory: adapters, everything else that runs, and what is free.',
  pageCache: 'File cache', pageCacheHint: 'Files that the operating system keeps in memory, of them {loras} of LoRAs that were read ahead. Any loader node profits; the system takes it back when it needs to.',
  underPressure: 'Memory is short: WarmStack keeps less and reads nothing ahead.',
  vram: 'VRAM {name}', vramHint: 'Memory of the graphics card, all programs together.',
  of: '{used} of {total}',
  queue: 'Queue', queueEmpty: 'The queue is empty.', queueMore: '{count} more jobs',
  running: 'Running', next: 'Next', jobNumber: '#{number}', noLoras: 'no LoRAs',
  nextReady: 'The next job is ready.', nextLoading: 'The next job is still loading {names}.',
  nextCold: 'The next job would wait for {names}.', nextProblem: 'The next job has a problem with {names}.',
  andMore: '{first} and {count} more',
  adapters: 'Adapters', filter: 'Filter by name, category or base model', noMatch: 'Nothing matches “{filter}”.',
  empty: 'No LoRAs yet.', emptyHint: 'They appear here once a queued job names one, or when a LoRA folder has files.',
  sort: 'Sort by', sortName: 'By name', sortSize: 'By size', sortUses: 'By queue', sortHits: 'By hits', sortIdle: 'By last use', sortCategory: 'By category', sortBase: 'By base', sortState: 'By state',
  uses: { other: '{count} queued' },
  hits: { one: '{count} hit', other: '{count} hits' },
  idle: '{time} ago',
  pin: 'Pin {name}', evict: 'Evict {name}', warm: 'Warm {name}',
  pinHint: 'Keep in memory', unpinHint: 'Let it go when memory is needed', evictHint: 'Release its memory now', warmHint: 'Load it now',
  inUse: 'In use by a running job', isPinned: 'Pinned: unpin it first', failedAction: 'WarmStack could not do that',
  history: 'Last jobs', historyHint: 'Per job: load time hidden, and load time waited for.',
  historyItem: '{load} of loading, {wait} waited',
  wasHidden: 'hidden', wasWaited: 'waited',
  stack: 'LoRA stack', addLora: 'Add LoRA', pickLora: 'Choose a LoRA', onOff: 'Use', strengthModel: 'Model strength', strengthClip: 'Text encoder strength',
  moveUp: 'Move up', duplicate: 'Duplicate', remove: 'Remove', otherText: 'Written as tags or as a request.', editAsRows: 'Edit as rows',
  editAsText: 'Edit as text', hideText: 'Hide text', unreadable: 'Cannot be read: {reason}',
  linkedText: 'Comes from the linked node.', category: 'Category', baseModel: 'Base model', allCategories: 'All categories', allBases: 'All base models',
  fitsModel: 'Fits this model', moreNames: '{count} more: type to narrow.', noneHere: 'Nothing here.',
  mixedBases: 'Made for different base models: {bases}.', otherBase: 'Made for {base}: it may not fit this model.', dragRow: 'Drag to reorder',
  strengthUnknown: 'The strength of {name} goes by the category of its file, which is not known.',
  lastRun: 'Last run', matched: '{name}: {share} matched, {outcome}', outcome: { hit: 'from memory', join: 'was on its way', miss: 'read from disk' },
  state: {
    ready: 'ready', page: 'cached', loading: 'loading', cold: 'cold', missing: 'missing', ambiguous: 'ambiguous', failed: 'failed', unknown: 'unknown', in_use: 'in use',
  },
  stateHint: {
    ready: 'In memory: the job starts at once.', page: 'The file is in the system’s memory: loading takes a moment.', loading: 'On its way.',
    cold: 'Still on disk: the job that needs it first will wait.', missing: 'No file of this name in the LoRA folders.',
    ambiguous: 'Several files answer to this name: write the folder too.', failed: 'The file could not be loaded.',
    unknown: 'The graph computes this name while it runs.',
  },
}

const ZH = {
  title: 'WarmStack',
  live: '实时', loading: '正在连接…', stale: '未更新', reconnecting: '正在重新连接…', error: '无连接',
  refresh: '刷新', tryAgain: '重试',
  errorHead: '服务器没有响应',
  errorBody: 'ComfyUI 是否仍在运行？WarmStack 是否已启用？',
  staleBody: '显示的是最后一次已知状态。',
  prefetch: '预取',
  prefetchOn: '任务开始之前就加载好 LoRA。',
  prefetchOff: '已关闭：每个任务自行加载 LoRA 并等待。',
  hidden: '的加载时间被隐藏', hiddenPage: '的 LoRA 数据已预读', hiddenNone: '尚未加载任何内容',
  hiddenHint: '自服务器启动以来，没有任务需要等待的 LoRA 加载时间所占比例。',
  saved: '节省 {time}', waited: '等待 {time}',
  outcomes: '{hits} 命中 · {joins} 等到 · {misses} 未命中',
  outcomesTotal: '{hits} 命中（{share}）· {joins} 等到 · {misses} 未命中',
  outcomesHint: '命中：已在内存中。等到：正在加载途中。未命中：任务只好自己加载。',
  loadingNow: '正在加载', tierResident: '载入内存', tierPage: '预读文件', tierDevice: '载入显卡',
  memory: '内存',
  budget: '适配器', budgetHint: 'WarmStack 保存在内存中的 LoRA 及其上限。峰值：{peak}。',
  ram: '内存', ramHint: '主内存：适配器、其他程序以及空闲部分。',
  pageCache: '文件缓存', underPressure: '内存不足：WarmStack 减少保留，并停止预读。', pageCacheHint: '操作系统保留在内存中的文件，其中预读的 LoRA 有 {loras}。任何加载节点都会受益；系统需要时会收回。',
  vram: '显存 {name}', vramHint: '显卡内存，所有程序合计。',
  of: '{used} / {total}',
  queue: '队列', queueEmpty: '队列为空。', queueMore: '还有 {count} 个任务',
  running: '运行中', next: '下一个', jobNumber: '#{number}', noLoras: '没有 LoRA',
  nextReady: '下一个任务已就绪。', nextLoading: '下一个任务仍在加载 {names}。',
  nextCold: '下一个任务将等待 {names}。', nextProblem: '下一个任务的 {names} 有问题。',
  andMore: '{first} 等 {count} 个',
  adapters: '适配器', filter: '按名称、类别或基础模型筛选', noMatch: '没有与“{filter}”匹配的内容。',
  empty: '还没有 LoRA。', emptyHint: '当排队的任务用到 LoRA,或 LoRA 文件夹中有文件时，会显示在这里。',
  sort: '排序', sortName: '按名称', sortSize: '按大小', sortUses: '按排队', sortHits: '按命中', sortIdle: '按最近使用', sortCategory: '按类别', sortBase: '按基础模型', sortState: '按状态',
  uses: { other: '排队 {count}' }, hits: { other: '{count} 次命中' },
  idle: '{time}前',
  pin: '固定 {name}', evict: '移出 {name}', warm: '预热 {name}',
  pinHint: '保留在内存中', unpinHint: '需要内存时可以释放', evictHint: '立即释放其内存', warmHint: '立即加载',
  inUse: '正在运行的任务在使用它', isPinned: '已固定：请先取消固定', failedAction: 'WarmStack 无法完成该操作',
  history: '最近的任务', historyHint: '每个任务：被隐藏的加载时间和等待的加载时间。',
  historyItem: '加载 {load}，等待 {wait}',
  wasHidden: '隐藏', wasWaited: '等待',
  stack: 'LoRA 堆叠', addLora: '添加 LoRA', pickLora: '选择 LoRA', onOff: '使用', strengthModel: '模型强度', strengthClip: '文本编码器强度',
  moveUp: '上移', duplicate: '复制', remove: '移除', otherText: '以标签或请求形式书写。', editAsRows: '按行编辑',
  editAsText: '按文本编辑', hideText: '隐藏文本', unreadable: '无法读取：{reason}',
  linkedText: '由所连接的节点提供。', category: '类别', baseModel: '基础模型', allCategories: '所有类别', allBases: '所有基础模型',
  fitsModel: '适合此模型', moreNames: '还有 {count} 个：输入文字以缩小范围。', noneHere: '这里没有内容。',
  mixedBases: '适用于不同的基础模型：{bases}。', otherBase: '适用于 {base}：可能与此模型不匹配。', dragRow: '拖动以排序',
  strengthUnknown: '{name} 的强度取决于其文件的类别，而该类别未知。',
  lastRun: '上次运行', matched: '{name}：匹配 {share}，{outcome}', outcome: { hit: '来自内存', join: '正在加载途中', miss: '从磁盘读取' },
  state: {
    ready: '就绪', page: '已缓存', loading: '加载中', cold: '未加载', missing: '缺失', ambiguous: '有歧义', failed: '失败', unknown: '未知', in_use: '使用中',
  },
  stateHint: {
    ready: '已在内存中：任务可立即开始。', page: '文件已在系统内存中：加载很快。', loading: '正在加载途中。',
    cold: '仍在磁盘上：最先需要它的任务要等待。', missing: 'LoRA 文件夹中没有此名称的文件。',
    ambiguous: '多个文件都符合此名称：请同时写出文件夹。', failed: '文件无法加载。', unknown: '该名称由工作流在运行时算出。',
  },
}

const JA = {
  title: 'WarmStack',
  live: 'ライブ', loading: '接続中…', stale: '更新停止', reconnecting: '再接続中…', error: '接続なし',
  refresh: '更新', tryAgain: '再試行',
  errorHead: 'サーバーが応答しません',
  errorBody: 'ComfyUI は動作していますか。WarmStack は有効ですか。',
  staleBody: '最後に確認できた状態を表示しています。',
  prefetch: '先読み',
  prefetchOn: 'ジョブの開始前に LoRA を読み込みます。',
  prefetchOff: 'オフ：各ジョブが自分で LoRA を読み込み、待ちます。',
  hidden: 'の読み込み時間を隠蔽', hiddenPage: 'の LoRA データを先読み', hiddenNone: 'まだ何も読み込んでいません',
  hiddenHint: 'サーバー起動以降、ジョブが待たずに済んだ LoRA 読み込み時間の割合。',
  saved: '{time} 節約', waited: '{time} 待機',
  outcomes: 'ヒット {hits} · 合流 {joins} · ミス {misses}',
  outcomesTotal: 'ヒット {hits}（{share}）· 合流 {joins} · ミス {misses}',
  outcomesHint: 'ヒット：すでにあった。合流：読み込み途中だった。ミス：ジョブ自身が読み込んだ。',
  loadingNow: '読み込み中', tierResident: 'メモリへ', tierPage: 'ファイル先読み', tierDevice: 'グラフィックカードへ',
  memory: 'メモリ',
  budget: 'アダプター', budgetHint: 'WarmStack がメモリに保持する LoRA と、その上限。最大：{peak}。',
  ram: 'RAM', ramHint: 'メインメモリ：アダプター、その他、空き。',
  pageCache: 'ファイルキャッシュ', underPressure: 'メモリ不足：保持量を減らし、先読みを止めています。', pageCacheHint: 'OS がメモリに保持しているファイル。そのうち先読みした LoRA は {loras}。どのローダーにも効きます。必要になれば OS が回収します。',
  vram: 'VRAM {name}', vramHint: 'グラフィックカードのメモリ（全プログラムの合計）。',
  of: '{used} / {total}',
  queue: 'キュー', queueEmpty: 'キューは空です。', queueMore: '他 {count} 件のジョブ',
  running: '実行中', next: '次', jobNumber: '#{number}', noLoras: 'LoRA なし',
  nextReady: '次のジョブは準備完了です。', nextLoading: '次のジョブは {names} を読み込み中です。',
  nextCold: '次のジョブは {names} を待つことになります。', nextProblem: '次のジョブの {names} に問題があります。',
  andMore: '{first} 他 {count} 件',
  adapters: 'アダプター', filter: '名前・カテゴリ・ベースモデルで絞り込み', noMatch: '「{filter}」に一致するものはありません。',
  empty: 'LoRA はまだありません。', emptyHint: 'キューのジョブが LoRA を使うか、LoRA フォルダーにファイルがあると表示されます。',
  sort: '並べ替え', sortName: '名前順', sortSize: 'サイズ順', sortUses: 'キュー順', sortHits: 'ヒット順', sortIdle: '最終使用順', sortCategory: 'カテゴリ順', sortBase: 'ベースモデル順', sortState: '状態順',
  uses: { other: '待機 {count} 件' }, hits: { other: 'ヒット {count} 回' },
  idle: '{time}前',
  pin: '{name} を固定', evict: '{name} を解放', warm: '{name} を読み込む',
  pinHint: 'メモリに保持する', unpinHint: 'メモリが必要なときは手放す', evictHint: '今すぐメモリを解放する', warmHint: '今すぐ読み込む',
  inUse: '実行中のジョブが使用中', isPinned: '固定中：先に固定を解除してください', failedAction: 'WarmStack はその操作を実行できませんでした',
  history: '最近のジョブ', historyHint: 'ジョブごと：隠れた読み込み時間と待った時間。',
  historyItem: '読み込み {load}、待機 {wait}',
  wasHidden: '隠蔽', wasWaited: '待機',
  stack: 'LoRA スタック', addLora: 'LoRA を追加', pickLora: 'LoRA を選択', onOff: '使用', strengthModel: 'モデル強度', strengthClip: 'テキストエンコーダー強度',
  moveUp: '上へ', duplicate: '複製', remove: '削除', otherText: 'タグまたはリクエストで書かれています。', editAsRows: '行として編集',
  editAsText: 'テキストとして編集', hideText: 'テキストを隠す', unreadable: '読み取れません：{reason}',
  linkedText: '接続されたノードから渡されます。', category: 'カテゴリ', baseModel: 'ベースモデル', allCategories: 'すべてのカテゴリ', allBases: 'すべてのベースモデル',
  fitsModel: 'このモデルに適合', moreNames: 'ほか {count} 件：入力して絞り込めます。', noneHere: 'ここには何もありません。',
  mixedBases: '異なるベースモデル用です：{bases}。', otherBase: '{base} 用です。このモデルに合わない可能性があります。', dragRow: 'ドラッグで並べ替え',
  strengthUnknown: '{name} の強度はファイルのカテゴリで決まりますが、そのカテゴリが不明です。',
  lastRun: '前回の実行', matched: '{name}：{share} 一致、{outcome}', outcome: { hit: 'メモリから', join: '読み込み途中', miss: 'ディスクから' },
  state: {
    ready: '準備完了', page: 'キャッシュ済み', loading: '読み込み中', cold: '未読込', missing: 'なし', ambiguous: '曖昧', failed: '失敗', unknown: '不明', in_use: '使用中',
  },
  stateHint: {
    ready: 'メモリにあり、ジョブはすぐ始まります。', page: 'ファイルは OS のメモリにあり、読み込みは一瞬です。', loading: '読み込み途中です。',
    cold: 'まだディスク上です。最初に使うジョブが待ちます。', missing: 'LoRA フォルダーにこの名前のファイルはありません。',
    ambiguous: '複数のファイルが該当します。フォルダー名も書いてください。', failed: 'ファイルを読み込めませんでした。',
    unknown: 'この名前は実行時にグラフが決めます。',
  },
}

export const TABLES = { en: EN, zh: ZH, ja: JA }

/** "zh-TW" -> zh, "de" -> en: the host offers more languages than we do. */
function languageOf(locale) {
  const language = String(locale ?? 'en').toLowerCase().split('-')[0]
  return language in TABLES ? language : 'en'
}

/**
 * `t('saved', { time: '3 s' })`, `t('state.cold')`, `t('uses', { count: 2 })` (plural by `count`). A word that a table
 * lacks comes from the English one.
 */
export function translator(locale) {
  const language = languageOf(locale)
  const plural = new Intl.PluralRules(language)
  const t = (key, values = {}) => {
    const entry = find(TABLES[language], key) ?? find(EN, key) ?? key
    const phrase = typeof entry === 'string' ? entry : entry[plural.select(values.count)] ?? entry.other
    return phrase.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole)
  }
  return Object.assign(t, { language })
}

function find(table, key) {
  return key.split('.').reduce((node, part) => node?.[part], table)
}
