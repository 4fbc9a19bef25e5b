/** The outboxes that the hub drains: what waits in them, what failed and why, and what can be done about it. */
import type { WireEvent } from "../../protocol/Messages.ts"
import { can, get, post } from "../api.ts"
import { ask } from "../dialog.ts"
import {
  ago,
  badge,
  button,
  type Content,
  count,
  facts,
  field,
  h,
  input,
  link,
  many,
  put,
  quiet,
  rows,
  section
} from "../dom.ts"
import { onStats, throttled } from "../live.ts"
import { href, pages, type View, type Visit } from "../router.ts"
import { inside } from "./topics.ts"

const perPage = 50
const states = ["pending", "blocked", "claimed", "sent", "dead"] as const
type State = (typeof states)[number]

interface Source {
  readonly name: string
  readonly at: string
  readonly ok: boolean
  readonly problem: string | null
  readonly lacks: ReadonlyArray<string>
  readonly drainer: {
    readonly worker: string
    readonly sent: number
    readonly failed: number
    readonly lost: number
  } | null
  readonly stats: {
    readonly counts: Readonly<Record<State, number>>
    readonly oldestAddedAt: number | null
    readonly paused: boolean
  } | null
}

const pathOf = (source: string, verb: string) => `/outbox/${encodeURIComponent(source)}/${verb}`

/** A change that a dry run can count. */
const counted = (
  source: string,
  verb: "redrive" | "purge",
  options: {
    readonly title: string
    readonly about: string
    readonly fields?: ReadonlyArray<HTMLElement>
    readonly body: () => object
    readonly does: (n: number) => string
  },
  done: () => void
) => {
  const { about, body, does, fields = [], title } = options
  const send = (more: object) =>
    post<{ readonly matched: number }>(pathOf(source, verb), { ...body(), ...more })
  ask(
    {
      title,
      about: quiet(about),
      fields,
      outlook: async () => {
        const { matched } = await send({ dryRun: true })
        return {
          does: does(matched),
          isNothing: matched === 0,
          details: h(
            "p",
            {},
            matched === 0
              ? "Nothing would happen: there is no such record."
              : `This is about ${many(matched, "record")}.`
          )
        }
      },
      run: async (reason) => `${does((await send(reason)).matched)}: done.`,
      isDangerous: verb === "purge"
    },
    done
  )
}

const askRedrive = (
  source: string,
  ids: ReadonlyArray<{ readonly topic: string; readonly id: string }> | undefined,
  done: () => void
) =>
  counted(
    source,
    "redrive",
    {
      title: `Redrive dead records of outbox ${source}`,
      about: "They are tried again, with all their attempts. See first that what killed them is repaired.",
      body: () => (ids === undefined ? { all: true } : { ids }),
      does: (n) => `Redrive ${many(n, "record")} of ${source}`
    },
    done
  )

const askPurge = (source: string, done: () => void) => {
  const hours = input({ id: "purge-hours", type: "number", min: 0, step: "any", value: 24 })
  counted(
    source,
    "purge",
    {
      title: `Purge outbox ${source}`,
      about:
        "Deletes records that were sent. Their events stay in the log, and nothing that was not sent is touched.",
      fields: [field("Sent longer ago than, in hours", hours)],
      body: () => ({ olderThanMs: Math.round(Number(hours.value) * 3_600_000) }),
      does: (n) => `Delete ${many(n, "sent record")} of ${source}`
    },
    done
  )
}

const askPause = (source: string, paused: boolean, done: () => void) =>
  ask(
    {
      title: paused ? `Resume outbox ${source}` : `Pause outbox ${source}`,
      about: quiet(
        paused
          ? "Its records come into the log again."
          : "Nothing of it comes into the log until it is resumed, by any hub. Services go on adding, and nothing is lost."
      ),
      outlook: () =>
        Promise.resolve({ does: paused ? `Resume ${source}` : `Pause ${source}`, details: null }),
      run: async (reason) => {
        await post(pathOf(source, paused ? "resume" : "pause"), reason)
        return `Outbox ${source} is ${paused ? "resumed" : "paused"}.`
      }
    },
    done
  )

const needsAdmin = () =>
  quiet(
    "Outboxes hold events of any topic. To look at them the token needs the right ",
    h("code", {}, "admin:**"),
    "."
  )

const card = ({ at, drainer, lacks, name, problem, stats }: Source, again: () => void): HTMLElement =>
  h(
    "div",
    { class: "card" },
    section(
      name,
      h(
        "p",
        {},
        problem === null ? badge("drained", "good") : badge("not drained", "bad"),
        stats?.paused === true && badge("paused", "busy"),
        " ",
        h("code", {}, at)
      ),
      problem !== null && h("p", { class: "trouble" }, problem),
      lacks.map((lack) => quiet(`Its server cannot do this: ${lack}`)),
      stats !== null && [
        facts([
          ...states.map((state): readonly [string, Content] => [
            state,
            link(count(stats.counts[state]), href(["outbox", name], { state }), {
              "aria-label": `${count(stats.counts[state])} ${state} records`
            })
          ]),
          ["oldest that waits", ago(stats.oldestAddedAt)],
          ["brought into the log", drainer === null ? "–" : count(drainer.sent)],
          ["failed attempts", drainer === null ? "–" : count(drainer.failed)]
        ]),
        h(
          "div",
          { class: "buttons" },
          button(stats.paused ? "Resume" : "Pause", () => askPause(name, stats.paused, again), {
            "aria-label": `${stats.paused ? "Resume" : "Pause"} ${name}`
          }),
          button("Redrive dead …", () => askRedrive(name, undefined, again), {
            disabled: stats.counts.dead === 0,
            "aria-label": `Redrive dead records of ${name}`
          }),
          button("Purge sent …", () => askPurge(name, again), {
            disabled: stats.counts.sent === 0,
            "aria-label": `Purge sent records of ${name}`
          })
        )
      ]
    )
  )

/** What the hub says of outboxes once a second changed: what is shown is asked for again. */
const whenChanged = (signal: AbortSignal, run: () => unknown) => {
  let last: string | undefined
  const soon = throttled(1_000, signal, run)
  onStats(signal, ({ outbox, totals }) => {
    const now = JSON.stringify([
      outbox?.pending,
      outbox?.dead,
      outbox?.paused,
      totals["outboxSent"],
      totals["outboxFailed"]
    ])
    if (last !== undefined && last !== now) soon()
    last = now
  })
}

const list = async ({ add, again, head, signal }: Visit): Promise<void> => {
  head("Outbox")
  if (!(await can("admin", "**"))) return add(needsAdmin())
  const cards = h("div", { class: "cards" })
  let said = ""
  const read = async () => {
    const { outboxes } = await get<{ readonly outboxes: ReadonlyArray<Source> }>("/outbox", {}, signal)
    const text = JSON.stringify(outboxes)
    // Whoever is about to press a button keeps it.
    if (text === said || cards.contains(document.activeElement)) return
    said = text
    put(
      cards,
      outboxes.map((source) => card(source, again))
    )
  }
  await read()
  add(cards)
  whenChanged(signal, () => read().catch(() => {}))
}

interface Entry {
  readonly id: string
  readonly topic: string
  readonly key: string | null
  readonly state: State
  readonly attempts: number
  readonly addedAt: number
  readonly notBefore: number | null
  readonly worker: string | null
  readonly leaseUntil: number | null
  readonly lastError: string | null
  /** `null`: what stands there is no event. */
  readonly event: WireEvent | null
}

const kinds: Readonly<Record<State, "" | "good" | "busy" | "bad">> = {
  pending: "",
  blocked: "busy",
  claimed: "busy",
  sent: "good",
  dead: "bad"
}

const one = async ({ add, again, head, path: [source = ""], query, signal }: Visit): Promise<void> => {
  const state = states.find((one) => one === query.get("state"))
  const after = query.get("after") ?? undefined
  const actions = h("div", { class: "buttons" })
  head(`Outbox ${source}`, actions)
  if (!(await can("admin", "**"))) return add(needsAdmin())
  add(
    h("p", { class: "crumbs" }, link("All outboxes", href(["outbox"]))),
    h(
      "nav",
      { class: "tabs", "aria-label": "Records by state" },
      link("all", href(["outbox", source]), {
        id: "state-all",
        ...(state === undefined ? { "aria-current": "true" } : {})
      }),
      states.map((one) =>
        link(one, href(["outbox", source], { state: one }), {
          id: `state-${one}`,
          ...(one === state ? { "aria-current": "true" } : {})
        })
      )
    )
  )
  const read = () =>
    get<{ readonly records: ReadonlyArray<Entry>; readonly next: string | null }>(
      pathOf(source, "records"),
      { state, after, limit: perPage },
      signal
    )
  const { next, records } = await read()
  const table = rows<Entry>({
    caption: `${state === undefined ? "Records" : `Records that are ${state}`}, the oldest first`,
    keyOf: ({ id, topic }) => `${topic} ${id}`,
    empty: quiet(
      state === undefined
        ? "There are no records. A service adds them in the transaction of its own change."
        : "There are none in this state."
    ),
    columns: [
      { head: "Topic", cell: ({ topic }) => link(topic, href(["topics", topic])) },
      ...(state === undefined
        ? [{ head: "State", cell: ({ state }: Entry) => badge(state, kinds[state]) }]
        : []),
      { head: "Added", cell: ({ addedAt }) => ago(addedAt), kind: "num opt" },
      { head: "Attempts", cell: ({ attempts }) => count(attempts), kind: "num opt" },
      {
        head: "What happened",
        cell: ({ lastError, leaseUntil, notBefore: at, state, worker }) => {
          const notBefore = state === "pending" ? at : null
          return [
            lastError !== null && h("strong", { class: "error" }, lastError),
            notBefore !== null && h("div", {}, "not before ", ago(notBefore)),
            worker !== null &&
              leaseUntil !== null &&
              h("div", {}, `claimed by ${worker}, until `, ago(leaseUntil)),
            lastError === null && notBefore === null && worker === null && "–"
          ]
        },
        kind: "wide"
      },
      { head: "Key", cell: ({ key }) => key ?? "–", kind: "cut opt" },
      {
        head: "Event",
        cell: ({ event }) => (event === null ? "this is no event" : inside(event)),
        kind: "wide"
      },
      ...(state === "dead"
        ? [
            {
              head: "Redrive",
              cell: ({ id, topic }: Entry) =>
                button("Redrive", () => askRedrive(source, [{ topic, id }], again), {
                  "aria-label": `Redrive record ${id}`
                })
            }
          ]
        : [])
    ]
  })
  table.show(records)
  if (state === "dead" && records.length > 0)
    put(
      actions,
      button("Redrive all dead", () => askRedrive(source, undefined, again), { id: "redrive-all" })
    )
  add(table.element, pages(["outbox", source], { state, after }, next))
  whenChanged(signal, () =>
    read().then(
      ({ records }) => table.show(records),
      () => {}
    )
  )
}

export const outbox: View = (visit) => (visit.path.length === 0 ? list(visit) : one(visit))
