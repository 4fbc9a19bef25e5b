/**
 * A group among members that refuse, crash and are lost, under a hub that is killed: what every event has to come
 * through.
 */
import { describe, expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as DeadLetter from "../domain/DeadLetter.ts"
import type { GroupEvent } from "../services/GroupDelivery.ts"
import { chance } from "./chance.ts"
import { record } from "./eventStore.ts"
import { eventsOf, fateOf, type Plan } from "./fate.ts"
import { problemsOf, type Seen } from "./groupJournal.ts"
import type { Lab, Life, Suite, TestMember } from "./groupLab.ts"

interface Chaos extends Plan {
  readonly seed: number
  readonly keyOrdered: boolean
  readonly members: number
  readonly credit: number
  /** How long a member takes for all that it has. */
  readonly handlerMs: number
  /** How many events are published and not handled at any time. */
  readonly ahead: number
  readonly restarts: number
}

const topics = ["jobs.a", "jobs.b"]

const chaos: Omit<Chaos, "seed" | "keyOrdered"> = {
  events: 50_000,
  topics,
  keys: 500,
  failures: 0.1,
  crashes: 0.01,
  poisonEach: 500,
  members: 5,
  credit: 10,
  handlerMs: 1,
  ahead: 1_000,
  restarts: 3
}

/** Events that are published at once. */
const publishedAtOnce = 500

const surviveChaos = (lab: Lab, plan: Chaos) =>
  Effect.gen(function* () {
    const roll = chance(plan.seed)
    const events = eventsOf(plan, roll)
    const healthy = events.filter(({ isPoison }) => !isPoison).length
    const journal: Array<Seen> = []
    const handled = new Set<string>()
    const note = (what: Seen["what"], id: string, attempt: number): void =>
      void journal.push({ what, id, attempt, at: journal.length })
    lab.onBuried = (id) => note("buried", id, 0)

    /** How much each member has, and the most that any had. */
    const inHand = new Map<TestMember, number>()
    let most = 0

    /** Handles some of what it has, in no order; answers what it has handled at once. True: it is no more. */
    const work = (member: TestMember, some: ReadonlyArray<GroupEvent>): boolean => {
      const acks = new Map<string, Array<GroupEvent>>()
      let isLost = false
      for (const event of some.toSorted((a, b) => roll(a.record.id) - roll(b.record.id))) {
        const { attempt, record } = event
        const fate = fateOf(plan, roll, record.id, attempt)
        if (fate === "crash") {
          isLost = true
          break
        }
        inHand.set(member, inHand.get(member)! - 1)
        if (fate === "ack") {
          note("acked", record.id, attempt)
          handled.add(record.id)
          const ids = acks.get(record.topic) ?? []
          acks.set(record.topic, ids)
          ids.push(event)
        } else {
          note("nacked", record.id, attempt)
          const about = { topic: record.topic, ids: [record.id], attempt }
          member.member.answer({ _tag: "Nack", ...about, mode: fate, reason: "no luck" }, () => {})
        }
      }
      for (const [topic, done] of acks) {
        member.member.answer({ _tag: "Ack", topic, ids: done.map(({ record }) => record.id) }, (outcomes) => {
          if ("_tag" in outcomes || member.isLost) return
          done.forEach(({ attempt, record }, i) => {
            if (outcomes[i] !== "stale") note("confirmed", record.id, attempt)
          })
        })
      }
      return isLost
    }

    /** A member, and those that come after it. */
    const seat = (life: Life) =>
      Effect.gen(function* () {
        for (;;) {
          const inbox = yield* Queue.unbounded<GroupEvent>()
          const member = yield* life.join(
            { pattern: "jobs.*", credit: plan.credit, options: { keyOrdered: plan.keyOrdered } },
            (self) => (some) => {
              for (const { attempt, record } of some) note("delivered", record.id, attempt)
              const has = (inHand.get(self) ?? 0) + some.length
              inHand.set(self, has)
              most = Math.max(most, has)
              Queue.offerAllUnsafe(inbox, some)
            }
          )
          while (!work(member, yield* Queue.takeAll(inbox))) yield* Effect.sleep(plan.handlerMs)
          inHand.delete(member)
          yield* member.disconnect
        }
      })

    let published = 0
    /** What a hub did not answer is published again, with the same ids. */
    const publisher = (life: Life) =>
      Effect.gen(function* () {
        while (published < events.length) {
          while (published - handled.size > plan.ahead) yield* lab.turn(0)
          const some = events.slice(published, published + publishedAtOnce)
          yield* life.publish(
            some.map(({ id, key, topic }) => record(topic, id, null, key === undefined ? {} : { key }))
          )
          published += some.length
        }
      })

    for (let n = 1; n <= plan.restarts + 1; n++) {
      const life = yield* lab.start()
      const seats = yield* Effect.forEach(Array.from({ length: plan.members }), () =>
        Effect.forkChild(seat(life))
      )
      const publishing = yield* Effect.forkChild(publisher(life))
      const enough = n > plan.restarts ? healthy : (events.length * n) / (plan.restarts + 1)
      const failed = () =>
        [...seats, publishing]
          .map((fiber) => fiber.pollUnsafe())
          .find((exit) => exit !== undefined && Exit.isFailure(exit))
      yield* lab.until(
        () => `${enough} events handled; ${handled.size} are, and ${published} were published`,
        () => handled.size >= enough || failed() !== undefined
      )
      if (n > plan.restarts) yield* lab.until(() => "the end of all work", lab.isDone(topics))
      const exit = failed()
      if (exit !== undefined) yield* exit
      yield* Effect.forEach([...seats, publishing], (fiber) => Fiber.interrupt(fiber), { discard: true })
      yield* life.kill
    }

    expect(most, "events in the hand of one member").toBeLessThanOrEqual(plan.credit)
    expect(problemsOf(journal, events, { keyOrdered: plan.keyOrdered, oneAuthor: true })).toEqual([])
    for (const topic of topics) {
      const dead = (yield* lab.deadLetters(topic)).map(({ headers }) => headers?.[DeadLetter.headers.id])
      const expected = events.filter((event) => event.isPoison && event.topic === topic)
      expect(dead.toSorted()).toEqual(expected.map(({ id }) => id).toSorted())
    }
  })

export const chaosTests = ({ live }: Suite, seed: number): void => {
  describe(`whatever happens (TEST_SEED=${seed})`, () => {
    live("every event comes to an end", (lab) => surviveChaos(lab, { ...chaos, seed, keyOrdered: false }))

    live("every event comes to an end, those of a key in their order", (lab) =>
      surviveChaos(lab, { ...chaos, seed, keyOrdered: true })
    )
  })
}
