/** What SqliteGroupStore writes: changes, whose size follows from what happened, and now and then the whole. */
import { expect, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Group from "../../../src/domain/Group.ts"
import { encodeState } from "../../../src/domain/GroupEncoding.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import { SqliteDatabase } from "../../../src/layers/sqlite/SqliteDatabase.ts"
import * as SqliteGroupStore from "../../../src/layers/sqlite/SqliteGroupStore.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { database } from "./temporary.ts"

const at = { group: "g", topic: "t" }
const waiting = 2_000

/** All of them were refused, each for a reason of its own. */
const refused = (): Group.GroupState => {
  const { state } = Group.claim(Group.initial("g", 0), {
    now: 0,
    member: "m",
    limit: waiting,
    retriesFirst: 0,
    mode: "shared",
    candidates: Array.from({ length: waiting }, (_, i) => ({ seq: i + 1, key: `key ${i % 100}` })),
    options: Settings.groups,
    window: 10_000
  })
  const refusals = Array.from({ length: waiting }, (_, i) => ({
    seq: i + 1,
    member: "m",
    mode: "fail" as const,
    reason: `no ${i}`,
    random: 0.5
  }))
  return Group.nack(state, refusals, { now: 1, maxAttempts: 10, backoff: Settings.groups.backoff }).state
}

const next = (state: Group.GroupState, seq: number): Group.GroupState => {
  const claimed = Group.claim(state, {
    now: 0,
    member: "m",
    limit: 1,
    retriesFirst: 0,
    mode: "shared",
    candidates: [{ seq, key: undefined }],
    options: Settings.groups,
    window: 10_000
  })
  return Group.ack(claimed.state, [{ seq, member: "m" }]).state
}

it.effect("a change costs what changed, however much waits, and a new life of the store reads the same", () =>
  Effect.gen(function* () {
    const db = yield* SqliteDatabase
    const open = Layer.build(Layer.fresh(SqliteGroupStore.layer)).pipe(
      Effect.provideService(SqliteDatabase, db),
      Effect.flatMap((context) => Effect.provide(GroupStore, context))
    )
    const parts = db.read("parts", (statements) =>
      statements.all<{ readonly part: string }>("parts", at.group, at.topic).map(({ part }) => part.length)
    )
    const first = yield* open
    yield* first.register({
      group: "g",
      pattern: "t",
      wanted: {},
      defaults: Settings.groups,
      history: "h",
      generation: "g",
      positions: new Map()
    })
    yield* first.modify(at, () => [undefined, refused()])
    let expected = (yield* first.read(at))!
    const whole = encodeState(expected).length
    expect(whole).toBeGreaterThan(80_000)

    const longest = { changes: 0, all: 0, wholes: 0 }
    let before = (yield* parts).length
    for (let n = 1; n <= 1_200; n++) {
      yield* first.modify(at, (state) => [undefined, next(state!, waiting + n)])
      expected = next(expected, waiting + n)
      if (n % 10 !== 0) continue
      const lengths = yield* parts
      if (lengths.length < before) longest.wholes++
      before = lengths.length
      longest.changes = Math.max(longest.changes, ...lengths.slice(1))
      longest.all = Math.max(
        longest.all,
        lengths.reduce((sum, length) => sum + length, 0)
      )
    }
    expect(longest.changes).toBeLessThan(500)
    expect(longest.wholes).toBeGreaterThan(0)
    expect(longest.all).toBeLessThan(2 * whole + 1_000)

    const second = yield* open
    expect(yield* second.read(at)).toEqual(expected)
    expect(yield* second.modify(at, (state) => [state, state!])).toEqual(expected)
    yield* second.remove("g")
    expect(yield* parts).toEqual([])
  }).pipe(Effect.provide(database("inline")))
)
