/**
 * The page that an ops server shows at `/`: follows a pattern live, through the gateway, like any other client.
 *
 * The token comes in the fragment of the link, which no server sees, or by hand. It stays in memory.
 */
import { type ConnectionState, PromClient, type WireEvent } from "../client/index.ts"

/** Rows that are kept; older ones go. */
const maxRows = 200

/** Characters of a payload that are shown. */
const maxLength = 2_000

const element = <A extends HTMLElement>(id: string): A => document.getElementById(id) as A

const form = element<HTMLFormElement>("form")
const token = element<HTMLInputElement>("token")
const pattern = element<HTMLInputElement>("pattern")
const start = element<HTMLInputElement>("start")
const pause = element<HTMLButtonElement>("pause")
const stop = element<HTMLButtonElement>("stop")
const state = element("state")
const message = element("message")
const rows = element("events")
const count = element("count")

const gatewayUrl = (): string => {
  const port = document.querySelector<HTMLMetaElement>('meta[name="event-hub-ws-port"]')?.content ?? ""
  const url = new URL(location.href)
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:"
  url.port = port
  url.pathname = "/"
  url.search = url.hash = ""
  return url.href
}

// --- events --------------------------------------------------------------------------------------------------

/** Came, and has no row yet: rows are made once a frame, and not while the page is paused. */
let waiting: Array<WireEvent> = []
let seen = 0
let isScheduled = false
let isPaused = false

const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23"
})

/** Whatever is in an event is text here, and never markup. */
const cell = (text: string, title = ""): HTMLTableCellElement => {
  const made = document.createElement("td")
  made.textContent = text
  made.title = title
  return made
}

const rowOf = ({ key = "", payload, seq, storedAt, topic, type = "" }: WireEvent): HTMLTableRowElement => {
  const stored = new Date(storedAt)
  const text = JSON.stringify(payload)
  const row = document.createElement("tr")
  row.append(
    cell(clock.format(stored), stored.toISOString()),
    cell(topic, type === "" ? topic : `${topic}, type ${type}`),
    cell(String(seq)),
    cell(key, key),
    cell(text.length > maxLength ? `${text.slice(0, maxLength)}…` : text)
  )
  return row
}

const render = (): void => {
  isScheduled = false
  if (!isPaused) {
    rows.prepend(...waiting.slice(-maxRows).toReversed().map(rowOf))
    waiting = []
    while (rows.childElementCount > maxRows) rows.lastElementChild?.remove()
  }
  const events = seen === 0 ? "No events yet." : `${seen.toLocaleString()} ${seen === 1 ? "event" : "events"}`
  count.textContent = isPaused ? `${events}, paused` : events
}

const schedule = (): void => {
  if (isScheduled) return
  isScheduled = true
  requestAnimationFrame(render)
}

const show = (event: WireEvent): void => {
  seen++
  waiting.push(event)
  if (waiting.length > 2 * maxRows) waiting = waiting.slice(-maxRows)
  schedule()
}

const setPaused = (paused: boolean): void => {
  isPaused = paused
  pause.textContent = paused ? "Resume" : "Pause"
  pause.ariaPressed = String(paused)
  schedule()
}

// --- the connection ------------------------------------------------------------------------------------------

let client: PromClient | undefined

const names: Readonly<Record<ConnectionState["_tag"], string>> = {
  idle: "not connected",
  connecting: "connecting",
  ready: "connected",
  waiting: "connecting again",
  closed: "not connected"
}

const setState = (tag: ConnectionState["_tag"]): void => {
  state.dataset["state"] = tag
  state.textContent = names[tag]
}

const tell = (error: unknown): void => {
  message.textContent = error instanceof Error ? error.message : String(error)
}

const disconnect = (): void => {
  const old = client
  client = undefined
  stop.disabled = pause.disabled = true
  setPaused(false)
  setState("closed")
  void old?.close()
}

const follow = async (): Promise<void> => {
  disconnect()
  message.textContent = ""
  rows.replaceChildren()
  waiting = []
  seen = 0
  const isCurrent = (): boolean => client === made
  const fail = (error: unknown): void => {
    if (!isCurrent()) return
    tell(error)
    disconnect()
  }
  const made = new PromClient(gatewayUrl(), token.value, {
    onState: (now) => {
      if (isCurrent()) setState(now._tag)
    },
    onError: tell
  })
  client = made
  stop.disabled = pause.disabled = false
  const onEvent = (event: WireEvent): void => {
    if (isCurrent()) show(event)
  }
  try {
    await made.subscribe(pattern.value, undefined, onEvent, {
      from: start.checked ? "start" : "new",
      onGap: ({ from, to, topic }) => tell(`${topic}: events ${from} to ${to} were trimmed`),
      onEnd: fail
    })
  } catch (error) {
    fail(error)
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault()
  void follow()
})
pause.addEventListener("click", () => setPaused(!isPaused))
stop.addEventListener("click", disconnect)

const given = new URLSearchParams(location.hash.slice(1)).get("token")
if (given !== null) {
  token.value = given
  // Neither the address nor the history shows the token any longer.
  history.replaceState(null, "", location.pathname)
  void follow()
}
