/**
 * What a seek says it means, against what then comes: groups with random lives, however far their keys are behind,
 * are told where to go on, and everything that comes after that is counted.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import type * as Event from "../../../src/domain/Event.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as GroupView from "../../../src/domain/GroupView.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import { seekTopic } from "../../../src/layers/core/groupSeek.ts"
import type { EventStore } from "../../../src/services/EventStore.ts"
import type { SeekTarget } from "../../../src/services/GroupAdmin.ts"
import { record } from "../../../src/testing/eventStore.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

const at = { group: "g", topic: "orders" }

const backoff = { baseMs: 1, maxMs: 1 }

type Step =
  | { readonly _tag: "Claim"; readonly limit: number }
  | { readonly _tag: "Ack" | "Nack" | "Poison" | "Leave"; readonly which: number }
  | { readonly _tag: "List" }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ _tag: fc.constant("Claim" as const), limit: fc.integer({ min: 1, max: 6 }) })
  },
  {
    weight: 5,
    arbitrary: fc.record({
      _tag: fc.constantFrom(
        "Ack" as const,
        "Ack" as const,
        "Nack" as const,
        "Poison" as const,
        "Leave" as const
      ),
      which: fc.nat(9)
    })
  },
  { weight: 1, arbitrary: fc.constant({ _tag: "List" as const }) }
)

const life = fc.record({
  keys: fc.array(fc.constantFrom(undefined, "a", "a", "a", "b"), { minLength: 1, maxLength: 40 }),
  keyOrdered: fc.constantFrom(true, true, false),
  /** A small one, so that most of what is passed over is not listed. */
  window: fc.integer({ min: 2, max: 8 }),
  steps: fc.array(step, { maxLength: 40, size: "max" }),
  target: fc.nat(40),
  more: fc.array(fc.constantFrom(undefined, "a", "b"), { maxLength: 3 })
})

type Life = typeof life extends fc.Arbitrary<infer A> ? A : never

type Keys = ReadonlyArray<string | undefined>

/** Lists what was passed over, as a look at the whole log finds it. */
const listAll = (
  state: Group.GroupState,
  log: ReadonlyArray<Event.StoredRecord>,
  window: number
): Group.GroupState =>
  Group.list(
    state,
    Array.from(Group.unlistedKeys(state), ([key, from]) => ({
      key,
      from,
      to: state.next - 1,
      seqs: log
        .filter((one) => one.key === key && one.seq >= from && one.seq < state.next)
        .map(({ seq }) => seq)
    })),
    window
  )

/** A group that lived: its state, and what it acknowledged. Trimmed events come neither here nor later. */
const live = ({ keyOrdered, steps, window }: Life, log: ReadonlyArray<Event.StoredRecord>) => {
  let state = Group.initial("g1", 0)
  const acknowledged = new Set<number>()
  steps.forEach((one, now) => {
    if (one._tag === "List") state = listAll(state, log, window)
    else if (one._tag === "Claim") {
      state = Group.claim(state, {
        now,
        member: "m",
        limit: one.limit,
        retriesFirst: 1,
        mode: "shared",
        candidates: log.filter(({ seq }) => seq >= state.next),
        options: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered },
        window
      }).state
    } else {
      const held = [...state.inFlight.keys()]
      const seq = held[one.which % held.length]
      if (seq === undefined) return
      const answer = { seq, member: "m" }
      if (one._tag === "Leave") state = Group.leave(state, "m", now)
      else if (one._tag === "Ack") {
        state = Group.ack(state, [answer]).state
        acknowledged.add(seq)
      } else {
        const mode = one._tag === "Poison" ? "poison" : "fail"
        const refusal = { ...answer, mode, reason: "no", random: 0 } as const
        state = Group.nack(state, [refusal], { now, maxAttempts: 3, backoff }).state
        // In the dead letters it is done with, like one that was acknowledged; a few are not there yet.
        if (one.which % 2 === 0) {
          for (const dying of state.dying.keys()) acknowledged.add(dying)
          state = Group.bury(state, state.dying.keys())
        }
      }
    }
  })
  return { state, acknowledged }
}

/** Everything that a group gets, to the end of the log. */
const drain = (start: Group.GroupState, log: ReadonlyArray<Event.StoredRecord>): ReadonlySet<number> => {
  const seen = new Set<number>()
  let state = start
  for (let now = 10_000; ; now++) {
    const claimed = Group.claim(state, {
      now,
      member: "other",
      limit: 5,
      retriesFirst: 5,
      mode: "shared",
      candidates: log.filter(({ seq }) => seq >= state.next),
      options: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: false },
      window: 100
    })
    if (claimed.deliveries.length === 0) return seen
    for (const { seq } of claimed.deliveries) seen.add(seq)
    state = Group.ack(
      claimed.state,
      claimed.deliveries.map(({ seq }) => ({ seq, member: "other" }))
    ).state
  }
}

const recordsOf = (keys: Keys, from: number) =>
  keys.map((key, i) => record(at.topic, `e${from + i}`, 1, key === undefined ? {} : { key }))

const prepare = (state: Group.GroupState, keys: Keys) =>
  Effect.gen(function* () {
    const trouble = yield* Trouble
    yield* trouble.groups.register({
      group: at.group,
      pattern: at.topic,
      wanted: {},
      defaults: Settings.groups,
      history: "h",
      generation: "g1",
      positions: new Map()
    })
    yield* trouble.log.append(recordsOf(keys, 1))
    yield* trouble.groups.modify(at, () => [undefined, state])
    return trouble
  })

const seek = ({ groups, log }: Trouble["Service"], to: SeekTarget, dryRun = false) =>
  seekTopic(log, groups, { ...at, to, dryRun, newGeneration: () => "g2" })

const run = <A, E>(effect: Effect.Effect<A, E, TestStores.TestStores>): Promise<A> =>
  effect.pipe(Effect.provide(TestStores.layer()), Effect.provide(TestClock.layer()), Effect.runPromise)

/** The log of a life without a store. */
const logOf = (keys: Keys): ReadonlyArray<Event.StoredRecord> =>
  recordsOf(keys, 1).map((one, i) => ({ ...one, seq: i + 1, storedAt: 0 }))

describe("a seek", () => {
  it("says what comes again and what never comes, dry or not, and so it is", () =>
    fc.assert(
      fc.asyncProperty(life, (given) => {
        const { acknowledged, state } = live(given, logOf(given.keys))
        const to = { seq: given.target % (given.keys.length + 1) }
        return run(
          Effect.gen(function* () {
            const trouble = yield* prepare(state, given.keys)
            yield* trouble.log.append(recordsOf(given.more, given.keys.length + 1))
            const log = yield* trouble.log.read({ topic: at.topic, after: 0, limit: 100 })
            const dry = yield* seek(trouble, to, true)
            expect(yield* trouble.groups.read(at)).toBe(state)
            const sought = yield* seek(trouble, to)
            expect(sought).toEqual(dry)
            const after = (yield* trouble.groups.read(at))!
            const comes = drain(after, log)
            const open = log.map(({ seq }) => seq).filter((seq) => !acknowledged.has(seq))
            expect({ ...sought, generation: after.generation }).toEqual({
              topic: at.topic,
              from: state.floor,
              to: to.seq,
              again: [...comes].filter((seq) => acknowledged.has(seq)).length,
              skipped: open.filter((seq) => !comes.has(seq)).length,
              generation: "g2"
            })
          })
        )
      }),
      { numRuns: 400 }
    ))

  it("lets lives through that have events which are passed over and not listed", () => {
    const some = fc.sample(life, { numRuns: 500, seed: 1 }).filter((given) => {
      const { state } = live(given, logOf(given.keys))
      return GroupView.unlistedUpTo(state, given.target % (given.keys.length + 1)) !== undefined
    })
    expect(some.length).toBeGreaterThan(20)
  })

  it("counts nothing that was trimmed, since that comes in no case", () =>
    fc.assert(
      fc.asyncProperty(life, fc.nat(40), (given, trim) => {
        const keys = given.keys
        const { acknowledged, state } = live({ ...given, keyOrdered: false }, logOf(keys))
        const to = { seq: given.target % (keys.length + 1) }
        return run(
          Effect.gen(function* () {
            const trouble = yield* prepare(state, keys)
            const floor = yield* trouble.log.trim({ topic: at.topic, upTo: trim })
            const log = yield* trouble.log.read({ topic: at.topic, after: 0, limit: 100 })
            const sought = yield* seek(trouble, to)
            const comes = drain((yield* trouble.groups.read(at))!, log)
            const open = log.map(({ seq }) => seq).filter((seq) => !acknowledged.has(seq))
            expect(sought).toEqual({
              topic: at.topic,
              from: state.floor,
              to: Math.max(floor, to.seq),
              again: [...comes].filter((seq) => acknowledged.has(seq)).length,
              skipped: open.filter((seq) => !comes.has(seq)).length
            })
          })
        )
      }),
      { numRuns: 100 }
    ))
})

/** Key `a` is busy from seq 1 on; `from` on, nothing of it is listed. */
const behind = (from: number, next: number): Group.GroupState => ({
  ...Group.initial("g1", 0),
  next,
  inFlight: new Map([
    [
      1,
      {
        attempt: 1,
        unanswered: 0,
        member: "m",
        key: "a",
        since: 0,
        reason: "",
        letter: undefined,
        deadline: 9
      }
    ]
  ]),
  deferred: new Map([["a", { seqs: [], from, unlisted: next - from }]])
})

describe("a seek on a group at work", () => {
  const keys = Array.from({ length: 3_000 }, () => "a")

  it.effect("reads the log only as far as it has to, in pages", () =>
    Effect.gen(function* () {
      const trouble = yield* prepare(behind(500, 3_001), keys)
      const read: Array<number> = []
      const store: EventStore["Service"] = {
        ...trouble.log,
        read: (range) => {
          read.push(range.limit)
          return trouble.log.read(range)
        }
      }
      const request = { ...at, dryRun: true, newGeneration: () => "g2" }
      const before = yield* seekTopic(store, trouble.groups, { ...request, to: { seq: 100 } })
      expect([before, read.length]).toMatchObject([{ again: 399, skipped: 1 }, 0])
      const within = yield* seekTopic(store, trouble.groups, { ...request, to: { seq: 2_000 } })
      expect(within).toMatchObject({ again: 0, skipped: 1 + 1_501 })
      expect(read).toEqual([1_000, 1_000])
      const behindAll = yield* seekTopic(store, trouble.groups, { ...request, to: { seq: 3_000 } })
      expect(behindAll).toMatchObject({ again: 0, skipped: 1 + 2_501 })
      expect(read.length).toBe(2)
    }).pipe(Effect.provide(TestStores.layer()))
  )

  it.effect("counts again when the group has gone on meanwhile", () =>
    Effect.gen(function* () {
      const trouble = yield* prepare(behind(500, 3_001), keys)
      let looks = 0
      const store: EventStore["Service"] = {
        ...trouble.log,
        read: (range) =>
          Effect.gen(function* () {
            if (++looks === 2)
              yield* Effect.orDie(trouble.groups.modify(at, () => [undefined, behind(600, 3_001)]))
            return yield* trouble.log.read(range)
          })
      }
      const sought = yield* seekTopic(store, trouble.groups, {
        ...at,
        to: { seq: 2_000 },
        dryRun: false,
        newGeneration: () => "g2"
      })
      expect(sought).toMatchObject({ from: 0, to: 2_000, again: 0, skipped: 1 + 1_401 })
      expect(looks).toBe(4)
    }).pipe(Effect.provide(TestStores.layer()))
  )

  it.effect("says so when the group never holds still", () =>
    Effect.gen(function* () {
      const trouble = yield* prepare(behind(500, 3_001), keys)
      let from = 500
      const store: EventStore["Service"] = {
        ...trouble.log,
        read: (range) =>
          Effect.gen(function* () {
            yield* Effect.orDie(trouble.groups.modify(at, () => [undefined, behind(++from, 3_001)]))
            return yield* trouble.log.read(range)
          })
      }
      const request = { ...at, to: { seq: 2_000 }, dryRun: false, newGeneration: () => "g2" }
      const error = yield* Effect.flip(seekTopic(store, trouble.groups, request))
      expect(error).toMatchObject({ _tag: "GroupBusy", message: expect.stringMatching(/pause it/) as string })
      expect((yield* trouble.groups.read(at))?.generation).toBe("g1")
    }).pipe(Effect.provide(TestStores.layer()))
  )

  it.effect("from behind the end of the log counts only what there is", () =>
    Effect.gen(function* () {
      const trouble = yield* prepare(Group.initial("g1", 50), keys.slice(0, 20))
      expect(yield* seek(trouble, { seq: 5 }, true)).toEqual({
        topic: at.topic,
        from: 50,
        to: 5,
        again: 15,
        skipped: 0
      })
      expect(yield* seek(trouble, "end")).toMatchObject({ from: 50, to: 20, again: 0, skipped: 0 })
      expect(yield* trouble.groups.read(at)).toMatchObject({ floor: 20, next: 21 })
    }).pipe(Effect.provide(TestStores.layer()))
  )
})
