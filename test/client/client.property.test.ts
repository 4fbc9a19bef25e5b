/**
 * Whatever the network does, a live subscription hands over every seq once and in order, however it is consumed; and
 * publishes arrive in their order, under the ids that they were given.
 */
import fc from "fast-check"
import { afterEach, beforeEach, expect, it, vi } from "vitest"
import { createClient } from "../../src/client/index.ts"
import { FakeNetwork, type FakeSocket } from "./FakeWebSocket.ts"
import { type Request, settle } from "./playing.ts"

beforeEach(() => {
  vi.useFakeTimers()
})

afterEach(() => {
  vi.useRealTimers()
})

interface Stored {
  readonly id: string
  readonly payload: unknown
}

/** A hub of one pattern, `**`, that does what the protocol says, when it is told to. */
class PlayedHub {
  readonly logs = new Map<string, Array<Stored>>()
  readonly floors = new Map<string, number>()
  readonly network = new FakeNetwork()
  #socket: FakeSocket | undefined
  #read = 0
  #positions: Map<string, number> | undefined

  logOf(topic: string): Array<Stored> {
    const log = this.logs.get(topic) ?? []
    this.logs.set(topic, log)
    return log
  }

  append(topic: string, event: Stored): number {
    const log = this.logOf(topic)
    const known = log.findIndex(({ id }) => id === event.id)
    return known >= 0 ? known + 1 : log.push(event)
  }

  end(): void {
    this.#socket?.end(1006)
    this.#socket = undefined
  }

  /** Takes a connection that waits to be taken, and looks at up to so many requests. */
  serve(most: number): void {
    const last = this.network.sockets.at(-1)
    if (last !== undefined && last.readyState === 0) {
      this.#socket = last
      this.#read = 1
      this.#positions = undefined
      last.accept()
    }
    const sent = (this.#socket?.sent.flat() ?? []) as ReadonlyArray<Request>
    for (const request of sent.slice(this.#read, this.#read + most)) {
      this.#read++
      this.#answer(request)
    }
  }

  /** Sends up to so many events, in one frame: of each topic in order, with gaps where the log was trimmed. */
  deliver(most: number): void {
    const frame: Array<object> = []
    for (const [topic, log] of this.logs) {
      const positions = this.#positions
      if (positions === undefined) break
      const floor = this.floors.get(topic) ?? 0
      const at = positions.get(topic) ?? 0
      if (at < floor && frame.length < most) {
        frame.push({ op: "GAP", sub: "**", topic, from: at + 1, to: floor, reason: "trimmed" })
        positions.set(topic, floor)
      }
      for (let seq = (positions.get(topic) ?? 0) + 1; seq <= log.length && frame.length < most; seq++) {
        const event = { ...log[seq - 1], topic, seq, ts: 0, storedAt: 0 }
        frame.push({ op: "EVENT", sub: "**", topic, event })
        positions.set(topic, seq)
      }
    }
    if (frame.length > 0) this.#socket?.receive(frame)
  }

  #answer({ op, opts = {}, payload, ref, topic = "" }: Request): void {
    const fields: Record<string, unknown> = {}
    const refuse = (code: string) =>
      this.#socket?.receive({ op: "ERR", ref, code, msg: "no", retryable: false })
    if (op === "SUBSCRIBE") {
      // An answer that came too late: the client asks a second time.
      if (this.#positions !== undefined) return refuse("already_subscribed")
      const from = opts["from"]
      const topics = typeof from === "object" && from !== null && "topics" in from ? from.topics : {}
      this.#positions = new Map(Object.entries(topics as Readonly<Record<string, number>>))
      fields["heads"] = {}
    } else if (op === "UNSUBSCRIBE") {
      if (this.#positions === undefined) return refuse("not_subscribed")
      this.#positions = undefined
    }
    if (op === "PUBLISH") {
      const id = String(opts["id"])
      Object.assign(fields, { id, seq: this.append(topic, { id, payload }), storedAt: 0, duplicate: false })
    }
    this.#socket?.receive({ op: "OK", ref, ...fields })
  }
}

const topics = ["a", "b.c"]
const topic = fc.constantFrom(...topics)
const few = fc.integer({ min: 1, max: 6 })

const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ _tag: fc.constant("append" as const), topic, n: few }) },
  { weight: 5, arbitrary: fc.record({ _tag: fc.constant("deliver" as const), n: few }) },
  { weight: 4, arbitrary: fc.record({ _tag: fc.constant("serve" as const), n: few }) },
  { weight: 3, arbitrary: fc.record({ _tag: fc.constant("consume" as const), n: few }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("publish" as const), topic }) },
  {
    weight: 2,
    arbitrary: fc.record({ _tag: fc.constant("wait" as const), ms: fc.constantFrom(1, 500, 9_000) })
  },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("end" as const) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("trim" as const), topic, n: few }) }
)

it.each(["a handler", "a slow handler", "an iterator"])(
  "every seq once, in order, and publishes as they were made: %s",
  async (how) => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), few, async (steps, maxBuffered) => {
        const hub = new PlayedHub()
        const client = createClient({
          url: "ws://hub",
          token: "t",
          WebSocket: hub.network.WebSocket,
          requestTimeoutMs: 5_000
        })
        const errors: Array<unknown> = []
        client.on("error", (error) => errors.push(error))
        /** What was handed over: a seq, or the positions of a gap. */
        const seen = new Map<string, Array<readonly [from: number, to: number]>>(
          topics.map((name) => [name, []])
        )
        const saw = (name: string, from: number, to = from) => seen.get(name)!.push([from, to])
        const waiting: Array<() => void> = []
        const paced = () => new Promise<void>((resolve) => waiting.push(resolve))
        let isFree = false
        const options = { from: "start" as const, maxBuffered }
        if (how === "an iterator") {
          const live = client.subscribe("**", options)
          void (async () => {
            for await (const item of live) {
              if (item._tag === "gap") saw(item.topic, item.from, item.to)
              else if (item._tag === "event") saw(item.topic, item.seq)
              if (!isFree) await paced()
            }
          })().catch((error: unknown) => errors.push(error))
        } else {
          client.subscribe(
            "**",
            (event) => {
              saw(event.topic, event.seq)
              return how === "a slow handler" && !isFree ? paced() : undefined
            },
            { ...options, onGap: (gap) => saw(gap.topic, gap.from, gap.to) }
          )
        }
        const published: Array<readonly [topic: string, n: number]> = []
        const answers: Array<Promise<unknown>> = []
        let n = 0
        await settle()
        hub.serve(1)
        await settle()
        hub.serve(1)
        for (const each of steps) {
          if (each._tag === "append")
            for (let i = 0; i < each.n; i++) hub.append(each.topic, { id: `e${++n}`, payload: 0 })
          else if (each._tag === "deliver") hub.deliver(each.n)
          else if (each._tag === "serve") hub.serve(each.n)
          else if (each._tag === "consume") for (const go of waiting.splice(0, each.n)) go()
          else if (each._tag === "end") hub.end()
          else if (each._tag === "wait") await vi.advanceTimersByTimeAsync(each.ms)
          else if (each._tag === "trim") {
            const log = hub.logOf(each.topic)
            const floor = Math.min(log.length - 1, (hub.floors.get(each.topic) ?? 0) + each.n)
            if (floor > 0) hub.floors.set(each.topic, floor)
          } else {
            published.push([each.topic, ++n])
            // An answer that does not come in time is an error, and says nothing of the event.
            answers.push(client.publish(each.topic, n, { id: `p${n}` }).catch(() => {}))
          }
          await settle()
        }
        isFree = true
        for (let i = 0; i < 60; i++) {
          for (const go of waiting.splice(0)) go()
          hub.serve(1_000)
          await settle()
          hub.deliver(1_000)
          await vi.advanceTimersByTimeAsync(1_000)
        }
        await Promise.all(answers)
        for (const [name, spans] of seen) {
          let next = 1
          for (const [from, to] of spans) {
            expect([name, from]).toEqual([name, next])
            next = to + 1
          }
          expect([name, next - 1]).toEqual([name, hub.logOf(name).length])
          const stored = hub
            .logOf(name)
            .flatMap(({ id, payload }) => (id.startsWith("p") ? [[id, payload]] : []))
          const made = published.flatMap(([to, m]) => (to === name ? [[`p${m}`, m]] : []))
          // Those that timed out may be missing; the others are there once, in order.
          expect(stored).toEqual(made.filter(([id]) => stored.some(([one]) => one === id)))
        }
        expect(errors).toEqual([])
        const closed = client.close()
        await settle()
        hub.serve(1_000)
        await vi.advanceTimersByTimeAsync(10_000)
        await closed
      }),
      { numRuns: 100 }
    )
  }
)
