/**
 * The outbox: events that wait in a business database until the drainer has put them into the log.
 *
 * It is a set, never a sequence to read with a cursor: a record is done when somebody says so, however late
 * its transaction was committed. The states of a record and the ways between them are in domain/Outbox.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { EventError, EventRecord, NewEvent } from "../domain/Event.ts"
import type { StateName } from "../domain/Outbox.ts"
import type { Page } from "./Page.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** An event to be. Id and time are made when they are not given; give an id inside anything that is retried. */
export type OutboxEvent = Omit<NewEvent, "id" | "ts"> & Partial<Pick<NewEvent, "id" | "ts">>

/** A claim on one record: the right to finish it, until the lease ends. */
export interface OutboxClaim {
  readonly token: string
  readonly event: EventRecord
  /** This attempt included. */
  readonly attempts: number
  /** When the record was added, by the store's clock. */
  readonly addedAt: number
}

/** How a claim ended that did not lead to an event. */
export interface OutboxFailure {
  readonly claim: OutboxClaim
  readonly error: string
  /** After how many milliseconds to try again, by the store's clock; none: never. */
  readonly retryInMs: number | undefined
}

export interface Settled {
  /** Claims that held, and are done. */
  readonly marked: number
  /** Claims that were lost: nothing was changed for them. */
  readonly lost: ReadonlyArray<OutboxClaim>
}

/** A record as people see it. */
export interface OutboxEntry {
  readonly id: string
  readonly topic: string
  readonly key: string | undefined
  readonly state: StateName
  readonly attempts: number
  readonly addedAt: number
  /** For waiting records: not before this time. */
  readonly notBefore: number | undefined
  readonly worker: string | undefined
  readonly leaseUntil: number | undefined
  readonly lastError: string | undefined
  readonly event: EventRecord
}

export interface OutboxStats {
  /**
   * Records by state; `Pending` includes those that wait for their time. A store that has to count them may stop at
   * some number, and that number then stands for as many or more.
   */
  readonly counts: Readonly<Record<StateName, number>>
  /** When the oldest record was added that is neither sent nor dead. */
  readonly oldestAddedAt: number | undefined
  readonly paused: boolean
}

export class OutboxStore extends Context.Service<
  OutboxStore,
  {
    /**
     * How many batches one worker does well to have under way at once: 1 where a claim costs little, more where each
     * step is a commit, or a way to a server and back, so that some are claimed while others are appended.
     */
    readonly batchesAtOnce: number

    /**
     * Adds an event, and answers its id. Enlists in the surrounding transaction where the backend has one:
     * rolled back, it never happened. The same (topic, id) again changes nothing. Topic and size are checked
     * before anything is written.
     *
     * Records of one (topic, key) are drained in the order of their adding; across transactions that holds
     * when the first commit was answered before the second `add`.
     */
    readonly add: (
      event: OutboxEvent,
      options?: {
        /** Not into the log before this time (milliseconds since 1970). */
        readonly notBefore?: number
      }
    ) => Effect.Effect<string, EventError | StoreUnavailable>

    /**
     * Claims records that are due, oldest first, each counting an attempt. Atomic: a record is claimed by one.
     *
     * Records of one (topic, key) are never held by two workers, and within the batch they stand in their
     * order. One whose predecessor is not done leaves the line (Blocked) until it is; other keys flow past.
     * Costs the same number of round trips at any limit and any backlog. A paused outbox gives nothing.
     */
    readonly claimBatch: (claim: {
      readonly limit: number
      readonly leaseMs: number
      readonly worker: string
      /**
       * The worker has other claims under way, and asks again when they are settled: records behind those may stay as
       * they are, and so may hide what is behind them, instead of being Blocked for so short a time.
       */
      readonly whileHolding?: boolean
    }) => Effect.Effect<ReadonlyArray<OutboxClaim>, StoreUnavailable>

    /** These are in the log. A lease that ran out, but was not taken over, still counts. */
    readonly markSent: (claims: ReadonlyArray<OutboxClaim>) => Effect.Effect<Settled, StoreUnavailable>

    /** These attempts failed; each record waits, or is dead. Its successors stay behind it while it waits. */
    readonly fail: (failures: ReadonlyArray<OutboxFailure>) => Effect.Effect<Settled, StoreUnavailable>

    /**
     * Gives claims back as if they had not been made: the attempts do not count. With `retryInMs` they wait for so
     * long, by the store's clock, and hold up nothing but their own keys meanwhile.
     */
    readonly release: (
      claims: ReadonlyArray<OutboxClaim>,
      options?: { readonly retryInMs: number }
    ) => Effect.Effect<Settled, StoreUnavailable>

    /** Takes back claims whose lease has ended. The attempt counts; after the last one the record is dead. */
    readonly requeueExpired: (by: {
      readonly maxAttempts: number
    }) => Effect.Effect<{ readonly requeued: number; readonly dead: number }, StoreUnavailable>

    readonly stats: Effect.Effect<OutboxStats, StoreUnavailable>

    /** Records, oldest first; one that was redriven is as new as that. Any page costs the same. */
    readonly list: (page: {
      readonly state?: StateName
      readonly after?: string
      readonly limit: number
    }) => Effect.Effect<Page<OutboxEntry>, StoreUnavailable>

    /**
     * Dead records back to work, with all their attempts: these, or all. Answers how many. What is not there, or not
     * dead, is passed over. A dry run only counts.
     */
    readonly redrive: (
      which: "all" | ReadonlyArray<{ readonly topic: string; readonly id: string }>,
      options?: { readonly dryRun?: boolean }
    ) => Effect.Effect<number, StoreUnavailable>

    /**
     * Deletes records that were sent longer ago than this. Answers how many; nothing else is ever deleted. A dry run
     * only counts.
     */
    readonly purge: (sent: {
      readonly olderThanMs: number
      readonly dryRun?: boolean
    }) => Effect.Effect<number, StoreUnavailable>

    /** Stops, or lets go on, claiming by any worker. It is durable. */
    readonly setPaused: (paused: boolean) => Effect.Effect<void, StoreUnavailable>

    /** Somebody may have added. A hint and never the truth. */
    readonly changes: Stream.Stream<void>
  }
>()("event-hub/services/OutboxStore") {}
