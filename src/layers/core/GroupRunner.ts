/**
 * One consumer group on one topic, at work: a loop that gathers whatever happened since its last round, makes
 * one change of the group's state out of it, and carries out what follows when that change is durable.
 *
 * A round takes all answers that wait, all deadlines that passed, and hands new events to the members that
 * have credit. Many acknowledgements therefore cost one write. Which event goes where is decided by
 * domain/Group; this file only knows when to ask, and what to do with the answer. Each thing that a round needs has
 * its own part: GroupCredit says who gets how much, GroupRetries what is to be retried, GroupRecords has the events,
 * groupAnswers tells members what became of their answers, and GroupBurial brings away what is given up.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Random from "effect/Random"
import type { StoredRecord } from "../../domain/Event.ts"
import { isDeadLetterTopic } from "../../domain/DeadLetter.ts"
import * as Group from "../../domain/Group.ts"
import type { GroupSettings } from "../../domain/Settings.ts"
import type { Appender } from "../../services/Appender.ts"
import type { EventStore } from "../../services/EventStore.ts"
import type { EventTraces } from "../../services/EventTraces.ts"
import type { Answer, GroupEvent } from "../../services/GroupDelivery.ts"
import type { GroupStore } from "../../services/GroupStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import * as groupAnswers from "./groupAnswers.ts"
import { GroupBurial } from "./GroupBurial.ts"
import { type CreditPool, GroupCredit, wantedBy } from "./GroupCredit.ts"
import { endMember, type GroupMember, type Held } from "./groupMember.ts"
import { GroupRecords } from "./GroupRecords.ts"
import { GroupRetries } from "./GroupRetries.ts"
import { type Allotment, type AnswerCommand, decideRound, type Departure, type Round } from "./groupRound.ts"
import * as groupSource from "./groupSource.ts"
import * as metrics from "./metrics.ts"
import type { RecordCache } from "./RecordCache.ts"
import { WakeTimer } from "./WakeTimer.ts"

export interface Environment {
  readonly store: EventStore["Service"]
  readonly groups: GroupStore["Service"]
  readonly appender: Appender["Service"]
  readonly settings: GroupSettings
  readonly clock: Clock.Clock
  readonly random: Random.Random
  readonly recorder: metrics.Recorder
  /** How long events are on their way from the store to a member. */
  readonly sent: metrics.Distribution
  readonly traces: EventTraces | undefined
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

/** How long a round that the store refused waits for the next one, in milliseconds. */
const pauseAfterFailure = 250

/** What all topics of a group share. */
export interface RunningGroup extends CreditPool {
  readonly name: string
  readonly options: Group.GroupOptions
  /** Whatever has its name from here on is another group. */
  isRemoved: boolean
  readonly runners: Map<string, GroupRunner>
}

export class GroupRunner {
  readonly topic: string
  readonly #env: Environment
  readonly #group: RunningGroup
  readonly #maxAttempts: number
  /** What the last round left; nothing before the first. */
  #state: Group.GroupState | undefined
  readonly #records: GroupRecords
  readonly #retries: GroupRetries
  readonly #credit: GroupCredit
  readonly #burial: GroupBurial
  readonly #timer: WakeTimer
  #answers: Array<AnswerCommand> = []
  #departures: Array<Departure> = []
  /** What was claimed, and could not be read. */
  #unread: Array<number> = []
  #isAdopted = false
  #isRunning = false
  #isHandingOut = false
  #again = false
  /** How far the store's clock is ahead of this hub's, as of the last round. */
  #clockAhead = 0
  /** The store failed: what members could not be given, or could not answer meanwhile, is to be made good. */
  #isRecovering = false

  constructor(env: Environment, group: RunningGroup, topic: string) {
    this.#env = env
    this.#group = group
    this.topic = topic
    this.#maxAttempts = isDeadLetterTopic(topic) ? Infinity : group.options.maxAttempts
    const { appender, cache, fork, isDraining, recorder, store } = env
    const { keyOrdered } = group.options
    const at = this.#at
    const wake = () => this.wake()
    this.#records = new GroupRecords({
      store,
      cache,
      at,
      keyOrdered,
      onTrimmed: () => this.goOn(),
      onFailure: () => (this.#isRecovering = true)
    })
    this.#retries = new GroupRetries(keyOrdered)
    this.#credit = new GroupCredit(group, this, isDraining)
    this.#burial = new GroupBurial({ appender, recorder, fork, at, records: this.#records, onBuried: wake })
    this.#timer = new WakeTimer(fork, wake)
  }

  // --- what happens to it ------------------------------------------------------------------------------------

  /** The topic has grown by this one. */
  committed(record: StoredRecord): void {
    this.#records.committed(record)
  }

  /** The topic is known to reach this far. */
  grewTo(head: number): void {
    if (this.#records.growTo(head)) this.wake()
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

  /** Another round is to follow the one under way. */
  goOn(): void {
    this.#again = true
  }

  /** Nothing is under way, and nothing waits to be done. */
  get isIdle(): boolean {
    const isAtWork = this.#isRunning || this.#burial.isUnderWay
    return !isAtWork && this.#departures.length === 0 && this.#answers.length === 0
  }

  /** An event is due that has to be delivered alone. */
  get hasSuspectDue(): boolean {
    return this.#state !== undefined && this.#retries.hasSuspect(this.#state, this.#now())
  }

  /** A round is under way that may deliver something. */
  get isHandingOut(): boolean {
    return this.#isHandingOut
  }

  stop(): void {
    this.#timer.clear()
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
      if (this.#state === undefined) this.#retries.mayHaveSuspects()
      yield* this.#checkHistory(known)
      const began = this.#now()
      const allotments = this.#allot(known, began)
      this.#isHandingOut = allotments.length > 0
      return yield* this.#roundFrom(known, allotments, began).pipe(
        Effect.ensuring(Effect.sync(() => this.#credit.giveBack(allotments)))
      )
    })
  }

  /**
   * A group that has looked behind the end of its topic belongs to another log: it stops, and says so. It would take
   * what comes there next for acknowledged.
   *
   * What this runner remembers may be older than a seek. So the state is read again, and said to those alone who were
   * there before: whoever joins meanwhile is looked at in the round that follows from it.
   */
  #checkHistory(known: Group.GroupState) {
    return Effect.gen({ self: this }, function* () {
      if (known.next - 1 <= this.#records.head) return
      const members = [...this.#group.members].filter((member) => member.matches(this.topic))
      const seen = ((yield* this.#env.groups.read(this.#at)) ?? Group.initial("", 0)).next - 1
      const head = (yield* this.#env.store.head(this.topic))?.head ?? 0
      this.grewTo(head)
      const open = members.filter((member) => !member.isClosed)
      if (seen <= head || open.length === 0) return
      yield* Effect.logError(
        `a group stands at ${seen} of a topic that ends at ${head}: the log was replaced. Seek or remove the group`
      ).pipe(Effect.annotateLogs(this.#at))
      for (const member of open) endMember(member, "history_changed")
    })
  }

  #roundFrom(known: Group.GroupState, allotments: ReadonlyArray<Allotment>, began: number) {
    return Effect.gen({ self: this }, function* () {
      const { cache, recorder, store } = this.#env
      const wanted = wantedBy(allotments)
      const candidates = yield* this.#records.next(known, wanted)
      const looked =
        allotments.length > 0 ? yield* groupSource.findUnlisted(store, this.topic, known) : undefined
      const listings = looked?.listings ?? []
      const letters =
        this.#credit.takers().length > 0 ? yield* groupSource.findLetters(store, this.#at, known) : undefined
      // All at once: an answer that came before a departure has to be in its round, or in an earlier one.
      const taken = this.#answers
      const departures = this.#departures
      const buried = this.#burial.take()
      const unread = this.#unread
      this.#unread = []
      this.#answers = []
      this.#departures = []
      const answers = yield* groupAnswers.locate(store, this.topic, taken)
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
            trimmedTo: this.#records.trimmedTo,
            lettersTrimmedTo: this.#records.lettersTrimmedTo,
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
            retriesAtMost: this.#retries.left(began),
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
      const isChanged = round.lapsed || round.before !== known
      if (isChanged) this.#retries.mayHaveSuspects()
      this.#state = round.state
      this.#clockAhead = clockAhead
      groupAnswers.settle(answers, round, this.topic, {
        cache,
        credit: this.#credit,
        recorder,
        now: this.#env.clock.currentTimeMillisUnsafe()
      })
      if (isChanged) this.#credit.reconcile(round.state)
      for (const { done, member } of departures) {
        member.held.delete(this.topic)
        done()
      }
      const delivered = yield* this.#deliver(round, candidates)
      this.#retries.took(round, delivered)
      if (round.state.deferred.size > 0)
        this.#records.keepListed(round.state, candidates, looked?.records ?? [])
      if (round.state.dying.size > 0) this.#burial.bury(round.state)
      this.#records.looked(round.state, candidates, { wanted, delivered })
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

  #allot(state: Group.GroupState, now: number): ReadonlyArray<Allotment> {
    return this.#credit.allot({
      work: this.#work(state, now),
      hasSuspect: this.#retries.hasSuspect(state, now),
      answers: this.#answers,
      retries: this.#retries
    })
  }

  /** About how many events could be delivered now. */
  #work(state: Group.GroupState, now: number): number {
    const work = Math.max(0, this.#records.head - state.next + 1) + this.#retries.ready(state, now)
    // At most one event of a key at a time, and what waits here may free any of them.
    const isFreeing = this.#answers.length + this.#departures.length > 0 || this.#burial.hasBuried
    return work + (isFreeing ? state.deferred.size : Group.freeKeys(state))
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
    groupAnswers.refuse(answers, isGone ? "stale" : unavailable)
    if (isGone) {
      for (const { done } of departures) done()
      this.#env.onRemoved(this.#group)
      return Effect.succeed(false)
    }
    // What must not be lost is tried again with the next round.
    this.#isRecovering = true
    this.#departures = [...departures, ...this.#departures]
    this.#burial.putBack(buried)
    return Effect.failCause(exit.cause)
  }

  /** The group is no more: nothing of its members counts, and nothing is done to a group that has its name now. */
  #dismiss(): false {
    const answers = this.#answers
    const departures = this.#departures
    this.#answers = []
    this.#departures = []
    this.#burial.take()
    this.#timer.clear()
    groupAnswers.refuse(answers, "stale")
    for (const { done } of departures) done()
    return false
  }

  #deliver(round: Round, candidates: ReadonlyArray<StoredRecord>) {
    return Effect.gen({ self: this }, function* () {
      for (const [from, to] of round.lost) {
        for (const member of this.#credit.takers()) member.sink.gap({ topic: this.topic, from, to })
      }
      const found = yield* this.#records.fetch(
        round.claims.flatMap(({ deliveries }) => deliveries),
        candidates
      )
      const now = this.#now()
      const sentAt = this.#env.clock.currentTimeMillisUnsafe()
      let delivered = 0
      for (const { allotment, deliveries } of round.claims) {
        const { member, mode } = allotment
        if (mode === "alone" && deliveries.length === 0) this.#credit.letGo(member)
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
          held.set(record.id, { seq, attempt, generation: round.state.generation, sentAt, isOpen: true })
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
        } else if (events.length > 0) {
          member.sink.deliver(events)
          this.#told(events, now)
        }
      }
      return delivered
    })
  }

  /** What came for the first time was on its way since it was stored; what came again, was in other hands meanwhile. */
  #told(events: ReadonlyArray<GroupEvent>, now: number): void {
    const { sent, traces } = this.#env
    for (const { attempt, record, redelivered } of events) {
      const tookMs = redelivered ? 0 : Math.max(0, now - record.storedAt)
      if (!redelivered) sent.observe(tookMs / 1000)
      traces?.delivered({ record, tookMs, attempt, group: this.#group.name, deliveries: 1 })
    }
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
    if (this.#group.members.size === 0) return this.#timer.clear()
    this.#timer.wakeAt(Math.min(this.#retries.nextAt(state, began), Group.nextDeadline(state)), now)
  }
}
