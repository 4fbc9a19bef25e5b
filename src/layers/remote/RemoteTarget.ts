/**
 * The log of a hub in another process as the target of an outbox, by the client: each record is published with its own
 * id, so that one which was answered too late, or never, is repeated without harm.
 *
 * A client that owes answers when a batch is given up is closed, and the next batch gets a new one. It would repeat
 * those publishes when it is connected again, and by then somebody else may have gone on with their keys.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type { TokenSource } from "../../client/Connection.ts"
import { PromClient, type PromClientOptions } from "../../client/PromClient.ts"
import type { Published } from "../../client/Publisher.ts"
import type { EventRecord, NewEvent } from "../../domain/Event.ts"
import * as Settings from "../../domain/Settings.ts"
import { Overloaded } from "../../services/Appender.ts"
import { OutboxTarget, type TargetResult } from "../../services/OutboxTarget.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { RemoteBatch, Slots } from "./RemoteBatch.ts"

export interface Options
  extends
    Partial<Settings.RemoteSettings>,
    Omit<
      PromClientOptions,
      "maxPending" | "maxPendingBytes" | "closeTimeoutMs" | "requestTimeoutMs" | "onState"
    > {
  /** Of the hub's gateway: `ws://…` or `wss://…`. */
  readonly url: string
  /** Needs the right to publish on the topics of the outbox, and no other. */
  readonly token: TokenSource
}

/** Nothing can be brought to a hub with these settings. */
export class CannotBring extends Schema.TaggedError<CannotBring>()("CannotBring", {
  reason: Schema.String
}) {
  override get message() {
    return `an outbox cannot be drained into a remote hub: ${this.reason}`
  }
}

/** A hub that was away is looked for often: the events of a whole service wait for it. */
const reconnectMaxMs = 2_000

const problemOf = ({ answerTimeoutMs, maxInFlight, maxQueuedEvents, url }: Options): string | undefined => {
  if (!URL.canParse(url) || !/^wss?:/.test(url)) return "its 'url' must begin with ws:// or wss://"
  for (const [name, value] of Object.entries({ answerTimeoutMs, maxInFlight, maxQueuedEvents })) {
    if (value !== undefined && !(Number.isInteger(value) && value > 0)) {
      return `'${name}' must be a whole number above 0`
    }
  }
  return undefined
}

const make = Effect.fnUntraced(function* (options: Options) {
  const problem = problemOf(options)
  if (problem !== undefined) return yield* new CannotBring({ reason: problem })
  const { answerTimeoutMs, maxInFlight, maxQueuedEvents, onError, token, url, ...more } = {
    ...Settings.remote,
    ...options
  }
  const operation = `publish to ${new URL(url).host}`
  const slots = new Slots(maxInFlight)
  const listeners = new Set<() => void>()
  let queued = 0
  let client: PromClient | undefined
  /** What the client said last of why it is not connected. */
  let trouble: unknown

  const open = (): PromClient => {
    if (client !== undefined && client.state._tag !== "closed") return client
    const made = new PromClient(url, token, {
      reconnectMaxMs,
      ...more,
      maxPending: maxInFlight,
      maxPendingBytes: Infinity,
      requestTimeoutMs: answerTimeoutMs,
      closeTimeoutMs: 0,
      onError: (error) => {
        trouble = error
        onError?.(error)
      },
      onState: (state) => {
        if (state._tag === "ready") trouble = undefined
        else if (state._tag === "closed") trouble = state.error ?? trouble
        for (const look of listeners) look()
      }
    })
    client = made
    // Why it does not come about is asked for when somebody needs it.
    made.connect().catch(() => {})
    return made
  }

  const drop = (dropped: PromClient): void => {
    if (client === dropped) client = undefined
    void dropped.close()
  }

  /** Ends when it is connected, or never will be. */
  const settled = (waited: PromClient) =>
    Effect.callback<void>((resume) => {
      const look = (): void => {
        const { _tag } = waited.state
        if (_tag !== "ready" && _tag !== "closed") return
        listeners.delete(look)
        resume(Effect.void)
      }
      listeners.add(look)
      look()
      return Effect.sync(() => void listeners.delete(look))
    })

  const unavailable = (cause: unknown) =>
    new StoreUnavailable({ operation, cause: cause ?? new Error("the hub does not answer") })

  const bring = Effect.fnUntraced(function* (records: ReadonlyArray<EventRecord>) {
    const batch = new RemoteBatch(records)
    const used = open()
    const publish = (record: EventRecord): Promise<Published> => {
      // The text is our own, so it is parsed without a check.
      const { payload, topic, ...opts } = JSON.parse(record.body) as NewEvent
      return used.publish(topic, payload, opts)
    }
    let results: ReadonlyArray<TargetResult> | undefined
    yield* Effect.gen(function* () {
      yield* settled(used)
      while (!batch.isDone && batch.lost === undefined) {
        const waitMs = yield* Effect.callback<number>((resume) =>
          batch.run(publish, slots, (ms) => resume(Effect.succeed(ms)))
        )
        // No answer is better than one that comes after the time is up.
        if (waitMs >= answerTimeoutMs) break
        if (waitMs > 0) yield* Effect.sleep(waitMs)
      }
    }).pipe(
      Effect.timeoutOption(answerTimeoutMs),
      Effect.ensuring(
        Effect.sync(() => {
          results = batch.end(used.state._tag === "ready")
          if (batch.isUnderWay || batch.lost !== undefined) drop(used)
        })
      )
    )
    return results ?? (yield* unavailable(batch.lost ?? trouble))
  })

  yield* Effect.addFinalizer(() => Effect.promise(async () => client?.close()))
  open()

  return OutboxTarget.of({
    append: Effect.fnUntraced(function* (records) {
      if (records.length === 0) return []
      if (queued + records.length > maxQueuedEvents) return yield* new Overloaded({ queued })
      queued += records.length
      const done = Effect.sync(() => void (queued -= records.length))
      return yield* Effect.ensuring(bring(records), done)
    })
  })
})

export const layer = (options: Options): Layer.Layer<OutboxTarget, CannotBring> =>
  Layer.effect(OutboxTarget, make(options))
