/** Topics by pattern, and what there is to know of one. */
import type { WireEvent } from "../../protocol/Messages.ts"
import { can, get, type GroupPosition, type TopicInfo } from "../api.ts"
import {
  ago,
  button,
  clock,
  count,
  facts,
  field,
  form,
  h,
  input,
  json,
  link,
  many,
  put,
  quiet,
  rows,
  section,
  short
} from "../dom.ts"
import { follow, onStats, type TopicTick } from "../live.ts"
import { go, href, pages, trouble, type View, type Visit } from "../router.ts"

const perPage = 50

/** A topic that was not told of for so long does not grow. */
const stillMs = 2_500

interface Row extends TopicInfo {
  readonly rate: number
  readonly at: number
}

/** The rates of topics fall to nothing when nothing is told of them. */
const keepTime = (
  signal: AbortSignal,
  list: {
    readonly items: ReadonlyMap<string, Row>
    readonly update: (key: string, change: (row: Row) => Row) => void
  }
) =>
  onStats(signal, () => {
    for (const [key, { at, rate }] of list.items) {
      if (rate > 0 && at < Date.now() - stillMs) list.update(key, (row) => ({ ...row, rate: 0 }))
    }
  })

const list = async ({ add, head, query, signal }: Visit): Promise<void> => {
  const pattern = query.get("pattern") ?? ""
  const after = query.get("after") ?? undefined
  head("Topics")
  const wanted = input({ id: "pattern", value: pattern, placeholder: "**", class: "mono" })
  add(
    form(
      { class: "bar", role: "search" },
      () => go(href(["topics"], { pattern: wanted.value })),
      field("Pattern: * is one part of a name, ** any number", wanted, "wide"),
      h("button", { class: "primary" }, "Search")
    )
  )
  const answer = await get<{ readonly topics: ReadonlyArray<TopicInfo>; readonly next: string | null }>(
    "/topics",
    { pattern, after, limit: perPage },
    signal
  )
  const table = rows<Row>({
    caption: "Topics by name",
    keyOf: ({ topic }) => topic,
    empty: quiet(
      pattern === ""
        ? "There are no topics that this token may subscribe. A topic begins with its first event: publish one."
        : "No topic that this token may subscribe matches. Try ** for all of them; the hub's own are under $dead.**."
    ),
    columns: [
      { head: "Topic", cell: ({ topic }) => link(topic, href(["topics", topic])), kind: "wide" },
      { head: "Now", cell: ({ rate }) => (rate > 0 ? `${short(rate)}/s` : "–"), kind: "num" },
      { head: "Head", cell: ({ head }) => count(head), kind: "num" },
      { head: "Kept", cell: ({ floor, head }) => count(head - floor), kind: "num opt" },
      { head: "Last event", cell: ({ storedAt }) => ago(storedAt), kind: "num" }
    ]
  })
  table.show(answer.topics.map((info) => ({ ...info, rate: 0, at: 0 })))
  add(table.element, pages(["topics"], { pattern, after }, answer.next))
  keepTime(signal, table)
  if (await can("subscribe", "$hub.topic.**")) {
    follow<TopicTick>("$hub.topic.**", signal, ({ eventsPerSecond, topic, ...now }) =>
      table.update(topic, (row) => ({ ...row, ...now, rate: eventsPerSecond, at: Date.now() }))
    )
  } else
    add(
      quiet(
        "These figures stand still: live ones take the right ",
        h("code", {}, "subscribe:$hub.topic.**"),
        "."
      )
    )
}

/** Payload and all else, to be opened. */
export const inside = (event: WireEvent): HTMLElement => {
  const { payload, ...rest } = event
  const text = JSON.stringify(payload) ?? ""
  return h(
    "details",
    {},
    h("summary", {}, h("code", {}, text.length > 120 ? `${text.slice(0, 120)}…` : text)),
    h("pre", { tabindex: 0, "aria-label": "payload" }, json(payload).slice(0, 256 * 1024)),
    h("pre", { tabindex: 0, "aria-label": "everything else", class: "quiet" }, json(rest))
  )
}

export const eventRows = (caption: string, empty: string) =>
  rows<WireEvent>({
    caption,
    keyOf: ({ seq, topic }) => `${topic} ${seq}`,
    empty: quiet(empty),
    columns: [
      { head: "Seq", cell: ({ seq }) => count(seq), kind: "num" },
      {
        head: "Stored",
        cell: ({ storedAt }) =>
          h(
            "time",
            { datetime: new Date(storedAt).toISOString(), title: new Date(storedAt).toISOString() },
            clock(storedAt)
          )
      },
      { head: "Key", cell: ({ key = "–" }) => key, kind: "cut opt" },
      { head: "Type", cell: ({ type = "–" }) => type, kind: "cut opt" },
      { head: "Event", cell: inside, kind: "wide" }
    ]
  })

const one = async ({ add, head, path: [topic = ""], signal }: Visit): Promise<void> => {
  head(
    topic,
    link("Live tail", href(["live"], { pattern: topic }), { class: "button" }),
    link("Latest by key", href(["latest"], { topic }), { class: "button" })
  )
  if (!(await can("subscribe", topic))) {
    return add(
      quiet("To look at this topic the token needs the right ", h("code", {}, `subscribe:${topic}`), ".")
    )
  }
  const { topics } = await get<{ readonly topics: ReadonlyArray<TopicInfo> }>(
    "/topics",
    { pattern: topic },
    signal
  )
  const info = topics[0]
  if (info === undefined) {
    return add(
      quiet(
        "There is no such topic, or no longer. It begins with its first event: publish one, and look again."
      )
    )
  }
  let now: Row = { ...info, rate: 0, at: 0 }
  const about = h("div")
  const tell = () =>
    put(
      about,
      facts([
        ["Head", count(now.head)],
        ["Now", now.rate > 0 ? `${short(now.rate)} events/s` : "–"],
        ["Kept", many(now.head - now.floor, "event")],
        ["Trimmed", now.floor === 0 ? "nothing" : `up to ${count(now.floor)}`],
        ["Last event", ago(now.storedAt)]
      ])
    )
  tell()
  add(about)

  const cursors = rows<GroupPosition & { readonly group: string }>({
    caption: "Consumer groups on this topic",
    keyOf: ({ group }) => group,
    empty: quiet(
      "No group has taken events of this topic. A group begins when a member subscribes with its name."
    ),
    columns: [
      { head: "Group", cell: ({ group }) => link(group, href(["groups", group, topic])), kind: "wide" },
      { head: "Done up to", cell: ({ seq }) => count(seq), kind: "num" },
      { head: "Pending", cell: ({ pending }) => count(pending), kind: "num" },
      { head: "In flight", cell: ({ inFlight }) => count(inFlight), kind: "num" }
    ]
  })
  const events = eventRows("The newest events", "Nothing is kept of this topic.")
  const newer = button("", () => readEvents().catch((error) => add(trouble(error))), {
    id: "newer",
    hidden: true
  })
  let shownHead = info.head
  const readEvents = async () => {
    shownHead = now.head
    newer.hidden = true
    const answer = await get<{ readonly events: ReadonlyArray<WireEvent> }>(
      "/events",
      { topic, order: "desc", limit: 20 },
      signal
    )
    events.show(answer.events)
    shownHead = Math.max(shownHead, answer.events[0]?.seq ?? 0)
  }
  add(section("Groups", cursors.element), section("Newest events", newer, events.element))
  const answers = await Promise.allSettled([
    get<{ readonly cursors: ReadonlyArray<GroupPosition & { readonly group: string }> }>(
      "/cursors",
      { topic },
      signal
    ).then((answer) => cursors.show(answer.cursors)),
    readEvents()
  ])
  for (const answer of answers)
    if (answer.status === "rejected" && !signal.aborted) add(trouble(answer.reason))

  const watch = <T>(pattern: string, take: (tick: T) => void) =>
    can("subscribe", pattern).then((may) => may && follow<T>(pattern, signal, take))
  onStats(signal, () => {
    if (now.rate > 0 && now.at < Date.now() - stillMs) {
      now = { ...now, rate: 0 }
      tell()
    }
  })
  await Promise.all([
    watch<TopicTick>(`$hub.topic.${topic}`, ({ eventsPerSecond, ...tick }) => {
      now = { ...now, ...tick, rate: eventsPerSecond, at: Date.now() }
      tell()
      newer.hidden = now.head <= shownHead
      newer.textContent = `Show ${many(now.head - shownHead, "newer event")}`
    }),
    watch<GroupPosition & { readonly group: string }>(`$hub.group.*.${topic}`, (tick) =>
      cursors.update(tick.group, (row) => ({ ...row, ...tick }))
    )
  ])
}

export const topics: View = (visit) => (visit.path.length === 0 ? list(visit) : one(visit))
