/**
 * What stands in the way of nobody else: events that always fail, a key that waits for its head, an event that kills
 * its handler, and a long way to go.
 */
import { describe, expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as DeadLetter from "../domain/DeadLetter.ts"
import type { GroupState } from "../domain/Group.ts"
import { encodeChange, encodeState } from "../domain/GroupEncoding.ts"
import type { GroupEvent } from "../services/GroupDelivery.ts"
import { type Chance, chance } from "./chance.ts"
import { record, records } from "./eventStore.ts"
import type { Lab, Suite, TestMember } from "./groupLab.ts"

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

/** A member that answers what it gets at once: what `takes` it acknowledges, the rest it refuses. */
const answersAtOnce =
  (
    takes: (event: GroupEvent) => boolean,
    seen: (event: GroupEvent) => void,
    refusal: { readonly delayMs?: number } = {}
  ) =>
  (self: TestMember) =>
  (events: ReadonlyArray<GroupEvent>): void => {
    const acks = new Map<string, Array<string>>()
    for (const event of events) {
      const { id, topic } = event.record
      seen(event)
      if (takes(event)) acks.set(topic, [...(acks.get(topic) ?? []), id])
      else
        self.member.answer(
          { _tag: "Nack", topic, ids: [id], mode: "fail", reason: "no luck", ...refusal },
          () => {}
        )
    }
    for (const [topic, ids] of acks) self.member.answer({ _tag: "Ack", topic, ids }, () => {})
  }

/** Nobody is killed here: what a slow store takes long for is still the member's. */
const untimed = { ackTimeoutMs: 600_000 }

// --- poison ----------------------------------------------------------------------------------------------------

/** Healthy events behind a wall of those that always fail, and are always due again. */
const passTheWall = (lab: Lab, { credit, size }: { readonly credit: number; readonly size: number }) =>
  Effect.gen(function* () {
    const isHealthy = ({ record }: GroupEvent) => record.id.startsWith("h")
    const tried = new Set<string>()
    const healthy = new Set<string>()
    const order: Array<boolean> = []
    const life = yield* lab.start({ ...untimed, backoff: { baseMs: 5, maxMs: 20 } })
    yield* life.publish(upTo(size).map((i) => record("a", `p${i}`)))
    const member = yield* life.join(
      { credit, options: { maxAttempts: 1_000_000 } },
      answersAtOnce(isHealthy, (event) => {
        const isNew = isHealthy(event) ? healthy : tried
        isNew.add(event.record.id)
        order.push(isHealthy(event))
      })
    )
    yield* lab.until(
      () => `${size} poison events tried once; ${tried.size} were`,
      () => tried.size === size
    )
    member.member.setPaused(true)
    yield* life.publish(upTo(size).map((i) => record("a", `h${i}`)))
    member.member.setPaused(false)
    yield* lab.until(
      () => `${size} healthy events handled; ${healthy.size} were`,
      () => healthy.size === size
    )
    const between = order.slice(order.indexOf(true), order.lastIndexOf(true) + 1)
    const refused = between.filter((isHealthy) => !isHealthy).length
    expect(refused, "poison between the healthy").toBeGreaterThan(0)
    expect(refused / between.length, "the part of poison between the healthy").toBeLessThanOrEqual(0.2)
    expect(yield* lab.deadLetters()).toEqual([])
    member.member.setPaused(true)
    yield* lab.until(
      () => "the last answers",
      Effect.map(lab.stateOf(), ({ inFlight, waiting }) => inFlight.size === 0 && waiting.size === size)
    )
  })

// --- a blocked key -----------------------------------------------------------------------------------------------

const waitForTheHead = (
  lab: Lab,
  { others, rest, total }: { readonly total: number; readonly others: number; readonly rest: number }
) =>
  Effect.gen(function* () {
    const hour = 3_600_000
    const came: Array<number> = []
    const handled = new Set<string>()
    let isOpen = false
    const life = yield* lab.start(untimed)
    const slow = (i: number) => record("a", `slow${i}`, null, { key: "slow" })
    const other = (i: number) => record("a", `other${i}`, null, { key: `k${i % 100}` })
    // Half of the others stand between the events of the key, half of them behind it.
    const each = total / (others / 2)
    for (const i of upTo(others / 2)) {
      const from = Math.floor((i - 1) * each)
      yield* life.publish([...upTo(Math.floor(i * each) - from).map((n) => slow(from + n)), other(i)])
    }
    yield* life.publish(upTo(others / 2).map((i) => other(others / 2 + i)))
    yield* life.join(
      { options: { keyOrdered: true } },
      answersAtOnce(
        ({ record }) => record.key !== "slow" || isOpen,
        ({ record }) => {
          if (record.key === "slow") came.push(record.seq)
          else handled.add(record.id)
        },
        { delayMs: hour }
      )
    )
    yield* lab.until(
      () => `${others} events of other keys handled; ${handled.size} were`,
      () => handled.size === others
    )
    expect(came, "events of the key that waits").toEqual([1])
    yield* lab.until(
      () => "all but the key that waits",
      Effect.map(lab.stateOf(), ({ deferred, inFlight }) => inFlight.size === 0 && deferred.size === 1)
    )
    const state = yield* lab.stateOf()
    expect(encodeState(state).length, "characters of the state").toBeLessThan(5_000)
    const [blocked] = (yield* life.admin.blockedKeys({ group: "g", topic: "a", limit: 10 })).keys
    expect(blocked).toMatchObject({ key: "slow", seq: 1, behind: total - 1 })

    isOpen = true
    yield* life.admin.releaseKey({ group: "g", topic: "a", key: "slow", mode: "retry" })
    yield* lab.until(
      () => `${rest} events of the key; ${came.length} came`,
      () => came.length > rest
    )
    const inOrder = (yield* lab.all("a")).filter(({ key }) => key === "slow").map(({ seq }) => seq)
    expect(came.slice(1)).toEqual(inOrder.slice(0, came.length - 1))
  })

// --- a killer ----------------------------------------------------------------------------------------------------

const surviveTheKiller = (lab: Lab, keyOrdered: boolean) =>
  Effect.gen(function* () {
    const life = yield* lab.start()
    const wanted = { credit: 200, options: { maxAttempts: 5, keyOrdered } }
    yield* life.publish(
      records("a", 1_000).map((one) => (one.id === "e500" ? { ...one, id: "killer" } : one))
    )
    const members: Array<TestMember> = []
    for (let n = 0; n < 5; n++) members.push(yield* life.join(wanted))
    yield* lab.settled
    expect(life.delivery.inFlight()).toBe(1_000)
    const handled = new Map<string, number>()
    let deaths = 0
    let turns = 0
    while (!(yield* lab.isDone(["a"]))) {
      expect(turns++, "turns that it takes").toBeLessThan(2_000)
      for (const [n, member] of members.entries()) {
        const held = member.held
        if (held.length === 0) continue
        if (held.includes("killer")) {
          deaths++
          if (deaths > 2) expect(held, "what dies with it").toEqual(["killer"])
          yield* member.disconnect
          members[n] = yield* life.join(wanted)
        } else {
          const outcomes = yield* member.ack(...held)
          held.forEach((id, i) => {
            if (outcomes[i] === "done") handled.set(id, (handled.get(id) ?? 0) + 1)
          })
        }
      }
      yield* lab.settled
    }
    expect(deaths).toBe(5)
    expect(handled.size).toBe(999)
    expect(new Set(handled.values())).toEqual(new Set([1]))
    const dead = yield* lab.deadLetters()
    expect(dead.map(({ headers }) => headers?.[DeadLetter.headers.id])).toEqual(["killer"])
  })

// --- a long way to go --------------------------------------------------------------------------------------------

/** How many entries of a state are not as they were. */
const changesOf = (before: GroupState, after: GroupState): number => {
  let changed = 0
  for (const place of ["inFlight", "waiting", "dying"] as const) {
    for (const [seq, entry] of after[place]) if (before[place].get(seq) !== entry) changed++
    for (const seq of before[place].keys()) if (!after[place].has(seq)) changed++
  }
  return changed
}

/** What was written of a change: how many entries it is about, and how many characters are about these, and beside them. */
interface Written {
  readonly changes: number
  readonly length: number
  readonly ofEntries: number
  readonly beside: number
}

/** The lists of entries in what is written. */
const lists = ["inFlight", "waiting", "dying", "deferred", "gone", "goneKeys"]

const writtenOf = (before: GroupState, after: GroupState): Written => {
  const text = encodeChange(before, after)
  const empty = Object.fromEntries(lists.map((name) => [name, []]))
  const beside = JSON.stringify({ ...(JSON.parse(text) as object), ...empty }).length
  return { changes: changesOf(before, after), length: text.length, ofEntries: text.length - beside, beside }
}

/** Of rounds together: a store that is slow at times makes some of them small, and others large. */
const perEntry = (rounds: ReadonlyArray<Written>): number =>
  rounds.reduce((sum, { ofEntries }) => sum + ofEntries, 0) /
  Math.max(
    1,
    rounds.reduce((sum, { changes }) => sum + changes, 0)
  )

/** Events that are appended at once to make a long topic. */
const chunk = 5_000

const stayBounded = (
  lab: Lab,
  { acks, behind, roll }: { readonly behind: number; readonly acks: number; readonly roll: Chance }
) =>
  Effect.gen(function* () {
    for (let from = 1; from <= behind; from += chunk) {
      yield* lab.log.append(records("a", Math.min(chunk, behind - from + 1), from))
    }
    const life = yield* lab.start(untimed)
    const credit = 100
    const member = yield* life.join({ credit })
    yield* lab.until(
      () => "the first events",
      () => member.deliveries.length === credit
    )
    const atFirst = encodeState(yield* lab.stateOf()).length
    const rounds: Array<Written> = []
    lab.onChange = ({ after, before }) => {
      if (before === undefined) return
      rounds.push(writtenOf(before, after))
    }
    let acked = 0
    let sizes = 0
    while (acked < acks) {
      // Never the oldest: all that is done is done out of order.
      const held = member.held.slice(1).toSorted((a, b) => roll(a) - roll(b))
      const some = held.slice(0, 1 + Math.floor(roll("some", acked) * (held.length - 1)))
      const answered = member.deliveries.length
      yield* member.ack(...some)
      acked += some.length
      yield* lab.until(
        () => `${some.length} more events after ${answered}`,
        () => member.deliveries.length === answered + some.length
      )
      sizes = Math.max(sizes, encodeState(yield* lab.stateOf()).length)
    }
    const state = yield* lab.stateOf()
    expect(state).toMatchObject({ floor: 0, next: acked + credit + 1 })
    expect(state.inFlight.size).toBe(credit)
    expect(sizes, "characters of the state, at most").toBeLessThan(atFirst * 1.25)
    const tenth = Math.ceil(rounds.length / 10)
    const early = perEntry(rounds.slice(0, tenth))
    const late = perEntry(rounds.slice(-tenth))
    expect(late, `characters written per entry that changed; at first ${early}`).toBeLessThan(early * 1.25)
    const besideEarly = Math.max(...rounds.slice(0, tenth).map(({ beside }) => beside))
    const besideMost = Math.max(...rounds.map(({ beside }) => beside))
    expect(besideMost, `characters beside the entries; at first ${besideEarly}`).toBeLessThan(
      besideEarly * 1.25
    )
    const largest = Math.max(...rounds.map(({ changes, length }) => length / (1 + changes)))
    expect(largest, "characters written per entry that changed").toBeLessThan(200)
  })

export const flowTests = ({ live, pace, test }: Suite, seed: number): void => {
  describe("nothing stands in the way", () => {
    for (const credit of [100, 1]) {
      live(`of healthy events behind 5,000 that always fail, with a credit of ${credit}`, (lab) =>
        passTheWall(lab, { credit, size: credit === 1 ? Math.max(100, Math.ceil(5_000 * pace)) : 5_000 })
      )
    }

    live(
      "of other keys when the first of 100,000 events of a key fails; and these come in order after it",
      (lab) => waitForTheHead(lab, { total: 100_000, others: 5_000, rest: Math.ceil(99_999 * pace) })
    )

    for (const keyOrdered of [false, true]) {
      test(`of 999 events beside one that kills its handler${keyOrdered ? ", in key order" : ""}`, (lab) =>
        surviveTheKiller(lab, keyOrdered))
    }

    live(
      `of a group that has 1,000,000 events before it, and does 10,000 out of order (TEST_SEED=${seed})`,
      (lab) => stayBounded(lab, { behind: 1_000_000, acks: 10_000, roll: chance(seed) })
    )
  })
}
