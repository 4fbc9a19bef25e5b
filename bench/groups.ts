/**
 * Consumer groups and the outbox in trouble: what events that fail, and a key that is blocked, cost the others.
 *
 * The log is there before the group is, the hub is a process of its own, its members are here. Measured is how fast
 * healthy events are acknowledged, until the OK of the last one: since the first of them came, as what stands before
 * it comes first whatever happens to it, and beside that since the SUBSCRIBE.
 */
import { WebSocket } from "ws"
import { outboxRuns } from "./outbox.ts"
import { type Frame, open, startHub } from "./peers/eventHub.ts"
import { cpuMs, sleep } from "./Peer.ts"
import { roundRuns } from "./rounds.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"
import { fillLog, type Planned, planned, topic } from "./stores.ts"

export interface Load {
  readonly log: ReadonlyArray<Planned>
  /** The group begins behind this one. */
  readonly after: number
  readonly keyOrdered: boolean
  readonly members: number
  readonly credit: number
}

/** What is called so is refused whenever it comes; of the rest, only what is healthy counts. */
const refused = "refused"
export const healthy = "healthy"

const group = "g"

/** A member that answers everything that came in one frame by one frame. */
const join = async (
  url: string,
  on: { readonly healthy: () => void; readonly acked: (ids: ReadonlyArray<string>) => void },
  onProblem: (error: Error) => void
): Promise<WebSocket> => {
  let ref = 1
  let acks: Array<string> = []
  let nacks: Array<string> = []
  const underWay = new Map<number, ReadonlyArray<string>>()
  const take = (message: Frame): void => {
    if (message.op === "EVENT") {
      const { id } = message.event!
      if (id.startsWith(healthy)) on.healthy()
      if (id.startsWith(refused)) nacks.push(id)
      else acks.push(id)
    } else if (message.op === "OK" && message.stale === undefined) {
      const ids = underWay.get(message.ref!)
      if (ids !== undefined && underWay.delete(message.ref!)) on.acked(ids)
    } else onProblem(new Error(`a member got ${JSON.stringify(message)}`))
  }
  const answer = (): void => {
    const answers: Array<object> = nacks.map((id) => ({ op: "NACK", ref: ++ref, topic, group, id }))
    if (acks.length > 0) {
      underWay.set(++ref, acks)
      answers.push({ op: "ACK", ref, topic, group, ids: acks })
    }
    acks = []
    nacks = []
    if (answers.length > 0) socket.send(JSON.stringify(answers))
  }
  const socket: WebSocket = await open(url, take, answer)
  return socket
}

export const measure = async ({ after, credit, keyOrdered, log, members }: Load): Promise<Row["figures"]> => {
  const { broker, url } = await startHub((path) => fillLog(path, log))
  const sockets: Array<WebSocket> = []
  try {
    const wanted = log.filter(({ id }) => id.startsWith(healthy)).length
    let first = NaN
    let acked = 0
    let resolve = () => {}
    let reject: (error: Error) => void = () => {}
    const all = new Promise<void>((...both) => ([resolve, reject] = both))
    const on = {
      healthy: () => void (Number.isNaN(first) && (first = performance.now())),
      acked: (ids: ReadonlyArray<string>) => {
        acked += ids.filter((id) => id.startsWith(healthy)).length
        if (acked === wanted) resolve()
      }
    }
    for (let i = 0; i < members; i++) sockets.push(await join(url, on, reject))
    await sleep(300)
    const cpu = cpuMs(broker.process.pid)
    const begin = performance.now()
    const opts = { credit, keyOrdered, from: after === 0 ? "start" : { after } }
    for (const socket of sockets) socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic, group, opts }))
    await Promise.race([all, sleep(60_000)])
    if (acked < wanted) throw new Error(`${acked} of ${wanted} events were acknowledged`)
    const end = performance.now()
    const perSecond = (since: number) => (wanted / (end - since)) * 1000
    return {
      "healthy/s": perSecond(first),
      "since SUBSCRIBE/s": perSecond(begin),
      "CPU µs each": ((cpuMs(broker.process.pid) - cpu) * 1000) / wanted
    }
  } finally {
    for (const socket of sockets) socket.close()
    await broker.stop()
  }
}

const poisonRuns = (events: number, credit: number, manyMembers: number): ReadonlyArray<Run> =>
  [false, true].flatMap((keyOrdered) =>
    [1, manyMembers].flatMap((members): ReadonlyArray<Run> => {
      const title = `${keyOrdered ? "key order" : "any order"}, ${members} of ${credit} credit`
      const load = { after: 0, keyOrdered, members, credit }
      const log = planned(events, healthy)
      const poison = planned(Math.ceil(events / 20), refused, (i) => `bad-${i}`)
      return [
        { name: title, missing: () => undefined, run: () => measure({ ...load, log }) },
        {
          name: `${title}, behind ${poison.length.toLocaleString("en")} that fail`,
          against: [title],
          missing: () => undefined,
          run: () => measure({ ...load, log: [...poison, ...log] })
        }
      ]
    })
  )

const blockedRuns = (events: number, credit: number): ReadonlyArray<Run> => {
  const load = { after: 0, keyOrdered: true, members: 1, credit }
  const log = planned(events, healthy)
  const others = (id: string) => planned(events, id, () => "one")
  /** One half of the healthy stands among the events of the key, the other half behind them. */
  const among = (key: ReadonlyArray<Planned>): ReadonlyArray<Planned> => {
    const half = events >> 1
    const each = Math.ceil(key.length / half)
    return log.flatMap((event, i) => (i < half ? [...key.slice(i * each, (i + 1) * each), event] : [event]))
  }
  const ofOneKey = `key order, ${events.toLocaleString("en")} of one key`
  const before = `${ofOneKey} before the group's start`
  const free = `${ofOneKey} among them that goes on`
  const alone = `key order, 1 of ${credit} credit`
  const [head, ...rest] = others("other")
  return [
    {
      name: before,
      missing: () => undefined,
      run: () => measure({ ...load, log: [...others("other"), ...log], after: events })
    },
    { name: free, missing: () => undefined, run: () => measure({ ...load, log: among([head!, ...rest]) }) },
    {
      name: `${ofOneKey} among them whose first fails`,
      against: [alone, before, free],
      missing: () => undefined,
      run: () => measure({ ...load, log: among([{ ...head!, id: refused }, ...rest]) })
    }
  ]
}

export const groups: Scenario = {
  name: "groups",
  title: ({ events }) =>
    `${events} healthy events of 200 bytes over 100 keys, acknowledged by a group beside what fails; the outbox likewise`,
  defaults: { events: 100_000, inFlight: 256, subscribers: 5 },
  runs: ({ events, inFlight, subscribers }) => [
    ...poisonRuns(events, inFlight, subscribers),
    ...blockedRuns(events, inFlight),
    ...outboxRuns(events),
    ...roundRuns(inFlight, events)
  ]
}
