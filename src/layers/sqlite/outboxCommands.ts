/**
 * Writes to the outbox. They run in the writer's transaction, which excludes those of applications.
 *
 * Records of one (topic, key) form a line. What is claimed of a line is claimed by one worker, in order; what
 * stands behind a record that is not done leaves the ready index as `blocked`, so that it is met once and not
 * by every claim. Whoever finishes a record of a line lets the next ones back in.
 */
import type { EventRecord } from "../../domain/Event.ts"
import type { StateName } from "../../domain/Outbox.ts"
import type { OutboxEntry, OutboxStats } from "../../services/OutboxStore.ts"
import { packRecords, type PackedRecords } from "./packedAppend.ts"
import type { Statements } from "./statements.ts"

export type RecordState = "pending" | "waiting" | "blocked" | "claimed" | "sent" | "dead"

/** Names a claim: enough to find its record, and to see whether it still holds. */
export interface ClaimRef {
  readonly position: number
  readonly topic: string
  readonly key: string | undefined
  readonly token: string
}

/** Claims that were made together, as they cross to the hub: by record, in the same order. */
export interface PackedClaims {
  readonly records: PackedRecords
  readonly positions: ReadonlyArray<number>
  readonly attempts: ReadonlyArray<number>
  readonly addedAt: ReadonlyArray<number>
}

/** Claims with the same token. */
export interface SentClaims {
  readonly token: string
  readonly positions: ReadonlyArray<number>
}

type LostClaim = Pick<ClaimRef, "position" | "token">

interface ReadyRow {
  readonly position: number
  readonly topic: string
  readonly id: string
  readonly key: string | null
  readonly tombstone: number
  readonly body: string
  readonly added_at: number
  readonly attempts: number
}

interface ListRow extends ReadyRow {
  readonly state: RecordState
  readonly not_before: number | null
  readonly worker: string | null
  readonly lease_until: number | null
  readonly last_error: string | null
}

/** How many ready records one claim looks at beyond its limit, when many of them turn out to be blocked. */
const lookAhead = 4_000

/** How many records of a line are let back in at once; more follow as these are done. */
const unblockChunk = 256

/** Records that stand one after the other, which they mostly do: one statement is about all of them. */
interface Stretch {
  readonly first: number
  readonly last: number
}

const stretchesOf = (positions: ReadonlyArray<number>): ReadonlyArray<Stretch> => {
  const stretches: Array<Stretch> = []
  for (const position of positions) {
    const before = stretches.at(-1)
    if (before !== undefined && before.last + 1 === position) {
      stretches[stretches.length - 1] = { first: before.first, last: position }
    } else stretches.push({ first: position, last: position })
  }
  return stretches
}

const eventOf = (row: ReadyRow): EventRecord => ({
  topic: row.topic,
  id: row.id,
  key: row.key ?? undefined,
  tombstone: row.tombstone === 1,
  body: row.body
})

const stateNames: Readonly<Record<RecordState, StateName>> = {
  pending: "Pending",
  waiting: "Pending",
  blocked: "Blocked",
  claimed: "Claimed",
  sent: "Sent",
  dead: "Dead"
}

const recordStates: Readonly<Record<StateName, ReadonlyArray<RecordState>>> = {
  Pending: ["pending", "waiting"],
  Blocked: ["blocked"],
  Claimed: ["claimed"],
  Sent: ["sent"],
  Dead: ["dead"]
}

const allStates = Object.values(recordStates).flat()

const entryOf = (row: ListRow): OutboxEntry => ({
  id: row.id,
  topic: row.topic,
  key: row.key ?? undefined,
  state: stateNames[row.state],
  attempts: row.attempts,
  addedAt: row.added_at,
  notBefore: row.not_before ?? undefined,
  worker: row.worker ?? undefined,
  leaseUntil: row.lease_until ?? undefined,
  lastError: row.last_error ?? undefined,
  event: eventOf(row)
})

/** Adds a record; also what applications run in their own transactions. */
export const addRecord = (
  statements: Statements,
  record: EventRecord,
  at: { readonly now: number; readonly notBefore: number | undefined }
): boolean => {
  const waits = at.notBefore !== undefined && at.notBefore > at.now
  const { body, id, key, tombstone, topic } = record
  return (
    statements.run(
      "addRecord",
      topic,
      id,
      key ?? null,
      tombstone ? 1 : 0,
      body,
      at.now,
      waits ? "waiting" : "pending",
      waits ? at.notBefore : null
    ) > 0
  )
}

/** A look at six rows and six index entries, however many records there are. */
export const outboxStats = (statements: Statements): OutboxStats => {
  const counts = { Pending: 0, Blocked: 0, Claimed: 0, Sent: 0, Dead: 0 }
  let oldestAddedAt: number | undefined
  for (const { n, state } of statements.all<{ readonly state: RecordState; readonly n: number }>(
    "outboxCounts"
  )) {
    counts[stateNames[state]] += n
    if (n === 0 || state === "sent" || state === "dead") continue
    const first = statements.get<{ readonly added_at: number }>("oldestInState", state)
    if (first !== undefined) oldestAddedAt = Math.min(oldestAddedAt ?? Infinity, first.added_at)
  }
  return { counts, oldestAddedAt, paused: isPaused(statements) }
}

const isPaused = (statements: Statements): boolean =>
  statements.get<{ readonly value: string }>("meta", "outbox_paused")?.value === "true"

/** Records went from one state to another. */
type Moved = (from: RecordState, to: RecordState, count: number) => void

type Which = "all" | ReadonlyArray<{ readonly topic: string; readonly id: string }>

export const outboxCommands = (statements: Statements) => {
  /** Of dead records: these, or all. */
  const deadPositions = (which: Which): ReadonlyArray<number> =>
    which === "all"
      ? statements.all<{ readonly position: number }>("deadRecords").map((row) => row.position)
      : [
          ...new Set(
            which.flatMap(({ id, topic }) => {
              const row = statements.get<{ readonly position: number }>("deadRecord", topic, id)
              return row === undefined ? [] : [row.position]
            })
          )
        ]

  /** Keeps the counts of a command that moves records between states. Adding and removing count by themselves. */
  const counting = <A>(command: (moved: Moved) => A): A => {
    const changes = new Map<RecordState, number>()
    const add = (state: RecordState, n: number) => changes.set(state, n + (changes.get(state) ?? 0))
    const answer = command((from, to, count) => {
      add(from, -count)
      add(to, count)
    })
    for (const [state, n] of changes) if (n !== 0) statements.run("addToCount", n, state)
    return answer
  }

  const isAnyBlocked = (): boolean => statements.get("anyBlocked") !== undefined

  const unblock = (
    lines: ReadonlyMap<string, { readonly topic: string; readonly key: string }>,
    moved: Moved
  ): void => {
    for (const { key, topic } of lines.values()) {
      // Looking is ten times cheaper than an update that finds nothing, and most lines have nothing blocked.
      if (statements.get("anyBlockedOf", topic, key) !== undefined) {
        moved("blocked", "pending", statements.run("unblock", topic, key, unblockChunk))
      }
    }
  }

  /** Runs an update for each claim, lets lines go on whose record is done, and answers which were lost. */
  const settle = <A extends ClaimRef>(
    claims: ReadonlyArray<A>,
    update: (claim: A) => { readonly changes: number; readonly to: RecordState }
  ): ReadonlyArray<number> =>
    counting((moved) => {
      const lost: Array<number> = []
      const lines = new Map<string, { readonly topic: string; readonly key: string }>()
      claims.forEach((claim, i) => {
        const { changes, to } = update(claim)
        if (changes === 0) lost.push(i)
        else {
          moved("claimed", to, 1)
          if (claim.key !== undefined && to === "dead") {
            lines.set(`${claim.topic} ${claim.key}`, { topic: claim.topic, key: claim.key })
          }
        }
      })
      unblock(lines, moved)
      return lost
    })

  /** All at once. If that misses some, it is undone and done one by one: who was lost has to be told. */
  const markSent = (
    { claims, now }: { readonly claims: ReadonlyArray<SentClaims>; readonly now: number },
    moved: Moved
  ): ReadonlyArray<LostClaim> => {
    const mark = (token: string, { first, last }: Stretch) =>
      statements.run("markSent", now, first, last, token)
    const lost: Array<LostClaim> = []
    let wanted = 0
    let marked = 0
    statements.run("tryMarks")
    for (const { positions, token } of claims) {
      wanted += positions.length
      for (const stretch of stretchesOf(positions)) marked += mark(token, stretch)
    }
    if (marked < wanted) {
      statements.run("undoMarks")
      for (const { positions, token } of claims) {
        for (const position of positions) {
          if (mark(token, { first: position, last: position }) === 0) lost.push({ position, token })
        }
      }
    }
    statements.run("keepMarks")
    moved("claimed", "sent", wanted - lost.length)
    if (isAnyBlocked()) {
      const lines = new Map<string, { readonly topic: string; readonly key: string }>()
      for (const { positions } of claims) {
        for (const { first, last } of stretchesOf(positions)) {
          for (const line of statements.all<{ readonly topic: string; readonly key: string }>(
            "keyedBetween",
            first,
            last
          )) {
            lines.set(`${line.topic} ${line.key}`, line)
          }
        }
      }
      unblock(lines, moved)
    }
    return lost
  }

  const claimBatch = (
    args: {
      readonly limit: number
      readonly leaseMs: number
      readonly worker: string
      readonly token: string
      readonly now: number
      readonly whileHolding?: boolean | undefined
    },
    moved: Moved
  ): PackedClaims => {
    const positions: Array<number> = []
    const attempts: Array<number> = []
    const addedAt: Array<number> = []
    const events: Array<EventRecord> = []
    if (isPaused(statements)) return { records: packRecords(events), positions, attempts, addedAt }
    moved("waiting", "pending", statements.run("wakeDue", args.now))
    /** Per line: up to where nothing is open but what this batch has; or it is held up, and up to where it is blocked. */
    const lines = new Map<string, { readonly isFree: boolean; readonly to: number }>()
    // What the worker holds up itself stays in the ready index, so that each such claim meets it: it looks less far.
    const most = args.limit + (args.whileHolding ? args.limit : lookAhead)
    let position = 0
    let looked = 0
    while (positions.length < args.limit && looked < most) {
      const rows = statements.all<ReadyRow>("pendingAfter", position, args.limit)
      const last = rows.at(-1)?.position ?? 0
      for (const row of rows) {
        if (positions.length === args.limit) break
        looked++
        position = row.position
        if (row.key !== null) {
          const line = `${row.topic} ${row.key}`
          const { isFree: wasFree, to } = lines.get(line) ?? { isFree: true, to: 0 }
          const open = wasFree
            ? statements.get<{ readonly worker: string | null }>(
                "openBetween",
                row.topic,
                row.key,
                to,
                row.position
              )
            : undefined
          const isFree = wasFree && open === undefined
          if (!isFree) {
            if (args.whileHolding && open?.worker === args.worker) lines.set(line, { isFree, to: Infinity })
            // All of it that was read here at once: that is half the work of one by one.
            else if (wasFree || row.position > to) {
              moved("pending", "blocked", statements.run("blockLine", row.topic, row.key, row.position, last))
              lines.set(line, { isFree, to: last })
            }
            continue
          }
          lines.set(line, { isFree, to: row.position })
        }
        positions.push(row.position)
        attempts.push(row.attempts + 1)
        addedAt.push(row.added_at)
        events.push(eventOf(row))
      }
      if (rows.length < args.limit) break
    }
    if (positions.length > 0) {
      const until = args.now + args.leaseMs
      for (const { first, last } of stretchesOf(positions)) {
        statements.run("claim", args.token, args.worker, until, first, last)
      }
      moved("pending", "claimed", positions.length)
    }
    return { records: packRecords(events), positions, attempts, addedAt }
  }

  return {
    add: (args: {
      readonly record: EventRecord
      readonly now: number
      readonly notBefore: number | undefined
    }): boolean => addRecord(statements, args.record, args),

    claimBatch: (args: Parameters<typeof claimBatch>[0]) => counting((moved) => claimBatch(args, moved)),

    /** Answers those that were lost. */
    markSent: (args: Parameters<typeof markSent>[0]) => counting((moved) => markSent(args, moved)),

    fail: (args: {
      readonly claims: ReadonlyArray<
        ClaimRef & { readonly error: string; readonly retryInMs: number | undefined }
      >
      readonly now: number
    }) =>
      settle(args.claims, ({ error, position, retryInMs, token }) =>
        retryInMs === undefined
          ? { changes: statements.run("markDead", args.now, error, position, token), to: "dead" }
          : {
              changes: statements.run("markWaiting", args.now + retryInMs, error, position, token),
              to: "waiting"
            }
      ),

    release: (args: { readonly claims: ReadonlyArray<ClaimRef>; readonly notBefore?: number | undefined }) =>
      settle(args.claims, ({ position, token }) => ({
        changes:
          args.notBefore === undefined
            ? statements.run("markReleased", position, token)
            : statements.run("markPutOff", args.notBefore, position, token),
        to: args.notBefore === undefined ? "pending" : "waiting"
      })),

    requeueExpired: (args: {
      readonly maxAttempts: number
      readonly error: string
      readonly now: number
    }): { readonly requeued: number; readonly dead: number } =>
      counting((moved) => {
        const rows = statements.all<ReadyRow>("expired", args.now)
        const lines = new Map<string, { readonly topic: string; readonly key: string }>()
        let dead = 0
        for (const { attempts, key, position, topic } of rows) {
          const isDead = attempts >= args.maxAttempts
          if (isDead) dead++
          if (isDead && key !== null) lines.set(`${topic} ${key}`, { topic, key })
          const state = isDead ? "dead" : "pending"
          statements.run("expire", state, isDead ? args.now : null, args.error, position)
          moved("claimed", state, 1)
        }
        unblock(lines, moved)
        return { requeued: rows.length - dead, dead }
      }),

    list: (args: {
      readonly state: StateName | undefined
      readonly after: number
      readonly limit: number
    }): { readonly items: ReadonlyArray<OutboxEntry>; readonly next: string | undefined } => {
      const states = args.state === undefined ? allStates : recordStates[args.state]
      const rows = states
        .flatMap((state) => statements.all<ListRow>("listState", state, args.after, args.limit + 1))
        .sort((a, b) => a.position - b.position)
      const page = rows.slice(0, args.limit)
      return {
        items: page.map(entryOf),
        next: rows.length > args.limit ? String(page.at(-1)!.position) : undefined
      }
    },

    countDead: ({ which }: { readonly which: Which }): number =>
      which === "all" ? statements.get<{ readonly n: number }>("allDead")!.n : deadPositions(which).length,

    redrive: (args: { readonly which: Which; readonly now: number }): number => {
      const positions = deadPositions(args.which)
      for (const position of positions) {
        const row = statements.get<ListRow>("takeRecord", position)!
        statements.run(
          "redriveRecord",
          row.topic,
          row.id,
          row.key,
          row.tombstone,
          row.body,
          args.now,
          row.last_error
        )
      }
      return positions.length
    },

    countSent: (args: { readonly sentBefore: number }): number =>
      statements.get<{ readonly n: number }>("sentBefore", args.sentBefore)!.n,

    purge: (args: { readonly sentBefore: number; readonly limit: number }): number =>
      statements.run("purge", args.sentBefore, args.limit),

    setPaused: (args: { readonly paused: boolean }): void => {
      statements.run("setMeta", "outbox_paused", String(args.paused))
    }
  }
}
