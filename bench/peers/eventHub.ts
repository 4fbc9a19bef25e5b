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
import { PromClient } from "../../src/client/index.ts"
import {
  type Broker,
  type DurableSession,
  type FanoutSession,
  payload,
  type Peer,
  startBroker
} from "../Peer.ts"

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const token = "bench"

/** `prepare` gets the path of the store before the hub opens it. */
export const startHub = async (
  prepare: (path: string) => Promise<void> = () => Promise.resolve()
): Promise<{ readonly broker: Broker; readonly url: string }> => {
  const flags = process.env["BENCH_NODE_FLAGS"]?.split(" ") ?? []
  const broker = await startBroker(
    process.execPath,
    () => [...flags, main],
    (directory) => ({
      HUB_LOG: "json",
      HUB_STORE: `sqlite:${directory}/hub.db`,
      WS_PORT: "0",
      OPS_PORT: "0",
      STATIC_TOKEN: token
    }),
    (directory) => prepare(`${directory}/hub.db`)
  )
  const url = await new Promise<string>((resolve) => {
    createInterface({ input: broker.process.stdout! }).on("line", (line) => {
      const { msg, ws } = JSON.parse(line) as { readonly msg: string; readonly ws: string }
      if (msg === "ready") resolve(ws)
    })
  })
  return { broker, url }
}

export interface Frame {
  readonly op: string
  readonly ref?: number
  readonly stale?: ReadonlyArray<string>
  readonly event?: { readonly id: string; readonly topic: string }
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
    const publisher = new PromClient(url, token, { WebSocket })
    const consumer = new PromClient(url, token, { WebSocket })
    await Promise.all([publisher.connect(), consumer.connect()])
    return {
      publish: () => publisher.publish("t.a", payload),
      consume: (onAcked) =>
        consumer.subscribe("t.a", "g", () => onAcked(), { credit: 500, concurrency: 500 }),
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
    const message = `{"op":"PUBLISH"${publishTail}`
    return {
      publish: (count) => publisher.send(`[${Array<string>(count).fill(message).join(",")}]`),
      subscribe: async (onEvents) => {
        let events = 0
        const count = ({ op }: Frame) => void (op === "EVENT" && events++)
        const socket = await open(url, count, () => {
          onEvents(events)
          events = 0
        })
        socket.send(JSON.stringify({ op: "SUBSCRIBE", ref: 1, topic: "t.a" }))
        sockets.push(socket)
      },
      close: async () => {
        for (const socket of sockets) socket.terminate()
        await broker.stop()
      }
    }
  }
}
