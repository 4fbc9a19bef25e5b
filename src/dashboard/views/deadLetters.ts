/** Dead letters: what groups gave up, why, and the way back. */
import type { WireEvent } from "../../protocol/Messages.ts"
import { can, get, post, type TopicInfo } from "../api.ts"
import { ask } from "../dialog.ts"
import {
  ago,
  badge,
  button,
  count,
  field,
  form,
  h,
  input,
  link,
  many,
  put,
  quiet,
  rows,
  type Content
} from "../dom.ts"
import { follow, throttled } from "../live.ts"
import { go, href, pages, type View, type Visit } from "../router.ts"
import { inside } from "./topics.ts"

const perPage = 50

/** `$dead.<group>.<topic>`. */
const originOf = (name: string) => {
  const [, group = "", ...topic] = name.split(".")
  return { group, topic: topic.join(".") }
}

const list = async ({ add, head, query, signal }: Visit): Promise<void> => {
  const after = query.get("after") ?? undefined
  head("Dead letters")
  const group = input({ id: "group", required: true })
  const topic = input({ id: "topic", required: true, class: "mono" })
  add(
    quiet("What a group gave up after its last attempt, or because a member said so."),
    form(
      { class: "bar" },
      () => go(href(["dead-letters", group.value, topic.value])),
      field("Group", group),
      field("Topic", topic, "wide"),
      h("button", { class: "primary" }, "Look inside")
    )
  )
  const { next, topics } = await get<{
    readonly topics: ReadonlyArray<TopicInfo>
    readonly next: string | null
  }>("/topics", { pattern: "$dead.**", after, limit: perPage }, signal)
  const table = rows<TopicInfo>({
    caption: "Groups and topics with dead letters",
    keyOf: ({ topic }) => topic,
    empty: quiet(
      "There are none that this token may see. To see those of a group on a topic it needs ",
      h("code", {}, "subscribe:$dead.**"),
      ", and the right to the topic itself."
    ),
    columns: [
      {
        head: "Group",
        cell: ({ topic }) => originOf(topic).group
      },
      {
        head: "Topic",
        cell: ({ topic: name }) => {
          const { group, topic } = originOf(name)
          return link(topic, href(["dead-letters", group, topic]))
        },
        kind: "wide"
      },
      { head: "Kept", cell: ({ floor, head }) => count(head - floor), kind: "num" },
      { head: "Last", cell: ({ storedAt }) => ago(storedAt), kind: "num" }
    ]
  })
  table.show(topics)
  add(table.element, pages(["dead-letters"], { after }, next))
  if (await can("subscribe", "$hub.topic.$dead.**")) {
    follow<TopicInfo>("$hub.topic.$dead.**", signal, (tick) => {
      if (table.items.has(tick.topic)) table.update(tick.topic, (row) => ({ ...row, ...tick }))
      else if (after === undefined)
        table.show([...table.items.values(), tick].sort((a, b) => (a.topic < b.topic ? -1 : 1)))
    })
  }
}

interface Letter {
  readonly letter: number
  readonly status: "dead" | "redriving" | "redriven"
  readonly diedAt: number
  readonly reason: string
  readonly attempts: number
  readonly redrives: number
  readonly seq: number
  readonly event: WireEvent
}

interface Filter {
  readonly letters?: ReadonlyArray<number>
  readonly key?: string
  readonly reason?: string
}

const statuses = {
  dead: badge("dead", "bad"),
  redriving: badge("comes back", "busy"),
  redriven: badge("came back", "good")
}

const one = async (visit: Visit): Promise<void> => {
  const {
    add,
    again,
    head,
    path: [group = "", topic = ""],
    query,
    signal
  } = visit
  const after = query.get("after") ?? undefined
  const key = query.get("key") ?? ""
  const reason = query.get("reason") ?? ""
  const here = ["dead-letters", group, topic]
  head(`Dead letters of ${group}`)
  add(
    h(
      "p",
      { class: "crumbs" },
      link("All dead letters", href(["dead-letters"])),
      " · ",
      link(`${group} on ${topic}`, href(["groups", group, topic]))
    )
  )

  const wantedKey = input({ id: "key", value: key })
  const wantedReason = input({ id: "reason-part", value: reason })
  add(
    form(
      { class: "bar", role: "search" },
      () => go(href(here, { key: wantedKey.value, reason: wantedReason.value })),
      field("Key", wantedKey),
      field("Reason has", wantedReason, "wide"),
      h("button", {}, "Filter")
    )
  )
  const letters = `$dead.${group}.${topic}`
  const [mayRead, mayReadTopic, mayChange] = await Promise.all([
    can("subscribe", letters),
    can("subscribe", topic),
    can("admin", topic)
  ])
  if (!mayRead || !mayReadTopic) {
    return add(
      quiet(
        "To look inside the token needs the rights ",
        h("code", {}, `subscribe:${letters}`),
        " and ",
        h("code", {}, `subscribe:${topic}`),
        "."
      )
    )
  }

  const chosen = new Set<number>()
  const filter: Filter = { ...(key === "" ? {} : { key }), ...(reason === "" ? {} : { reason }) }
  const redrive = (what: string, filter: Filter) =>
    ask(
      {
        title: `Redrive ${what}`,
        about: quiet(
          "They come back into their group, a few at a time, as if they were delivered for the first time. See first that what killed them is repaired."
        ),
        outlook: async () => {
          const { matched } = await post<{ readonly matched: number }>("/dead-letters/redrive", {
            group,
            topic,
            filter,
            dryRun: true
          })
          return {
            does: `Redrive ${many(matched, "dead letter")} into ${group}`,
            isNothing: matched === 0,
            details: h(
              "p",
              {},
              matched === 0
                ? "Nothing would happen: all of these came back already."
                : `${many(matched, "dead letter")} would come back into ${group}.`
            )
          }
        },
        run: async (why) => {
          const { matched } = await post<{ readonly matched: number }>("/dead-letters/redrive", {
            group,
            topic,
            filter,
            ...why
          })
          return `${many(matched, "dead letter comes", "dead letters come")} back into ${group}.`
        }
      },
      again
    )

  const some = button("", () => redrive("what is chosen", { letters: [...chosen] }), {
    id: "redrive-chosen",
    disabled: true
  })
  const tellChosen = () => {
    some.disabled = chosen.size === 0
    some.textContent = chosen.size === 0 ? "Redrive chosen" : `Redrive ${count(chosen.size)} chosen`
  }
  tellChosen()
  const pick = ({ letter }: Letter): Content =>
    h("input", {
      type: "checkbox",
      "aria-label": `choose letter ${letter}`,
      onchange: (event) => {
        if (event.target instanceof HTMLInputElement && event.target.checked) chosen.add(letter)
        else chosen.delete(letter)
        tellChosen()
      }
    })
  const table = rows<Letter>({
    caption: `Dead letters of ${group} on ${topic}, the oldest first`,
    keyOf: ({ letter }) => String(letter),
    empty: quiet("There are none here. Take the filter away to see all, or go back to the list."),
    columns: [
      ...(mayChange ? [{ head: "Choose", cell: pick }] : []),
      { head: "State", cell: ({ status }) => statuses[status].cloneNode(true) },
      { head: "Died", cell: ({ diedAt }) => ago(diedAt), kind: "num" },
      {
        head: "Why",
        cell: ({ attempts, reason, redrives }) => [
          h("strong", {}, reason === "" ? "no reason was given" : reason),
          h("br"),
          `after ${many(attempts, "attempt")}${redrives > 0 ? `, redriven ${many(redrives, "time")}` : ""}`
        ]
      },
      { head: "Seq", cell: ({ seq }) => count(seq), kind: "num opt" },
      { head: "Key", cell: ({ event: { key = "–" } }) => key, kind: "cut opt" },
      { head: "Event", cell: ({ event }) => inside(event), kind: "wide" },
      ...(mayChange
        ? [
            {
              head: "Redrive",
              cell: ({ letter, status }: Letter) =>
                status === "dead" &&
                button("Redrive", () => redrive(`letter ${letter}`, { letters: [letter] }), {
                  "aria-label": `Redrive letter ${letter}`
                })
            }
          ]
        : [])
    ]
  })
  const bar = h("div", { class: "buttons" })
  add(bar, table.element)
  const read = () =>
    get<{ readonly letters: ReadonlyArray<Letter>; readonly next: number | null }>(
      "/dead-letters",
      { group, topic, key, reason, after, limit: perPage },
      signal
    )
  const answer = await read()
  table.show(answer.letters)
  add(pages(here, { key, reason, after }, answer.next))
  if (!mayChange)
    add(quiet("To redrive them the token needs the right ", h("code", {}, `admin:${topic}`), "."))
  else if (answer.letters.length > 0) {
    const isFiltered = key !== "" || reason !== ""
    put(
      bar,
      some,
      button(
        isFiltered ? "Redrive all that match" : "Redrive all",
        () => redrive(isFiltered ? "all that match" : "all", filter),
        { id: "redrive-all" }
      )
    )
  }
  // They are events, too: those that come now show the list again.
  const refresh = throttled(1_000, signal, () =>
    read().then(
      ({ letters }) => table.show(letters),
      () => {}
    )
  )
  follow(letters, signal, refresh)
}

export const deadLetters: View = (visit) => (visit.path.length < 2 ? list(visit) : one(visit))
