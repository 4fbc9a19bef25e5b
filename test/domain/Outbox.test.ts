/**
 * The life of an outbox record: every transition from every state, what each of them changes, and random
 * lives against a model that remembers nothing but what happened.
 */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import fc from "fast-check"
import * as Outbox from "../../src/domain/Outbox.ts"

const now = 1_000
const lease = { token: "t", worker: "w", leaseMs: 100, now }

const fresh = (notBefore?: number) =>
  Outbox.initial({
    id: "e1",
    topic: "orders.eu",
    key: "k",
    ...(notBefore === undefined ? {} : { notBefore })
  })

const succeed = <E>(result: Result.Result<Outbox.OutboxRecord, E>): Outbox.OutboxRecord =>
  Result.getOrThrow(result)

const errorOf = <E>(result: Result.Result<Outbox.OutboxRecord, E>): E =>
  Result.getOrThrow(Result.flip(result))

const claimed = succeed(Outbox.claimResult(fresh(), lease))
const failed = { token: "t", error: "no", now }
const dead = succeed(Outbox.failResult(claimed, { ...failed, retryInMs: undefined }))

const records = {
  due: fresh(),
  waiting: fresh(now + 1),
  blocked: succeed(Outbox.blockResult(fresh())),
  held: claimed,
  expired: succeed(Outbox.claimResult(fresh(), { ...lease, now: now - 100 })),
  sent: succeed(Outbox.markSentResult(claimed, { token: "t", now })),
  dead
}

interface Refused {
  readonly _tag: string
  readonly id: string
}

/** Each transition as a Result and as an Effect. */
const pair = <A, E extends Refused>(
  result: (record: Outbox.OutboxRecord, argument: A) => Result.Result<Outbox.OutboxRecord, E>,
  effect: (record: Outbox.OutboxRecord, argument: A) => Effect.Effect<Outbox.OutboxRecord, E>,
  argument: A
) => ({
  result: (record: Outbox.OutboxRecord): Result.Result<Outbox.OutboxRecord, Refused> =>
    result(record, argument),
  effect: (record: Outbox.OutboxRecord): Effect.Effect<Outbox.OutboxRecord, Refused> =>
    effect(record, argument)
})

const retry = { ...failed, retryInMs: 50 }
const giveUp = { ...failed, retryInMs: undefined }

const transitions = {
  claim: pair(Outbox.claimResult, Outbox.claim, lease),
  markSent: pair(Outbox.markSentResult, Outbox.markSent, { token: "t", now }),
  "markSent, another's": pair(Outbox.markSentResult, Outbox.markSent, { token: "u", now }),
  "fail, more to come": pair(Outbox.failResult, Outbox.fail, retry),
  "fail, the last": pair(Outbox.failResult, Outbox.fail, giveUp),
  "fail, another's": pair(Outbox.failResult, Outbox.fail, { ...retry, token: "u" }),
  release: pair(Outbox.releaseResult, Outbox.release, { token: "t" }),
  "release, another's": pair(Outbox.releaseResult, Outbox.release, { token: "u" }),
  "expire, more to come": pair(Outbox.expireResult, Outbox.expire, { now, maxAttempts: 2 }),
  "expire, the last": pair(Outbox.expireResult, Outbox.expire, { now, maxAttempts: 1 }),
  block: pair(Outbox.blockResult, Outbox.block, undefined),
  unblock: pair(Outbox.unblockResult, Outbox.unblock, undefined),
  redrive: pair(Outbox.redriveResult, Outbox.redrive, undefined)
}

/** What each transition leads to, in the order of `records`: a state, or an error. */
const table: Readonly<Record<keyof typeof transitions, string>> = {
  claim: "                Claimed    NotPending NotPending NotPending NotPending NotPending NotPending",
  markSent: "             NotClaimed NotClaimed NotClaimed Sent       Sent       NotClaimed NotClaimed",
  "markSent, another's": "NotClaimed NotClaimed NotClaimed LeaseLost  LeaseLost  NotClaimed NotClaimed",
  "fail, more to come": " NotClaimed NotClaimed NotClaimed Pending    Pending    NotClaimed NotClaimed",
  "fail, the last": "     NotClaimed NotClaimed NotClaimed Dead       Dead       NotClaimed NotClaimed",
  "fail, another's": "    NotClaimed NotClaimed NotClaimed LeaseLost  LeaseLost  NotClaimed NotClaimed",
  release: "              NotClaimed NotClaimed NotClaimed Pending    Pending    NotClaimed NotClaimed",
  "release, another's": " NotClaimed NotClaimed NotClaimed LeaseLost  LeaseLost  NotClaimed NotClaimed",
  "expire, more to come": "NotClaimed NotClaimed NotClaimed NotExpired Pending   NotClaimed NotClaimed",
  "expire, the last": "   NotClaimed NotClaimed NotClaimed NotExpired Dead       NotClaimed NotClaimed",
  block: "                Blocked    Blocked    NotPending NotPending NotPending NotPending NotPending",
  unblock: "              NotBlocked NotBlocked Pending    NotBlocked NotBlocked NotBlocked NotBlocked",
  redrive: "              NotDead    NotDead    NotDead    NotDead    NotDead    NotDead    Pending"
}

const cases = Object.entries(table).flatMap(([transition, row]) =>
  row
    .trim()
    .split(/ +/)
    .map((expected, i) => ({
      transition: transition as keyof typeof transitions,
      name: Object.keys(records)[i] as keyof typeof records,
      expected
    }))
)

describe("transitions", () => {
  it.effect.each(cases)(
    "$transition of a record that is $name: $expected",
    ({ expected, name, transition }) =>
      Effect.gen(function* () {
        const record = records[name]
        const { effect, result } = transitions[transition]
        const outcome = result(record)
        expect(yield* Effect.result(effect(record))).toEqual(outcome)
        if (Result.isFailure(outcome)) {
          expect(outcome.failure).toMatchObject({ _tag: expected, id: "e1" })
        } else {
          const { id, key, state, topic } = outcome.success
          expect({ id, key, topic }).toEqual({ id: "e1", key: "k", topic: "orders.eu" })
          expect(state._tag).toBe(expected)
        }
      })
  )

  it("has a row for every state and transition", () => {
    expect(cases.length).toBe(Object.keys(transitions).length * Object.keys(records).length)
  })
})

describe("claim", () => {
  it("counts the attempt when it begins, and holds as long as the lease", () => {
    expect(claimed).toMatchObject({
      attempts: 1,
      state: { _tag: "Claimed", token: "t", worker: "w", leaseUntil: 1_100 }
    })
  })

  it("takes a record from its time on, not before", () => {
    expect(errorOf(Outbox.claimResult(fresh(now + 1), lease))).toMatchObject({ state: "waiting" })
    expect(Result.isSuccess(Outbox.claimResult(fresh(now), lease))).toBe(true)
  })
})

describe("markSent", () => {
  it("counts after the lease, as long as nobody took over", () => {
    const sent = Outbox.markSentResult(claimed, { token: "t", now: 9_999 })
    expect(succeed(sent)).toMatchObject({ attempts: 1, state: { _tag: "Sent", at: 9_999 } })
    const retaken = succeed(
      Outbox.claimResult(succeed(Outbox.expireResult(claimed, { now: 1_100, maxAttempts: 9 })), {
        ...lease,
        token: "t2",
        now: 1_100
      })
    )
    expect(errorOf(Outbox.markSentResult(retaken, { token: "t", now: 1_101 }))._tag).toBe("LeaseLost")
  })
})

describe("fail", () => {
  it("waits before the next attempt, and remembers what went wrong", () => {
    expect(succeed(Outbox.failResult(claimed, retry))).toMatchObject({
      attempts: 1,
      lastError: "no",
      state: { _tag: "Pending", notBefore: 1_050 }
    })
  })

  it("gives up when there is no next attempt", () => {
    expect(dead).toMatchObject({ attempts: 1, lastError: "no", state: { _tag: "Dead", at: now } })
  })
})

describe("release", () => {
  it("leaves the record as if it had never been claimed", () => {
    expect(succeed(Outbox.releaseResult(claimed, { token: "t" }))).toEqual(fresh())
  })
})

describe("expire", () => {
  it("takes a record back when its lease has run out, not before, and the attempt counts", () => {
    expect(errorOf(Outbox.expireResult(claimed, { now: 1_099, maxAttempts: 2 }))._tag).toBe("NotExpired")
    expect(succeed(Outbox.expireResult(claimed, { now: 1_100, maxAttempts: 2 }))).toMatchObject({
      attempts: 1,
      lastError: "the lease ran out",
      state: { _tag: "Pending", notBefore: undefined }
    })
  })

  it("gives up a record whose last attempt was never heard of again", () => {
    const { state } = succeed(Outbox.expireResult(claimed, { now: 1_200, maxAttempts: 1 }))
    expect(state).toEqual({ _tag: "Dead", at: 1_200 })
  })
})

describe("block", () => {
  it("keeps the time before which the record must not go", () => {
    const unblocked = succeed(Outbox.unblockResult(succeed(Outbox.blockResult(fresh(now + 1)))))
    expect(unblocked).toEqual(fresh(now + 1))
    expect(Result.isFailure(Outbox.claimResult(unblocked, lease))).toBe(true)
  })
})

describe("redrive", () => {
  it("gives all attempts back, and still knows what went wrong", () => {
    expect(succeed(Outbox.redriveResult(dead))).toEqual({ ...fresh(), lastError: "no" })
  })
})

describe("errors", () => {
  it("say what the record is instead", () => {
    const { blocked, due, held, sent } = records
    expect(errorOf(Outbox.claimResult(sent, lease)).message).toBe(
      "outbox record 'e1' cannot be claimed: it is Sent"
    )
    expect(errorOf(Outbox.releaseResult(due, { token: "t" })).message).toBe(
      "outbox record 'e1' is not claimed: it is Pending"
    )
    expect(errorOf(Outbox.releaseResult(held, { token: "u" })).message).toBe(
      "the claim on outbox record 'e1' is lost"
    )
    expect(errorOf(Outbox.expireResult(held, { now, maxAttempts: 1 })).message).toBe(
      "the claim on outbox record 'e1' has not run out"
    )
    expect(errorOf(Outbox.unblockResult(due)).message).toBe(
      "outbox record 'e1' is not blocked: it is Pending"
    )
    expect(errorOf(Outbox.redriveResult(blocked)).message).toBe(
      "outbox record 'e1' is not dead: it is Blocked"
    )
  })
})

// --- random lives --------------------------------------------------------------------------------------------

const maxAttempts = 3

const token = fc.constantFrom("t1", "t2", "t3")

const command = fc.oneof(
  fc.record({ do: fc.constant("claim" as const), token }),
  fc.record({ do: fc.constant("markSent" as const), token }),
  fc.record({ do: fc.constant("fail" as const), token, retryInMs: fc.constantFrom(0, 10, 50, undefined) }),
  fc.record({ do: fc.constant("release" as const), token }),
  fc.record({
    do: fc.constantFrom("expire" as const, "block" as const, "unblock" as const, "redrive" as const)
  })
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never

const life = fc.record({
  notBefore: fc.option(fc.integer({ min: 0, max: 60 }), { nil: undefined }),
  events: fc.array(fc.record({ command, after: fc.constantFrom(0, 5, 20, 50) }), {
    maxLength: 40,
    size: "max"
  })
})

type Happened = { readonly now: number; readonly command: Command }

/** Where a record is, from the last thing that happened to it. */
const whereabouts = (past: ReadonlyArray<Happened>, notBefore: number | undefined): Outbox.OutboxState => {
  const last = past.at(-1)
  if (last === undefined) return { _tag: "Pending", notBefore }
  const { command, now } = last
  const earlier = past.slice(0, -1)
  switch (command.do) {
    case "claim":
      return { _tag: "Claimed", token: command.token, worker: command.token, leaseUntil: now + 30 }
    case "markSent":
      return { _tag: "Sent", at: now }
    case "fail":
      return command.retryInMs === undefined
        ? { _tag: "Dead", at: now }
        : { _tag: "Pending", notBefore: now + command.retryInMs }
    case "expire":
      return attemptsIn(past) < maxAttempts
        ? { _tag: "Pending", notBefore: undefined }
        : { _tag: "Dead", at: now }
    case "block": {
      const before = whereabouts(earlier, notBefore)
      return { _tag: "Blocked", notBefore: before._tag === "Pending" ? before.notBefore : undefined }
    }
    case "unblock":
      return whereabouts(earlier.slice(0, -1), notBefore)
    case "release":
    case "redrive":
      return { _tag: "Pending", notBefore: undefined }
  }
}

const attemptsIn = (past: ReadonlyArray<Happened>): number => {
  const counting = past.slice(past.findLastIndex(({ command }) => command.do === "redrive") + 1)
  const count = (name: Command["do"]) => counting.filter(({ command }) => command.do === name).length
  return count("claim") - count("release")
}

/** The error that keeps the command from happening, if there is one. */
const refusal = (state: Outbox.OutboxState, { command, now }: Happened): string | undefined => {
  switch (command.do) {
    case "claim":
      return state._tag === "Pending" && (state.notBefore ?? 0) <= now ? undefined : "NotPending"
    case "block":
      return state._tag === "Pending" ? undefined : "NotPending"
    case "unblock":
      return state._tag === "Blocked" ? undefined : "NotBlocked"
    case "redrive":
      return state._tag === "Dead" ? undefined : "NotDead"
    case "expire":
      if (state._tag !== "Claimed") return "NotClaimed"
      return state.leaseUntil <= now ? undefined : "NotExpired"
    default:
      if (state._tag !== "Claimed") return "NotClaimed"
      return state.token === command.token ? undefined : "LeaseLost"
  }
}

const carryOut = (record: Outbox.OutboxRecord, { command, now }: Happened) => {
  switch (command.do) {
    case "claim":
      return Outbox.claimResult(record, { token: command.token, worker: command.token, leaseMs: 30, now })
    case "markSent":
      return Outbox.markSentResult(record, { token: command.token, now })
    case "fail":
      return Outbox.failResult(record, { ...command, error: "no", now })
    case "release":
      return Outbox.releaseResult(record, command)
    case "expire":
      return Outbox.expireResult(record, { now, maxAttempts })
    case "block":
      return Outbox.blockResult(record)
    case "unblock":
      return Outbox.unblockResult(record)
    case "redrive":
      return Outbox.redriveResult(record)
  }
}

describe("any life of a record", () => {
  it("is what its past says", () => {
    fc.assert(
      fc.property(life, ({ events, notBefore }) => {
        const past: Array<Happened> = []
        let record = fresh(notBefore)
        let time = 0
        for (const { after, command } of events) {
          time += after
          const happened = { command, now: time }
          const outcome: Result.Result<Outbox.OutboxRecord, { readonly _tag: string }> = carryOut(
            record,
            happened
          )
          const error = Result.isFailure(outcome) ? outcome.failure._tag : undefined
          expect(error).toBe(refusal(whereabouts(past, notBefore), happened))
          if (Result.isFailure(outcome)) continue
          past.push(happened)
          record = outcome.success
          expect(record.state).toEqual(whereabouts(past, notBefore))
          expect(record.attempts).toBe(attemptsIn(past))
          const wrong = past.findLast(({ command: { do: name } }) => name === "fail" || name === "expire")
          const known = wrong?.command.do === "expire" ? Outbox.leaseExpired : "no"
          expect(record.lastError).toBe(wrong === undefined ? undefined : known)
        }
      }),
      { numRuns: 1_000 }
    )
  })
})
