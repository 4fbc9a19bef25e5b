/** What members say, what they leave unsaid, and when: each event is one member's at a time, until it is done. */
import { describe, expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as DeadLetter from "../domain/DeadLetter.ts"
import { record, records } from "./eventStore.ts"
import type { Suite } from "./groupLab.ts"

export const answersTests = ({ test }: Suite): void => {
  describe("members and their answers", () => {
    test("acknowledge for good: what is answered does not come again, in any life of the hub", (lab) =>
      Effect.gen(function* () {
        let life = yield* lab.start()
        yield* life.publish(records("a", 10))
        const first = yield* life.join()
        yield* lab.settled
        expect(yield* first.ack("e1", "e3", "e10")).toEqual(["done", "done", "done"])
        yield* life.kill
        life = yield* lab.start()
        const second = yield* life.join()
        yield* lab.settled
        expect(second.story).toEqual(["e2#2", "e4#2", "e5#2", "e6#2", "e7#2", "e8#2", "e9#2"])
        expect(yield* second.ack("e1", "e2")).toEqual(["already", "done"])
      }))

    test("leave, and what they have is free at once; after a goodbye the attempt does not count", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        // The group is never without a member.
        const bystander = yield* life.join({ credit: 1 })
        bystander.member.setPaused(true)
        yield* life.publish(records("a", 6))
        const polite = yield* life.join({ credit: 3 })
        const lost = yield* life.join({ credit: 3 })
        yield* lab.settled
        expect([polite.ids.length, lost.ids.length]).toEqual([3, 3])
        yield* polite.ack(polite.ids[0]!)
        yield* polite.leave
        yield* lost.disconnect
        const next = yield* life.join()
        yield* lab.settled
        const expected = [...polite.ids.slice(1).map((id) => `${id}#1`), ...lost.ids.map((id) => `${id}#2`)]
        expect(next.story.toSorted()).toEqual(expected.toSorted())
      }))

    test("say nothing: the event comes again after the time-out, and its slot is free", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        const wanted = { credit: 1, options: { ackTimeoutMs: 2_000 } }
        yield* life.publish(records("a", 2))
        const silent = yield* life.join(wanted)
        yield* lab.settled
        yield* lab.pass(1_000, 500)
        expect(silent.story).toEqual(["e1#1"])
        silent.member.setPaused(true)
        const other = yield* life.join(wanted)
        yield* lab.settled
        expect(other.story).toEqual(["e2#1"])
        yield* other.ack("e2")
        yield* lab.pass(1_100, 100)
        expect(other.story).toEqual(["e2#1", "e1#2"])
        expect(yield* silent.ack("e1")).toEqual(["stale"])
        expect(yield* other.ack("e1")).toEqual(["done"])
        silent.member.setPaused(false)
        yield* life.publish([record("a", "e3")])
        yield* lab.settled
        expect([...silent.ids.slice(1), ...other.ids.slice(2)]).toEqual(["e3"])
      }))

    test("ask for more time, and have it", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 1))
        const slow = yield* life.join({ options: { ackTimeoutMs: 2_000 } })
        yield* lab.settled
        yield* lab.pass(1_000, 500)
        expect(yield* slow.extend("e1", 3_000)).toEqual(["done"])
        yield* lab.pass(2_000, 500)
        expect(slow.story).toEqual(["e1#1"])
        expect(yield* slow.extend("e1", 3_000)).toEqual(["done"])
        yield* lab.pass(2_000, 500)
        expect(slow.story).toEqual(["e1#1"])
        yield* lab.pass(1_100, 100)
        expect(slow.story).toEqual(["e1#1", "e1#2"])
        expect(yield* slow.ack("e1")).toEqual(["done"])
      }))

    test("refuse: `fail` counts and backs off, `release` does not count, and both may say when", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start({ backoff: { baseMs: 500, maxMs: 60_000 } })
        yield* life.publish(records("a", 3))
        const member = yield* life.join()
        yield* lab.settled
        yield* member.nack("e1", { delayMs: 3_000 })
        yield* member.nack("e2", { mode: "release", delayMs: 2_000 })
        yield* member.nack("e3", { mode: "release" })
        yield* lab.settled
        expect(member.story).toEqual(["e1#1", "e2#1", "e3#1", "e3#1"])
        yield* lab.pass(1_000, 500)
        expect(member.story).toHaveLength(4)
        yield* lab.pass(1_100, 100)
        expect(member.story.slice(4)).toEqual(["e2#1"])
        yield* lab.pass(1_000, 100)
        expect(member.story.slice(5)).toEqual(["e1#2"])
        // Without a word about when, the second back-off is at most a second.
        yield* member.nack("e1")
        yield* lab.pass(1_100, 100)
        expect(member.story.slice(6)).toEqual(["e1#3"])
      }))

    test("give up: `poison` at once, any other after the last attempt; the letter has all that is known", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        const original = record("a", "bad", { n: 1 }, { key: "k", type: "t", headers: { h: "v" } })
        yield* life.publish([original, record("a", "weak")])
        const member = yield* life.join({ options: { maxAttempts: 3 } })
        yield* lab.settled
        expect(yield* member.nack("bad", { mode: "poison", reason: "cannot be read" })).toEqual(["done"])
        for (const attempt of [1, 2, 3]) {
          expect(member.story.at(-1)).toBe(attempt === 1 ? "weak#1" : `weak#${attempt}`)
          yield* member.nack("weak", { delayMs: 20, reason: `no luck ${attempt}` })
          yield* lab.pass(30)
        }
        expect(member.story).toEqual(["bad#1", "weak#1", "weak#2", "weak#3"])
        const { generation } = yield* lab.stateOf()
        expect(yield* lab.deadLetters()).toMatchObject([
          {
            id: `bad:${generation}`,
            topic: "$dead.g.a",
            key: "k",
            type: "t",
            payload: { n: 1 },
            headers: {
              h: "v",
              [DeadLetter.headers.group]: "g",
              [DeadLetter.headers.topic]: "a",
              [DeadLetter.headers.seq]: "1",
              [DeadLetter.headers.id]: "bad",
              [DeadLetter.headers.attempts]: "1",
              [DeadLetter.headers.reason]: "cannot be read",
              [DeadLetter.headers.redrives]: "0"
            }
          },
          {
            id: `weak:${generation}`,
            headers: {
              [DeadLetter.headers.attempts]: "3",
              [DeadLetter.headers.reason]: "no luck 3"
            }
          }
        ])
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))

    for (const when of ["before", "after"] as const) {
      test(`give up when the hub is killed ${when} the letter is written: one letter, and nothing is lost`, (lab) =>
        Effect.gen(function* () {
          let life = yield* lab.start()
          yield* life.publish(records("a", 3))
          const member = yield* life.join()
          yield* lab.settled
          if (when === "before") lab.beforeLetters = Effect.never
          else lab.afterLetters = Effect.never
          for (const id of ["e1", "e2", "e3"]) yield* member.nack(id, { mode: "poison" })
          yield* lab.until(
            () => "events that die",
            when === "before"
              ? Effect.map(lab.stateOf(), ({ dying }) => dying.size === 3)
              : Effect.map(lab.deadLetters(), (letters) => letters.length > 0)
          )
          expect((yield* lab.stateOf()).dying.size).toBe(3)
          yield* life.kill
          lab.beforeLetters = Effect.void
          lab.afterLetters = Effect.void
          life = yield* lab.start()
          const next = yield* life.join()
          yield* lab.until(() => "the end of all work", lab.isDone(["a"]))
          expect(next.story).toEqual([])
          const letters = yield* lab.deadLetters()
          expect(letters.map(({ headers }) => headers?.[DeadLetter.headers.id]).toSorted()).toEqual([
            "e1",
            "e2",
            "e3"
          ])
        }))
    }

    test("that are lost count: an event whose members all die is given up after the last", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 1))
        for (let i = 1; i <= 3; i++) {
          const member = yield* life.join({ options: { maxAttempts: 3 } })
          yield* lab.settled
          expect(member.story).toEqual([`e1#${i}`])
          yield* member.disconnect
          yield* lab.settled
        }
        const [letter] = yield* lab.deadLetters()
        expect(letter?.headers?.[DeadLetter.headers.reason]).toBe("its member was lost")
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))
  })
}
