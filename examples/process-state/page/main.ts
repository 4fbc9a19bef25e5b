/**
 * The page: all processes from `/latest-by-key`, and on from there by a live subscription, without a hole.
 *
 * The token comes in the fragment of the link, which no server sees. It stays in memory.
 */
import { type ConnectionState, createClient, HubError, type WireEvent } from "event-hub/client"
import { type Latest, readLatest, Refused } from "../latest.ts"
import { type ProcessState, topic, topics } from "../topics.ts"
import { type Column, compareBy, LatestStates, matcher, type Order } from "./rows.ts"

const element = <A extends HTMLElement>(id: string): A => document.getElementById(id) as A

const stateLine = element("state")
const filter = element<HTMLInputElement>("filter")
const count = element("count")
const body = element("rows")
const empty = element("empty")
const sorters = document.querySelectorAll<HTMLButtonElement>("th button")

// --- the table -----------------------------------------------------------------------------------------------

interface Row {
  readonly element: HTMLTableRowElement
  readonly cells: Readonly<Record<Column, HTMLTableCellElement>>
  /** What is shown. */
  state: ProcessState
}

let states = new LatestStates({ items: [] })
/** Values that are no process states. */
let refused = 0
/** Keys that changed since the last frame. */
const changed = new Set<string>()
const rows = new Map<string, Row>()
let order: Order = { column: "cpuPercent", isDescending: true }
/** The order or the filter is another one. */
let isRearranged = false
let isScheduled = false
let isLoaded = false

const today = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" })
const before = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" })
const isToday = (time: number): boolean => new Date(time).toDateString() === new Date().toDateString()

const memory = (bytes: number): string => {
  if (bytes < 1024 ** 2) return `${Math.round(bytes / 1024)} KiB`
  return bytes < 1024 ** 3 ? `${(bytes / 1024 ** 2).toFixed(1)} MiB` : `${(bytes / 1024 ** 3).toFixed(1)} GiB`
}

const texts: { readonly [C in Column]: (state: ProcessState) => string } = {
  pid: ({ pid }) => String(pid),
  name: ({ name }) => name,
  state: ({ state }) => state,
  cpuPercent: ({ cpuPercent }) => `${cpuPercent.toFixed(1)} %`,
  rssBytes: ({ rssBytes }) => memory(rssBytes),
  startedAt: ({ startedAt }) => (isToday(startedAt) ? today : before).format(startedAt)
}

const columns = Object.keys(texts) as ReadonlyArray<Column>

/** Whatever is in an event is text here, and never markup. */
const fill = ({ cells }: Row, state: ProcessState, old: ProcessState | undefined): void => {
  for (const column of columns) {
    if (state[column] !== old?.[column]) cells[column].textContent = texts[column](state)
  }
  cells.name.title = state.name
  cells.state.dataset["state"] = state.state
  cells.startedAt.title = new Date(state.startedAt).toISOString()
  for (const column of ["cpuPercent", "rssBytes"] as const) {
    cells[column].classList.toggle("zero", state[column] === 0)
  }
  cells.cpuPercent.style.setProperty("--share", `${Math.min(100, state.cpuPercent)}%`)
}

const cellOf = (column: Column): HTMLTableCellElement => {
  const cell = document.createElement(column === "name" ? "th" : "td")
  cell.className = column
  if (column === "name") cell.scope = "row"
  return cell
}

const makeRow = (key: string, state: ProcessState): Row => {
  const made = document.createElement("tr")
  const cells = {
    pid: cellOf("pid"),
    name: cellOf("name"),
    state: cellOf("state"),
    cpuPercent: cellOf("cpuPercent"),
    rssBytes: cellOf("rssBytes"),
    startedAt: cellOf("startedAt")
  }
  made.dataset["key"] = key
  made.append(...columns.map((column) => cells[column]))
  const row = { element: made, cells, state }
  fill(row, state, undefined)
  return row
}

/** Brings the row of a key up to date. One that may have to move is taken out, and put where it belongs below. */
const update = (key: string): void => {
  const state = states.all.get(key)
  const row = rows.get(key)
  if (!state) {
    row?.element.remove()
    rows.delete(key)
  } else if (row) {
    if (state[order.column] !== row.state[order.column]) row.element.remove()
    fill(row, state, row.state)
    row.state = state
  } else rows.set(key, makeRow(key, state))
}

const arrange = (): number => {
  const isShown = matcher(filter.value)
  const compare = compareBy(order)
  const shown: Array<Row> = []
  for (const row of rows.values()) {
    if (isShown(row.state)) shown.push(row)
    else row.element.remove()
  }
  shown.sort((a, b) => compare(a.state, b.state))
  if (isRearranged) body.replaceChildren(...shown.map(({ element }) => element))
  // Rows that did not change are in order already: only the others are moved.
  let next = body.firstElementChild
  for (const { element } of shown) {
    if (element === next) next = next.nextElementSibling
    else body.insertBefore(element, next)
  }
  return shown.length
}

const plural = (n: number, one: string, more: string): string =>
  `${n.toLocaleString()} ${n === 1 ? one : more}`

const render = (): void => {
  isScheduled = false
  for (const key of changed) update(key)
  changed.clear()
  const shown = arrange()
  isRearranged = false
  const all = plural(rows.size, "process", "processes")
  const others = refused > 0 ? `, and ${plural(refused, "value that is none", "values that are none")}` : ""
  count.textContent = `${shown === rows.size ? "" : `${shown.toLocaleString()} of `}${all}${others}`
  empty.hidden = shown > 0
  empty.textContent = !isLoaded
    ? "Nothing has come yet."
    : rows.size > 0
      ? "No process fits the filter."
      : "No processes: is the publisher running?"
}

/** However much comes, the page is drawn once per frame. */
const schedule = (): void => {
  if (isScheduled) return
  isScheduled = true
  requestAnimationFrame(render)
}

const begin = (latest: Latest): void => {
  for (const key of states.all.keys()) changed.add(key)
  states = new LatestStates(latest)
  for (const key of states.all.keys()) changed.add(key)
  refused = latest.refused
  isLoaded = true
  schedule()
}

const apply = ({ key, seq }: WireEvent, state: ProcessState | null): void => {
  if (key === undefined || !states.apply(key, seq, state)) return
  changed.add(key)
  schedule()
}

const showOrder = (): void => {
  for (const sorter of sorters) {
    const { column } = sorter.dataset
    const header = sorter.closest("th")
    if (column !== order.column) header?.removeAttribute("aria-sort")
    else header?.setAttribute("aria-sort", order.isDescending ? "descending" : "ascending")
  }
}

const rearrange = (): void => {
  isRearranged = true
  schedule()
}

for (const sorter of sorters) {
  const column = columns.find((name) => name === sorter.dataset["column"])
  if (!column) continue
  sorter.addEventListener("click", () => {
    const isText = column === "name" || column === "state" || column === "pid"
    order = { column, isDescending: column === order.column ? !order.isDescending : !isText }
    showOrder()
    rearrange()
  })
}
filter.addEventListener("input", rearrange)

// --- the connection ------------------------------------------------------------------------------------------

/** Only what is new is said: a screen reader reads this line aloud. */
const say = (state: string, text: string): void => {
  stateLine.dataset["state"] = state
  if (stateLine.textContent !== text) stateLine.textContent = text
}

let lostAt: number | undefined

const showState = (state: ConnectionState): void => {
  switch (state._tag) {
    case "idle":
    case "connecting":
    case "waiting":
      if (!isLoaded) return say("connecting", "connecting")
      lostAt ??= Date.now()
      return say("reconnecting", `reconnecting, shown as of ${today.format(lostAt)}`)
    case "ready":
      lostAt = undefined
      return say(isLoaded ? "live" : "connecting", isLoaded ? "live" : "loading")
    case "closed":
      // `follow` ends, and says why.
      return
  }
}

/** Between two tries to read what is there. */
const retryMs = 1_000

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** All keys; nothing when the hub is not there for it, which passes. */
const load = async (token: string): Promise<Latest | undefined> => {
  try {
    return await readLatest({ base: location.origin, token })
  } catch (error) {
    if (error instanceof Refused && !error.isRetryable) throw error
    return undefined
  }
}

const follow = async (url: string, token: string): Promise<void> => {
  const client = createClient({ url, token, topics })
  client.on("state", showState)
  try {
    for (;;) {
      // Before anything is read: positions of another history would be refused.
      const { history } = await client.connect()
      const latest = await load(token)
      if (!latest) {
        await pause(retryMs)
        continue
      }
      begin(latest)
      const live = client.subscribe(topic, { from: { after: latest.seq }, history })
      try {
        await live.ready
        showState(client.state)
        for await (const item of live) {
          // What was removed in it, nobody knows: everything is read again.
          if (item._tag === "gap") break
          if (item._tag === "event") apply(item, item.payload)
          else {
            refused++
            apply(item.event, null)
          }
        }
      } catch (error) {
        // The hub has another store, or an older one, or cannot read it for now. The page begins anew.
        if (!(error instanceof HubError)) throw error
        if (error.code !== "unrecoverable_position" && !error.retryable) throw error
        await pause(retryMs)
      }
    }
  } catch (error) {
    await client.close()
    say("closed", `not connected: ${error instanceof Error ? error.message : String(error)}`)
  }
}

const hub = document.querySelector<HTMLMetaElement>('meta[name="hub-url"]')?.content ?? ""
const token = new URLSearchParams(location.hash.slice(1)).get("token")
showOrder()
schedule()
if (token === null) say("closed", "not connected: there is no token in the link")
else {
  // Neither the address nor the history of the browser shows the token any longer.
  history.replaceState(null, "", location.pathname)
  void follow(hub, token)
}
