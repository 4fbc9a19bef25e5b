/**
 * Ours: `src/main.ts` in a process of its own on a fresh SQLite file.
 *
 * Once by bare frames, where an event counts when its acknowledgement was answered, that is, is on disk; and once
 * through the client SDK, whose handlers acknowledge by themselves.
 */
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { WebSocket } from "ws"
import { createClient } from "../../src/client/index.ts"
import { count, eventHubWire } from "./counters.ts"
import {
  bodyOf,
  type Broker,
  type ConnectionsSession,
  type DurableSession,
  type FanoutSession,
  payload,
  type Payload,
  type Peer,
  startBroker
} from "../Peer.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
export const token = "a token for benchmarks"

/**
 * `prepare` gets the path of the store before the hub opens it; `env` has settings beside those that are needed;
 * `program` is the file that is run.
 */
export const startHub = async (
  prepare: (path: string) => Promise<void> = () => Promise.resolve(),
  env: Readonly<Record<string, string>> = {},
  program = main
): Promise<{ readonly broker: Broker; readonly url: string; readonly ops: string }> => {
  const flags = process.env["BENCH_NODE_FLAGS"]?.split(" ") ?? []
  const broker = await startBroker(
    process.execPath,
    () => [...flags, program],
    (directory) => ({
      HUB_LOG: "json",
      HUB_STORE: `sqlite:${directory}/hub.db`,
      WS_PORT: "0",
      OPS_PORT: "0",
      STATIC_TOKEN: token,
      ...env
    }),
    (directory) => prepare(`${directory}/hub.db`)
  )
  const urls = await new Promise<{ readonly ws: string; readonly ops: string }>((resolve, reject) => {
    broker.process.once("exit", (code) => reject(new Error(`the hub ended with ${code}`)))
    createInterface({ input: broker.process.stdout! }).on("line", (line) => {
      const { msg, ops, ws } = JSON.parse(line) as Readonly<Record<"msg" | "ops" | "ws", string>>
      if (msg === "ready") resolve({ ws, ops })
    })
  })
  return { broker, url: urls.ws, ops: urls.ops }
}

export interface Frame {
  readonly op: string
  readonly ref?: number
  readonly stale?: ReadonlyArray<string>
  readonly event?: { readonly id: string; readonly topic: string; readonly payload: Payload }
}

/** A socket that is authenticated, and what it gets. */
export const open = async (
  url: string,
  onMessage: (message: Frame) => void,
  onFrame = () => {}
): Promise<WebSocket> => {
  const socket = new WebSocket(url, "event-hub.v1", { perMessageDeflate: false })
  await once(socket, "open")
  socket.send(JSON.stringify({ op: "AUTH", token }))
  await once(socket, "message")
  socket.on("message", (data: Buffer) => {
    const frame = JSON.parse(data.toString()) as Frame | ReadonlyArray<Frame>
    if (Array.isArray(frame)) for (const message of frame as ReadonlyArray<Frame>) onMessage(message)
    else onMessage(frame as Frame)
    onFrame()
  })
  return socket
}

/** Sends what is asked for in one turn as one frame, as every client library does. */
const batching = (socket: WebSocket) => {
  let waiting: Array<string> = []
  return (message: string): void => {
    waiting.push(message)
    if (waiting.length > 1) return
    queueMicrotask(() => {
      socket.send(waiting.length === 1 ? waiting[0]! : `[${waiting.join(",")}]`)
      waiting = []
    })
  }
}

const publishTail = `,"topic":"t.a","payload":${JSON.stringify(payload)}}`

export const frames: Peer<DurableSession> = {
  name: "event-hub (sqlite, acks answered)",
  missing: () => undefined,
  start: async () => {
    const { broker, url } = await startHub()
    const answers = new Map<number, () => void>()
    const publisher = await open(url, ({ op, ref }) => {
      const answer = answers.get(ref ?? 0)
      if (op !== "OK" || answer === undefined) throw new Error(`a publish was answered by ${op}`)
      answers.delete(ref ?? 0)
      answer()
    })
    const send = batching(publisher)
    let next = 1
    const sockets = [publisher]
    return {
      publish: () =>
        new Promise<void>((resolve) => {
          const ref = next++
          answers.set(ref, resolve)
          send(`{"op":"PUBLISH","ref":${ref}${publishTail}`)
        }),
      consume: async (onAcked) => {
        let ids: Array<string> = []
        let ref = 1
        const acks = new Map<number, number>()
        const consumer: WebSocket = await open(
          url,
          (message) => {
            if (message.op === "EVENT") ids.push(message.event!.id)
            else if (message.op === "OK") {
              const count = acks.get(message.ref!) ?? 0
              for (let i = 0; i < count; i++) onAcked()
            } else throw new Error(`the consumer got ${message.op}`)
          },
          () => {
            if (ids.length === 0) return
            acks.set(++ref, ids.length)
            consumer.send(JSON.stringify({ op: "ACK", ref, topic: "t.a", group: "g", ids }))
            ids = []
          }
        )
        sockets.push(consumer)
        consumer.send(
          JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic: "t.a", group: "g", opts: { credit: 500 } })
        )
      },
      close: async () => {
        for (const socket of sockets) socket.close()
        await broker.stop()
      }
    }
  }
}

export const sdk: Peer<DurableSession> = {
  name: "event-hub (sqlite, client SDK)",
  missing: () => undefined,
  start: async () => {
    const { broker, url } = await startHub()
    const publisher = createClient({ url, token, WebSocket })
    const consumer = createClient({ url, token, WebSocket })
    await Promise.all([publisher.connect(), consumer.connect()])
    return {
      publish: () => publisher.publish("t.a", payload),
      consume: (onAcked) =>
        consumer.consume("t.a", "g", () => onAcked(), { credit: 500, concurrency: 500 }).ready,
      close: async () => {
        await Promise.all([publisher.close(), consumer.close()])
        await broker.stop()
      }
    }
  }
}

export const fanout: Peer<FanoutSession> = {
  name: "event-hub (sqlite)",
  missing: () => undefined,
  start: async () => {
    const { broker, url } = await startHub()
    const publisher = await open(url, ({ op }) => {
      if (op === "ERR") throw new Error("a publish was refused")
    })
    const sockets = [publisher]
    const message = (n: number) => `{"op":"PUBLISH","topic":"t.a","payload":${bodyOf(n)}}`
    return {
      publish: (from, count) =>
        publisher.send(`[${Array.from({ length: count }, (_, i) => message(from + i)).join(",")}]`),
      subscribe: async (onEvent) => {
        const socket = await open(url, ({ event, op }) => {
          if (op === "EVENT") onEvent(event!.payload.payload.n)
        })
        sockets.push(socket)
        socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic: "t.a" }))
      },
      count: async (onEvents) => void sockets.push(await count(url, "t.a", eventHubWire(token), onEvents)),
      close: async () => {
        for (const socket of sockets) socket.terminate()
        await broker.stop()
      }
    }
  }
}

export const connections: Peer<ConnectionsSession> = {
  name: fanout.name,
  missing: () => undefined,
  start: async () => {
    const { broker, url } = await startHub()
    const sockets: Array<WebSocket> = []
    return {
      pid: broker.process.pid,
      connect: async (topic, onEvent) => {
        let onSubscribed = () => {}
        const subscribed = new Promise<void>((resolve) => (onSubscribed = resolve))
        const socket = await open(url, ({ event, op }) => {
          if (op === "EVENT") onEvent(event!.payload.payload.n)
          else if (op === "OK") onSubscribed()
          else if (op === "ERR") throw new Error("something was refused")
        })
        sockets.push(socket)
        socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic }))
        await subscribed
        return {
          publish: (n) => socket.send(`{"op":"PUBLISH","topic":"${topic}","payload":${bodyOf(n)}}`)
        }
      },
      close: async () => {
        for (const socket of sockets) socket.terminate()
        await broker.stop()
      }
    }
  }
}
