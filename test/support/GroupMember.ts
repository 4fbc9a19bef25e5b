/**
 * A member of a consumer group as a client of its own, which handles each delivery as its fate says, writes down what
 * it does before it does it, and comes back as long as nobody stops it. What it writes is a src/testing/groupJournal.
 */
import { WebSocket } from "ws"
import { type Chance, chance } from "../../src/testing/chance.ts"
import { fateOf, type Plan } from "../../src/testing/fate.ts"
import type { Seen } from "../../src/testing/groupJournal.ts"

export interface GroupMemberOptions {
  readonly url: string
  readonly token: string
  readonly pattern: string
  readonly group: string
  readonly seed: number
  readonly plan: Plan
  /** Of the subscription. */
  readonly opts: Readonly<Record<string, unknown>>
  /** How long it takes for all that it has, in milliseconds. */
  readonly handlerMs: number
}

interface Delivered {
  readonly topic: string
  readonly id: string
  readonly attempt: number
}

/** The parts of the hub's messages that it looks at. */
interface Message {
  readonly op: string
  readonly ref?: unknown
  readonly code?: string
  readonly topic: string
  readonly event: { readonly id: string }
  readonly ctx: { readonly attempt: number }
  readonly stale?: ReadonlyArray<string>
}

/** Nanoseconds of a clock that all processes of the machine share, and that nobody sets. */
const now = (): number => Number(process.hrtime.bigint())

const reconnectMs = 50

export interface GroupMemberEvents {
  readonly write: (seen: ReadonlyArray<Seen>) => void
  /** Ends it as a crash would: nothing is said to anybody. */
  readonly crash: (socket: WebSocket) => void
  /** It is a member, for the first time or again. */
  readonly joined: () => void
  /** The hub said what it should not have to say. */
  readonly failed: (problem: string) => void
}

export class GroupMember {
  readonly #options: GroupMemberOptions
  readonly #on: GroupMemberEvents
  readonly #roll: Chance
  /** None: it crashed, or has no connection. */
  #socket: WebSocket | undefined
  #working: NodeJS.Timeout | undefined
  #returning: NodeJS.Timeout | undefined
  #inbox: Array<Delivered> = []
  #acks = new Map<string, ReadonlyArray<Delivered>>()
  #made = 0
  #isStopped = false

  constructor(options: GroupMemberOptions, on: GroupMemberEvents) {
    this.#options = options
    this.#on = on
    this.#roll = chance(options.seed)
    this.#connect()
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#returning)
    this.#socket?.terminate()
    this.#forget()
  }

  #forget(): void {
    clearTimeout(this.#working)
    this.#working = undefined
    this.#socket = undefined
    this.#inbox = []
    this.#acks = new Map()
  }

  #connect(): void {
    const { group, opts, pattern, token, url } = this.#options
    const socket = new WebSocket(url, ["event-hub.v1"])
    this.#socket = socket
    socket.on("open", () =>
      socket.send(
        JSON.stringify([
          { op: "AUTH", ref: "auth", token },
          { op: "SUBSCRIBE", ref: "subscribe", topic: pattern, group, opts }
        ])
      )
    )
    socket.on("message", (data: Buffer) => {
      if (this.#socket === socket)
        this.#received(JSON.parse(data.toString()) as Message | ReadonlyArray<Message>)
    })
    // There is no hub at the moment, or there is none any more.
    socket.on("error", () => {})
    socket.on("close", () => {
      if (this.#socket === socket) this.#forget()
      if (!this.#isStopped) this.#returning = setTimeout(() => this.#connect(), reconnectMs)
    })
  }

  #received(frame: Message | ReadonlyArray<Message>): void {
    const seen: Array<Seen> = []
    for (const message of Array.isArray(frame) ? (frame as ReadonlyArray<Message>) : [frame as Message]) {
      const { op, ref } = message
      if (op === "EVENT") {
        const { ctx, event, topic } = message
        this.#inbox.push({ topic, id: event.id, attempt: ctx.attempt })
        seen.push({ what: "delivered", id: event.id, attempt: ctx.attempt, at: now() })
      } else if (op === "OK" && typeof ref === "string" && this.#acks.has(ref)) {
        for (const { attempt, id } of this.#acks.get(ref)!) {
          if (message.stale?.includes(id) !== true) seen.push({ what: "confirmed", id, attempt, at: now() })
        }
        this.#acks.delete(ref)
      } else if (op === "OK" && ref === "subscribe") this.#on.joined()
      else if (op === "END" || (op === "ERR" && message.code !== "unavailable")) {
        this.#on.failed(JSON.stringify(message))
      }
    }
    if (seen.length > 0) this.#on.write(seen)
    if (this.#inbox.length > 0) this.#working ??= setTimeout(() => this.#work(), this.#options.handlerMs)
  }

  /** Handles all that it has, in no order. */
  #work(): void {
    this.#working = undefined
    const { group, plan } = this.#options
    const socket = this.#socket!
    const some = this.#inbox.sort((a, b) => this.#roll(a.id) - this.#roll(b.id))
    this.#inbox = []
    const seen: Array<Seen> = []
    const answers: Array<object> = []
    const acks = new Map<string, Array<Delivered>>()
    let isLost = false
    for (const one of some) {
      const { attempt, id, topic } = one
      const fate = fateOf(plan, this.#roll, id, attempt)
      if (fate === "crash") {
        isLost = true
        break
      }
      seen.push({ what: fate === "ack" ? "acked" : "nacked", id, attempt, at: now() })
      if (fate === "ack") acks.set(topic, [...(acks.get(topic) ?? []), one])
      else answers.push({ op: "NACK", topic, group, id, attempt, mode: fate, reason: "no luck" })
    }
    for (const [topic, done] of acks) {
      const ref = `ack ${++this.#made}`
      this.#acks.set(ref, done)
      answers.push({ op: "ACK", ref, topic, group, ids: done.map(({ id }) => id) })
    }
    if (seen.length > 0) this.#on.write(seen)
    if (answers.length > 0) socket.send(JSON.stringify(answers))
    if (isLost) {
      this.#forget()
      this.#on.crash(socket)
    }
  }
}
