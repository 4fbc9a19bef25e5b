/** Consumer groups: how far they are, what holds them up, and what can be done about it. */
import { can, canAll, get, type GroupInfo, type GroupPosition, post, remove } from "../api.ts"
import { ask, type Outlook } from "../dialog.ts"
import {
  ago,
  badge,
  button,
  type Content,
  count,
  duration,
  facts,
  field,
  h,
  input,
  link,
  many,
  put,
  quiet,
  type Rows,
  rows,
  section,
  select,
  short
} from "../dom.ts"
import { follow, type GroupTick, since, throttled } from "../live.ts"
import { href, pages, trouble, type View, type Visit } from "../router.ts"

const perPage = 50

/** How long the page waits before it asks again for what a push does not tell. */
const restMs = 2_000

type GroupPage = GroupInfo & { readonly topics: ReadonlyArray<GroupPosition>; readonly next: string | null }

const statesOf = ({ active, members, paused, sameHistory, unused }: GroupInfo): Content => [
  !sameHistory && badge("other history", "bad"),
  paused && badge("paused", "busy"),
  unused && badge("unused", "busy"),
  active
    ? badge(members === undefined ? "members here" : `${many(members, "member")} here`, "good")
    : badge("no members here")
]

const figure = (n: number | null | undefined): string => (n === undefined || n === null ? "–" : count(n))

// --- all of them ---------------------------------------------------------------------------------------------

const list = async ({ add, head, query, signal }: Visit): Promise<void> => {
  const after = query.get("after") ?? undefined
  head("Groups")
  const table = rows<GroupInfo>({
    caption: "Consumer groups by name",
    keyOf: ({ group }) => group,
    empty: quiet(
      "There is no group that takes a pattern which this token may subscribe. A group begins when a member subscribes with its name: ",
      h("code", {}, 'client.consume("orders.**", "mailer", handler)'),
      "."
    ),
    columns: [
      { head: "Group", cell: ({ group }) => link(group, href(["groups", group])) },
      { head: "State", cell: statesOf, kind: "badges" },
      { head: "Pending", cell: ({ pending }) => figure(pending), kind: "num" },
      { head: "In flight", cell: ({ inFlight }) => figure(inFlight), kind: "num opt" },
      { head: "Topics behind", cell: ({ topicsBehind }) => figure(topicsBehind), kind: "num opt" },
      { head: "Last used", cell: ({ lastUsedAt }) => ago(lastUsedAt), kind: "num opt" },
      { head: "Takes", cell: ({ patterns }) => h("code", {}, patterns.join(", ")), kind: "wide cut opt" }
    ]
  })
  const read = () =>
    get<{ readonly groups: ReadonlyArray<GroupInfo>; readonly next: string | null }>(
      "/groups",
      { after, limit: perPage },
      signal
    )
  const { groups, next } = await read()
  table.show(groups)
  add(table.element, pages(["groups"], { after }, next))
  if (!(await can("subscribe", "$hub.group.**"))) {
    return add(
      quiet(
        "These figures stand still: live ones take the right ",
        h("code", {}, "subscribe:$hub.group.**"),
        "."
      )
    )
  }
  // A push tells of one topic of a group; what a group has in all is asked for, when something changed.
  const again = throttled(restMs, signal, () =>
    read().then(
      ({ groups }) => table.show(groups),
      () => {}
    )
  )
  follow<GroupTick>("$hub.group.**", signal, ({ group }) => {
    if (table.items.has(group)) again()
  })
}

// --- what can be done ----------------------------------------------------------------------------------------

const sum = (ns: ReadonlyArray<number>): number => ns.reduce((a, b) => a + b, 0)

interface Sought {
  readonly topic: string
  readonly from: number
  readonly to: number
  readonly again: number
  readonly skipped: number
}

const seekOutlook = (group: string, topics: ReadonlyArray<Sought>): Outlook => {
  const moved = topics.filter(({ from, to }) => from !== to)
  const again = sum(moved.map((one) => one.again))
  const skipped = sum(moved.map((one) => one.skipped))
  const table = rows<Sought>({
    caption: "Topics that would move",
    keyOf: ({ topic }) => topic,
    empty: quiet("Nothing would change: it stands there already."),
    columns: [
      { head: "Topic", cell: ({ topic }) => topic, kind: "wide" },
      { head: "From", cell: ({ from }) => count(from), kind: "num" },
      { head: "To", cell: ({ to }) => count(to), kind: "num" },
      { head: "Again", cell: ({ again }) => count(again), kind: "num" },
      { head: "Skipped", cell: ({ skipped }) => count(skipped), kind: "num" }
    ]
  })
  table.show(moved.slice(0, 50))
  return {
    does: `Seek ${group}: ${count(again)} again, ${count(skipped)} skipped`,
    isNothing: moved.length === 0,
    details: [
      moved.length > 0 &&
        h(
          "p",
          {},
          `${many(moved.length, "topic")} would move. `,
          h("strong", {}, `${many(again, "acknowledged event")} would come again`),
          ", ",
          h("strong", {}, `${many(skipped, "event")} would never come`),
          "."
        ),
      table.element,
      moved.length > 50 && quiet(`and ${count(moved.length - 50)} more`)
    ]
  }
}

const askSeek = (group: string, fixed: string | undefined, done: () => void): void => {
  const to = select(
    {
      start: "the first event that is kept",
      end: "the next event that comes",
      seq: "behind an event of one topic, by its seq",
      time: "the first event stored at a time"
    },
    "start",
    { id: "seek-to" }
  )
  const seq = input({ id: "seek-seq", type: "number", min: 0, step: 1, value: 0 })
  const time = input({ id: "seek-time", type: "datetime-local", step: 1 })
  const topic = input({ id: "seek-topic", placeholder: "all that the group takes", class: "mono" })
  const seqField = field("Seq", seq)
  const timeField = field("Time, of this computer", time)
  const choose = () => {
    seqField.hidden = to.value !== "seq"
    timeField.hidden = to.value !== "time"
  }
  to.addEventListener("input", choose)
  choose()
  const target = () => {
    if (to.value === "seq") return { seq: Number(seq.value) }
    if (to.value !== "time") return to.value
    const at = new Date(time.value).getTime()
    if (Number.isNaN(at)) throw new Error("Choose a time.")
    return { time: at }
  }
  const seek = (more: object) =>
    post<{ readonly topics: ReadonlyArray<Sought> }>(`/groups/${encodeURIComponent(group)}/seek`, {
      to: target(),
      ...((fixed ?? topic.value) === "" ? {} : { topic: fixed ?? topic.value }),
      ...more
    })
  ask(
    {
      title: fixed === undefined ? `Seek group ${group}` : `Seek group ${group} on ${fixed}`,
      about: quiet(
        "It goes on from another position. What is in flight is forgotten, and acknowledgements of it count no more."
      ),
      fields: [
        field("Go on at", to),
        seqField,
        timeField,
        ...(fixed === undefined ? [field("Topic or pattern", topic)] : [])
      ],
      outlook: async () => seekOutlook(group, (await seek({ dryRun: true })).topics),
      run: async (reason) => {
        const { topics } = await seek(reason)
        return `${group} was sought: ${count(sum(topics.map(({ again }) => again)))} events come again.`
      },
      isDangerous: true
    },
    done
  )
}

const askPause = ({ group, paused }: GroupInfo, done: () => void): void => {
  const verb = paused ? "resume" : "pause"
  ask(
    {
      title: paused ? `Resume group ${group}` : `Pause group ${group}`,
      about: quiet(
        paused
          ? "Its members get events again, from where it stands."
          : "Nothing is delivered to its members until it is resumed. What they have can be answered, and nothing is lost."
      ),
      outlook: () => Promise.resolve({ does: paused ? `Resume ${group}` : `Pause ${group}`, details: null }),
      run: async (reason) => {
        await post(`/groups/${encodeURIComponent(group)}/${verb}`, reason)
        return `${group} is ${paused ? "resumed" : "paused"}.`
      }
    },
    done
  )
}

interface Forgotten {
  readonly positions: number
  readonly inFlight: number
  readonly waiting: number
}

const askRemove = (group: string, done: () => void): void => {
  const path = `/groups/${encodeURIComponent(group)}`
  ask(
    {
      title: `Remove group ${group}`,
      about: quiet(
        "The hub forgets the group and its positions, and tells its members. Its dead letters stay. This cannot be taken back."
      ),
      outlook: async () => {
        const { inFlight, positions, waiting } = await remove<Forgotten>(path, { dryRun: true })
        return {
          does: `Remove ${group}`,
          details: h(
            "p",
            {},
            `Its positions on ${many(positions, "topic")} would be forgotten, with ${many(inFlight, "event")} in flight and ${count(waiting)} that wait to be tried again.`
          )
        }
      },
      run: async (reason) => {
        await remove(path, reason)
        return `${group} was removed.`
      },
      isDangerous: true
    },
    done
  )
}

// --- one of them ---------------------------------------------------------------------------------------------

const one = async ({ add, again, head, path: [group = ""], query, signal }: Visit): Promise<void> => {
  const after = query.get("after") ?? undefined
  const actions = h("div", { class: "buttons" })
  head(group, actions)
  const info = await get<GroupPage>(`/groups/${encodeURIComponent(group)}`, { after, limit: perPage }, signal)
  const mayChange = await canAll("admin", info.patterns)
  if (mayChange) {
    put(
      actions,
      button(info.paused ? "Resume" : "Pause", () => askPause(info, again), { id: "pause" }),
      button("Seek …", () => askSeek(group, undefined, again), { id: "seek" }),
      button("Remove …", () => askRemove(group, () => (location.hash = href(["groups"]))), {
        id: "remove",
        class: "danger"
      })
    )
  }
  const { ackTimeoutMs, keyOrdered, maxAttempts } = info.options
  add(
    !info.sameHistory &&
      h(
        "p",
        { class: "trouble" },
        "Its positions belong to another life of the store, and it stands still. Remove it to begin anew."
      ),
    facts([
      ["State", statesOf(info)],
      ["Takes", h("code", {}, info.patterns.join(", "))],
      ["Order", keyOrdered ? "by key" : "none"],
      ["Acknowledge within", duration(ackTimeoutMs)],
      ["Attempts", count(maxAttempts)],
      ["Registered", ago(info.registeredAt)],
      ["Last used", ago(info.lastUsedAt)]
    ]),
    !mayChange &&
      quiet(
        "To change it the token needs the right ",
        h("code", {}, info.patterns.map((pattern) => `admin:${pattern}`).join(", ")),
        "."
      )
  )
  const table = rows<GroupPosition>({
    caption: `How far ${group} is, by topic`,
    keyOf: ({ topic }) => topic,
    empty: quiet(
      "There is no topic yet that it takes. It begins with the first event that matches its patterns."
    ),
    columns: [
      { head: "Topic", cell: ({ topic }) => link(topic, href(["groups", group, topic])), kind: "wide" },
      { head: "Pending", cell: ({ pending }) => count(pending), kind: "num" },
      { head: "In flight", cell: ({ inFlight }) => count(inFlight), kind: "num" },
      { head: "Done up to", cell: ({ seq }) => count(seq), kind: "num opt" },
      { head: "Head", cell: ({ head }) => count(head), kind: "num opt" }
    ]
  })
  table.show(info.topics)
  add(section("Topics", table.element, pages(["groups", group], { after }, info.next)))
  const pattern = `$hub.group.${group}.**`
  if (await can("subscribe", pattern)) {
    follow<GroupTick>(pattern, signal, (tick) => table.update(tick.topic, (row) => ({ ...row, ...tick })))
  }
}

// --- one of its topics ---------------------------------------------------------------------------------------

interface Lag {
  readonly lastCursor: { readonly seq: number; readonly storedAt: number } | null
  readonly tail: { readonly seq: number; readonly storedAt: number } | null
  readonly lagMs: number
  readonly pending: number
  readonly inFlight: number
  readonly waiting: number
  readonly deferred: number
  readonly redelivered: number
  readonly dead: number
  readonly redriven: number
  readonly stalled: "history" | "paused" | "window_full" | null
  readonly blockedKeys: number
  readonly ratePerSecond: number | null
  readonly arrivalPerSecond: number
  readonly catchUpMs: number | null
}

interface BlockedKey {
  readonly key: string
  readonly seq: number
  readonly state: "inFlight" | "waiting" | "dying"
  readonly attempt: number
  readonly since: number
  readonly notBefore: number | null
  readonly reason: string
  readonly behind: number
}

const stalls: Readonly<Record<NonNullable<Lag["stalled"]>, string>> = {
  history:
    "It stands still: its positions belong to another life of the store. Remove the group to begin anew.",
  paused: "It is paused. Resume it, and it goes on where it stands.",
  window_full: "It stands still until the oldest events are answered: too many behind them are done already."
}

/** Why it is behind, and until when. */
const reasons = (lag: Lag, info: GroupInfo): ReadonlyArray<string> => {
  if (lag.pending === 0) return ["It is not behind."]
  const { arrivalPerSecond: comes, blockedKeys, catchUpMs, ratePerSecond: done, stalled, waiting } = lag
  return [
    ...(stalled === null ? [] : [stalls[stalled]]),
    ...(!info.active && stalled === null
      ? ["No member is connected to this hub. See whether its service runs."]
      : []),
    ...(blockedKeys > 0
      ? [`${many(blockedKeys, "key waits", "keys wait")} for an event that failed; they are listed below.`]
      : []),
    ...(waiting > 0 ? [`${many(waiting, "event")} failed, and will be tried again.`] : []),
    ...(catchUpMs !== null && catchUpMs > 0
      ? [`At this speed it will have caught up in ${duration(catchUpMs)}.`]
      : done !== null && comes > done
        ? [
            `It falls further behind: ${short(comes)} events come a second, and ${short(done)} are done. Add members.`
          ]
        : [])
  ]
}

const releases = {
  retry: {
    text: "Try again now",
    about: "The event that blocks comes again at once. The others of its key follow when it is done.",
    done: "comes again"
  },
  "dead-letter": {
    text: "Give up",
    about:
      "The event that blocks goes to the dead letters, whoever has it, and the others of its key go on. It can be redriven from there.",
    done: "went to the dead letters"
  }
} as const

const askRelease = (
  at: { readonly group: string; readonly topic: string },
  blocked: BlockedKey,
  mode: keyof typeof releases,
  done: () => void
) => {
  const { group, topic } = at
  const { behind, key } = blocked
  const { about, done: outcome, text } = releases[mode]
  const release = (more: object) =>
    post<{ readonly seq: number }>(`/groups/${encodeURIComponent(group)}/release-key`, {
      topic,
      key,
      mode,
      ...more
    })
  ask(
    {
      title: `Release key ${key}`,
      about: quiet(about),
      outlook: async () => {
        const { seq } = await release({ dryRun: true })
        return {
          does: `${text}: event ${count(seq)} of key ${key}`,
          details: h(
            "p",
            {},
            `This is about event ${count(seq)}; ${many(behind, "event waits", "events wait")} behind it.`
          )
        }
      },
      run: async (reason) => `Event ${count((await release(reason)).seq)} of key ${key} ${outcome}.`,
      isDangerous: mode === "dead-letter"
    },
    done
  )
}

const onTopic = async ({
  add,
  again,
  head,
  path: [group = "", topic = ""],
  signal
}: Visit): Promise<void> => {
  const at = { group, topic }
  const name = encodeURIComponent(group)
  const actions = h("div", { class: "buttons" })
  head(`${group} on ${topic}`, actions)
  const state = h("div")
  const keys = h("div")
  add(
    h(
      "p",
      { class: "crumbs" },
      link(`Group ${group}`, href(["groups", group])),
      " · ",
      link(`Topic ${topic}`, href(["topics", topic]))
    ),
    state,
    keys
  )
  const [info, mayChange] = await Promise.all([
    get<GroupInfo>(`/groups/${name}`, { limit: 1 }, signal),
    can("admin", topic)
  ])
  if (mayChange)
    put(
      actions,
      button("Seek …", () => askSeek(group, topic, again), { id: "seek" })
    )
  const blocked: Rows<BlockedKey> = rows<BlockedKey>({
    caption: "Keys that wait for an event that failed, the longest blocked first",
    keyOf: ({ key }) => key,
    empty: null,
    columns: [
      { head: "Key", cell: ({ key }) => key, kind: "cut" },
      { head: "Since", cell: ({ since }) => ago(since), kind: "num" },
      { head: "Attempt", cell: ({ attempt }) => count(attempt), kind: "num opt" },
      { head: "Behind it", cell: ({ behind }) => count(behind), kind: "num" },
      {
        head: "Why",
        cell: ({ notBefore, reason, seq, state }) => [
          `#${seq}: ${reason === "" ? "no reason was given" : reason}`,
          state === "inFlight" && " (a member has it)",
          state === "dying" && " (it is being given up)",
          state === "waiting" && notBefore !== null && [" (again ", ago(notBefore), ")"]
        ],
        kind: "wide"
      },
      ...(mayChange
        ? [
            {
              head: "Release",
              cell: (one: BlockedKey) =>
                h(
                  "div",
                  { class: "buttons" },
                  (["retry", "dead-letter"] as const).map((mode) =>
                    button(
                      releases[mode].text,
                      () => askRelease(at, blocked.items.get(one.key) ?? one, mode, again),
                      {
                        "aria-label": `${releases[mode].text}: key ${one.key}`
                      }
                    )
                  )
                )
            }
          ]
        : [])
    ]
  })

  let lag: Lag | undefined
  const tell = () => {
    if (lag === undefined) return
    put(
      state,
      h(
        "ul",
        { class: "needs" },
        reasons(lag, info).map((text) => h("li", { class: lag?.pending === 0 ? "good" : "busy" }, text))
      ),
      facts([
        ["Pending", count(lag.pending)],
        ["Oldest pending", ago(since(lag.lagMs))],
        ["In flight", count(lag.inFlight)],
        ["Wait to be tried again", count(lag.waiting)],
        ["Wait behind their key", count(lag.deferred)],
        ["Delivered more than once", count(lag.redelivered)],
        ["Dead letters", lag.dead === 0 ? "0" : link(count(lag.dead), href(["dead-letters", group, topic]))],
        ["Done up to", lag.lastCursor === null ? "nothing yet" : count(lag.lastCursor.seq)],
        ["Head", lag.tail === null ? "–" : count(lag.tail.seq)],
        ["Comes", `${short(lag.arrivalPerSecond)}/s`],
        ["Is done", lag.ratePerSecond === null ? "–" : `${short(lag.ratePerSecond)}/s`]
      ])
    )
  }
  const read = async () => {
    lag = await get<Lag>("/lag", { group, topic }, signal)
    tell()
    const { keys: found, total } =
      lag.blockedKeys > 0
        ? await get<{ readonly keys: ReadonlyArray<BlockedKey>; readonly total: number }>(
            `/groups/${name}/blocked-keys`,
            { topic, limit: perPage },
            signal
          )
        : { keys: [], total: 0 }
    blocked.show(found)
    if (total === 0) return put(keys)
    const title = `${many(total, "blocked key")}`
    if (keys.querySelector("h2")?.textContent !== title)
      put(
        keys,
        section(
          title,
          blocked.element,
          total > perPage && quiet(`These are the ${perPage} that are blocked for longest.`)
        )
      )
  }
  await read()
  if (!mayChange)
    add(quiet("To change anything here the token needs the right ", h("code", {}, `admin:${topic}`), "."))
  const pattern = `$hub.group.${group}.${topic}`
  if (!(await can("subscribe", pattern))) return
  const rest = throttled(restMs, signal, () => read().catch((error) => add(trouble(error))))
  follow<GroupTick>(pattern, signal, ({ inFlight, lagMs, pending }) => {
    lag = lag && { ...lag, inFlight, lagMs, pending }
    tell()
    rest()
  })
}

export const groups: View = (visit) =>
  visit.path.length === 0 ? list(visit) : visit.path.length === 1 ? one(visit) : onTopic(visit)
