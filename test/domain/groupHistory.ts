/**
 * Random lives of a consumer group. Commands are drawn without knowing the state ("answer the third event that is
 * open"); `live` turns each into a concrete operation, carries it out, and shows what came of it.
 *
 * Beside the group there is what it works on: a log, dead letters, and looks into both, which may be out of date by
 * the time they are used.
 */
import { Result } from "effect"
import fc from "fast-check"
import * as Group from "../../src/domain/Group.ts"
import { decodeChanges, decodeState, encodeChange, encodeState } from "../../src/domain/GroupEncoding.ts"
import * as GroupRedrive from "../../src/domain/GroupRedrive.ts"

export type Key = string | undefined

export interface Setup {
  readonly options: Group.GroupOptions
  readonly window: number
}

export const backoff = { baseMs: 40, maxMs: 100 }

export const members = ["ann", "bob", "cid"] as const

/** What a look into the dead letters has found. */
export type Letters = Parameters<typeof GroupRedrive.admit>[1]

/** An operation with all its arguments. */
export type Operation =
  | { readonly _tag: "Publish"; readonly keys: ReadonlyArray<Key> }
  | { readonly _tag: "Claim"; readonly request: Group.Claim }
  | { readonly _tag: "Ack"; readonly answers: ReadonlyArray<Group.Answer> }
  | { readonly _tag: "Nack"; readonly refusals: ReadonlyArray<Group.Refusal> }
  | { readonly _tag: "Extend"; readonly answers: ReadonlyArray<Group.Answer & { readonly byMs: number }> }
  | { readonly _tag: "Expire" }
  | { readonly _tag: "Sample" }
  | { readonly _tag: "Lose"; readonly members: ReadonlyArray<string> }
  | { readonly _tag: "Leave"; readonly member: string }
  /** These stand in the dead letters from now on; the group does not know it yet. */
  | { readonly _tag: "Write"; readonly letters: ReadonlyArray<GroupRedrive.Letter> }
  | { readonly _tag: "Bury"; readonly seqs: ReadonlyArray<number> }
  | { readonly _tag: "Trim"; readonly floor: number }
  | { readonly _tag: "Seek"; readonly floor: number; readonly generation: string }
  | { readonly _tag: "List"; readonly found: ReadonlyArray<Group.Listing> }
  | { readonly _tag: "Plan"; readonly plan: Group.RedrivePlan }
  | { readonly _tag: "Admit"; readonly found: Letters }
  | { readonly _tag: "TrimLetters"; readonly floor: number }
  | { readonly _tag: "ReleaseKey"; readonly key: string; readonly mode: "retry" | "dead-letter" }
  /** The state is what was written down: as a whole, or as all changes since the last restart. */
  | { readonly _tag: "Restart"; readonly from: "whole" | "changes" }

/** An operation that was carried out. */
export interface Step {
  readonly operation: Operation
  readonly now: number
  /** The keys of all events of the topic, in the order of their seqs; before a Publish, without its own. */
  readonly keys: ReadonlyArray<Key>
  /** All dead letters, in their order; before a Write, without its own. */
  readonly letters: ReadonlyArray<GroupRedrive.Letter>
  readonly before: Group.GroupState
  readonly after: Group.GroupState
  readonly deliveries: ReadonlyArray<Group.Delivery>
  readonly outcomes: ReadonlyArray<Group.Outcome>
  /** What the release of a key was about. */
  readonly released: number | undefined
}

// --- commands ------------------------------------------------------------------------------------------------

type Produced<A> = A extends fc.Arbitrary<infer B> ? B : never

const keyNames = ["k", "l", "m"] as const

const member = fc.constantFrom(...members)
const some = <A>(one: fc.Arbitrary<A>, max = 3) => fc.array(one, { minLength: 1, maxLength: max })
const rarely = fc.nat(9).map((n) => n === 9)

/** Which delivery an answer is about: mostly one that is open, mostly by who has it. */
const pick = fc.record({
  nth: fc.nat(30),
  anything: rarely,
  member: fc.oneof({ weight: 5, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: member }),
  attempt: fc.oneof(
    { weight: 2, arbitrary: fc.constant("none" as const) },
    { weight: 3, arbitrary: fc.constant("right" as const) },
    { weight: 1, arbitrary: fc.integer({ min: 0, max: 5 }) }
  )
})
type Pick = Produced<typeof pick>

const kind = <const Tag extends string, A extends object>(
  tag: Tag,
  fields: { [K in keyof A]: fc.Arbitrary<A[K]> }
) => fc.record(fields).map((values) => ({ _tag: tag, ...values }))

/** How far a look goes, and whether it is used now, kept for later, or an old one is used. */
const look = {
  reach: fc.oneof(fc.constant(Infinity), fc.nat(6)),
  use: fc.constantFrom("now", "now", "now", "later", "old"),
  nth: fc.nat(30)
}

const kinds = {
  Publish: kind("Publish", { keys: some(fc.constantFrom<Key>(...keyNames, undefined), 6) }),
  /** More of one key than a list of them holds. */
  Burst: kind("Burst", {
    key: fc.constantFrom(...keyNames),
    count: fc.integer({ min: 60, max: 80 }),
    really: rarely
  }),
  Claim: kind("Claim", {
    member,
    limit: fc.oneof(
      { weight: 9, arbitrary: fc.integer({ min: 1, max: 8 }) },
      { weight: 1, arbitrary: fc.nat(1) }
    ),
    retriesFirst: fc.nat(3),
    alone: fc.boolean(),
    hasOthers: rarely,
    /** Even if there is nothing to be delivered alone. */
    anyhow: rarely,
    /** How many of the events that it has not looked at the group is shown. */
    shown: fc.oneof(fc.constant(Infinity), fc.nat(4))
  }),
  Ack: kind("Ack", { picks: some(pick) }),
  Nack: kind("Nack", {
    picks: some(
      fc.tuple(
        pick,
        fc.record({
          mode: fc.constantFrom("fail", "release", "poison"),
          delayMs: fc.option(fc.nat(150), { nil: undefined }),
          random: fc.double({ min: 0, max: 0.999, noNaN: true }),
          reason: fc.constantFrom("bad", "worse", "", "w".repeat(201), "d".repeat(1_001))
        })
      )
    )
  }),
  Extend: kind("Extend", { picks: some(fc.tuple(pick, fc.integer({ min: 1, max: 300 }))) }),
  Pass: kind("Pass", { ms: fc.constantFrom(1, 40, 100, 250) }),
  Sample: kind("Sample", { ms: fc.constantFrom(0, 9_999, 10_000, 70_000) }),
  Lose: kind("Lose", { members: fc.subarray([...members]) }),
  Leave: kind("Leave", { member }),
  Write: kind("Write", { nths: some(fc.nat(30)) }),
  Bury: kind("Bury", { nths: some(fc.nat(30)) }),
  Trim: kind("Trim", { by: fc.nat(8), beyond: rarely }),
  Seek: kind("Seek", { nth: fc.nat(200), really: rarely }),
  List: kind("List", { keys: fc.subarray([...keyNames], { minLength: 1 }), ...look }),
  Plan: kind("Plan", {
    filter: fc.oneof(
      { weight: 2, arbitrary: fc.constant({}) },
      { weight: 1, arbitrary: fc.record({ key: fc.constantFrom(...keyNames) }) },
      { weight: 1, arbitrary: fc.record({ letters: some(fc.integer({ min: 1, max: 9 }), 5) }) }
    ),
    from: fc.constantFrom(0, 0, 0, 1, 3),
    upTo: fc.constantFrom(Infinity, Infinity, Infinity, 1, 4, 9)
  }),
  Admit: kind("Admit", look),
  TrimLetters: kind("TrimLetters", { by: fc.nat(3) }),
  ReleaseKey: kind("ReleaseKey", {
    key: fc.constantFrom(...keyNames),
    mode: fc.constantFrom("retry", "dead-letter")
  }),
  Restart: kind("Restart", { from: fc.constantFrom("whole", "changes") })
}
type Command = Produced<(typeof kinds)[keyof typeof kinds]>

/** How often each kind of command comes, in three kinds of lives. */
const mixes: ReadonlyArray<Readonly<Record<keyof typeof kinds, number>>> = (() => {
  // prettier-ignore
  const all = {
    Publish: 16, Burst: 1, Claim: 30, Ack: 12, Nack: 10, Extend: 4, Pass: 8, Sample: 1, Lose: 1, Leave: 2, Write: 6,
    Bury: 6, Trim: 1, Seek: 2, List: 10, Plan: 6, Admit: 8, TrimLetters: 1, ReleaseKey: 3, Restart: 2
  }
  return [
    all,
    // One in which much dies, and comes back.
    { ...all, Burst: 0, Ack: 6, Nack: 20, Write: 16, Bury: 16, Plan: 12, Admit: 24 },
    // One in which members say nothing.
    { ...all, Ack: 6, Nack: 3, Extend: 1, Pass: 20, Lose: 8 }
  ]
})()

const lifeOf = (mix: Readonly<Record<keyof typeof kinds, number>>): fc.Arbitrary<ReadonlyArray<Command>> => {
  const some = Object.values(kinds).map((arbitrary, i) => ({ arbitrary, weight: Object.values(mix)[i]! }))
  return fc.array(fc.oneof(...some), { maxLength: 200, size: "max" })
}

const setup: fc.Arbitrary<Setup> = fc.record({
  options: fc.record({
    ackTimeoutMs: fc.constant(100),
    maxAttempts: fc.constantFrom(1, 2, 3, 5, Infinity),
    keyOrdered: fc.constantFrom(true, true, false)
  }),
  window: fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 24 }) },
    { weight: 1, arbitrary: fc.constantFrom(100, 300) }
  )
})

/** A setup and what happens under it. */
export const history = fc.record({ setup, commands: fc.oneof(...mixes.map(lifeOf)) })
export type History = Produced<typeof history>

// --- looks ---------------------------------------------------------------------------------------------------

/** What the group has not looked at, as its caller reads it from the log. */
export const candidates = (
  state: Group.GroupState,
  keys: ReadonlyArray<Key>,
  shown = Infinity
): ReadonlyArray<Group.Candidate> =>
  keys.map((key, i) => ({ seq: i + 1, key })).slice(state.next - 1, state.next - 1 + shown)

/** Looks events up that were passed over and are not listed, of some keys, as far as it reaches. */
export const lookUp = (
  state: Group.GroupState,
  keys: ReadonlyArray<Key>,
  { of = keyNames, reach = Infinity }: { readonly of?: ReadonlyArray<string>; readonly reach?: number } = {}
): ReadonlyArray<Group.Listing> =>
  [...Group.unlistedKeys(state)]
    .filter(([key]) => of.includes(key))
    .map(([key, from]) => {
      const to = Math.min(state.next - 1, from + reach)
      const seqs = keys.flatMap((other, i) => (other === key && i + 1 >= from && i + 1 <= to ? [i + 1] : []))
      return { key, from, to, seqs }
    })

/** Looks letters up that were asked back, as far as it reaches. */
export const lookUpLetters = (
  state: Group.GroupState,
  letters: ReadonlyArray<GroupRedrive.Letter>,
  trimmedTo: number,
  reach = Infinity
): Letters | undefined => {
  const [plan] = state.redrive.plans
  if (plan === undefined) return undefined
  const { filter, next, upTo } = plan
  const to = Math.min(upTo, next + reach)
  const asked = letters.filter(
    ({ key, letter }) =>
      letter >= next &&
      letter <= to &&
      letter > trimmedTo &&
      (filter.key === undefined || filter.key === key) &&
      (filter.letters === undefined || filter.letters.includes(letter))
  )
  return { plan, letters: asked, to }
}

// --- live ----------------------------------------------------------------------------------------------------

/** The group, and all that is around it. */
interface World {
  state: Group.GroupState
  now: number
  readonly keys: Array<Key>
  readonly letters: Array<GroupRedrive.Letter>
  lettersTrimmedTo: number
  /** Those that die and stand in the dead letters. */
  readonly buried: Set<number>
  /** Looks that were kept for later. */
  readonly listings: Array<ReadonlyArray<Group.Listing>>
  found: Array<Letters>
  /** The state as it was at the last restart, and every change since then, as they were written. */
  written: { whole: string; changes: Array<string> }
}

const resolve = (
  state: Group.GroupState,
  head: number,
  { anything, attempt, member, nth }: Pick
): Group.Answer => {
  const running = [...state.inFlight.keys()]
  const open = [...running, ...running, ...state.waiting.keys()]
  const seq = anything || open.length === 0 ? 1 + (nth % (head + 1)) : open[nth % open.length]!
  const entry = state.inFlight.get(seq) ?? state.waiting.get(seq)
  return {
    seq,
    member: member ?? entry?.member ?? members[0],
    attempt: attempt === "none" ? undefined : attempt === "right" ? entry?.attempt : attempt
  }
}

/** A look that is made now, or an old one; nothing when it is only kept. */
const used = <A>(
  { nth, use }: { readonly nth: number; readonly use: string },
  made: A,
  kept: Array<A>
): A | undefined => {
  if (use === "old") return kept[nth % kept.length]
  if (use === "now") return made
  kept.push(made)
  return undefined
}

/** The concrete operation; nothing where the caller would not ask. */
const operationOf = (
  command: Command,
  world: World,
  { options, window }: Setup,
  n: number
): Operation | undefined => {
  const { keys, letters, now, state } = world
  switch (command._tag) {
    case "Burst":
      if (!command.really) return undefined
      return { _tag: "Publish", keys: Array.from({ length: command.count }, () => command.key) }
    case "Claim": {
      const { alone, anyhow, hasOthers, limit, member, retriesFirst, shown } = command
      // What GroupRunner keeps to: a suspect goes to an idle member, which gets nothing else until it answers.
      if (Group.holdsSuspect(state, member)) return undefined
      const idle = ![...state.inFlight.values()].some((entry) => entry.member === member)
      const isWanted = anyhow || Group.suspectDue(state, now, options.keyOrdered)
      const mode = alone && isWanted && idle ? "alone" : "shared"
      const request = { now, member, limit, retriesFirst, mode, hasOthers, options, window } as const
      return { _tag: "Claim", request: { ...request, candidates: candidates(state, keys, shown) } }
    }
    case "Ack":
      return { _tag: "Ack", answers: command.picks.map((pick) => resolve(state, keys.length, pick)) }
    case "Nack":
      return {
        _tag: "Nack",
        refusals: command.picks.map(([pick, refusal]) => ({
          ...resolve(state, keys.length, pick),
          ...refusal
        }))
      }
    case "Extend":
      return {
        _tag: "Extend",
        answers: command.picks.map(([pick, byMs]) => ({ ...resolve(state, keys.length, pick), byMs }))
      }
    case "Pass":
      return { _tag: "Expire" }
    case "Sample":
      return { _tag: "Sample" }
    case "Write": {
      // Whoever writes the same death again finds that it stands there.
      const dying = [...state.dying].filter(([seq]) => !world.buried.has(seq))
      const seqs = new Set(command.nths.map((nth) => nth % dying.length))
      const some = dying.filter((_, i) => seqs.has(i))
      const next = letters.length + 1
      if (some.length === 0) return undefined
      return { _tag: "Write", letters: some.map(([seq, { key }], i) => ({ letter: next + i, seq, key })) }
    }
    case "Bury": {
      const written = [...world.buried]
      if (written.length === 0) return undefined
      // What does not die is not let go.
      const seqs = command.nths.map((nth) => written[nth % (written.length + 1)] ?? nth)
      return { _tag: "Bury", seqs: seqs.filter((seq) => written.includes(seq) || !state.dying.has(seq)) }
    }
    case "Trim":
      return {
        _tag: "Trim",
        floor: Math.min(keys.length, command.beyond ? Infinity : state.floor + command.by)
      }
    case "Seek":
      if (!command.really) return undefined
      return { _tag: "Seek", floor: command.nth % (keys.length + 1), generation: `g${n}` }
    case "List": {
      const found = used(
        command,
        lookUp(state, keys, { of: command.keys, reach: command.reach }),
        world.listings
      )
      return found === undefined ? undefined : { _tag: "List", found }
    }
    case "Plan": {
      const { filter, from, upTo } = command
      if (letters.length === 0) return undefined
      return { _tag: "Plan", plan: { next: from + 1, upTo: Math.min(letters.length, upTo), filter } }
    }
    case "Admit": {
      const made = lookUpLetters(state, letters, world.lettersTrimmedTo, command.reach)
      const found = made === undefined ? undefined : used(command, made, world.found)
      return found === undefined ? undefined : { _tag: "Admit", found }
    }
    case "TrimLetters":
      return { _tag: "TrimLetters", floor: Math.min(letters.length, world.lettersTrimmedTo + command.by) }
    default:
      return command
  }
}

interface Change {
  readonly state: Group.GroupState
  readonly deliveries?: ReadonlyArray<Group.Delivery>
  readonly outcomes?: ReadonlyArray<Group.Outcome>
  readonly seq?: number | undefined
}

const perform = (operation: Operation, world: World, { options, window }: Setup): Change => {
  const { now, state, written } = world
  const limits = { now, maxAttempts: options.maxAttempts, backoff }
  switch (operation._tag) {
    case "Publish":
    case "Write":
      return { state }
    case "Claim":
      return Group.claim(state, operation.request)
    case "Ack":
      return Group.ack(state, operation.answers)
    case "Nack":
      return Group.nack(state, operation.refusals, limits)
    case "Extend":
      return Group.extend(state, operation.answers, now)
    case "Expire":
      return { state: Group.expire(state, limits) }
    case "Sample":
      return { state: Group.sampled(state, now) }
    case "Lose":
      return { state: Group.removeMembers(state, (member) => operation.members.includes(member), limits) }
    case "Leave":
      return { state: Group.leave(state, operation.member, now) }
    case "Bury":
      return { state: Group.bury(state, operation.seqs) }
    case "Trim":
      return { state: Group.skipTrimmed(state, operation.floor) }
    case "Seek":
      return { state: Group.seek(state, operation) }
    case "List":
      return { state: Group.list(state, operation.found, window) }
    case "Plan":
      return { state: Result.getOrThrow(GroupRedrive.plan(state, operation.plan)) }
    case "Admit":
      return { state: GroupRedrive.admit(state, operation.found, now) }
    case "TrimLetters":
      return { state: GroupRedrive.forgetTrimmed(state, operation.floor) }
    case "ReleaseKey":
      return Group.releaseKey(state, { key: operation.key, mode: operation.mode, now })
    case "Restart": {
      const read = Result.getOrThrow(
        decodeState(operation.from === "whole" ? encodeState(state) : written.whole)
      )
      const changes = operation.from === "whole" ? [] : written.changes
      return { state: Result.getOrThrow(decodeChanges(read, changes)) }
    }
  }
}

/** What happens around the group. */
const follow = (world: World, { after, operation }: Step): void => {
  world.state = after
  switch (operation._tag) {
    case "Publish":
      world.keys.push(...operation.keys)
      return
    case "Write":
      world.letters.push(...operation.letters)
      for (const { seq } of operation.letters) world.buried.add(seq)
      return
    case "Bury":
    case "Trim":
    case "TrimLetters":
    case "Seek":
      for (const seq of world.buried) if (!after.dying.has(seq)) world.buried.delete(seq)
      if (operation._tag !== "TrimLetters") return
      world.lettersTrimmedTo = operation.floor
      world.found = []
      return
    case "Restart":
      world.written = { whole: encodeState(after), changes: [] }
      return
    default:
  }
}

/** Lives a history, from a group that has seen nothing; what it has come to. */
export const live = ({ commands, setup }: History, onStep: (step: Step) => void): World => {
  const state = Group.initial("g", 0)
  const world: World = {
    state,
    now: 1_000,
    keys: [],
    letters: [],
    lettersTrimmedTo: 0,
    buried: new Set(),
    listings: [],
    found: [],
    written: { whole: encodeState(state), changes: [] }
  }
  commands.forEach((command, n) => {
    if (command._tag === "Pass" || command._tag === "Sample") world.now += command.ms
    const operation = operationOf(command, world, setup, n)
    if (operation === undefined) return
    const { deliveries = [], outcomes = [], seq, state } = perform(operation, world, setup)
    const before = world.state
    const { keys, letters, now } = world
    if (state !== before) world.written.changes.push(encodeChange(before, state))
    const step = { operation, now, before, after: state, deliveries, outcomes, released: seq }
    onStep({ ...step, keys: [...keys], letters: [...letters] })
    follow(world, { ...step, keys, letters })
  })
  return world
}
