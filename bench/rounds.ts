/** What a group's round costs, by how much waits: the group in this process, its member acknowledges at once. */
import { Effect, Layer } from "effect"
import * as Group from "../src/domain/Group.ts"
import * as Settings from "../src/domain/Settings.ts"
import * as Topic from "../src/domain/Topic.ts"
import * as GroupCommitAppender from "../src/layers/core/GroupCommitAppender.ts"
import * as GroupDispatcher from "../src/layers/core/GroupDispatcher.ts"
import * as RandomIds from "../src/layers/core/RandomIds.ts"
import * as SqliteDatabase from "../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteEventStore from "../src/layers/sqlite/SqliteEventStore.ts"
import * as SqliteGroupStore from "../src/layers/sqlite/SqliteGroupStore.ts"
import { GroupDelivery, type Member } from "../src/services/GroupDelivery.ts"
import { GroupStore } from "../src/services/GroupStore.ts"
import { cpuMs } from "./Peer.ts"
import type { Row, Run } from "./Scenario.ts"
import { fillLog, planned, topic, withDirectory } from "./stores.ts"

const group = "g"

/** Notes what is written of groups' states. */
const counting = (saved: (part: string) => void) =>
  Layer.effect(
    SqliteDatabase.SqliteDatabase,
    Effect.map(SqliteDatabase.SqliteDatabase, (db) =>
      SqliteDatabase.SqliteDatabase.of({
        ...db,
        write: (area, command, args) => {
          const part: unknown = Object.getOwnPropertyDescriptor(args, "part")?.value
          if (typeof part === "string") saved(part)
          return db.write(area, command, args)
        }
      })
    )
  )

/** Every `step`th of the first events was refused and waits for longer than this takes; the others are done. */
const stateWith = (waiting: number, step: number): Group.GroupState => {
  const entry = { attempt: 1, unanswered: 0, member: Group.nobody, since: 0, reason: "no", letter: undefined }
  const entries = Array.from({ length: waiting }, (_, i): readonly [number, Group.Waiting] => [
    1 + i * step,
    { ...entry, key: `bad-${i}`, notBefore: Date.now() + 3_600_000 }
  ])
  return {
    ...Group.initial("generation", 0),
    next: 1 + waiting * step,
    waiting: new Map(entries)
  }
}

const measure = (
  path: string,
  state: Group.GroupState,
  credit: number,
  rounds: number
): Promise<Row["figures"]> => {
  let saves = 0
  let bytes = 0
  const program = Effect.gen(function* () {
    const at = { group, topic }
    const groups = yield* GroupStore
    yield* groups.register({
      group,
      pattern: topic,
      wanted: {},
      defaults: Settings.groups,
      history: (yield* SqliteDatabase.SqliteDatabase).history,
      generation: "generation",
      positions: new Map()
    })
    yield* groups.modify(at, () => [undefined, state])
    saves = 0
    bytes = 0
    let acked = 0
    let onDone = () => {}
    const member: Member = yield* (yield* GroupDelivery).join({
      pattern: Effect.runSync(Topic.pattern(topic)),
      group,
      wanted: {},
      from: "start",
      history: undefined,
      credit,
      sink: {
        gap: () => {},
        end: () => {},
        deliver: (events) => {
          const ids = events.map(({ record }) => record.id)
          // Members are sockets: an answer comes with a turn of the event loop.
          setImmediate(() =>
            member.answer({ _tag: "Ack", topic, ids }, () => {
              acked += ids.length
              if (acked >= rounds * credit) onDone()
            })
          )
        }
      }
    })
    const cpu = cpuMs(process.pid)
    const begin = performance.now()
    yield* Effect.callback<void>((resume) => {
      onDone = () => resume(Effect.void)
      member.start()
    }).pipe(Effect.timeout("60 seconds"))
    const seconds = (performance.now() - begin) / 1000
    return {
      "rounds/s": saves / seconds,
      "bytes/round": bytes / saves,
      "CPU µs/round": ((cpuMs(process.pid) - cpu) * 1000) / saves
    }
  })
  const database = counting((part) => {
    saves++
    bytes += part.length
  }).pipe(Layer.provide(SqliteDatabase.layer({ path })))
  const stores = Layer.mergeAll(SqliteEventStore.layer(), SqliteGroupStore.layer).pipe(
    Layer.provideMerge(database),
    Layer.provideMerge(RandomIds.layer)
  )
  const layer = GroupDispatcher.layer().pipe(
    Layer.provide(GroupCommitAppender.layer()),
    Layer.provideMerge(stores)
  )
  return Effect.runPromise(
    Effect.scoped(Effect.flatMap(Layer.build(layer), (context) => Effect.provide(program, context)))
  )
}

export const roundRuns = (credit: number, events: number): ReadonlyArray<Run> => {
  const rounds = Math.ceil(events / 333)
  const [less, more] = [Math.ceil(events / 100), Math.ceil(events / 20)]
  const shown = (n: number) => n.toLocaleString("en")
  const run = (name: string, waiting: number, step: number, behind: number, against?: string): Run => ({
    name,
    ...(against === undefined ? {} : { against: [against] }),
    missing: () => undefined,
    run: () =>
      withDirectory(async (path) => {
        const state = stateWith(waiting, step)
        await fillLog(path, planned(state.next - 1 + behind, "event"))
        return measure(path, state, credit, rounds)
      })
  })
  const few = 2 * rounds * credit
  const none = "rounds, nothing waits"
  return [
    run(none, 0, 1, few),
    run(`rounds, ${shown(less)} wait for a retry`, less, 1, few, none),
    run(`rounds, ${shown(more)} wait for a retry`, more, 1, few, none),
    run(
      `rounds, ${shown(2 * more)} acks out of order, ${shown(10 * events)} events behind`,
      more,
      3,
      10 * events,
      none
    )
  ]
}
