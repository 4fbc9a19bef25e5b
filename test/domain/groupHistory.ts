/**
 * Random lives of a consumer group. Commands are drawn without knowing the state ("answer the third event
 * that is open"); `play` turns each into a concrete operation, carries it out, and notes what came of it.
 */
import fc from "fast-check"
import * as Group from "../../src/domain/Group.ts"

export type Key = string | undefined

export interface Setup {
  readonly options: Group.GroupOptions
  readonly window: number
}

export const backoff = { baseMs: 40, maxMs: 100 }

export const members = ["ann", "bob", "cid"] as const

/** An operation with all its arguments. */
export type Operation =
  | { readonly _tag: "Publish"; readonly keys: ReadonlyArray<Key> }
  | { readonly _tag: "Claim"; readonly request: Group.Claim }
  | { readonly _tag: "Ack"; readonly answers: ReadonlyArray<Group.Answer> }
  | { readonly _tag: "Nack"; readonly refusals: ReadonlyArray<Group.Refusal> }
  | { readonly _tag: "Extend"; readonly answers: ReadonlyArray<Group.Answer & { readonly byMs: number }> }
  | { readonly _tag: "Expire" }
  | { readonly _tag: "Lose"; readonly members: ReadonlyArray<string> }
  | { readonly _tag: "Leave"; readonly member: string }
  | { readonly _tag: "Bury"; readonly seqs: ReadonlyArray<number> }
  | { readonly _tag: "Trim"; readonly floor: number }
  | { readonly _tag: "Seek"; readonly floor: number; readonly generation: string }

/** An operation that was carried out. */
export interface Step {
  readonly operation: Operation
  readonly now: number
  /** The keys of all events of the topic, in the order of their seqs; before a Publish, without its own. */
  readonly keys: ReadonlyArray<Key>
  readonly before: Group.GroupState
  readonly after: Group.GroupState
  readonly deliveries: ReadonlyArray<Group.Delivery>
  readonly outcomes: ReadonlyArray<Group.Outcome>
}

// --- commands ------------------------------------------------------------------------------------------------

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
type Pick = typeof pick extends fc.Arbitrary<infer A> ? A : never

const kind = <const Tag extends string, A extends object>(
  weight: number,
  tag: Tag,
  fields: { [K in keyof A]: fc.Arbitrary<A[K]> }
) => ({ weight, arbitrary: fc.record(fields).map((values) => ({ _tag: tag, ...values })) })

const command = fc.oneof(
  kind(4, "Publish", { keys: some(fc.constantFrom<Key>("k", "l", "m", undefined), 6) }),
  kind(9, "Claim", {
    member,
    limit: fc.integer({ min: 0, max: 8 }),
    alone: fc.boolean(),
    /** How many of the events that it has not looked at the group is shown. */
    shown: fc.oneof(fc.constant(Infinity), fc.nat(4))
  }),
  kind(4, "Ack", { picks: some(pick) }),
  kind(3, "Nack", {
    picks: some(
      fc.tuple(
        pick,
        fc.record({
          mode: fc.constantFrom("fail", "release", "poison"),
          delayMs: fc.option(fc.nat(150), { nil: undefined }),
          random: fc.double({ min: 0, max: 0.999, noNaN: true }),
          reason: fc.constantFrom("bad", "worse")
        })
      )
    )
  }),
  kind(2, "Extend", { picks: some(fc.tuple(pick, fc.integer({ min: 1, max: 300 }))) }),
  kind(7, "Pass", { ms: fc.constantFrom(1, 40, 100, 250) }),
  kind(1, "Lose", { members: fc.subarray([...members]) }),
  kind(1, "Leave", { member }),
  kind(3, "Bury", { nths: some(fc.nat(30)) }),
  kind(1, "Trim", { by: fc.nat(3), beyond: rarely }),
  kind(1, "Seek", { nth: fc.nat(30), really: rarely })
)
type Command = typeof command extends fc.Arbitrary<infer A> ? A : never

const setup: fc.Arbitrary<Setup> = fc.record({
  options: fc.record({
    ackTimeoutMs: fc.constant(100),
    maxAttempts: fc.constantFrom(1, 3, 5, Infinity),
    keyOrdered: fc.boolean()
  }),
  window: fc.integer({ min: 1, max: 20 })
})

/** A setup and what happens under it. */
export const history = fc.record({ setup, commands: fc.array(command, { maxLength: 80, size: "max" }) })
export type History = typeof history extends fc.Arbitrary<infer A> ? A : never

// --- play ----------------------------------------------------------------------------------------------------

interface Topic {
  state: Group.GroupState
  now: number
  readonly keys: Array<Key>
}

const resolve = (
  state: Group.GroupState,
  head: number,
  { anything, attempt, member, nth }: Pick
): Group.Answer => {
  const open = [...state.inFlight.keys(), ...state.waiting.keys()]
  const seq = anything || open.length === 0 ? 1 + (nth % (head + 1)) : open[nth % open.length]!
  const entry = state.inFlight.get(seq) ?? state.waiting.get(seq)
  return {
    seq,
    member: member ?? entry?.member ?? members[0],
    attempt: attempt === "none" ? undefined : attempt === "right" ? entry?.attempt : attempt
  }
}

/** What the group has not looked at, as its caller reads it from the log. */
export const candidates = (
  state: Group.GroupState,
  keys: ReadonlyArray<Key>,
  shown = Infinity
): ReadonlyArray<Group.Candidate> =>
  keys.map((key, i) => ({ seq: i + 1, key })).slice(state.next - 1, state.next - 1 + shown)

/** The concrete operation; nothing where the caller would not ask. */
const operationOf = (
  command: Command,
  { keys, now, state }: Topic,
  { options, window }: Setup,
  n: number
): Operation | undefined => {
  switch (command._tag) {
    case "Claim": {
      const { alone, limit, member, shown } = command
      // What GroupRunner keeps to: a suspect goes to an idle member, which gets nothing else until it answers.
      if (Group.holdsSuspect(state, member)) return undefined
      const idle = ![...state.inFlight.values()].some((entry) => entry.member === member)
      const mode = alone && idle ? "alone" : "shared"
      const request = { now, member, limit, mode, options, window } as const
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
    case "Bury": {
      const dying = [...state.dying.keys()]
      return { _tag: "Bury", seqs: command.nths.map((nth) => dying[nth % dying.length] ?? nth) }
    }
    case "Trim":
      return {
        _tag: "Trim",
        floor: Math.min(keys.length, command.beyond ? Infinity : state.floor + command.by)
      }
    case "Seek":
      if (!command.really) return undefined
      return { _tag: "Seek", floor: command.nth % (keys.length + 1), generation: `g${n}` }
    default:
      return command
  }
}

interface Change {
  readonly state: Group.GroupState
  readonly deliveries?: ReadonlyArray<Group.Delivery>
  readonly outcomes?: ReadonlyArray<Group.Outcome>
}

const perform = (operation: Operation, { now, state }: Topic, { options }: Setup): Change => {
  const limits = { now, maxAttempts: options.maxAttempts, backoff }
  switch (operation._tag) {
    case "Publish":
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
    case "Lose":
      return { state: Group.removeMembers(state, (member) => operation.members.includes(member), limits) }
    case "Leave":
      return { state: Group.leave(state, operation.member, now) }
    case "Bury":
      return { state: Group.bury(state, operation.seqs) }
    case "Trim":
      return { state: Group.skipTrimmed(state, operation.floor) }
    case "Seek":
      return { state: Group.seek(operation) }
  }
}

/** Lives a history, from a group that has seen nothing. */
export const play = ({ commands, setup }: History): ReadonlyArray<Step> => {
  const topic: Topic = { state: Group.initial("g", 0), now: 1_000, keys: [] }
  const steps: Array<Step> = []
  commands.forEach((command, n) => {
    if (command._tag === "Pass") topic.now += command.ms
    const operation = operationOf(command, topic, setup, n)
    if (operation === undefined) return
    const { deliveries = [], outcomes = [], state } = perform(operation, topic, setup)
    steps.push({
      operation,
      now: topic.now,
      keys: [...topic.keys],
      before: topic.state,
      after: state,
      deliveries,
      outcomes
    })
    topic.state = state
    if (operation._tag === "Publish") topic.keys.push(...operation.keys)
  })
  return steps
}
