/**
 * What one thing costs, to size a machine by (docs/sizing.md): the processor time of the hub's process for a publish, a
 * delivery and an acknowledgement, and the bytes on disk of a stored event.
 */
import { statSync } from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { WebSocket } from "ws"
import { healthy, measure as measureGroup } from "./groups.ts"
import { missing as missingMongo, withDatabase } from "./outboxMongo.ts"
import { open, startHub } from "./peers/eventHub.ts"
import { body, cpuMs, sleep } from "./Peer.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"
import { fillLog, planned, topic, withDirectory } from "./stores.ts"

interface Load {
  readonly events: number
  readonly inFlight: number
  readonly subscribers: number
  /** Settings of the hub. */
  readonly env?: Readonly<Record<string, string>>
}

/** Until every publish is answered, that is on disk, and every subscriber has every event. */
const publish = async ({ env, events, inFlight, subscribers }: Load): Promise<Row["figures"]> => {
  const { broker, url } = await startHub(undefined, env)
  const sockets: Array<WebSocket> = []
  try {
    let delivered = 0
    for (let i = 0; i < subscribers; i++) {
      const socket = await open(url, ({ op }) => void (op === "EVENT" && delivered++))
      socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic }))
      sockets.push(socket)
    }
    let sent = 0
    let answered = 0
    const send = (socket: WebSocket, count: number): void => {
      const messages = Array.from(
        { length: count },
        () => `{"op":"PUBLISH","ref":${++sent},"topic":"${topic}","payload":${body}}`
      )
      if (count > 0) socket.send(count === 1 ? messages[0]! : `[${messages.join(",")}]`)
    }
    let wanted = 0
    let due = 0
    const publisher: WebSocket = await open(
      url,
      ({ op }) => {
        if (op !== "OK") throw new Error(`a publish was answered by ${op}`)
        answered++
        due++
      },
      () => {
        send(publisher, Math.min(due, wanted - sent))
        due = 0
      }
    )
    sockets.push(publisher)
    const publishMore = async (count: number): Promise<void> => {
      wanted += count
      send(publisher, Math.min(inFlight, count))
      while (answered < wanted || delivered < wanted * subscribers) await sleep(1)
    }
    // Not counted: code that is not compiled yet.
    await publishMore(Math.ceil(events / 5))
    const cpu = cpuMs(broker.process.pid)
    const begin = performance.now()
    await publishMore(events)
    return {
      "CPU µs each": ((cpuMs(broker.process.pid) - cpu) * 1000) / events,
      "events/s": events / ((performance.now() - begin) / 1000)
    }
  } finally {
    for (const socket of sockets) socket.terminate()
    await broker.stop()
  }
}

/** As long as the ids that hubs and clients make. */
const idPrefix = "01a1fefd-6cf9-7510-99cc-6ad4".padEnd(29, "0")

const stored = (events: number, keyOf: (i: number) => string): Promise<Row["figures"]> =>
  withDirectory(async (path) => {
    await fillLog(path, planned(events, idPrefix, keyOf))
    const db = new DatabaseSync(path)
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return { "bytes each": statSync(path).size / events }
  })

export const costs: Scenario = {
  name: "costs",
  title: ({ events }) => `processor time and disk for each of ${events} events of 200 bytes`,
  defaults: { events: 50_000, inFlight: 256, subscribers: 200 },
  runs: ({ events, inFlight, subscribers }) => {
    const here = () => undefined
    const publishing = (name: string, load: Partial<Load>): Run => ({
      name,
      against: [],
      missing: here,
      run: () => publish({ events, inFlight, subscribers: 0, ...load })
    })
    return [
      publishing("publish, one at a time", { events: Math.ceil(events / 5), inFlight: 1 }),
      publishing(`publish, ${inFlight} in flight`, {}),
      publishing(`publish, ${inFlight} in flight, to 1 subscriber`, { subscribers: 1 }),
      publishing(`publish, ${inFlight} in flight, to ${subscribers} subscribers`, {
        events: Math.ceil(events / 10),
        subscribers
      }),
      {
        name: `publish, ${inFlight} in flight, into a MongoDB`,
        against: [],
        missing: missingMongo,
        run: () =>
          withDatabase((url) =>
            publish({ events, inFlight, subscribers: 0, env: { HUB_STORE: "", MONGO_URL: url } })
          )
      },
      {
        name: "a group from the log: deliver and acknowledge",
        against: [],
        missing: here,
        run: async () => {
          const log = planned(events, healthy)
          const figures = await measureGroup({
            after: 0,
            keyOrdered: false,
            members: 1,
            credit: inFlight,
            log
          })
          return { "CPU µs each": figures["CPU µs each"]!, "events/s": figures["healthy/s"]! }
        }
      },
      {
        name: "stored, 100 keys",
        against: [],
        missing: here,
        run: () => stored(events, (i) => `key-${i % 100}`)
      },
      { name: "stored, a key each", against: [], missing: here, run: () => stored(events, (i) => `key-${i}`) }
    ]
  }
}
