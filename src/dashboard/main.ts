/**
 * The page that an ops server shows at `/`: follows a pattern live, through the gateway, like any other client.
 *
 * The token comes in the fragment of the link, which no server sees, or by hand. It stays in memory.
 */
import { type HubError, PromClient, type WireEvent } from "../client/index.ts"

/** Rows that are kept; older ones go. */
const maxRows = 200

const element = <A extends HTMLElement>(id: string): A => document.getElementById(id) as A

const form = element<HTMLFormElement>("form")
const token = element<HTMLInputElement>("token")
const pattern = element<HTMLInputElement>("pattern")
const start = element<HTMLInputElement>("start")
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

const cell = (text: string): HTMLTableCellElement => {
  const made = document.createElement("td")
  made.textContent = text
  return made
}

let client: PromClient | undefined
let seen = 0

const show = (event: WireEvent): void => {
  const row = document.createElement("tr")
  row.append(
    cell(new Date(event.storedAt).toLocaleTimeString()),
    cell(event.topic),
    cell(String(event.seq)),
    cell(event.key ?? ""),
    cell(JSON.stringify(event.payload))
  )
  rows.prepend(row)
  while (rows.childElementCount > maxRows) rows.lastElementChild?.remove()
  count.textContent = String(++seen)
}

const tell = (error: unknown): void => {
  message.textContent = error instanceof Error ? error.message : String(error)
}

const disconnect = async (): Promise<void> => {
  const old = client
  client = undefined
  stop.disabled = true
  await old?.close()
}

const follow = async (): Promise<void> => {
  await disconnect()
  message.textContent = ""
  rows.replaceChildren()
  seen = 0
  count.textContent = "0"
  const made = new PromClient(gatewayUrl(), token.value, {
    onState: (now) => {
      if (client === made) state.textContent = now._tag === "ready" ? "connected" : now._tag
    },
    onError: tell
  })
  client = made
  stop.disabled = false
  try {
    await made.subscribe(pattern.value, undefined, show, {
      from: start.checked ? "start" : "new",
      onGap: ({ from, to, topic }) => tell(`${topic}: events ${from} to ${to} were trimmed`),
      onEnd: (error: HubError) => tell(error)
    })
    state.textContent = "connected"
  } catch (error) {
    tell(error)
    await disconnect()
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault()
  void follow()
})

stop.addEventListener("click", () => {
  void disconnect().then(() => {
    state.textContent = "not connected"
  })
})

const given = new URLSearchParams(location.hash.slice(1)).get("token")
if (given !== null) {
  token.value = given
  // The link stays usable in the history, but the token is not shown in the address any longer.
  history.replaceState(null, "", location.pathname)
  void follow()
}
