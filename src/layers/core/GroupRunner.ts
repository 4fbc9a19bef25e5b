/**
 * One consumer group on one topic, at work: a loop that gathers whatever happened since its last round, makes
 * one change of the group's state out of it, and carries out what follows when that change is durable.
 *
 * A round takes all answers that wait, all deadlines that passed, and hands new events to the members that
 * have credit. Many acknowledgements therefore cost one write. Which event goes where is decided by
 * domain/Group; this file only knows when to ask, and what to do with the answer.
 */
import { type Clock, Effect, Exit, type Fiber, type Random, Schedule } from "effect"
import type { StoredRecord } from "../../domain/Event.ts"
import { deadLetter, isDeadLetterTopic } from "../../domain/DeadLetter.ts"
import * as Group from "../../domain/Group.ts"
import type { GroupSettings } from "../../domain/Settings.ts"
import type { Appender } from "../../services/Appender.ts"
import type { EventStore } from "../../services/EventStore.ts"
import type { Answer, GroupEvent } from "../../services/GroupDelivery.ts"
import type { GroupStore } from "../../services/GroupStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import {
  endMember,
  freeCredit,
  type GroupMember,
  type Held,
  isCurrent,
  isIdle,
  isTaking
} from "./groupMember.ts"
import { type Allotment, type AnswerCommand, decideRound, type Departure, type Round } from "./groupRound.ts"
import * as groupSource from "./groupSource.ts"
import * as metrics from "./metrics.ts"
import { RecordBuffer } from "./RecordBuffer.ts"
import type { RecordCache } from "./RecordCache.ts"
import { RetryPace } from "./RetryPace.ts"

export interface Environment {
  readonly store: EventStore["Service"]
  readonly groups: GroupStore["Service"]
  readonly appender: Appender["Service"]
  readonly settings: GroupSettings
  readonly clock: Clock.Clock
  readonly random: Random.Random
  readonly recorder: metrics.Recorder
  readonly cache: RecordCache
  readonly newGeneration: () => string
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  /** Members that are connected to this hub. */
  readonly isLive: (member: string) => boolean
  readonly isDraining: () => boolean
  /** A runner of the group has nothing to do. */
  readonly onIdle: (group: RunningGroup) => void
  /** The group was removed. */
  readonly onRemoved: (group: RunningGroup) => void
}

/** The most events that one round hands out. */
const roundLimit = 512

/** The part of what is handed out that retries have for sure, beside fresh events without end. */
const retryShare = 0.05

/** How far a group in key order looks ahead for what it can deliver, at most. */
const maxLookahead = { factor: 32, records: 4_096 }

/** Events that are put into the dead letters at once. */
const buriedAtOnce = 256

const patience = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

/** How long a round that the store refused waits for the next one, in milliseconds. */
const pauseAfterFailure = 250

/** What all topics of a group share. */
export interface RunningGroup {
  readonly name: string
  readonly options: Group.GroupOptions
  isPaused: boolean
  /** Whatever has its name from here on is another group. */
  isRemoved: boolean
  readonly members: Set<GroupMember>
  readonly runners: Map<string, GroupRunner>
  /** Those with something to deliver and nobody to take it, the longest waiting first. */
  readonly starved: Set<GroupRunner>
}

const wantedBy = (allotments: ReadonlyArray<Allotment>): number =>
  allotments.reduce((sum, { limit, mode }) => sum + (mode === "shared" ? limit : 0), 0)

export class GroupRunner {
  readonly topic: string
  readonly #env: Environment
  readonly #group: RunningGroup
  readonly #maxAttempts: number
  /** What the last round left; nothing before the first. */
  #state: Group.GroupState | undefined
  readonly #buffer = new RecordBuffer()
  #answers: Array<AnswerCommand> = []
  #departures: Array<Departure> = []
  #buried: Array<number> = []
  /** What was trimmed before the group took it, in the log and in its dead letters. */
  #trimmedTo = 0
  #lettersTrimmedTo = 0
  /** What was claimed, and could not be read. */
  #unread: Array<number> = []
  #isAdopted = false
  #isRunning = false
  #isHandingOut = false
  #isBurying = false
  #again = false
  #turn = 0
  /** Retries that are to come before anything else: a part of one for each event that is handed out. */
  #retriesDue = 0
  readonly #retryPace = new RetryPace(retryShare)
  /** When those that are due and had to share come. */
  #retriesAt = Infinity
  #known:
    | (ReturnType<typeof Group.outlook> & {
        readonly now: number
        readonly waiting: Group.GroupState["waiting"]
      })
    | undefined
  /** By how much more than what is wanted is looked at, since much of it is passed over. */
  #lookahead = 2
  /** A suspect was with the only member: others get their turn before the next one. */
  #hasHadSuspect = false
  #mayHaveSuspects = true
  /** How far the store's clock is ahead of this hub's, as of the last round. */
  #clockAhead = 0
  /** The store failed: what members could not be given, or could not answer meanwhile, is to be made good. */
  #isRecovering = false
  #timer: { readonly at: number; readonly fiber: Fiber.Fiber<void> } | undefined

  constructor(env: Environment, group: RunningGroup, topic: string) {
    this.#env = env
    this.#group = group
    this.topic = topic
    this.#maxAttempts = isDeadLetterTopic(topic) ? Infinity : group.options.maxAttempts
  }

  // --- what happens to it ------------------------------------------------------------------------------------

  /** The topic has grown by this one. */
  committed(record: StoredRecord): void {
    this.#buffer.push(record)
  }

  /** The topic is known to reach this far. */
  grewTo(head: number): void {
    if (this.#buffer.growTo(head)) this.wake()
  }

  answer(
    member: GroupMember,
    answer: Answer,
    done: (outcomes: ReadonlyArray<Group.Outcome> | StoreUnavailable) => void
  ): void {
    const held = member.held.get(this.topic)
    this.#answers.push({ member, answer, done, deliveries: answer.ids.map((id) => held?.get(id)) })
    this.wake()
  }

  depart(departure: Departure): void {
    this.#departures.push(departure)
    this.wake()
  }

  wake(): void {
    this.#again = true
    if (this.#isRunning) return
    this.#isRunning = true
    this.#env.fork(this.#run)
  }

  /** Nothing is under way, and nothing waits to be done. */
  get isIdle(): boolean {
    return !this.#isRunning && !this.#isBurying && this.#departures.length === 0 && this.#answers.length === 0
  }

  /** An event is due that has to be delivered alone. */
  get hasSuspectDue(): boolean {
    return this.#state !== undefined && this.#hasSuspect(this.#state, this.#now())
  }

  /** A round is under way that may deliver something. */
  get isHandingOut(): boolean {
    return this.#isHandingOut
  }

  stop(): void {
    this.#clearTimer()
  }

  // --- the loop ----------------------------------------------------------------------------------------------

  readonly #run: Effect.Effect<void> = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      while (this.#again) {
        this.#again = false
        const exit = yield* Effect.exit(this.#round())
        this.#isHandingOut = false
        if (Exit.isSuccess(exit)) {
          if (exit.value) this.#again = true
        } else {
          yield* Effect.logWarning("a round of a consumer group failed", exit.cause).pipe(
            Effect.annotateLogs(this.#at)
          )
          yield* Effect.sleep(pauseAfterFailure)
          this.#again = true
        }
      }
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          this.#isRunning = false
          if (this.#again) this.wake()
          else this.#env.onIdle(this.#group)
        })
      )
    )
  )

  get #at() {
    return { group: this.#group.name, topic: this.topic }
  }

  /** One round. True: there may be more to do right away. */
  #round() {
    return Effect.gen({ self: this }, function* () {
      if (this.#group.isRemoved) return this.#dismiss()
      const known = this.#state ?? (yield* this.#env.groups.read(this.#at)) ?? Group.initial("", 0)
      if (this.#state === undefined) this.#mayHaveSuspects = true
      yield* this.#checkHistory(known)
      const began = this.#now()
      const allotments = this.#allot(known, began)
      this.#isHandingOut = allotments.length > 0
      return yield* this.#roundFrom(known, allotments, began).pipe(
        Effect.ensuring(Effect.sync(() => this.#giveBack(allotments)))
      )
    })
  }

  /**
   * A group that has looked behind the end of its topic belongs to another log: it stops, and says so. It would take
   * what comes there next for acknowledged.
   */
  #checkHistory(known: Group.GroupState) {
    return Effect.gen({ self: this }, function* () {
      const seen = known.next - 1
      if (seen <= this.#buffer.head) return
      const head = (yield* this.#env.store.head(this.topic))?.head ?? 0
      this.grewTo(head)
      if (seen <= head || ![...this.#group.members].some((member) => !member.isClosed)) return
      yield* Effect.logError(
        `a group stands at ${seen} of a topic that ends at ${head}: the log was replaced. Seek or remove the group`
      ).pipe(Effect.annotateLogs(this.#at))
      for (const member of this.#group.members) {
        if (member.matches(this.topic)) endMember(member, "history_changed")
      }
    })
  }

  #roundFrom(known: Group.GroupState, allotments: ReadonlyArray<Allotment>, began: number) {
    return Effect.gen({ self: this }, function* () {
      const { store } = this.#env
      const candidates = yield* this.#candidates(known, allotments)
      const looked =
        allotments.length > 0 ? yield* groupSource.findUnlisted(store, this.topic, known) : undefined
      const listings = looked?.listings ?? []
      const letters = this.#canAdmit() ? yield* groupSource.findLetters(store, this.#at, known) : undefined
      // All at once: an answer that came before a departure has to be in its round, or in an earlier one.
      const taken = this.#answers
      const departures = this.#departures
      const buried = this.#buried
      const unread = this.#unread
      this.#unread = []
      this.#answers = []
      this.#departures = []
      this.#buried = []
      const answers = yield* this.#locate(taken)
      const adopt = !this.#isAdopted && this.#env.groups.exclusive
      const recover = this.#isRecovering
      this.#isRecovering = false
      const generation = this.#env.newGeneration()
      const randoms = answers.map(({ answer }) =>
        answer._tag === "Nack" ? answer.ids.map(() => this.#env.random.nextDoubleUnsafe()) : []
      )
      let clockAhead = this.#clockAhead
      const exit = yield* Effect.exit(
        this.#env.groups.modify(this.#at, (before, now) => {
          // By both clocks at one moment: until the store has answered, time passes.
          clockAhead = now - this.#env.clock.currentTimeMillisUnsafe()
          const round = decideRound({
            topic: this.topic,
            options: this.#group.options,
            settings: this.#env.settings,
            maxAttempts: this.#maxAttempts,
            members: this.#group.members,
            isLive: this.#env.isLive,
            trimmedTo: this.#trimmedTo,
            lettersTrimmedTo: this.#lettersTrimmedTo,
            before,
            generation,
            now,
            adopt,
            recover,
            answers,
            randoms,
            departures,
            buried,
            unread,
            allotments,
            retriesAtMost: this.#retryPace.left(began),
            candidates,
            listings,
            letters
          })
          return [round, round.state]
        })
      )
      if (Exit.isFailure(exit)) {
        this.#unread = [...unread, ...this.#unread]
        return yield* this.#failed(exit, answers, departures, buried)
      }
      this.#isAdopted = true
      const round = exit.value
      if (round.lapsed || round.before !== known) this.#mayHaveSuspects = true
      this.#state = round.state
      this.#clockAhead = clockAhead
      this.#settleAnswers(answers, round)
      if (round.lapsed || round.before !== known) this.#reconcile(round.state)
      for (const { done, member } of departures) {
        member.held.delete(this.topic)
        done()
      }
      const delivered = yield* this.#deliver(round, candidates)
      this.#retryPace.took(round)
      this.#retriesDue = Math.min(roundLimit, this.#retriesDue + delivered * retryShare)
      if (round.state.deferred.size > 0) this.#keepListed(round.state, candidates, looked?.records ?? [])
      if (round.state.dying.size > 0) this.#buryDying(round.state)
      this.#lookFurther(round.state, candidates, allotments, delivered)
      this.#buffer.forgetBefore(round.state.next)
      this.#schedule(round.state, Math.min(began, round.now))
      return (
        delivered > 0 ||
        round.lapsed ||
        listings.length > 0 ||
        round.state.next !== known.next ||
        round.state.redrive !== known.redrive ||
        // A letter may have waited until the group let go of its event.
        (buried.length > 0 && round.state.redrive.plans.length > 0) ||
        // Somebody else has changed it, and this round was made for what it was.
        (round.before !== known && round.before !== undefined)
      )
    })
  }

  // --- before a round ----------------------------------------------------------------------------------------

  /** Finds the events of deliveries that a member does not have. What cannot be found out now is answered so. */
  #locate(answers: ReadonlyArray<AnswerCommand>): Effect.Effect<ReadonlyArray<AnswerCommand>> {
    const unknown = answers.filter(({ deliveries }) => deliveries.includes(undefined))
    if (unknown.length === 0) return Effect.succeed(answers)
    const ids = new Set(
      unknown.flatMap(({ answer, deliveries }) => answer.ids.filter((_, i) => deliveries[i] === undefined))
    )
    return Effect.match(this.#env.store.find({ topic: this.topic, ids: [...ids] }), {
      onFailure: (error) => {
        for (const { done } of unknown) done(error)
        return answers.filter((command) => !unknown.includes(command))
      },
      onSuccess: (seqs) => {
        for (const { answer, deliveries } of unknown) {
          answer.ids.forEach((id, i) => {
            const seq = seqs.get(id)
            if (seq !== undefined) deliveries[i] ??= { seq, generation: undefined }
          })
        }
        return answers
      }
    })
  }

  /** Members of this topic that can take something. */
  #takers(): ReadonlyArray<GroupMember> {
    if (this.#env.isDraining() || this.#group.isPaused) return []
    return [...this.#group.members].filter(
      (member) =>
        isTaking(member) &&
        (member.holdFor === undefined || member.holdFor === this) &&
        member.matches(this.topic)
    )
  }

  #canAdmit(): boolean {
    return this.#takers().length > 0
  }

  #hasSuspect(state: Group.GroupState, now: number): boolean {
    if (this.#mayHaveSuspects) this.#mayHaveSuspects = Group.hasSuspects(state)
    return this.#mayHaveSuspects && Group.suspectDue(state, now, this.#group.options.keyOrdered)
  }

  /** Divides what there is to deliver among the members that have credit, each time beginning with another. */
  #allot(state: Group.GroupState, now: number): ReadonlyArray<Allotment> {
    const takers = this.#takers()
    const work = this.#work(state, now)
    const allotments: Array<Allotment> = []
    const [only] = takers
    const hasSuspect = this.#hasSuspect(state, now)
    if (!hasSuspect) {
      for (const member of takers) if (member.holdFor === this && isIdle(member)) this.#letGo(member)
    } else if (this.#hasHadSuspect && work > 0 && takers.length === 1 && isIdle(only!)) {
      // One that hangs its handler, again and again, would leave nothing of the only member to the others.
      this.#hasHadSuspect = false
      only!.holdFor = undefined
      this.#again = true
    } else {
      const alone = this.#aloneMember(takers)
      if (alone !== undefined) {
        // All of its credit, so that nothing joins the suspect.
        alone.reserved += alone.credit
        allotments.push({ member: alone, limit: alone.credit, toBeFreed: 0, mode: "alone", retriesFirst: 1 })
        this.#hasHadSuspect = true
      }
    }
    const { starved } = this.#group
    // Where other topics wait for credit, they get what is freed.
    const isAsked = [...starved].some((runner) => runner !== this)
    const freeing = isAsked ? new Map<GroupMember, number>() : this.#freeing()
    const creditOf = (member: GroupMember) => freeCredit(member) + (freeing.get(member) ?? 0)
    const shared = takers.filter((member) => member.holdFor === undefined && creditOf(member) > 0)
    if ((work > 0 || hasSuspect) && shared.length === 0) starved.add(this)
    else starved.delete(this)
    if (work === 0 || shared.length === 0) return allotments
    const others = starved.size
    const each = Math.ceil(Math.min(work, roundLimit) / shared.length)
    const first = this.#turn++ % shared.length
    for (let i = 0; i < shared.length; i++) {
      const member = shared[(first + i) % shared.length]!
      const free = creditOf(member)
      const limit = Math.min(each, Math.max(1, Math.ceil(free / (others + 1))), free)
      const toBeFreed = Math.max(0, limit - Math.max(0, freeCredit(member)))
      member.reserved += limit
      const retriesFirst = Math.floor(this.#retriesDue)
      this.#retriesDue -= retriesFirst
      allotments.push({ member, limit, toBeFreed, mode: "shared", retriesFirst })
    }
    return allotments
  }

  /** Credit that the answers which wait are going to free: what follows them can be in the same round. */
  #freeing(): ReadonlyMap<GroupMember, number> {
    const freeing = new Map<GroupMember, number>()
    const seen = new Set<Held>()
    for (const { answer, member } of this.#answers) {
      if (answer._tag === "Extend") continue
      for (const id of answer.ids) {
        const delivery = member.held.get(this.topic)?.get(id)
        if (delivery === undefined || !delivery.isOpen || seen.has(delivery)) continue
        seen.add(delivery)
        freeing.set(member, (freeing.get(member) ?? 0) + 1)
      }
    }
    return freeing
  }

  /** Who gets the suspect: somebody idle, else whoever is nearest to it gets nothing more until then. */
  #aloneMember(takers: ReadonlyArray<GroupMember>): GroupMember | undefined {
    const holding = takers.find((member) => member.holdFor === this)
    if (holding !== undefined) return isIdle(holding) ? holding : undefined
    const [nearest] = takers
      .filter((member) => member.holdFor === undefined)
      .sort((a, b) => a.inFlight + a.reserved - (b.inFlight + b.reserved))
    if (nearest === undefined) return undefined
    nearest.holdFor = this
    return isIdle(nearest) ? nearest : undefined
  }

  /** What is known of the retries; looked up again when other ones wait, or the next is due. */
  #outlook(
    state: Group.GroupState,
    now: number,
    enough: number
  ): { readonly due: number; readonly next: number } {
    const known = this.#known
    if (known?.waiting === state.waiting && now >= known.now && now < known.next) return known
    const found = Group.outlook(state, now, enough)
    this.#known = { ...found, now, waiting: state.waiting }
    return found
  }

  /** About how many events could be delivered now. */
  #work(state: Group.GroupState, now: number): number {
    let work = Math.max(0, this.#buffer.head - state.next + 1)
    const allowed = this.#retryPace.left(now)
    const { due } = this.#outlook(state, now, allowed)
    this.#retriesAt = due > allowed ? this.#retryPace.nextAt(now) : Infinity
    work += Math.min(due, allowed)
    // At most one event of a key at a time, and what waits here may free any of them.
    const isFreeing = this.#answers.length + this.#departures.length + this.#buried.length > 0
    return work + (isFreeing ? state.deferred.size : Group.freeKeys(state))
  }

  /** What the group has not looked at yet: from memory, or from the store. */
  #candidates(state: Group.GroupState, allotments: ReadonlyArray<Allotment>) {
    const wanted = wantedBy(allotments)
    if (wanted === 0 || this.#buffer.head < state.next) return Effect.succeed([])
    const limit = this.#group.options.keyOrdered
      ? Math.min(maxLookahead.records, wanted * this.#lookahead)
      : Math.min(roundLimit, wanted)
    const held = this.#buffer.from(state.next, limit)
    if (held !== undefined) return Effect.succeed(held)
    return Effect.tap(
      this.#env.store.read({ topic: this.topic, after: state.next - 1, limit, maxBytes: 1024 * 1024 }),
      (records) =>
        Effect.sync(() => {
          const found = records[0]
          if (found !== undefined && found.seq > state.next) {
            this.#trimmedTo = found.seq - 1
            this.#again = true
          }
        })
    )
  }

  /** Events that were passed over and come next of their keys. */
  #keepListed(state: Group.GroupState, ...read: ReadonlyArray<ReadonlyArray<StoredRecord>>): void {
    for (const records of read) {
      for (const record of records) {
        const passed = record.key === undefined ? undefined : state.deferred.get(record.key)
        const [first = Infinity] = passed?.seqs ?? []
        if (record.seq >= first && record.seq < (passed?.from ?? state.next)) this.#env.cache.keep(record)
      }
    }
  }

  /** A group in key order passes over events whose key is busy: where there are many, it looks further. */
  #lookFurther(
    state: Group.GroupState,
    candidates: ReadonlyArray<StoredRecord>,
    allotments: ReadonlyArray<Allotment>,
    delivered: number
  ): void {
    const last = candidates.at(-1)
    const isShort = last !== undefined && state.next > last.seq && delivered < wantedBy(allotments)
    this.#lookahead = isShort ? Math.min(maxLookahead.factor, this.#lookahead * 2) : 2
  }

  /** A round is over: the credit that it did not use can be used by others. */
  #giveBack(allotments: ReadonlyArray<Allotment>): void {
    for (const { limit, member } of allotments) {
      member.reserved -= limit
      if (member.holdFor !== undefined && member.holdFor !== this && isIdle(member)) member.holdFor.wake()
    }
    if (allotments.length > 0) this.#wakeStarved()
  }

  // --- after a round -----------------------------------------------------------------------------------------

  /** The store refused the round. Nobody who asked for something is left without an answer. */
  #failed(
    exit: Exit.Failure<Round, unknown>,
    answers: ReadonlyArray<AnswerCommand>,
    departures: ReadonlyArray<Departure>,
    buried: ReadonlyArray<number>
  ) {
    const found = Exit.findErrorOption(exit)
    const error = found._tag === "Some" ? found.value : undefined
    const isGone = error instanceof Object && "_tag" in error && error._tag === "GroupNotFound"
    const unavailable =
      error instanceof StoreUnavailable
        ? error
        : new StoreUnavailable({ operation: "GroupStore.modify", cause: exit.cause })
    for (const { answer, done } of answers)
      done(isGone ? answer.ids.map(() => "stale" as const) : unavailable)
    if (isGone) {
      for (const { done } of departures) done()
      this.#env.onRemoved(this.#group)
      return Effect.succeed(false)
    }
    // What must not be lost is tried again with the next round.
    this.#isRecovering = true
    this.#departures = [...departures, ...this.#departures]
    this.#buried = [...buried, ...this.#buried]
    return Effect.failCause(exit.cause)
  }

  /** The group is no more: nothing of its members counts, and nothing is done to a group that has its name now. */
  #dismiss(): false {
    const answers = this.#answers
    const departures = this.#departures
    this.#answers = []
    this.#departures = []
    this.#buried = []
    this.#clearTimer()
    for (const { answer, done } of answers) done(answer.ids.map(() => "stale" as const))
    for (const { done } of departures) done()
    return false
  }

  #settleAnswers(answers: ReadonlyArray<AnswerCommand>, round: Round): void {
    let freed = false
    for (const command of answers) {
      const { answer, member } = command
      const outcomes = round.outcomes.get(command) ?? []
      if (answer._tag !== "Extend") {
        const done = outcomes.filter((outcome) => outcome === "done").length
        this.#env.recorder.add(answer._tag === "Ack" ? metrics.groupAcks : metrics.groupNacks, done)
        answer.ids.forEach((id, i) => {
          // An answer about another attempt says nothing of the one that runs.
          const delivery = member.held.get(this.topic)?.get(id)
          if (outcomes[i] === "stale" && delivery !== undefined && isCurrent(round.state, member, delivery))
            return
          if (answer._tag === "Ack" && delivery !== undefined) this.#env.cache.drop(this.topic, delivery.seq)
          freed = this.#release(member, id) || freed
        })
      }
      command.done(outcomes)
    }
    if (freed) this.#wakeOthers()
  }

  /** A delivery is over. True: credit is free again. */
  #release(member: GroupMember, id: string): boolean {
    const held = member.held.get(this.topic)
    const delivery = held?.get(id)
    if (delivery === undefined) return false
    held!.delete(id)
    return delivery.isOpen && this.#freeCredit(member)
  }

  #freeCredit(member: GroupMember): true {
    member.inFlight--
    if (member.holdFor !== undefined && member.inFlight === 0) {
      // It is idle now: the suspect it is held for can be delivered, or was, and nothing holds it any more.
      const holder = member.holdFor
      if (!holder.hasSuspectDue) member.holdFor = undefined
      holder.wake()
    }
    return true
  }

  /** Credit is free, or a member is: topics of the group that had none go on, and this one behind them. */
  #wakeOthers(): void {
    this.#wakeStarved()
    this.#again = true
  }

  /** As many as there is credit for: who is woken sets its part aside at once. */
  #wakeStarved(): void {
    for (const runner of [...this.#group.starved]) {
      if (runner === this) continue
      const isFree = (member: GroupMember) =>
        isTaking(member) && member.holdFor === undefined && freeCredit(member) > 0
      if (![...this.#group.members].some(isFree)) return
      runner.wake()
    }
  }

  /** The suspect that it was held for is not there any more. */
  #letGo(member: GroupMember): void {
    member.holdFor = undefined
    this.#wakeOthers()
  }

  /** Deliveries that lapsed cost no credit any more; they can be answered until somebody else has them. */
  #reconcile(state: Group.GroupState): void {
    let freed = false
    for (const member of this.#group.members) {
      const held = member.held.get(this.topic)
      if (held === undefined) continue
      for (const [id, delivery] of held) {
        if (isCurrent(state, member, delivery)) continue
        if (delivery.isOpen) {
          delivery.isOpen = false
          freed = this.#freeCredit(member)
        }
        if (state.waiting.get(delivery.seq)?.member !== member.id) held.delete(id)
      }
    }
    if (freed) this.#wakeOthers()
  }

  #deliver(round: Round, candidates: ReadonlyArray<StoredRecord>) {
    return Effect.gen({ self: this }, function* () {
      for (const [from, to] of round.lost) {
        for (const member of this.#takers()) member.sink.gap({ topic: this.topic, from, to })
      }
      const found = yield* this.#fetch(
        round.claims.flatMap(({ deliveries }) => deliveries),
        candidates
      )
      let delivered = 0
      for (const { allotment, deliveries } of round.claims) {
        const { member, mode } = allotment
        if (mode === "alone" && deliveries.length === 0) this.#letGo(member)
        if (deliveries.length === 0) continue
        delivered += deliveries.length
        const events: Array<GroupEvent> = []
        const held = member.held.get(this.topic) ?? new Map<string, Held>()
        member.held.set(this.topic, held)
        for (const { attempt, deadline, letter, redelivered, seq } of deliveries) {
          const record = found.get(seq)?.record
          if (record === undefined) {
            this.#unread.push(seq)
            continue
          }
          held.set(record.id, { seq, attempt, generation: round.state.generation, isOpen: true })
          if (letter === undefined) this.#env.cache.keep(record)
          member.inFlight++
          events.push({ record, attempt, redelivered, deadline })
        }
        const again = events.filter((event) => event.redelivered).length
        this.#env.recorder.add(metrics.groupDeliveries, events.length)
        if (again > 0) this.#env.recorder.add(metrics.groupRedeliveries, again)
        if (member.isClosed) {
          // It went while the round was under way: its departure is yet to come, or was before this.
          this.#departures.push({ member, graceful: true, done: () => {} })
          this.#again = true
        } else if (events.length > 0) member.sink.deliver(events)
      }
      return delivered
    })
  }

  /** The events of these seqs, as long as it takes. What was trimmed is missing, and the next round passes over it. */
  #fetch(wanted: ReadonlyArray<groupSource.Wanted>, candidates: ReadonlyArray<StoredRecord>) {
    return Effect.gen({ self: this }, function* () {
      const found = new Map<number, groupSource.Found>()
      const first = candidates[0]?.seq ?? Infinity
      const missing = wanted.filter(({ letter, seq }) => {
        const record =
          letter === undefined
            ? (candidates[seq - first] ?? this.#env.cache.get(this.topic, seq) ?? this.#buffer.get(seq))
            : undefined
        if (record !== undefined) found.set(seq, { record, redrives: 0 })
        return record === undefined
      })
      if (missing.length === 0) return found
      const fetched = yield* groupSource.fetch(this.#env.store, this.#at, missing).pipe(
        Effect.tapError(() => Effect.sync(() => (this.#isRecovering = true))),
        Effect.retry(patience),
        Effect.orDie
      )
      for (const [seq, event] of fetched.events) found.set(seq, event)
      if (fetched.trimmedTo > this.#trimmedTo || fetched.lettersTrimmedTo > this.#lettersTrimmedTo) {
        this.#trimmedTo = Math.max(this.#trimmedTo, fetched.trimmedTo)
        this.#lettersTrimmedTo = Math.max(this.#lettersTrimmedTo, fetched.lettersTrimmedTo)
        this.#again = true
      }
      return found
    })
  }

  /** Puts what is out of attempts into the dead letters; only then does the group let go of it. */
  #buryDying(state: Group.GroupState): void {
    if (this.#isBurying) return
    // A round that was under way meanwhile does not know of the letters that stand already.
    const buried = new Set(this.#buried)
    const dying = [...state.dying].filter(([seq]) => !buried.has(seq)).slice(0, buriedAtOnce)
    if (dying.length === 0) return
    this.#isBurying = true
    const bury = Effect.gen({ self: this }, function* () {
      const found = yield* this.#fetch(
        dying.map(([seq, { letter }]) => ({ seq, letter })),
        []
      )
      const isTrimmed = ([seq, { letter }]: readonly [number, Group.Dying]) =>
        letter === undefined ? seq <= this.#trimmedTo : letter <= this.#lettersTrimmedTo
      const unread = dying.filter((one) => !found.has(one[0]) && !isTrimmed(one)).map(([seq]) => seq)
      if (unread.length > 0) return yield* Effect.fail({ unread })
      const letters = dying.flatMap(([seq, { attempt, reason }]) => {
        const event = found.get(seq)
        if (event === undefined) return []
        const { record, redrives } = event
        const { generation } = state
        return [
          deadLetter({ record, group: this.#group.name, generation, attempts: attempt, reason, redrives })
        ]
      })
      const results = yield* this.#env.appender.append(letters)
      const refused = results.filter((result) => result._tag === "NotAppended")
      if (refused.length > 0) return yield* Effect.fail({ refused })
      this.#env.recorder.add(metrics.deadLetters, letters.length)
      this.#buried.push(...found.keys())
    })
    this.#env.fork(
      bury.pipe(
        Effect.tapError((error) =>
          Effect.logWarning("events could not be put into the dead letters yet", error).pipe(
            Effect.annotateLogs(this.#at)
          )
        ),
        Effect.retry(patience),
        Effect.orDie,
        Effect.ensuring(
          Effect.sync(() => {
            this.#isBurying = false
            this.wake()
          })
        )
      )
    )
  }

  /** Now, by the store's clock: deadlines and retries are stored in its time. */
  #now(): number {
    return this.#env.clock.currentTimeMillisUnsafe() + this.#clockAhead
  }

  /**
   * Wakes when the next deadline passes or the next retry is due, if anybody could be given something then.
   * Retries that were due before the round `began` wait for credit, which wakes by itself; no other does.
   */
  #schedule(state: Group.GroupState, began: number): void {
    const now = this.#now()
    if (this.#group.members.size === 0) return this.#clearTimer()
    const hasToShare = this.#retriesAt !== Infinity
    const retriesAt = hasToShare ? this.#retriesAt : this.#outlook(state, began - 1, Infinity).next
    const at = Math.min(retriesAt, Group.nextDeadline(state))
    if (at === Infinity) return this.#clearTimer()
    const due = Math.max(at, now + 1)
    if (this.#timer !== undefined && this.#timer.at <= due && this.#timer.at > now) return
    this.#clearTimer()
    const fiber = this.#env.fork(
      Effect.andThen(
        Effect.sleep(due - now),
        Effect.sync(() => {
          this.#timer = undefined
          this.wake()
        })
      )
    )
    this.#timer = { at: due, fiber }
  }

  #clearTimer(): void {
    this.#timer?.fiber.interruptUnsafe()
    this.#timer = undefined
  }
}
