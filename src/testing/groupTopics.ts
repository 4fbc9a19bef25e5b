/** A group on several topics: which of them it gets from where on, and how they share its members. */
import { describe, expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { record, records } from "./eventStore.ts"
import type { Suite } from "./groupLab.ts"

export const topicsTests = ({ test }: Suite): void => {
  describe("topics of a pattern", () => {
    test("that are born after the registration start at their first event, member or no member", (lab) =>
      Effect.gen(function* () {
        let life = yield* lab.start()
        yield* life.publish(records("b.old", 3))
        const member = yield* life.join({ pattern: "b.*", from: "new" })
        yield* lab.settled
        yield* life.publish([record("b.one", "1"), record("b.one", "2"), record("b.old", "new")])
        yield* lab.settled
        expect(member.ids.toSorted()).toEqual(["1", "2", "new"])
        yield* member.answer({ _tag: "Ack", topic: "b.one", ids: ["1", "2"] })
        yield* member.answer({ _tag: "Ack", topic: "b.old", ids: ["new"] })
        yield* member.leave
        yield* life.publish([record("b.two", "3"), record("b.two", "4")])
        const later = yield* life.join({ pattern: "b.*", from: "new" })
        yield* lab.settled
        expect(later.ids).toEqual(["3", "4"])
        yield* life.kill
        // Nobody of the hub is there, and somebody else appends.
        yield* lab.log.append([record("b.three", "5"), record("b.three", "6")])
        life = yield* lab.start()
        const last = yield* life.join({ pattern: "b.*", from: "new" })
        yield* lab.settled
        expect(last.story.toSorted()).toEqual(["3#2", "4#2", "5#1", "6#1"])
      }))

    test("that overlap are one group's: each event goes to one member, and to none that did not ask", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        const all = yield* life.join({ pattern: "b.*", credit: 100 })
        const some = yield* life.join({ pattern: "b.x", credit: 100 })
        for (const topic of ["b.x", "b.y"]) {
          yield* life.publish(Array.from({ length: 50 }, (_, i) => record(topic, `${topic} ${i}`)))
        }
        yield* lab.settled
        expect(some.ids.length).toBeGreaterThan(0)
        expect(some.ids.every((id) => id.startsWith("b.x"))).toBe(true)
        expect(new Set([...all.ids, ...some.ids]).size).toBe(100)
        expect(all.ids.length + some.ids.length).toBe(100)
        yield* all.disconnect
        yield* lab.settled
        // What nobody here takes waits for somebody who does.
        expect(some.ids.filter((id) => id.startsWith("b.x"))).toHaveLength(50)
        expect(some.ids).toHaveLength(50)
        const other = yield* life.join({ pattern: "b.*", credit: 100 })
        yield* lab.settled
        expect(other.ids).toHaveLength(50)
      }))

    test("that were trimmed before the group took them are told, and passed over", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("b.x", 10))
        const first = yield* life.join({ pattern: "b.*", credit: 2 })
        yield* lab.settled
        yield* first.answer({ _tag: "Ack", topic: "b.x", ids: ["e1"] })
        yield* lab.settled
        first.member.setPaused(true)
        expect(yield* lab.log.trim({ topic: "b.x", upTo: 8 })).toBe(8)
        // What a member has in hand is not lost.
        expect(yield* first.answer({ _tag: "Ack", topic: "b.x", ids: ["e2"] })).toEqual(["done"])
        yield* first.leave
        const second = yield* life.join({ pattern: "b.*" })
        yield* lab.settled
        expect(second.gaps).toEqual([{ topic: "b.x", from: 3, to: 8 }])
        expect(second.story).toEqual(["e9#1", "e10#1"])
        yield* second.answer({ _tag: "Ack", topic: "b.x", ids: ["e9", "e10"] })
        expect(yield* lab.isDone(["b.x"])).toBe(true)
      }))

    for (const credit of [1, 4, 10]) {
      test(`share the credit of a member fairly: ${credit}`, (lab) =>
        Effect.gen(function* () {
          const life = yield* lab.start()
          const topics = ["b.x", "b.y", "b.z"]
          for (const topic of topics) yield* life.publish(records(topic, 150))
          const member = yield* life.join({ pattern: "b.*", credit })
          let answered = 0
          while (answered < 180) {
            yield* lab.until(
              () => `the event after ${answered}`,
              () => member.deliveries.length > answered,
              0
            )
            const { id, topic } = member.deliveries[answered++]!.record
            yield* member.answer({ _tag: "Ack", topic, ids: [id] })
          }
          const order = member.deliveries.slice(0, 180).map(({ record }) => record.topic)
          for (const topic of topics) {
            const share = order.filter((one) => one === topic).length
            expect(share, `events of ${topic} in 180`).toBeGreaterThanOrEqual(60 - 2 * credit)
            expect(share, `events of ${topic} in 180`).toBeLessThanOrEqual(60 + 2 * credit)
          }
        }))
    }

    test("with a backlog leave room for one that has little", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("b.flood", 1_000))
        const member = yield* life.join({ pattern: "b.*", credit: 10 })
        yield* lab.settled
        yield* life.publish([record("b.drop", "drop")])
        let answered = 0
        while (!member.ids.includes("drop")) {
          yield* lab.until(
            () => `the event after ${answered}`,
            () => member.deliveries.length > answered,
            0
          )
          const { id, topic } = member.deliveries[answered++]!.record
          yield* member.answer({ _tag: "Ack", topic, ids: [id] })
        }
        expect(answered).toBeLessThanOrEqual(20)
      }))
  })
}
