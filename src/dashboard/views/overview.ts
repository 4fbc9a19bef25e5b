/** How the hub is doing: what needs somebody, rates, latency, depth, and who is furthest behind. */
import { type Behind, can, get, type Growing } from "../api.ts"
import { type Chart, chart } from "../charts.ts"
import {
  ago,
  bytes,
  count,
  duration,
  h,
  hubNow,
  link,
  many,
  put,
  quiet,
  rows,
  section,
  short
} from "../dom.ts"
import {
  type GroupTick,
  follow,
  onStats,
  recent,
  since,
  type Stats,
  throttled,
  type TopicTick
} from "../live.ts"
import { href, trouble, type View } from "../router.ts"

/** Rows of a ranking that are shown, and of which something is known. */
const shown = 8
const kept = 1_000

/** An outbox whose oldest record waits longer is worth a look. */
const oldMs = 60_000

/** A p99 of the event loop's delay that everybody feels. */
const slowLoopMs = 200

/** What somebody should look at. */
interface Need {
  readonly kind: "bad" | "busy"
  readonly text: string
  readonly since?: number | undefined
  readonly to?: ReadonlyArray<string>
}

interface Lagging extends Omit<Behind, "lagMs"> {
  readonly since: number | undefined
}

interface Rate {
  readonly topic: string
  readonly head: number
  readonly rate: number
  readonly at: number
}

type Point = readonly [number, number | null]

/** A counter's growth per second. */
const rateOf = (read: (stats: Stats) => number): ReadonlyArray<Point> =>
  recent().flatMap((now, i, all): ReadonlyArray<Point> => {
    const before = all[i - 1]
    if (before === undefined || now.at <= before.at) return []
    return [[now.at, Math.max(0, ((read(now) - read(before)) * 1_000) / (now.at - before.at))]]
  })

const valueOf = (read: (stats: Stats) => number | null | undefined): ReadonlyArray<Point> =>
  recent().map((stats) => [stats.at, read(stats) ?? null])

const total =
  (...names: ReadonlyArray<string>) =>
  ({ totals }: Stats): number =>
    names.reduce((sum, name) => sum + (totals[name] ?? 0), 0)

const seconds = (value: number | undefined): number | null => (value === undefined ? null : value * 1_000)
const inMs = (ms: number): string => duration(ms)
const perSecond = (n: number): string => `${short(n)}/s`

const charts: ReadonlyArray<{
  readonly make: () => Chart
  readonly points: () => ReadonlyArray<Point>
  readonly note: (stats: Stats) => string
}> = [
  {
    make: () => chart("Appended events", perSecond),
    points: () => rateOf(total("appended")),
    note: ({ topics }) => (topics === null ? "" : many(topics, "topic"))
  },
  {
    make: () => chart("Delivered", perSecond),
    points: () => rateOf(total("liveDeliveries", "groupDeliveries")),
    note: () => "to live readers and groups"
  },
  {
    make: () => chart("Publish latency, p99", inMs),
    points: () => valueOf(({ latency }) => seconds(latency.publish?.p99)),
    note: ({ latency: { commit, publish } }) =>
      publish === null
        ? "nothing published just now"
        : `median ${inMs(publish.p50 * 1_000)}${commit === null ? "" : `; commits ${inMs(commit.p50 * 1_000)}`}`
  },
  {
    make: () => chart("Delivery latency, p99", inMs),
    points: () => valueOf(({ latency }) => seconds(latency.delivery?.p99)),
    note: ({ latency: { delivery } }) =>
      delivery === null ? "nothing delivered just now" : `median ${inMs(delivery.p50 * 1_000)}`
  },
  {
    make: () => chart("Groups are behind by", short),
    points: () => valueOf(({ pending }) => pending),
    note: ({ groups }) => (groups === null ? "not known" : `events, in ${many(groups, "group")}`)
  },
  {
    make: () => chart("Outbox waits", short),
    points: () => valueOf(({ outbox }) => outbox?.pending),
    note: ({ outbox }) =>
      outbox === null
        ? "not known"
        : outbox.pending === 0
          ? `records; ${count(outbox.dead)} dead`
          : `records, the oldest for ${duration(outbox.oldestAgeMs)}; ${count(outbox.dead)} dead`
  },
  {
    make: () => chart("Connections", short),
    points: () => valueOf(({ connections }) => connections),
    note: ({ outboundBytes }) => `${bytes(outboundBytes)} wait to be read`
  },
  {
    make: () => chart("Event loop delay", inMs),
    points: () => valueOf(({ loopDelayMs }) => loopDelayMs),
    note: ({ rssBytes }) => (rssBytes === null ? "" : `${bytes(rssBytes)} of memory`)
  }
]

interface Check {
  readonly name: string
  readonly ok: boolean
  readonly detail?: string
}

/** Of a hub that is not ready: which of its checks fail. */
const failing = async (): Promise<string> => {
  const answer = await fetch("/readyz")
  const { checks } = (await answer.json()) as { readonly checks: ReadonlyArray<Check> }
  return checks
    .filter(({ ok }) => !ok)
    .map(({ detail = "not ok", name }) => `${name}: ${detail}`)
    .join("; ")
}

export const overview: View = async ({ add, head, signal }) => {
  const about = h("p", { class: "quiet" })
  head("Overview", about)
  const needs = h("ul", { class: "needs" })
  add(section("What needs you", needs))

  const lagging = new Map<string, Lagging>()
  const growing = new Map<string, Rate>()
  const keyOf = ({ group, topic }: { readonly group: string; readonly topic: string }) => `${group} ${topic}`

  const behind = rows<Lagging>({
    caption: "Groups and topics, the furthest behind first",
    keyOf,
    empty: quiet("No group is behind."),
    columns: [
      { head: "Group", cell: ({ group }) => link(group, href(["groups", group])) },
      {
        head: "Topic",
        cell: ({ group, topic }) => link(topic, href(["groups", group, topic])),
        kind: "wide"
      },
      { head: "Pending", cell: ({ pending }) => count(pending), kind: "num" },
      { head: "In flight", cell: ({ inFlight }) => count(inFlight), kind: "num opt" },
      { head: "Oldest", cell: ({ since }) => ago(since), kind: "num" }
    ]
  })
  const fastest = rows<Rate>({
    caption: "Topics, the fastest first",
    keyOf: ({ topic }) => topic,
    empty: quiet("No topic grows at the moment."),
    columns: [
      { head: "Topic", cell: ({ topic }) => link(topic, href(["topics", topic])), kind: "wide" },
      { head: "Events", cell: ({ rate }) => perSecond(rate), kind: "num" },
      { head: "Head", cell: ({ head }) => count(head), kind: "num" }
    ]
  })

  /** Pending events as pushes and rankings told them, not the sum of what is shown. */
  let isCounted = false
  const rank = () => {
    if (!isCounted) return
    const now = Date.now()
    const first = [...lagging.values()].sort((a, b) => b.pending - a.pending)
    for (const one of first.slice(kept)) lagging.delete(keyOf(one))
    behind.show(first.slice(0, shown))
    // A topic that does not grow any more is not told of.
    for (const [topic, { at }] of growing) if (at < now - 5_000) growing.delete(topic)
    const grown = [...growing.values()].sort((a, b) => b.rate - a.rate)
    for (const { topic } of grown.slice(kept)) growing.delete(topic)
    fastest.show(grown.slice(0, shown))
  }
  const ranked = throttled(500, signal, rank)
  const heard = ({ lagMs, ...tick }: GroupTick | Behind) => {
    if (tick.pending === 0) lagging.delete(keyOf(tick))
    else lagging.set(keyOf(tick), { ...tick, since: since(lagMs) })
    ranked()
  }

  const drawn = charts.map((one) => ({ ...one, chart: one.make() }))
  const figures = section("Figures")
  const mayFollow = await can("subscribe", "$hub.stats")
  if (signal.aborted) return
  if (mayFollow) {
    figures.append(
      h(
        "div",
        { class: "charts" },
        drawn.map(({ chart }) => chart.element)
      )
    )
  } else {
    figures.append(quiet("Live figures take the right ", h("code", {}, "subscribe:$hub.stats"), "."))
  }
  add(
    figures,
    h(
      "div",
      { class: "two" },
      section("Furthest behind", behind.element),
      section("Growing fastest", fastest.element)
    )
  )

  const first = async <T>(by: string, take: (item: T) => void): Promise<void> => {
    const { items } = await get<{ readonly items: ReadonlyArray<T> }>("/top", { by, limit: 20 }, signal)
    items.forEach(take)
  }
  const live = async <T>(pattern: string, take: (tick: T) => void) => {
    if (await can("subscribe", pattern)) follow<T>(pattern, signal, take)
  }

  // What needs somebody is said when it changes, and not every second.
  let said = ""
  let why = ""
  const ofHub = (stats: Stats): ReadonlyArray<Need> => {
    const { outbox } = stats
    const lines: Array<Need> = []
    if (!stats.ready) lines.push({ kind: "bad", text: `The hub takes no work. ${why}` })
    if (outbox === null) lines.push({ kind: "bad", text: "No outbox answers.", to: ["outbox"] })
    else {
      const { dead, oldestAgeMs, paused, pending } = outbox
      if (dead > 0) {
        const text = `${many(dead, "outbox record was", "outbox records were")} given up.`
        lines.push({ kind: "bad", text, to: ["outbox"] })
      }
      if (paused) lines.push({ kind: "busy", text: "An outbox is paused.", to: ["outbox"] })
      if (pending > 0 && oldestAgeMs > oldMs) {
        const text = "The oldest record of an outbox has waited for more than a minute."
        lines.push({ kind: "busy", text, to: ["outbox"] })
      }
    }
    if ((stats.loopDelayMs ?? 0) > slowLoopMs) {
      lines.push({
        kind: "busy",
        text: "The event loop is held up: the hub has more to do than one process can."
      })
    }
    return lines
  }
  /** Of a group, the topic in which it has been behind for longest. */
  const ofGroups = (): ReadonlyArray<Need> => {
    const late = new Map<string, Lagging>()
    for (const one of lagging.values()) {
      const { group, since = Infinity } = one
      if (since < hubNow() - oldMs && since < (late.get(group)?.since ?? Infinity)) late.set(group, one)
    }
    return [...late.values()]
      .sort((a, b) => (a.since ?? 0) - (b.since ?? 0))
      .slice(0, 5)
      .map(({ group, since, topic }) => ({
        kind: "busy",
        text: `Group ${group} is behind on ${topic}; the oldest event came`,
        since,
        to: ["groups", group, topic]
      }))
  }
  const say = (stats: Stats | undefined) => {
    const lines = [...(stats === undefined ? [] : ofHub(stats)), ...ofGroups()]
    const text = JSON.stringify(lines.map(({ kind, text, to }) => [kind, text, to]))
    if (text === said) return
    said = text
    put(
      needs,
      lines.length === 0
        ? h(
            "li",
            { class: "good" },
            stats === undefined
              ? "Nothing that this token may see: no group is far behind."
              : "Nothing: the hub is ready, no group is far behind, and no outbox record was given up."
          )
        : lines.map(({ kind, since, text, to }) =>
            h(
              "li",
              { class: kind },
              text,
              " ",
              since !== undefined && [ago(since), ". "],
              to && link("See why", href(to), { "aria-label": `See why: ${text}` })
            )
          )
    )
  }
  let wasReady = true
  onStats(signal, (stats) => {
    for (const { chart, note, points } of drawn) chart.draw(points(), note(stats))
    if (wasReady && !stats.ready)
      void failing().then(
        (now) => (why = now),
        () => {}
      )
    wasReady = stats.ready
    say(stats)
    put(
      about,
      "hub ",
      h("code", { title: stats.hub }, stats.hub.slice(-12)),
      ", started ",
      ago(stats.startedAt),
      "; figures as of ",
      ago(stats.at)
    )
  })

  // Over many topics and groups the hub counts for a while, the first time; the page does not wait for it.
  void Promise.allSettled([
    first<Behind>("lag", heard),
    first<Growing>("rate", ({ eventsPerSecond, head, topic }) => {
      if (eventsPerSecond > 0) growing.set(topic, { topic, head, rate: eventsPerSecond, at: Date.now() })
    })
  ]).then((answers) => {
    if (signal.aborted) return
    for (const answer of answers) if (answer.status === "rejected") add(trouble(answer.reason))
    isCounted = true
    rank()
    if (!mayFollow) say(undefined)
  })
  void live<GroupTick>("$hub.group.**", heard)
  void live<TopicTick>("$hub.topic.**", ({ eventsPerSecond, head, topic }) => {
    growing.set(topic, { topic, head, rate: eventsPerSecond, at: Date.now() })
    ranked()
  })
  // A topic that stops is not told of: the figures of the hub keep time.
  onStats(signal, ranked)
}
