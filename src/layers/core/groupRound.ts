/**
 * One round of a group on a topic, as a pure step: what was gathered goes in, and out come the new state and what
 * follows from it. Whoever runs it stores the state first.
 */
import type { StoredRecord } from "../../domain/Event.ts"
import * as Group from "../../domain/Group.ts"
import * as GroupRedrive from "../../domain/GroupRedrive.ts"
import * as Ranges from "../../domain/Ranges.ts"
import type { GroupSettings } from "../../domain/Settings.ts"
import type { Answer } from "../../services/GroupDelivery.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { type GroupMember, isCurrent } from "./groupMember.ts"
import type { FoundLetters } from "./groupSource.ts"

export interface AnswerCommand {
  readonly member: GroupMember
  readonly answer: Answer
  readonly done: (outcomes: ReadonlyArray<Group.Outcome> | StoreUnavailable) => void
  /** In the order of the ids; none: the member has no such delivery, and its round looks the event up. */
  readonly deliveries: Array<{ readonly seq: number; readonly generation: string | undefined } | undefined>
}

export interface Departure {
  readonly member: GroupMember
  /** It said goodbye: its attempts do not count. */
  readonly graceful: boolean
  readonly done: () => void
}

export interface Allotment {
  readonly member: GroupMember
  readonly limit: number
  /** How much of the limit is credit that answers are to free in this round. */
  readonly toBeFreed: number
  readonly mode: "shared" | "alone"
  /** How many retries come before anything else. */
  readonly retriesFirst: number
}

export interface Round {
  /** What it was made from. */
  readonly before: Group.GroupState | undefined
  readonly state: Group.GroupState
  readonly outcomes: ReadonlyMap<AnswerCommand, ReadonlyArray<Group.Outcome>>
  readonly claims: ReadonlyArray<{
    readonly allotment: Allotment
    readonly deliveries: ReadonlyArray<Group.Delivery>
  }>
  /** How many of the deliveries are retries, suspects not counted, and how many are the first of their events. */
  readonly retries: number
  readonly fresh: number
  /** Events that will not come, since they were trimmed. */
  readonly lost: Ranges.Ranges
  /** Deliveries ended without an answer. */
  readonly lapsed: boolean
  /** When the store did it, by its clock. */
  readonly now: number
}

/** What is known when a round begins. */
export interface RoundInput {
  readonly topic: string
  readonly options: Group.GroupOptions
  readonly settings: GroupSettings
  /** Dead letters are tried for ever, whatever the group's options say. */
  readonly maxAttempts: number
  /** Members of this hub. */
  readonly members: Iterable<GroupMember>
  readonly isLive: (member: string) => boolean
  readonly before: Group.GroupState | undefined
  /** Of a state that begins with this round. */
  readonly generation: string
  readonly now: number
  /** Members of earlier hubs are gone. */
  readonly adopt: boolean
  /** The store failed before this. */
  readonly recover: boolean
  readonly answers: ReadonlyArray<AnswerCommand>
  /** A random number for each id of each NACK. */
  readonly randoms: ReadonlyArray<ReadonlyArray<number>>
  readonly departures: ReadonlyArray<Departure>
  /** Dead letters that are in the log. */
  readonly buried: ReadonlyArray<number>
  /** Events that were claimed, and could not be read: nobody has them. */
  readonly unread: ReadonlyArray<number>
  readonly allotments: ReadonlyArray<Allotment>
  /** Retries that may be handed out, suspects not counted. */
  readonly retriesAtMost: number
  readonly candidates: ReadonlyArray<StoredRecord>
  /** Events that were passed over, and found again in the log. */
  readonly listings: ReadonlyArray<Group.Listing>
  /** Dead letters that come back. */
  readonly letters: FoundLetters | undefined
  /** Up to here the topic was trimmed before the group took it, and its dead letters. */
  readonly trimmedTo: number
  readonly lettersTrimmedTo: number
}

/** All answers of a round, in as few changes of the state as there are kinds. */
const applyAnswers = (
  before: Group.GroupState,
  commands: ReadonlyArray<AnswerCommand>,
  randoms: ReadonlyArray<ReadonlyArray<number>>,
  limits: Group.Limits,
  ackTimeoutMs: number,
  outcomes: Map<AnswerCommand, ReadonlyArray<Group.Outcome>>
): Group.GroupState => {
  let state = before
  const results = new Map<AnswerCommand, Array<Group.Outcome>>(
    commands.map((command) => [command, command.answer.ids.map(() => "stale" as const)])
  )
  /** What the answers of one kind are about, and where their outcomes belong. */
  const gather = <A extends Group.Answer>(
    tag: Answer["_tag"],
    make: (command: AnswerCommand, answer: Group.Answer, c: number, i: number) => A
  ) => {
    const answers: Array<A> = []
    const places: Array<readonly [AnswerCommand, number]> = []
    commands.forEach((command, c) => {
      if (command.answer._tag !== tag) return
      command.deliveries.forEach((delivery, i) => {
        if (delivery === undefined) return
        if (delivery.generation !== undefined && delivery.generation !== before.generation) return
        // It is on its way to the member, which answers for an earlier delivery: one of before a seek.
        const isOnItsWay = before.inFlight.get(delivery.seq)?.member === command.member.id
        if (delivery.generation === undefined && isOnItsWay) return
        const { attempt } = command.answer
        answers.push(make(command, { seq: delivery.seq, member: command.member.id, attempt }, c, i))
        places.push([command, i])
      })
    })
    return { answers, places }
  }
  const take = (answered: Group.Answered, places: ReadonlyArray<readonly [AnswerCommand, number]>): void => {
    state = answered.state
    answered.outcomes.forEach((outcome, n) => {
      const [command, i] = places[n]!
      results.get(command)![i] = outcome
    })
  }

  const acks = gather("Ack", (_command, answer) => answer)
  if (acks.answers.length > 0) take(Group.ack(state, acks.answers), acks.places)
  const nacks = gather("Nack", ({ answer }, base, c, i): Group.Refusal => {
    const nack = answer as Extract<Answer, { readonly _tag: "Nack" }>
    return { ...base, mode: nack.mode, reason: nack.reason, delayMs: nack.delayMs, random: randoms[c]![i]! }
  })
  if (nacks.answers.length > 0) take(Group.nack(state, nacks.answers, limits), nacks.places)
  const extensions = gather("Extend", ({ answer }, base) => ({
    ...base,
    byMs: (answer as Extract<Answer, { readonly _tag: "Extend" }>).byMs ?? ackTimeoutMs
  }))
  if (extensions.answers.length > 0)
    take(Group.extend(state, extensions.answers, limits.now), extensions.places)
  for (const [command, outcome] of results) outcomes.set(command, outcome)
  return state
}

/**
 * What an outage kept from the members of this hub: claims that were stored although the store said that it
 * failed never reached them, and go back; and more time for the rest, since nobody could answer.
 */
const recover = (before: Group.GroupState, round: RoundInput, limits: Group.Limits): Group.GroupState => {
  const heldBy = new Map<string, ReadonlySet<number>>()
  for (const member of round.members) {
    const held = [...(member.held.get(round.topic)?.values() ?? [])]
    const current = held.filter((delivery) => isCurrent(before, member, delivery))
    heldBy.set(member.id, new Set(current.map(({ seq }) => seq)))
  }
  const lost: Array<Group.Refusal> = []
  const late: Array<Group.Answer & { readonly byMs: number }> = []
  for (const [seq, { deadline, member }] of before.inFlight) {
    const held = heldBy.get(member)
    if (held === undefined) continue
    if (!held.has(seq)) lost.push({ seq, member, mode: "release", reason: "", random: 0 })
    else if (deadline <= limits.now) late.push({ seq, member, byMs: round.options.ackTimeoutMs })
  }
  return Group.extend(Group.nack(before, lost, limits).state, late, limits.now).state
}

/** The pure part of a round: what becomes of the state, who gets what, and what is answered. */
export const decideRound = (round: RoundInput): Round => {
  const { now } = round
  const limits = { now, maxAttempts: round.maxAttempts, backoff: round.settings.backoff }
  const outcomes = new Map<AnswerCommand, ReadonlyArray<Group.Outcome>>()
  const initial = round.before ?? Group.initial(round.generation, 0)
  let state = initial

  // Answers count before deadlines: they came in time, only the round was late.
  state = applyAnswers(state, round.answers, round.randoms, limits, round.options.ackTimeoutMs, outcomes)
  state = Group.bury(state, round.buried)
  const beforeLapse = state
  if (round.recover) state = recover(state, round, limits)
  for (const { graceful, member } of round.departures) {
    state = graceful
      ? Group.leave(state, member.id, now)
      : Group.removeMembers(state, (id) => id === member.id, limits)
  }
  if (round.adopt) state = Group.removeMembers(state, (id) => !round.isLive(id), limits)
  state = Group.expire(state, limits)
  const lapsed = state !== beforeLapse
  const unread = round.unread.filter((seq) => seq <= round.trimmedTo && state.inFlight.has(seq))
  const lost = Ranges.addAll(
    round.trimmedTo > state.floor ? Group.lostTo(state, round.trimmedTo) : Ranges.empty,
    unread
  )
  state = Group.skipTrimmed(state, round.trimmedTo)
  if (round.lettersTrimmedTo > 0) state = GroupRedrive.forgetTrimmed(state, round.lettersTrimmedTo)
  state = Group.list(state, round.listings, round.settings.window)
  if (round.letters !== undefined) state = GroupRedrive.admit(state, round.letters, now)

  const freed = new Map<GroupMember, number>()
  for (const [{ answer, member }, results] of outcomes) {
    if (answer._tag === "Extend") continue
    freed.set(member, (freed.get(member) ?? 0) + results.filter((outcome) => outcome === "done").length)
  }
  const claims: Array<Round["claims"][number]> = []
  const hasOthers = round.allotments.length > 1
  let retries = 0
  let fresh = 0
  for (const allotment of round.allotments) {
    const claimed = Group.claim(state, {
      now,
      member: allotment.member.id,
      limit: allotment.limit - Math.max(0, allotment.toBeFreed - (freed.get(allotment.member) ?? 0)),
      retriesFirst: allotment.retriesFirst,
      retriesAtMost: round.retriesAtMost - retries,
      mode: allotment.mode,
      hasOthers: hasOthers && allotment.mode === "shared",
      candidates: round.candidates.slice(Math.max(0, state.next - (round.candidates[0]?.seq ?? 0))),
      options: round.options,
      window: round.settings.window
    })
    state = claimed.state
    if (allotment.mode === "shared") {
      const again = claimed.deliveries.filter(({ redelivered }) => redelivered).length
      retries += again
      fresh += claimed.deliveries.length - again
    }
    claims.push({ allotment, deliveries: claimed.deliveries })
  }
  if (state !== initial) state = Group.sampled(state, now)
  return { before: round.before, state, outcomes, claims, retries, fresh, lost, lapsed, now }
}
