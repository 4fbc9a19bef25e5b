/**
 * A batch of events on its way to a hub by single publishes, which are answered one by one.
 *
 * A publish that is refused for now does not stop those sent behind it: the next one may find its rate refilled, or the
 * hub's store back. So of a line, the events of one (topic, key), one is under way at a time, and the next is sent when
 * that is stored. Lines do not wait for each other, and events without a key are lines of their own.
 */
import type { HubError } from "../../client/HubError.ts"
import type { Published } from "../../client/Publisher.ts"
import type { EventRecord } from "../../domain/Event.ts"
import type { TargetResult } from "../../services/OutboxTarget.ts"

/** How long it waits for a hub that is overloaded and does not say until when, in milliseconds. */
const waitWhenBusyMs = 250

/** How many publishes may be under way, shared by all batches. */
export class Slots {
  readonly #waiting = new Set<() => void>()
  #free: number

  constructor(count: number) {
    this.#free = count
  }

  /** False: there is none, and `whenFree` is called once when there may be one. */
  take(whenFree: () => void): boolean {
    if (this.#free === 0) {
      this.#waiting.add(whenFree)
      return false
    }
    this.#free--
    return true
  }

  release(): void {
    this.#free++
    for (const whenFree of this.#waiting) {
      if (this.#free === 0) return
      this.#waiting.delete(whenFree)
      whenFree()
    }
  }
}

/** What a refused publish means for its event. */
type Verdict = "invalid" | "forbidden" | "unavailable" | "later" | "unanswered"

const verdictOf = ({ code, retryAfterMs }: HubError): Verdict => {
  switch (code) {
    case "bad_request":
    case "invalid_topic":
    case "payload_too_large":
      return "invalid"
    case "forbidden":
      return "forbidden"
    case "rate_limited":
    case "queue_full":
      return "later"
    case "closed":
    case "jwt_invalid":
    case "no_token":
    case "timeout":
    case "token_expired":
      return "unanswered"
    default:
      // With a time, the hub is overloaded and did not even try.
      return code === "unavailable" && retryAfterMs !== undefined ? "later" : "unavailable"
  }
}

/** Indices of records, in their order; those before `next` are done with. */
interface Line {
  readonly records: ReadonlyArray<number>
  next: number
}

const linesOf = (records: ReadonlyArray<EventRecord>): Array<Line> => {
  const keyed = new Map<string, Array<number>>()
  const lines: Array<Line> = []
  records.forEach(({ key, topic }, i) => {
    // A topic holds no space.
    const name = `${topic} ${key}`
    const known = key === undefined ? undefined : keyed.get(name)
    if (known !== undefined) return void known.push(i)
    const own = [i]
    if (key !== undefined) keyed.set(name, own)
    lines.push({ records: own, next: 0 })
  })
  return lines
}

export type Publish = (record: EventRecord) => Promise<Published>

export class RemoteBatch {
  readonly #records: ReadonlyArray<EventRecord>
  readonly #results: Array<TargetResult | undefined>
  /** Those with something left, by the order of what is next. */
  #open: Array<Line>
  readonly #unanswered = new Set<number>()
  /** Sent, and an answer will not come: nobody knows whether they are stored. */
  readonly #doubtful = new Set<number>()
  #wasAnswered = false
  #isOver = false
  /** Why an answer will not come. */
  lost: HubError | undefined

  constructor(records: ReadonlyArray<EventRecord>) {
    this.#records = records
    this.#results = Array.from(records, () => undefined)
    this.#open = linesOf(records)
  }

  get isUnderWay(): boolean {
    return this.#unanswered.size > 0
  }

  get isDone(): boolean {
    return this.#open.length === 0
  }

  /**
   * Sends what can be sent, until all of that is answered: to the end, or to where the hub wants a pause or is lost.
   * `done` is told how long a pause.
   */
  run(publish: Publish, slots: Slots, done: (waitMs: number) => void): void {
    const ready = this.#open
    const held: Array<Line> = []
    let sent = 0
    let waitMs = 0
    let mayEnd = false

    const pump = (): void => {
      while (!this.#isOver && waitMs === 0 && this.lost === undefined && sent < ready.length) {
        if (!slots.take(pump)) return
        send(ready[sent++]!)
      }
      if (!mayEnd || this.#isOver || this.#unanswered.size > 0) return
      mayEnd = false
      this.#open = [...held, ...ready.slice(sent)].sort((a, b) => a.records[a.next]! - b.records[b.next]!)
      done(waitMs)
    }

    const send = (line: Line): void => {
      const i = line.records[line.next]!
      this.#unanswered.add(i)
      const answered = (take: () => void) => {
        if (!this.#isOver) {
          this.#unanswered.delete(i)
          take()
        }
        slots.release()
        pump()
      }
      const passOn = () => {
        line.next++
        if (line.next < line.records.length) ready.push(line)
      }
      publish(this.#records[i]!).then(
        ({ duplicate, id, seq, storedAt }) =>
          answered(() => {
            const { topic } = this.#records[i]!
            this.#settle(i, { _tag: "Appended", topic, id, seq, storedAt, duplicate })
            passOn()
          }),
        (error: HubError) =>
          answered(() => {
            const verdict = verdictOf(error)
            if (verdict === "unanswered") {
              this.lost ??= error
              this.#doubtful.add(i)
              held.push(line)
              return
            }
            this.#wasAnswered = true
            if (verdict === "later") {
              waitMs = Math.max(waitMs, 1, error.retryAfterMs ?? waitWhenBusyMs)
              held.push(line)
            } else if (verdict === "invalid") {
              this.#settle(i, this.#notTaken(i, "invalid", error.message))
              passOn()
            } else {
              const { id, topic } = this.#records[i]!
              this.#settle(
                i,
                verdict === "forbidden"
                  ? this.#notTaken(i, "forbidden", error.message)
                  : { _tag: "NotAppended", topic, id, reason: "unavailable" }
              )
              this.#leaveBehind(line)
            }
          })
      )
    }

    mayEnd = true
    pump()
  }

  /**
   * Ends it: answers that come from now on change nothing. What has none is `unavailable` when the hub was there and
   * did not give one, and otherwise not to blame. Nothing when the hub answered nothing at all.
   */
  end(isConnected: boolean): ReadonlyArray<TargetResult> | undefined {
    this.#isOver = true
    if (!this.#wasAnswered) return undefined
    for (const line of linesOf(this.#records)) {
      line.next = line.records.findIndex((i) => this.#results[i] === undefined)
      if (line.next === -1) continue
      const i = line.records[line.next]!
      const { id, topic } = this.#records[i]!
      const isSilent = isConnected && (this.#unanswered.has(i) || this.#doubtful.has(i))
      this.#results[i] = isSilent
        ? { _tag: "NotAppended", topic, id, reason: "unavailable" }
        : this.#notTaken(i, "later", this.lost?.message ?? "the hub takes it later")
      this.#leaveBehind(line)
    }
    return this.#results.flatMap((result) => result ?? [])
  }

  #settle(i: number, result: TargetResult): void {
    this.#wasAnswered = true
    this.#results[i] = result
  }

  #notTaken(i: number, reason: "invalid" | "forbidden" | "later", message: string): TargetResult {
    const { id, topic } = this.#records[i]!
    return { _tag: "NotAppended", topic, id, reason, message }
  }

  /** The rest of a line stands behind an event that is not stored. */
  #leaveBehind(line: Line): void {
    for (const i of line.records.slice(line.next + 1)) {
      const { id, topic } = this.#records[i]!
      this.#results[i] = { _tag: "NotAppended", topic, id, reason: "behind_refused" }
    }
    line.next = line.records.length
  }
}
