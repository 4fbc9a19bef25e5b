/** Dead letters that come back: once for each time they are asked back, in order, whatever happens meanwhile. */
import { describe, expect } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as DeadLetter from "../domain/DeadLetter.ts"
import * as Event from "../domain/Event.ts"
import type { EventRecord } from "../domain/Event.ts"
import type { GroupEvent } from "../services/GroupDelivery.ts"
import { record, records } from "./eventStore.ts"
import { type Lab, type Life, pattern, type Suite, type TestMember, type Wanted } from "./groupLab.ts"

const at = { group: "g", topic: "a" }
const a = pattern("a")

const { headers } = DeadLetter

/** A member that gives up all it is given, until these events are dead letters; then it leaves. */
const bury = (
  lab: Lab,
  life: Life,
  events: ReadonlyArray<EventRecord>,
  { reasonOf = () => "no luck", ...wanted }: Wanted & { readonly reasonOf?: (id: string) => string } = {}
) =>
  Effect.gen(function* () {
    const before = (yield* lab.deadLetters()).length
    const undertaker = yield* life.join({ credit: 5_000, ...wanted }, (self) => (some) => {
      for (const { record } of some) {
        const about = { topic: record.topic, ids: [record.id] }
        self.member.answer({ _tag: "Nack", ...about, mode: "poison", reason: reasonOf(record.id) }, () => {})
      }
    })
    yield* life.publish(events)
    yield* lab.until(
      () => `${events.length} dead letters`,
      Effect.map(
        lab.log.head(DeadLetter.deadLetterTopic("g", "a")),
        (info) => (info?.head ?? 0) >= before + events.length
      ),
      0
    )
    yield* lab.until(() => "the end of all work", lab.isDone(["a"]), 0)
    yield* undertaker.leave
    yield* undertaker.disconnect
  })

const headersOf = ({ record }: GroupEvent) => Event.decode(record).headers ?? {}

export const redriveTests = ({ test }: Suite): void => {
  describe("dead letters", () => {
    test("come back one by one, by what they have in common, or all; each of them once", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        const events = Array.from({ length: 8 }, (_, i) =>
          record("a", `e${i + 1}`, { n: i }, i < 4 ? { key: "k" } : {})
        )
        yield* bury(lab, life, events, { reasonOf: (id) => (id < "e7" ? "no luck" : "no paper") })
        const member = yield* life.join()
        yield* lab.settled
        expect(member.story).toEqual([])
        expect(yield* life.admin.redrive({ ...at, filter: { letters: [2] } })).toEqual({ matched: 1 })
        yield* lab.settled
        expect(member.story).toEqual(["e2#1"])
        const [first] = member.deliveries
        expect(first).toMatchObject({ redelivered: true, record: { topic: "a", id: "e2", seq: 2, key: "k" } })
        expect(Event.decode(first!.record).payload).toEqual({ n: 1 })
        expect(headersOf(first!)[headers.redrives]).toBe("1")
        expect(yield* life.admin.redrive({ ...at, filter: { key: "k" } })).toEqual({ matched: 3 })
        yield* lab.settled
        expect(member.ids.slice(1)).toEqual(["e1", "e3", "e4"])
        expect(yield* life.admin.redrive({ ...at, filter: { reason: "paper" } })).toEqual({ matched: 2 })
        yield* lab.settled
        expect(member.ids.slice(4)).toEqual(["e7", "e8"])
        expect(yield* life.admin.redrive({ ...at, filter: { ids: ["e5", "e1"] } })).toEqual({ matched: 1 })
        yield* lab.settled
        expect(member.ids.slice(6)).toEqual(["e5"])
        expect(yield* life.admin.redrive(at)).toEqual({ matched: 1 })
        expect(yield* life.admin.redrive(at)).toEqual({ matched: 0 })
        yield* lab.settled
        expect(member.ids.slice(7)).toEqual(["e6"])
        expect(yield* member.ack(...member.ids)).toEqual(member.ids.map(() => "done"))
        expect(yield* lab.isDone(["a"])).toBe(true)
        expect(yield* lab.deadLetters()).toHaveLength(8)
      }))

    test("of a key come back in their order, one at a time", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        const events = Array.from({ length: 40 }, (_, i) =>
          record("a", `e${i + 1}`, null, { key: i % 2 === 0 ? "k" : "l" })
        )
        const options = { keyOrdered: true }
        yield* bury(lab, life, events, { options })
        yield* life.publish([record("a", "fresh", null, { key: "k" })])
        const member = yield* life.join({ options })
        yield* lab.settled
        yield* member.ack("fresh")
        yield* life.admin.redrive(at)
        const order: Array<string> = []
        while (order.length < 40) {
          yield* lab.settled
          const held = member.held
          expect(held.length).toBeGreaterThan(0)
          expect(held.length).toBeLessThanOrEqual(2)
          // The keys do not wait for each other.
          const id = order.length < 20 ? held.find((id) => Number(id.slice(1)) % 2 === 1)! : held[0]!
          order.push(id)
          yield* member.ack(id)
        }
        const odd = Array.from({ length: 20 }, (_, i) => `e${2 * i + 1}`)
        const even = Array.from({ length: 20 }, (_, i) => `e${2 * i + 2}`)
        expect(order).toEqual([...odd, ...even])
        expect(member.story).toHaveLength(41)
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))

    test("come back also when the log has forgotten them", (lab) =>
      Effect.gen(function* () {
        let life = yield* lab.start()
        yield* bury(lab, life, [record("a", "e1", { n: 1 }), record("a", "e2", { n: 2 })])
        yield* life.publish(records("a", 3, 3))
        expect(yield* lab.log.trim({ topic: "a", upTo: 4 })).toBe(4)
        yield* life.admin.redrive(at)
        yield* life.kill
        life = yield* lab.start()
        const member = yield* life.join()
        yield* lab.settled
        expect(member.gaps).toEqual([{ topic: "a", from: 3, to: 4 }])
        expect(member.ids.toSorted()).toEqual(["e1", "e2", "e5"])
        const payloads = member.deliveries.map(({ record }) => Event.decode(record).payload)
        expect(payloads).toEqual(expect.arrayContaining([{ n: 1 }, { n: 2 }]))
        yield* member.nack("e1", { mode: "poison" })
        yield* member.ack("e2", "e5")
        yield* lab.settled
        expect(yield* lab.isDone(["a"])).toBe(true)
        expect((yield* lab.deadLetters()).map(({ payload }) => payload)).toEqual([
          { n: 1 },
          { n: 2 },
          { n: 1 }
        ])
      }))

    test("asked back twice at once come once", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* bury(lab, life, records("a", 50))
        const member = yield* life.join()
        yield* lab.settled
        yield* Effect.all(
          [
            life.admin.redrive(at),
            life.admin.redrive(at),
            life.admin.redrive({ ...at, filter: { ids: ["e7"] } }),
            life.admin.redrive({ ...at, filter: { reason: "luck" } })
          ],
          { concurrency: "unbounded" }
        )
        yield* lab.settled
        expect(member.story.toSorted()).toEqual(
          records("a", 50)
            .map(({ id }) => `${id}#1`)
            .toSorted()
        )
        yield* member.ack(...member.ids)
        yield* lab.pass(50)
        expect(member.story).toHaveLength(50)
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))

    test("that die again are second letters, and say where they have been", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* bury(lab, life, records("a", 2))
        const member = yield* life.join({ options: { maxAttempts: 20 } })
        yield* lab.settled
        const [first] = yield* lab.deadLetters()
        for (const redrives of [1, 2]) {
          yield* life.admin.redrive({ ...at, filter: { ids: ["e1"] } })
          yield* lab.settled
          const came = member.deliveries.at(-1)!
          expect(came).toMatchObject({ attempt: 1, record: { id: "e1", seq: 1 } })
          const letters = yield* lab.deadLetters()
          const from = letters.findLast(({ headers: said }) => said?.[headers.id] === "e1")
          expect(headersOf(came)).toMatchObject({
            [headers.letter]: from!.id,
            [headers.redrives]: `${redrives}`
          })
          yield* member.nack("e1", { mode: "poison", reason: `died again: ${redrives}` })
          yield* lab.settled
        }
        const letters = yield* lab.deadLetters()
        expect(letters.map(({ id }) => id)).toEqual([
          first!.id,
          letters[1]!.id,
          `${first!.id}:1`,
          `${first!.id}:2`
        ])
        expect(letters.at(-1)).toMatchObject({
          payload: first!.payload,
          headers: {
            [headers.id]: "e1",
            [headers.topic]: "a",
            [headers.seq]: "1",
            [headers.storedAt]: first!.headers![headers.storedAt],
            [headers.redrives]: "2",
            [headers.reason]: "died again: 2",
            [headers.letter]: `${first!.id}:1`
          }
        })
        // What came back is no dead letter any more, what died again is.
        expect(yield* life.admin.redrive(at)).toEqual({ matched: 2 })
        yield* lab.settled
        expect(member.ids.slice(-2).toSorted()).toEqual(["e1", "e2"])
      }))

    test("go on to come back when the hub is killed on the way, more than come at a time", (lab) =>
      Effect.gen(function* () {
        const total = 2_500
        let life = yield* lab.start()
        yield* bury(lab, life, records("a", total))
        expect(lab.lettersAgain, "letters that were written again, and nothing had failed").toBe(0)
        yield* life.admin.redrive(at)
        const confirmed = new Set<string>()
        const broken: Array<string> = []
        const works =
          (limit: number) =>
          (member: TestMember) =>
          (events: ReadonlyArray<GroupEvent>): void => {
            for (const { record } of events) {
              const { id, topic } = record
              if (confirmed.has(id)) broken.push(`${id} came after it was acknowledged`)
              if (confirmed.size >= limit) continue
              member.member.answer({ _tag: "Ack", topic, ids: [id] }, (outcomes) => {
                if (!member.isLost && !("_tag" in outcomes) && outcomes[0] !== "stale") confirmed.add(id)
              })
            }
          }
        for (const limit of [600, 1_300, total]) {
          yield* life.join({ credit: 100 }, works(limit))
          yield* lab.until(
            () => `${limit} events acknowledged; ${confirmed.size} are`,
            () => confirmed.size >= Math.min(limit, total),
            0
          )
          if (limit < total) {
            yield* life.kill
            life = yield* lab.start()
          }
        }
        yield* lab.until(() => "the end of all work", lab.isDone(["a"]))
        expect(broken).toEqual([])
        expect(confirmed.size).toBe(total)
        expect(yield* lab.deadLetters()).toHaveLength(total)
      }))

    for (const back of [0, 5]) {
      test(`that are in flight are not lost to a seek back to ${back} and forward again`, (lab) =>
        Effect.gen(function* () {
          const life = yield* lab.start()
          yield* bury(lab, life, records("a", 10))
          const member = yield* life.join()
          yield* life.admin.redrive(at)
          yield* lab.settled
          expect(member.ids).toHaveLength(10)
          yield* member.ack("e1", "e8")
          member.member.setPaused(true)
          yield* life.admin.seek({ group: "g", topic: a, to: { seq: back } })
          yield* life.admin.seek({ group: "g", topic: a, to: "end" })
          yield* lab.settled
          member.member.setPaused(false)
          yield* lab.settled
          // They come again by themselves, or when they are asked back again.
          yield* life.admin.redrive(at)
          yield* lab.settled
          const open = ["e10", "e2", "e3", "e4", "e5", "e6", "e7", "e9"]
          expect(member.ids.slice(10).toSorted()).toEqual(open)
          expect(yield* member.ack(...open)).toEqual(open.map(() => "done"))
          expect(yield* lab.isDone(["a"])).toBe(true)
        }))
    }

    test("that are in flight come once when the log brings them again", (lab) =>
      Effect.gen(function* () {
        const life = yield* lab.start()
        yield* bury(lab, life, records("a", 10))
        const member = yield* life.join()
        yield* life.admin.redrive(at)
        yield* lab.settled
        yield* member.ack("e1", "e8")
        yield* life.admin.seek({ group: "g", topic: a, to: { seq: 5 } })
        yield* lab.settled
        const again = ["e10", "e2", "e3", "e4", "e5", "e6", "e7", "e8", "e9"]
        expect(member.ids.slice(10).toSorted()).toEqual(again)
        yield* member.ack(...again)
        yield* lab.pass(50)
        expect(member.ids).toHaveLength(19)
        expect(yield* lab.isDone(["a"])).toBe(true)
      }))
  })
}
