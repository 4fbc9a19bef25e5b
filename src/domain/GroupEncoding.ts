/**
 * How the state of a group is written down: as a whole, or as what changed since it was written last.
 *
 * Both are compact JSON: members and reasons are named once, entries are rows. A store that writes changes pays
 * for what happened, not for what waits; now and then it writes the whole, so that a state is read by few of them.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Entries } from "./Entries.ts"
import type { Deferred, Dying, Entry, GroupState, InFlight, RedriveFilter, Waiting } from "./Group.ts"

/** The encoded form's version; a store that holds a newer one is refused. */
const version = 1

/** A group's stored state cannot be read: it is damaged, or was written by a newer version. */
export class InvalidGroupState extends Schema.TaggedError<InvalidGroupState>()("InvalidGroupState", {
  reason: Schema.String
}) {
  override get message() {
    return `a group's stored state cannot be read: ${this.reason}`
  }
}

// --- shapes --------------------------------------------------------------------------------------------------

const Seqs = Schema.Array(Schema.Int)

/** `last`: the deadline or the time of the next delivery; 0 for those that die. */
const Row = Schema.Tuple([
  /* seq */ Schema.Int,
  /* attempt */ Schema.Int,
  /* unanswered */ Schema.Int,
  /* member */ Schema.Int,
  /* key */ Schema.NullOr(Schema.String),
  /* since */ Schema.Finite,
  /* reason */ Schema.Int,
  /* letter */ Schema.NullOr(Schema.Int),
  /* last */ Schema.Finite
])
type Row = typeof Row.Type

const DeferredRow = Schema.Tuple([
  /* key */ Schema.String,
  Seqs,
  /* from */ Schema.NullOr(Schema.Int),
  /* unlisted */ Schema.Int
])

const Filter = Schema.Struct({
  letters: Schema.optionalKey(Seqs),
  ids: Schema.optionalKey(Schema.Array(Schema.String)),
  key: Schema.optionalKey(Schema.String),
  reason: Schema.optionalKey(Schema.String),
  since: Schema.optionalKey(Schema.Finite),
  until: Schema.optionalKey(Schema.Finite)
})

const Redrive = Schema.Struct({
  plans: Schema.Array(Schema.Struct({ next: Schema.Int, upTo: Schema.Int, filter: Filter })),
  letters: Schema.Array(Schema.Tuple([Schema.Int, Schema.Int]))
})

const base = {
  v: Schema.Literal(version),
  generation: Schema.String,
  floor: Schema.Int,
  next: Schema.Int,
  inFlight: Schema.Array(Row),
  waiting: Schema.Array(Row),
  dying: Schema.Array(Row),
  deferred: Schema.Array(DeferredRow),
  pace: Schema.Array(Schema.Struct({ at: Schema.Finite, done: Schema.Int })),
  /** Members and reasons, as the rows number them. */
  names: Schema.Array(Schema.String)
}

const namesAll = (encoded: {
  readonly inFlight: ReadonlyArray<Row>
  readonly waiting: ReadonlyArray<Row>
  readonly dying: ReadonlyArray<Row>
  readonly names: ReadonlyArray<string>
}): true | string =>
  [...encoded.inFlight, ...encoded.waiting, ...encoded.dying].every(
    ([, , , member, , , reason]) => encoded.names[member] !== undefined && encoded.names[reason] !== undefined
  ) || "a row's member or reason has no name"

const Whole = Schema.Struct({ ...base, redrive: Redrive }).check(Schema.makeFilter(namesAll))

const Change = Schema.Struct({
  ...base,
  redrive: Schema.optionalKey(Redrive),
  /** Entries that are in none of the places any more, and keys without a deferred event. */
  gone: Seqs,
  goneKeys: Schema.Array(Schema.String)
}).check(Schema.makeFilter(namesAll))

// --- encode --------------------------------------------------------------------------------------------------

/** Numbers texts by their first use. */
const numbering = () => {
  const numbers = new Map<string, number>()
  return {
    of: (text: string): number => {
      const known = numbers.get(text)
      if (known !== undefined) return known
      numbers.set(text, numbers.size)
      return numbers.size - 1
    },
    all: () => [...numbers.keys()]
  }
}

/** Rows of those that are not as they were; of all, where there was nothing before. And which are not there any more. */
const rowsOf = <A extends Entry>(
  after: ReadonlyMap<number, A>,
  before: ReadonlyMap<number, A>,
  nameOf: (text: string) => number,
  last: (entry: A) => number,
  gone: (seq: number) => void
): ReadonlyArray<Row> => {
  const rows: Array<Row> = []
  if (after === before) return rows
  const changed = (seq: number, entry: A): void => {
    const { attempt, key, letter, member, reason, since, unanswered } = entry
    rows.push([
      seq,
      attempt,
      unanswered,
      nameOf(member),
      key ?? null,
      since,
      nameOf(reason),
      letter ?? null,
      last(entry)
    ])
  }
  Entries.from(after).changesSince(Entries.from(before), { changed, gone })
  return rows
}

type Places = Pick<GroupState, "inFlight" | "waiting" | "dying" | "deferred">

const nothing: Places = { inFlight: new Map(), waiting: new Map(), dying: new Map(), deferred: new Map() }

const encodeRows = (after: GroupState, before: Places, gone: (seq: number) => void) => {
  const names = numbering()
  const inFlight = rowsOf(after.inFlight, before.inFlight, names.of, ({ deadline }) => deadline, gone)
  const waiting = rowsOf(after.waiting, before.waiting, names.of, ({ notBefore }) => notBefore, gone)
  const dying = rowsOf(after.dying, before.dying, names.of, () => 0, gone)
  const deferred = [...after.deferred]
    .filter(([key, passed]) => before.deferred.get(key) !== passed)
    .map(([key, { from, seqs, unlisted }]) => [key, seqs, from ?? null, unlisted])
  const { floor, generation, next, pace } = after
  return { v: version, generation, floor, next, inFlight, waiting, dying, deferred, pace, names: names.all() }
}

export const encodeState = (state: GroupState): string =>
  JSON.stringify({
    ...encodeRows(state, nothing, () => {}),
    redrive: state.redrive
  })

/** What is to be done to `before`, and to nothing else, to get `after`. */
export const encodeChange = (before: GroupState, after: GroupState): string => {
  const gone: Array<number> = []
  const rows = encodeRows(after, before, (seq) => {
    if (!after.inFlight.has(seq) && !after.waiting.has(seq) && !after.dying.has(seq)) gone.push(seq)
  })
  const goneKeys =
    after.deferred === before.deferred
      ? []
      : [...before.deferred.keys()].filter((key) => !after.deferred.has(key))
  return JSON.stringify({
    ...rows,
    gone,
    goneKeys,
    ...(after.redrive === before.redrive ? {} : { redrive: after.redrive })
  })
}

// --- decode --------------------------------------------------------------------------------------------------

const entriesOf = <A>(
  rows: ReadonlyArray<Row>,
  names: ReadonlyArray<string>,
  make: (entry: Entry, last: number) => A
): ReadonlyArray<readonly [number, A]> =>
  rows.map(([seq, attempt, unanswered, member, key, since, reason, letter, last]) => [
    seq,
    make(
      {
        attempt,
        unanswered,
        member: names[member]!,
        key: key ?? undefined,
        since,
        reason: names[reason]!,
        letter: letter ?? undefined
      },
      last
    )
  ])

const placesOf = (encoded: typeof Whole.Type | typeof Change.Type) => ({
  inFlight: entriesOf(encoded.inFlight, encoded.names, (entry, deadline): InFlight => ({
    ...entry,
    deadline
  })),
  waiting: entriesOf(encoded.waiting, encoded.names, (entry, notBefore): Waiting => ({
    ...entry,
    notBefore
  })),
  dying: entriesOf(encoded.dying, encoded.names, (entry): Dying => entry),
  deferred: encoded.deferred.map(([key, seqs, from, unlisted]): readonly [string, Deferred] => [
    key,
    { seqs, from: from ?? undefined, unlisted }
  ])
})

const decodeWhole = Schema.decodeUnknownResult(Schema.fromJsonString(Whole))
const decodeOne = Schema.decodeUnknownResult(Schema.fromJsonString(Change))

const invalid = (error: { readonly message: string }) => new InvalidGroupState({ reason: error.message })

/** `Schema` reads what is missing as missing, and types agree on that only so far. */
const redriveOf = ({ letters, plans }: typeof Redrive.Type): GroupState["redrive"] => ({
  letters,
  plans: plans.map(({ filter, next, upTo }) => ({ next, upTo, filter: filter satisfies RedriveFilter }))
})

export const decodeState = (text: string): Result.Result<GroupState, InvalidGroupState> =>
  Result.mapBoth(decodeWhole(text), {
    onFailure: invalid,
    onSuccess: (encoded): GroupState => {
      const { deferred, dying, inFlight, waiting } = placesOf(encoded)
      const { floor, generation, next, pace, redrive } = encoded
      return {
        generation,
        floor,
        next,
        inFlight: new Map(inFlight),
        waiting: new Map(waiting),
        dying: new Map(dying),
        deferred: new Map(deferred),
        redrive: redriveOf(redrive),
        pace
      }
    }
  })

/** The state after changes that were written one after the other. */
export const decodeChanges = (
  before: GroupState,
  changes: ReadonlyArray<string>
): Result.Result<GroupState, InvalidGroupState> => {
  const inFlight = new Map(before.inFlight)
  const waiting = new Map(before.waiting)
  const dying = new Map(before.dying)
  const deferred = new Map(before.deferred)
  const places = [inFlight, waiting, dying]
  let state = before
  for (const text of changes) {
    const decoded = decodeOne(text)
    if (Result.isFailure(decoded)) return Result.fail(invalid(decoded.failure))
    const change = decoded.success
    const changed = placesOf(change)
    const leave = (seq: number) => {
      for (const place of places) place.delete(seq)
    }
    change.gone.forEach(leave)
    for (const rows of [change.inFlight, change.waiting, change.dying]) for (const [seq] of rows) leave(seq)
    for (const [seq, entry] of changed.inFlight) inFlight.set(seq, entry)
    for (const [seq, entry] of changed.waiting) waiting.set(seq, entry)
    for (const [seq, entry] of changed.dying) dying.set(seq, entry)
    for (const key of change.goneKeys) deferred.delete(key)
    for (const [key, passed] of changed.deferred) deferred.set(key, passed)
    const { floor, generation, next, pace } = change
    state = {
      ...state,
      generation,
      floor,
      next,
      pace,
      redrive: change.redrive === undefined ? state.redrive : redriveOf(change.redrive)
    }
  }
  return Result.succeed({ ...state, inFlight, waiting, dying, deferred })
}
