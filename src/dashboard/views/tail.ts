/** Events of a pattern as they are stored, the newest first. On a connection of its own: a flood here holds up nothing else. */
import { type Client, createClient } from "../../client/Client.ts"
import type { WireEvent } from "../../protocol/Messages.ts"
import { button, clock, field, form, h, input, many } from "../dom.ts"
import { gatewayUrl } from "../live.ts"
import { href, type View } from "../router.ts"

/** Rows that are kept; older ones go. */
const maxRows = 200

/** Characters of a payload that are shown. */
const maxLength = 2_000

let token = ""
export const setTailToken = (now: string): void => void (token = now)

/** Whatever is in an event is text here, and never markup. */
const rowOf = ({ key = "", payload, seq, storedAt, topic, type = "" }: WireEvent): HTMLTableRowElement => {
  const stored = new Date(storedAt).toISOString()
  const text = JSON.stringify(payload)
  return h(
    "tr",
    {},
    h("td", { class: "num", title: stored }, clock(storedAt)),
    h("td", { class: "name", title: type === "" ? topic : `${topic}, type ${type}` }, topic),
    h("td", { class: "num" }, seq),
    h("td", { class: "cut", title: key }, key),
    h("td", { class: "wide payload" }, text.length > maxLength ? `${text.slice(0, maxLength)}…` : text)
  )
}

export const tail: View = ({ add, head, query, signal }) => {
  head("Live tail")
  const given = query.get("pattern")
  const pattern = input({ id: "pattern", value: given ?? "**", required: true, class: "mono" })
  const start = h("input", { id: "start", type: "checkbox", checked: query.get("from") === "start" })
  const pause = button("Pause", () => setPaused(!isPaused), {
    id: "pause",
    "aria-pressed": "false",
    disabled: true
  })
  const stop = button("Stop", () => disconnect(), { id: "stop", disabled: true })
  const message = h("p", { id: "message", class: "trouble", role: "alert" })
  const count = h("p", { id: "count", class: "quiet" }, "No events yet.")
  const body = h("tbody", { id: "events" })
  const heads = ["Stored", "Topic", "Seq", "Key", "Payload"]
  add(
    form(
      { class: "bar", id: "form" },
      () => follow(),
      field("Pattern: * is one part of a name, ** any number", pattern, "wide"),
      field("from the start", start, "check"),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Follow"), pause, stop)
    ),
    message,
    count,
    h(
      "table",
      { class: "tail" },
      h("caption", {}, "Live events, the newest first"),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((text) => h("th", { scope: "col", class: text === "Seq" ? "num" : "" }, text))
        )
      ),
      body
    )
  )

  /** Came, and has no row yet: rows are made once a frame, and not while the page is paused. */
  let waiting: Array<WireEvent> = []
  let seen = 0
  let isScheduled = false
  let isPaused = false
  let client: Client | undefined

  const render = (): void => {
    isScheduled = false
    if (!isPaused) {
      body.prepend(...waiting.slice(-maxRows).toReversed().map(rowOf))
      waiting = []
      while (body.childElementCount > maxRows) body.lastElementChild?.remove()
    }
    const events = seen === 0 ? "No events yet." : many(seen, "event")
    count.textContent = isPaused ? `${events}, paused` : events
  }

  const schedule = (): void => {
    if (isScheduled) return
    isScheduled = true
    requestAnimationFrame(render)
  }

  const setPaused = (paused: boolean): void => {
    isPaused = paused
    pause.textContent = paused ? "Resume" : "Pause"
    pause.ariaPressed = String(paused)
    schedule()
  }

  const tell = (error: unknown): void => {
    message.textContent = error instanceof Error ? error.message : String(error)
  }

  const disconnect = (): void => {
    const old = client
    client = undefined
    stop.disabled = pause.disabled = true
    setPaused(false)
    void old?.close()
  }

  const follow = async (): Promise<void> => {
    disconnect()
    message.textContent = ""
    body.replaceChildren()
    waiting = []
    seen = 0
    // A link to what is followed; the view stays as it is.
    const from = start.checked ? "start" : undefined
    history.replaceState(null, "", href(["live"], { pattern: pattern.value, from }))
    const made = createClient({ url: gatewayUrl(), token })
    const isCurrent = (): boolean => client === made
    const fail = (error: unknown): void => {
      if (!isCurrent()) return
      tell(error)
      disconnect()
    }
    made.on("error", tell)
    client = made
    stop.disabled = pause.disabled = false
    try {
      await made.subscribe(
        pattern.value,
        (event: WireEvent) => {
          if (!isCurrent()) return
          seen++
          waiting.push(event)
          if (waiting.length > 2 * maxRows) waiting = waiting.slice(-maxRows)
          schedule()
        },
        {
          from: start.checked ? "start" : "new",
          onGap: ({ from, to, topic }) => tell(`${topic}: events ${from} to ${to} were trimmed`),
          onEnd: fail
        }
      ).ready
    } catch (error) {
      fail(error)
    }
  }

  signal.addEventListener("abort", disconnect)
  if (given !== null) void follow()
}
