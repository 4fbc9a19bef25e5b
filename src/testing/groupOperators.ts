/** What an operator does while members are at work: it loses nothing, and is obeyed at once. */
import { describe, expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Group from "../domain/Group.ts"
import { record, records } from "./eventStore.ts"
import { pattern, type Suite } from "./groupLab.ts"

const a = pattern("a")

export const operatorsTests = ({ test }: Suite): void => {
  describe("operators", () => {
    test("seek back: what is in flight comes again, and acknowledgements of before do not count", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 10))
        const slow = yield* life.join({ credit: 5 })
        yield* lab.settled
        yield* slow.ack("e1", "e2", "e3", "e4", "e5")
        yield* lab.settled
        slow.member.setPaused(true)
        expect(slow.held).toEqual(["e6", "e7", "e8", "e9", "e10"])
        // One acknowledgement meets the seek in the same round, the others come after it.
        yield* lab.groups.modify({ group: "g", topic: "a" }, (state) => [
          undefined,
          Group.seek(state!, { generation: "another", floor: 3 })
        ])
        expect(yield* slow.ack("e6")).toEqual(["stale"])
        yield* life.admin.seek({ group: "g", topic: a, to: "start" })
        const other = yield* life.join({ credit: 100 })
        yield* lab.settled
        expect(other.story).toEqual(records("a", 10).map(({ id }) => `${id}#1`))
        expect(yield* slow.ack("e7", "e8")).toEqual(["stale", "stale"])
        expect((yield* lab.stateOf()).inFlight.size).toBe(10)
        expect(yield* other.ack(...other.ids)).toEqual(other.ids.map(() => "done"))
        expect(yield* lab.isDone(["a"])).toBe(true)
        // The slots of what was forgotten are free.
        slow.member.setPaused(false)
        yield* other.leave
        yield* life.publish(records("a", 5, 11))
        yield* lab.settled
        expect(slow.ids.slice(-5)).toEqual(["e11", "e12", "e13", "e14", "e15"])
      }))

    test("seek back: an acknowledgement that crosses the event's next delivery is not about that", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 3))
        const member = yield* life.join()
        yield* lab.settled
        const { generation } = yield* lab.stateOf()
        const answers: Array<unknown> = []
        let isSent = false
        // The event is the member's again, and the member does not know it yet.
        lab.onChange = ({ after }) => {
          if (isSent || after.generation === generation || !after.inFlight.has(2)) return
          isSent = true
          member.member.answer({ _tag: "Ack", topic: "a", ids: ["e2"] }, (said) => answers.push(said))
        }
        yield* life.admin.seek({ group: "g", topic: a, to: "start" })
        yield* lab.settled
        expect(answers).toEqual([["stale"]])
        expect(member.story).toEqual(["e1#1", "e2#1", "e3#1", "e1#1", "e2#1", "e3#1"])
        expect(yield* member.ack("e1", "e2", "e3")).toEqual(["done", "done", "done"])
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))

    test("seek forward: what is passed over does not come, and what follows does", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 10))
        const member = yield* life.join({ credit: 3 })
        yield* lab.settled
        expect(member.ids).toEqual(["e1", "e2", "e3"])
        const [sought] = yield* life.admin.seek({ group: "g", topic: a, to: { seq: 8 } })
        expect(sought).toMatchObject({ from: 0, to: 8, again: 0, skipped: 8 })
        yield* lab.settled
        expect(member.ids.slice(3)).toEqual(["e9", "e10"])
        expect(yield* member.ack("e1", "e9", "e10")).toEqual(["already", "done", "done"])
        yield* life.admin.seek({ group: "g", topic: a, to: { seq: 2 } })
        yield* lab.settled
        expect(member.story.slice(5)).toEqual(["e3#1", "e4#1", "e5#1"])
        yield* life.admin.seek({ group: "g", topic: a, to: "end" })
        yield* life.publish([record("a", "e11")])
        yield* lab.settled
        expect(member.ids.slice(8)).toEqual(["e11"])
        yield* member.ack("e11")
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))

    test("pause a group: nothing more comes, what is there can be answered; and it goes on", (lab) =>
      Effect.gen(function* () {
        let life = yield* lab.start()
        yield* life.publish(records("a", 10))
        let member = yield* life.join({ credit: 2 })
        yield* lab.settled
        yield* life.admin.pause("g")
        expect(yield* member.ack("e1")).toEqual(["done"])
        yield* member.nack("e2", { delayMs: 10 })
        yield* life.publish([record("a", "e11")])
        yield* lab.pass(50)
        expect(member.story).toEqual(["e1#1", "e2#1"])
        // A pause outlives the hub, and holds for those who join.
        yield* life.kill
        life = yield* lab.start()
        member = yield* life.join({ credit: 20 })
        yield* lab.pass(50)
        expect(member.story).toEqual([])
        yield* life.admin.resume("g")
        yield* lab.settled
        const rest = records("a", 9, 3).map(({ id }) => `${id}#1`)
        expect(member.story.toSorted()).toEqual(["e2#2", ...rest].toSorted())
      }))

    test("remove a group: its members hear of it at once, and nothing of theirs counts any more", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 4))
        const one = yield* life.join({ credit: 1 })
        const other = yield* life.join({ credit: 1 })
        const bystander = yield* life.join({ group: "h" })
        yield* lab.settled
        yield* life.admin.remove("g")
        expect([one.ends, other.ends, bystander.ends]).toEqual([["removed"], ["removed"], []])
        yield* lab.settled
        expect(yield* one.ack(...one.ids)).toEqual(["stale"])
        yield* life.publish([record("a", "e5")])
        yield* lab.settled
        expect([one.ids.length, other.ids.length]).toEqual([1, 1])
        expect(bystander.ids).toHaveLength(5)
        yield* one.disconnect
        yield* other.disconnect
        yield* lab.settled
        expect(yield* lab.groups.read({ group: "g", topic: "a" })).toBeUndefined()
        const anew = yield* life.join()
        yield* lab.settled
        expect(anew.story).toEqual(records("a", 5).map(({ id }) => `${id}#1`))
      }))

    test("remove a group, and it may be another at once: with its own options, from its own beginning", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 4))
        const gone = yield* life.join({ options: { maxAttempts: 5 } })
        yield* lab.settled
        yield* gone.ack("e1", "e2")
        yield* life.admin.pause("g")
        yield* life.admin.remove("g")
        // The old member has not gone yet.
        const anew = yield* life.join({ options: { maxAttempts: 1 } })
        yield* lab.settled
        expect(anew.story).toEqual(["e1#1", "e2#1", "e3#1", "e4#1"])
        expect(gone.ends).toEqual(["removed"])
        expect(yield* gone.ack("e3")).toEqual(["stale"])
        yield* anew.nack("e1")
        yield* gone.disconnect
        yield* lab.pass(200)
        expect(anew.story).toHaveLength(4)
        expect(yield* lab.deadLetters()).toHaveLength(1)
        yield* anew.ack("e2", "e3", "e4")
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))

    test("put another log under a group: it stops, and says so", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 10))
        yield* life.publish(records("b", 10))
        const history = yield* lab.log.history
        const register = (topic: string, floor: number) =>
          lab.groups.register({
            group: "g",
            pattern: "*",
            wanted: {},
            defaults: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: false },
            history,
            generation: "g1",
            positions: new Map([
              [topic, floor],
              ["b", 9]
            ])
          })
        yield* register("a", 50)
        const member = yield* life.join({ pattern: "*" })
        yield* lab.settled
        expect(member.ends).toEqual(["history_changed"])
        expect(member.ids.filter((id) => id !== "e10")).toEqual([])
        yield* life.publish(records("a", 5, 11))
        yield* lab.settled
        expect(yield* lab.stateOf("a")).toMatchObject({ floor: 50 })
        yield* life.admin.seek({ group: "g", topic: a, to: { seq: 12 } })
        const anew = yield* life.join({ pattern: "*" })
        yield* lab.settled
        expect(anew.ends).toEqual([])
        expect(anew.ids).toEqual(expect.arrayContaining(["e13", "e14", "e15"]))
        yield* lab.groups.remove("g")
      }))

    test("put another log under a group that is not done with its own: it stops as well", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* life.publish(records("a", 10))
        const history = yield* lab.log.history
        yield* lab.groups.register({
          group: "g",
          pattern: "a",
          wanted: {},
          defaults: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: false },
          history,
          generation: "g1",
          positions: new Map([["a", 5]])
        })
        // It took events up to 20 when there were so many, and has one of them to do.
        yield* lab.groups.modify({ group: "g", topic: "a" }, (state) => [
          undefined,
          {
            ...state!,
            next: 21,
            waiting: new Map([
              [
                6,
                {
                  attempt: 1,
                  unanswered: 0,
                  member: Group.nobody,
                  key: undefined,
                  since: 0,
                  reason: "",
                  letter: undefined,
                  notBefore: 0
                }
              ]
            ])
          }
        ])
        const member = yield* life.join()
        yield* lab.settled
        expect(member.ends).toEqual(["history_changed"])
        yield* life.admin.seek({ group: "g", topic: a, to: { seq: 5 } })
        const anew = yield* life.join()
        yield* lab.settled
        expect(anew.ends).toEqual([])
        expect(anew.ids).toEqual(["e6", "e7", "e8", "e9", "e10"])
      }))

    test("put another history under a group: nobody can join it", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* lab.groups.register({
          group: "g",
          pattern: "a",
          wanted: {},
          defaults: { ackTimeoutMs: 1_000, maxAttempts: 3, keyOrdered: false },
          history: "of another life",
          generation: "g1",
          positions: new Map()
        })
        expect(yield* Effect.flip(life.join())).toMatchObject({ _tag: "UnrecoverablePosition" })
        const history = yield* lab.log.history
        expect(yield* Effect.flip(life.join({ group: "h", history: `not ${history}` }))).toMatchObject({
          _tag: "UnrecoverablePosition"
        })
        yield* life.admin.remove("g")
        yield* life.publish(records("a", 1))
        const member = yield* life.join()
        yield* lab.settled
        expect(member.ids).toEqual(["e1"])
      }))
  })
}
