/**
 * Stores in memory that do what a test says: answer late, fail, fail after all was done, or never answer.
 *
 * `log`, `groups` and `outbox` are the same stores without any trouble: to look at what they hold, and to do
 * what another hub does.
 */
import { Context, Effect, Layer, PubSub, Stream } from "effect"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import * as MemoryGroupStore from "../../../src/layers/memory/MemoryGroupStore.ts"
import * as MemoryOutboxStore from "../../../src/layers/memory/MemoryOutboxStore.ts"
import { EventStore, type Growth } from "../../../src/services/EventStore.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import type { Ids } from "../../../src/services/Ids.ts"
import { OutboxStore } from "../../../src/services/OutboxStore.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"

type Run = Effect.Effect<unknown, unknown>

/** `fail after` does what was asked, and says that it did not. A function does something else instead. */
export type Fault = "fail" | "fail after" | "hang" | ((args: ReadonlyArray<unknown>, run: Run) => Run)

export class Trouble extends Context.Service<
  Trouble,
  {
    readonly log: EventStore["Service"]
    readonly groups: GroupStore["Service"]
    readonly outbox: OutboxStore["Service"]
    /** The next calls of an operation (`EventStore.append`) meet these, one each. */
    readonly next: (operation: string, ...faults: ReadonlyArray<Fault>) => void
    /** Operations whose names begin like this fail; none: they work again. */
    readonly setOutage: (prefix: string | undefined) => void
    /** How many milliseconds pass before an operation begins, and before its answer arrives. */
    readonly setPace: (pace: (operation: string) => readonly [before: number, after: number]) => void
    /** Every call so far, in the order of their beginning. */
    readonly calls: ReadonlyArray<{ readonly operation: string; readonly args: ReadonlyArray<unknown> }>
    readonly count: (operation: string) => number
    /** What the store has to say about other hubs. */
    readonly announce: (grown: ReadonlyArray<Growth>) => Effect.Effect<void>
  }
>()("event-hub/test/layers/core/Trouble") {}

const make = Effect.fnUntraced(function* (batchesAtOnce: number) {
  const log = yield* EventStore
  const groups = yield* GroupStore
  const outbox = yield* OutboxStore
  const changes = yield* PubSub.unbounded<ReadonlyArray<Growth>>({ replay: 1_000 })
  const faults = new Map<string, Array<Fault>>()
  const calls: Array<{ readonly operation: string; readonly args: ReadonlyArray<unknown> }> = []
  let outage: string | undefined
  let paceOf = (_operation: string): readonly [number, number] => [0, 0]

  const meet = (operation: string, args: ReadonlyArray<unknown>, run: Run) =>
    Effect.gen(function* () {
      calls.push({ operation, args })
      const fault = faults.get(operation)?.shift()
      const [before, after] = paceOf(operation)
      const failure = new StoreUnavailable({ operation, cause: "the test wants it" })
      if (before > 0) yield* Effect.sleep(before)
      if (fault === "hang") return yield* Effect.never
      if (fault === "fail" || (outage !== undefined && operation.startsWith(outage))) return yield* failure
      const answer = yield* typeof fault === "function" ? fault(args, run) : run
      if (after > 0) yield* Effect.sleep(after)
      if (fault === "fail after") return yield* failure
      return answer
    })

  const troubled = <S extends object>(name: string, service: S, instead: Partial<S> = {}): S => {
    const members = (Object.entries(service) as ReadonlyArray<[string, unknown]>).map(([member, value]) => {
      const operation = `${name}.${member}`
      if (Effect.isEffect(value)) {
        return [member, meet(operation, [], value as Run)]
      }
      if (typeof value !== "function") return [member, value]
      return [
        member,
        (...args: ReadonlyArray<unknown>) =>
          Effect.suspend(() => meet(operation, args, value(...args) as Run))
      ]
    })
    return { ...(Object.fromEntries(members) as S), ...instead }
  }

  return Context.make(
    Trouble,
    Trouble.of({
      log,
      groups,
      outbox,
      next: (operation, ...next) => faults.set(operation, [...(faults.get(operation) ?? []), ...next]),
      setOutage: (prefix) => {
        outage = prefix
      },
      setPace: (pace) => {
        paceOf = pace
      },
      calls,
      count: (operation) => calls.filter((call) => call.operation === operation).length,
      announce: (grown) => PubSub.publish(changes, grown)
    })
  ).pipe(
    Context.add(EventStore, troubled("EventStore", log, { changes: Stream.fromPubSub(changes) })),
    Context.add(GroupStore, troubled("GroupStore", groups)),
    Context.add(OutboxStore, troubled("OutboxStore", outbox, { batchesAtOnce }))
  )
})

export type TestStores = Trouble | EventStore | GroupStore | OutboxStore | Ids

/** Events may be trimmed at any age, unless a test says otherwise. */
export const layer = ({
  batchesAtOnce = 1,
  ...options
}: Partial<MemoryEventStore.Options> & { readonly batchesAtOnce?: number } = {}): Layer.Layer<TestStores> =>
  Layer.effectContext(make(batchesAtOnce)).pipe(
    Layer.provide(
      Layer.mergeAll(
        MemoryEventStore.layer({ retention: { minAgeMs: 0 }, ...options }),
        MemoryGroupStore.layer,
        MemoryOutboxStore.layer()
      )
    ),
    Layer.provideMerge(RandomIds.layerTest())
  )
