/**
 * The life of an outbox record, as states and the only ways between them.
 *
 *   Pending ──claim──▶ Claimed ──markSent──▶ Sent
 *    ▲  │ ▲               │ │
 *    │  │ └─release, fail─┘ └──fail, expire──▶ Dead ──redrive──▶ Pending
 *    │  └─block─▶ Blocked
 *    └───unblock────┘
 *
 * A claim is a token. Whoever comes with another token has lost its lease, and changes nothing. An attempt is
 * counted when it begins, so that one that takes its process down counts, too.
 *
 * Every transition is there twice: `claim` is an Effect, `claimResult` the same as a plain Result.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

export type OutboxState =
  /** Waits for a worker, from `notBefore` on when there is one. */
  | { readonly _tag: "Pending"; readonly notBefore: number | undefined }
  /** Waits for an earlier record of its key, and for its own time after that. */
  | { readonly _tag: "Blocked"; readonly notBefore: number | undefined }
  | { readonly _tag: "Claimed"; readonly token: string; readonly worker: string; readonly leaseUntil: number }
  | { readonly _tag: "Sent"; readonly at: number }
  /** Given up: nobody takes it again until a person redrives it. */
  | { readonly _tag: "Dead"; readonly at: number }

export type StateName = OutboxState["_tag"]

/** What the transitions are about. Stores know more of a record: its event, its place in the order. */
export interface OutboxRecord {
  readonly id: string
  readonly topic: string
  readonly key: string | undefined
  /** Attempts that have begun, a running one included. */
  readonly attempts: number
  readonly lastError: string | undefined
  readonly state: OutboxState
}

/** Somebody else holds the record by now, or has finished it. */
export class LeaseLost extends Schema.TaggedError<LeaseLost>()("LeaseLost", { id: Schema.String }) {
  override get message() {
    return `the claim on outbox record '${this.id}' is lost`
  }
}

const illegal = { id: Schema.String, state: Schema.String }

export class NotPending extends Schema.TaggedError<NotPending>()("NotPending", illegal) {
  override get message() {
    return `outbox record '${this.id}' cannot be claimed: it is ${this.state}`
  }
}

export class NotClaimed extends Schema.TaggedError<NotClaimed>()("NotClaimed", illegal) {
  override get message() {
    return `outbox record '${this.id}' is not claimed: it is ${this.state}`
  }
}

/** The worker still has time. */
export class NotExpired extends Schema.TaggedError<NotExpired>()("NotExpired", { id: Schema.String }) {
  override get message() {
    return `the claim on outbox record '${this.id}' has not run out`
  }
}

export class NotBlocked extends Schema.TaggedError<NotBlocked>()("NotBlocked", illegal) {
  override get message() {
    return `outbox record '${this.id}' is not blocked: it is ${this.state}`
  }
}

export class NotDead extends Schema.TaggedError<NotDead>()("NotDead", illegal) {
  override get message() {
    return `outbox record '${this.id}' is not dead: it is ${this.state}`
  }
}

type Transition<E> = Result.Result<OutboxRecord, E>

const to = (record: OutboxRecord, change: Partial<OutboxRecord>): Result.Result<OutboxRecord> =>
  Result.succeed({ ...record, ...change })

const pending = (notBefore?: number): OutboxState => ({ _tag: "Pending", notBefore })

/** A record as it is added. */
export const initial = (record: {
  readonly id: string
  readonly topic: string
  readonly key: string | undefined
  readonly notBefore?: number | undefined
}): OutboxRecord => ({
  id: record.id,
  topic: record.topic,
  key: record.key,
  attempts: 0,
  lastError: undefined,
  state: pending(record.notBefore)
})

export interface Lease {
  readonly token: string
  readonly worker: string
  readonly leaseMs: number
  readonly now: number
}

/** Takes a record that is due. The attempt counts from here on. */
export const claimResult = (record: OutboxRecord, lease: Lease): Transition<NotPending> => {
  const { state } = record
  if (state._tag !== "Pending") return Result.fail(new NotPending({ id: record.id, state: state._tag }))
  if (state.notBefore !== undefined && state.notBefore > lease.now) {
    return Result.fail(new NotPending({ id: record.id, state: "waiting" }))
  }
  return to(record, {
    attempts: record.attempts + 1,
    state: {
      _tag: "Claimed",
      token: lease.token,
      worker: lease.worker,
      leaseUntil: lease.now + lease.leaseMs
    }
  })
}

const held = <A>(
  record: OutboxRecord,
  token: string,
  next: () => Result.Result<OutboxRecord, A>
): Transition<A | LeaseLost | NotClaimed> => {
  const { state } = record
  if (state._tag !== "Claimed") return Result.fail(new NotClaimed({ id: record.id, state: state._tag }))
  return state.token === token ? next() : Result.fail(new LeaseLost({ id: record.id }))
}

/** It is in the log. A lease that ran out but was not taken over still counts: the work is done. */
export const markSentResult = (
  record: OutboxRecord,
  by: { readonly token: string; readonly now: number }
): Transition<LeaseLost | NotClaimed> =>
  held(record, by.token, () => to(record, { state: { _tag: "Sent", at: by.now } }))

/**
 * The attempt failed. `retryInMs` says when to try again, and is missing after the last attempt: see
 * `Retry.afterFailure`, which the worker asks.
 */
export const failResult = (
  record: OutboxRecord,
  by: {
    readonly token: string
    readonly error: string
    readonly retryInMs: number | undefined
    readonly now: number
  }
): Transition<LeaseLost | NotClaimed> =>
  held(record, by.token, () =>
    to(record, {
      lastError: by.error,
      state: by.retryInMs === undefined ? { _tag: "Dead", at: by.now } : pending(by.now + by.retryInMs)
    })
  )

/** Gives the record back as if it had not been claimed: the attempt does not count. It may have to wait. */
export const releaseResult = (
  record: OutboxRecord,
  by: { readonly token: string; readonly notBefore?: number | undefined }
): Transition<LeaseLost | NotClaimed> =>
  held(record, by.token, () => to(record, { attempts: record.attempts - 1, state: pending(by.notBefore) }))

/** The lease ran out without a word. The attempt counts; after the last one the record is given up. */
export const expireResult = (
  record: OutboxRecord,
  by: { readonly now: number; readonly maxAttempts: number }
): Transition<NotClaimed | NotExpired> => {
  const { state } = record
  if (state._tag !== "Claimed") return Result.fail(new NotClaimed({ id: record.id, state: state._tag }))
  if (state.leaseUntil > by.now) return Result.fail(new NotExpired({ id: record.id }))
  return to(record, {
    lastError: leaseExpired,
    state: record.attempts >= by.maxAttempts ? { _tag: "Dead", at: by.now } : pending()
  })
}

/** The `lastError` of a record whose worker was never heard of again. */
export const leaseExpired = "the lease ran out"

/** An earlier record of its key is not done: it leaves the line until that one is. */
export const blockResult = (record: OutboxRecord): Transition<NotPending> =>
  record.state._tag === "Pending"
    ? to(record, { state: { _tag: "Blocked", notBefore: record.state.notBefore } })
    : Result.fail(new NotPending({ id: record.id, state: record.state._tag }))

export const unblockResult = (record: OutboxRecord): Transition<NotBlocked> =>
  record.state._tag === "Blocked"
    ? to(record, { state: pending(record.state.notBefore) })
    : Result.fail(new NotBlocked({ id: record.id, state: record.state._tag }))

/** Back to work, with all its attempts again. Its old place in the order of its key is gone. */
export const redriveResult = (record: OutboxRecord): Transition<NotDead> =>
  record.state._tag === "Dead"
    ? to(record, { attempts: 0, state: pending() })
    : Result.fail(new NotDead({ id: record.id, state: record.state._tag }))

const effect =
  <Args extends ReadonlyArray<unknown>, E>(transition: (...args: Args) => Transition<E>) =>
  (...args: Args): Effect.Effect<OutboxRecord, E> =>
    Effect.fromResult(transition(...args))

export const claim = effect(claimResult)
export const markSent = effect(markSentResult)
export const fail = effect(failResult)
export const release = effect(releaseResult)
export const expire = effect(expireResult)
export const block = effect(blockResult)
export const unblock = effect(unblockResult)
export const redrive = effect(redriveResult)
