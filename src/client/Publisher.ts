/**
 * Publishes that wait: for a connection, or for an answer. Those that were not answered before the connection went are
 * repeated on the next, with the same id and in order, and stay one event each.
 */
import type { PublishOptions } from "../protocol/Messages.ts"
import type { Connection } from "./Connection.ts"
import { HubError } from "./HubError.ts"
import { ignore, onAbort, parse } from "./later.ts"
import type { StandardSchema } from "./topics.ts"

export interface Published {
  readonly id: string
  readonly seq: number
  readonly storedAt: number
  /** The hub held this id before. */
  readonly duplicate: boolean
}

export interface PublisherOptions {
  /** Publishes that wait for a connection or an answer; more are refused. */
  readonly maxPending?: number
  /** The same in bytes of their JSON, where a character counts as one. */
  readonly maxPendingBytes?: number
}

export interface PublishRequest extends PublishOptions {
  /** Takes it back where it was not sent; one that was may have happened. */
  readonly signal?: AbortSignal | undefined
}

interface Pending {
  /** As it was when it was published, whatever becomes of the payload while it waits. */
  readonly json: string
  readonly resolve: (published: Published) => void
  readonly reject: (reason: unknown) => void
  /** It was sent, or must not be yet. */
  isHeld: boolean
  /** Stops listening to its signal. */
  forget: () => void
}

/** Random numbers of 16 bits for the next ids: asking for them costs more than all else that an id does. */
let random: Array<number> = []

/** Four hexadecimal digits, of which `bits` are given and those of `mask` are random. */
const digits = (mask = 0xffff, bits = 0): string => {
  if (random.length === 0) random = [...crypto.getRandomValues(new Uint16Array(500))]
  return ((random.pop()! & mask) | bits | 0x10000).toString(16).slice(1)
}

/**
 * A UUID in the order of time (RFC 9562, version 7): stores keep an index over ids, which random ones make slow.
 * `crypto.randomUUID` has no such, and is missing on pages without TLS.
 */
const makeId = (): string => {
  const time = (Date.now() + 2 ** 48).toString(16)
  const head = `${time.slice(1, 9)}-${time.slice(9)}-${digits(0xfff, 0x7000)}-${digits(0x3fff, 0x8000)}`
  return `${head}-${digits()}${digits()}${digits()}`
}

export class Publisher {
  readonly #connection: Connection
  readonly #options: PublisherOptions
  /** One of them is over. */
  readonly #progress: () => void
  readonly #pending = new Set<Pending>()
  #bytes = 0
  /** Until the schema of the last one has taken its payload: those behind it wait, to keep their order. */
  #checks: Promise<void> | undefined

  constructor(connection: Connection, options: PublisherOptions, progress: () => void) {
    this.#connection = connection
    this.#options = options
    this.#progress = progress
  }

  get size(): number {
    return this.#pending.size
  }

  /** Ends when the event is durable. With a schema, nothing is sent before that takes the payload. */
  publish(
    topic: string,
    payload: unknown,
    { signal, ...opts }: PublishRequest,
    schema: StandardSchema | undefined
  ): Promise<Published> {
    return new Promise((resolve, reject) => {
      const json = JSON.stringify({
        op: "PUBLISH",
        topic,
        payload,
        opts: { ...opts, id: opts.id ?? makeId() }
      })
      const { maxPending = 10_000, maxPendingBytes = 16 * 1024 * 1024 } = this.#options
      const { size } = this.#pending
      // A single one may be as large as the hub takes it.
      if (size >= maxPending || (size > 0 && this.#bytes + json.length > maxPendingBytes)) {
        throw new HubError("queue_full", `${size} publishes wait already`, true)
      }
      const pending: Pending = { json, resolve, reject, isHeld: true, forget: ignore }
      const refuse = (reason: unknown) => this.#refuse(pending, reason)
      this.#pending.add(pending)
      this.#bytes += json.length
      pending.forget = onAbort(signal, refuse)
      if (!schema && !this.#checks) return this.#begin(pending)
      const check = schema && parse(schema, topic, payload).then(ignore, refuse)
      const checks = Promise.all([check, this.#checks]).then(() => {
        if (this.#checks === checks) this.#checks = undefined
        this.#begin(pending)
      })
      this.#checks = checks
    })
  }

  /** There is a connection. */
  send(): void {
    for (const pending of this.#pending) this.#send(pending)
  }

  /** There will be none. */
  fail(error: HubError): void {
    for (const pending of this.#pending) this.#refuse(pending, error)
  }

  #begin(pending: Pending): void {
    pending.isHeld = false
    this.#send(pending)
  }

  #send(pending: Pending): void {
    const connection = this.#connection
    if (pending.isHeld || connection.state._tag !== "ready" || !this.#pending.has(pending)) return
    pending.isHeld = true
    connection.ask(
      pending.json,
      (ok) => {
        const { duplicate, id, seq, storedAt } = ok as unknown as Published
        if (this.#settle(pending)) pending.resolve({ id, seq, storedAt, duplicate })
      },
      (error) => {
        pending.isHeld = false
        // Not answered: it is repeated with the same id on the next connection.
        if (error.code !== "closed" || connection.state._tag === "closed") this.#refuse(pending, error)
      }
    )
  }

  #refuse(pending: Pending, reason: unknown): void {
    if (this.#settle(pending)) pending.reject(reason)
  }

  /** False for what is over already. */
  #settle(pending: Pending): boolean {
    if (!this.#pending.delete(pending)) return false
    this.#bytes -= pending.json.length
    pending.forget()
    this.#progress()
    return true
  }
}
