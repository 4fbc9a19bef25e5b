/** The last event of each key of a topic, kept up to date. */
import type { WireEvent } from "../../protocol/Messages.ts"
import { can, get } from "../api.ts"
import { ago, count, field, form, h, input, link, quiet, rows } from "../dom.ts"
import { follow } from "../live.ts"
import { go, href, pages, type View } from "../router.ts"
import { inside } from "./topics.ts"

const perPage = 50

interface Latest {
  readonly items: ReadonlyArray<WireEvent>
  readonly seq: number
  readonly history: string
  readonly next: string | null
}

export const latest: View = async ({ add, head, query, signal }) => {
  const topic = query.get("topic") ?? ""
  const key = query.get("key") ?? ""
  const after = query.get("after") ?? undefined
  head("Latest by key")
  const wanted = input({ id: "topic", value: topic, required: true, class: "mono" })
  const wantedKey = input({ id: "key", value: key, placeholder: "all keys" })
  add(
    form(
      { class: "bar", role: "search" },
      () => go(href(["latest"], { topic: wanted.value, key: wantedKey.value })),
      field("Topic", wanted, "wide"),
      field("Key", wantedKey),
      h("button", { class: "primary" }, "Look")
    )
  )
  if (topic === "")
    return add(quiet("Name a topic: then its keys stand here, each with the last event that has it."))
  if (!(await can("subscribe", topic))) {
    return add(
      quiet("To look at this topic the token needs the right ", h("code", {}, `subscribe:${topic}`), ".")
    )
  }
  const table = rows<WireEvent>({
    caption: `Keys of ${topic}, each with its last event`,
    keyOf: ({ key = "" }) => key,
    empty: quiet(
      key === ""
        ? "No event of this topic has a key."
        : "There is no event with this key, or the last one had the payload null, which removes it."
    ),
    columns: [
      { head: "Key", cell: ({ key = "" }) => key, kind: "cut" },
      { head: "Seq", cell: ({ seq }) => count(seq), kind: "num" },
      { head: "Stored", cell: ({ storedAt }) => ago(storedAt), kind: "num" },
      { head: "Event", cell: inside, kind: "wide" }
    ]
  })
  add(h("p", { class: "crumbs" }, link(`Topic ${topic}`, href(["topics", topic]))), table.element)
  if (key !== "") {
    const found = await get<WireEvent | null>("/latest-by-key", { topic, key }, signal)
    table.show(found === null ? [] : [found])
    return
  }
  const { history, items, next, seq } = await get<Latest>(
    "/latest-by-key",
    { topic, after, limit: perPage },
    signal
  )
  table.show(items)
  add(pages(["latest"], { topic, after }, next))
  const isAll = after === undefined && next === null
  follow<unknown>(
    topic,
    signal,
    (_payload, event) => {
      const { key } = event
      if (key === undefined) return
      if (event.payload === null) table.show([...table.items.values()].filter((one) => one.key !== key))
      else if (table.items.has(key)) table.update(key, () => event)
      // Where all keys are shown, a new one has its place among them.
      else if (isAll && table.items.size < perPage) {
        table.show([...table.items.values(), event].sort((a, b) => ((a.key ?? "") < (b.key ?? "") ? -1 : 1)))
      }
    },
    // What was stored since the answer comes first.
    { from: { after: seq }, history }
  )
}
