/** A consumer group at work on its topics: who gets what and when, and what becomes of it. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as DeadLetter from "../../../src/domain/DeadLetter.ts"
import * as Group from "../../../src/domain/Group.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import { Appender } from "../../../src/services/Appender.ts"
import { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { GroupStore } from "../../../src/services/GroupStore.ts"
import { record, records } from "../../../src/testing/eventStore.ts"
import { Consumer, join } from "./Consumer.ts"
import {
  ackTimeoutMs,
  deadLetters,
  dispatcher,
  joinApart,
  publish,
  settled,
  stateOf,
  test
} from "./groupsAtWork.ts"
import * as TestStores from "./TestStores.ts"
import { Trouble } from "./TestStores.ts"

describe("GroupRunner: credit", () => {
  test("bounds what a member has, over all its topics, and comes back with answers", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1", "2", "3")
      yield* publish("a.y", "4", "5", "6")
      const consumer = yield* join({ pattern: "a.*", credit: 4 })
      yield* settled
      expect(consumer.ids).toHaveLength(4)
      const [first] = consumer.deliveries
      const { id, topic } = first!.record
      yield* consumer.answer({ _tag: "Ack", topic, ids: [id] })
      yield* settled
      expect(consumer.ids).toHaveLength(5)
      expect(yield* GroupDelivery.useSync((delivery) => delivery.inFlight())).toBe(4)
    }))

  test("of one is shared by the topics of a member: none of them starves", () =>
    Effect.gen(function* () {
      for (const topic of ["a.x", "a.y", "a.z"])
        yield* Appender.use(({ append }) => append(records(topic, 20)))
      const consumer = yield* join({ pattern: "a.*", credit: 1 })
      for (let i = 0; i < 60; i++) {
        const { id, topic } = consumer.deliveries.at(-1)!.record
        yield* consumer.answer({ _tag: "Ack", topic, ids: [id] })
        yield* TestClock.adjust(1)
      }
      const order = consumer.deliveries.map(({ record }) => record.topic)
      expect(order).toHaveLength(60)
      for (const topic of ["a.x", "a.y", "a.z"]) {
        expect(order.slice(0, 30).filter((one) => one === topic)).toHaveLength(10)
      }
    }))

  test("of two members is used evenly, and each event goes to one of them", () =>
    Effect.gen(function* () {
      const one = yield* join({ credit: 50 })
      const other = yield* join({ credit: 50 })
      yield* Appender.use(({ append }) => append(records("a", 40)))
      yield* settled
      expect([...one.ids, ...other.ids].toSorted()).toEqual(
        records("a", 40)
          .map(({ id }) => id)
          .toSorted()
      )
      expect(one.ids).toHaveLength(20)
      for (let i = 41; i <= 60; i++) yield* publish("a", `e${i}`)
      yield* settled
      expect(Math.abs(one.ids.length - other.ids.length)).toBeLessThanOrEqual(1)
    }))

  test("that one topic set aside and did not need goes to another", ({ setPace }) =>
    Effect.gen(function* () {
      const keyed = (topic: string, id: string) => record(topic, id, null, { key: "k" })
      const consumer = yield* join({ pattern: "a.*", credit: 2, options: { keyOrdered: true } })
      yield* Appender.use(({ append }) => append([keyed("a.x", "x1")]))
      yield* settled
      setPace((operation) => (operation === "GroupStore.modify" ? [5, 0] : [0, 0]))
      // `x2` has to wait for `x1`, but the credit for it is set aside while that is found out.
      yield* Appender.use(({ append }) => append([keyed("a.x", "x2"), keyed("a.y", "y1")]))
      yield* TestClock.adjust(100)
      expect(consumer.ids).toEqual(["x1", "y1"])
    }))

  test("comes back when the group is put to another position", ({ groups }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const consumer = yield* join({ credit: 1 })
      yield* settled
      yield* groups.modify({ group: "g", topic: "a" }, (state) => [
        undefined,
        Group.seek(state!, { generation: "another", floor: 1 })
      ])
      yield* publish("a", "3")
      yield* settled
      expect(consumer.story).toEqual(["1#1", "2#1"])
      expect(yield* consumer.ack("1")).toEqual(["already"])
      expect(yield* consumer.ack("2")).toEqual(["done"])
      yield* settled
      expect(consumer.story).toEqual(["1#1", "2#1", "3#1"])
    }))

  test("is not used while a member is paused", () =>
    Effect.gen(function* () {
      const consumer = yield* join()
      consumer.member.setPaused(true)
      yield* publish("a", "1")
      yield* settled
      expect(consumer.ids).toEqual([])
      consumer.member.setPaused(false)
      yield* settled
      expect(consumer.ids).toEqual(["1"])
    }))

  test("that is used up costs the store nothing while an event waits to come again", ({ count }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3")
      const consumer = yield* join({ credit: 2, options: { ackTimeoutMs: 60_000 } })
      yield* settled
      yield* consumer.nack("1", { delayMs: 100 })
      yield* settled
      expect(consumer.story).toEqual(["1#1", "2#1", "3#1"])
      yield* TestClock.adjust(200)
      const before = count("GroupStore.modify")
      yield* TestClock.adjust(20_000)
      expect(count("GroupStore.modify") - before).toBeLessThanOrEqual(2)
      yield* consumer.ack("2")
      yield* settled
      expect(consumer.story).toEqual(["1#1", "2#1", "3#1", "1#2"])
    }))
})

describe("GroupRunner: acknowledgements", () => {
  test("are durable when they are answered", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3", "4")
      const consumer = yield* join()
      yield* settled
      expect(yield* consumer.ack("1", "2")).toEqual(["done", "done"])
      expect(yield* stateOf()).toMatchObject({ floor: 2 })
      expect(yield* consumer.ack("4")).toEqual(["done"])
      const state = yield* stateOf()
      expect(state).toMatchObject({ floor: 2, next: 5 })
      expect([...state.inFlight.keys()]).toEqual([3])
    }))

  test("say what they are about: done, done before, or somebody else's", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const one = yield* join({ credit: 1 })
      const other = yield* join({ credit: 1 })
      yield* settled
      const [own] = one.ids
      const [theirs] = other.ids
      expect(yield* one.ack(own!, theirs!, "nothing")).toEqual(["done", "stale", "stale"])
      expect(yield* one.ack(own!)).toEqual(["already"])
      expect(yield* other.ack(theirs!)).toEqual(["done"])
      expect(one.member.holds("a", own!)).toBe(false)
    }))

  test("of an attempt that is over change nothing", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join({ credit: 1 })
      yield* TestClock.adjust(ackTimeoutMs + 10)
      expect(consumer.story).toEqual(["1#1", "1#2"])
      expect(yield* consumer.answer({ _tag: "Ack", topic: "a", ids: ["1"], attempt: 1 })).toEqual(["stale"])
      yield* publish("a", "2")
      yield* settled
      expect(consumer.story).toEqual(["1#1", "1#2"])
      expect(yield* consumer.answer({ _tag: "Ack", topic: "a", ids: ["1"], attempt: 2 })).toEqual(["done"])
    }))

  test("of a topic that the member does not take are stale", () =>
    Effect.gen(function* () {
      yield* publish("b", "1")
      const consumer = yield* join()
      expect(yield* consumer.answer({ _tag: "Ack", topic: "b", ids: ["1"] })).toEqual(["stale"])
    }))

  test("that come together are one change of the state", ({ count, setPace }) =>
    Effect.gen(function* () {
      yield* Appender.use(({ append }) => append(records("a", 100)))
      const consumer = yield* join()
      yield* settled
      setPace(() => [1, 0])
      const before = count("GroupStore.modify")
      const acks = yield* Effect.forkChild(
        Effect.forEach(consumer.ids, (id) => consumer.ack(id), { concurrency: "unbounded" })
      )
      yield* settled
      yield* Fiber.join(acks)
      expect(count("GroupStore.modify") - before).toBeLessThan(5)
      expect(yield* stateOf()).toMatchObject({ floor: 100 })
    }))

  test("can be given more time for", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* TestClock.adjust(ackTimeoutMs - 100)
      expect(yield* consumer.answer({ _tag: "Extend", topic: "a", ids: ["1"], byMs: 500 })).toEqual(["done"])
      yield* TestClock.adjust(499)
      expect(consumer.story).toEqual(["1#1"])
      yield* TestClock.adjust(20)
      expect(consumer.story).toEqual(["1#1", "1#2"])
    }))
})

describe("GroupRunner: redelivery", () => {
  test("goes to somebody else than the member that let it lapse, when there is one", () =>
    Effect.gen(function* () {
      const silent = yield* join({ credit: 10 })
      yield* publish("a", "1", "2", "3")
      yield* settled
      expect(silent.story).toEqual(["1#1", "2#1", "3#1"])
      const other = yield* join({ credit: 1 })
      yield* TestClock.adjust(ackTimeoutMs)
      yield* settled
      // All of them lapsed; what the other has no credit for goes to the silent one after all.
      expect(other.story).toEqual(["1#2"])
      expect(silent.story.slice(3)).toEqual(["2#2", "3#2"])
    }))

  test("comes when the time is over, to whoever has credit, and frees the credit of the first", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const lost = yield* join({ credit: 1 })
      yield* settled
      const other = yield* join({ credit: 1 })
      yield* TestClock.adjust(ackTimeoutMs)
      const again = [...lost.deliveries.slice(1), ...other.deliveries]
      expect(again).toMatchObject([{ attempt: 2, redelivered: true, record: { id: "1" } }])
      yield* publish("a", "2")
      yield* settled
      expect([...lost.ids, ...other.ids].toSorted()).toEqual(["1", "1", "2"])
    }))

  test("does not come when the answer is late, and nobody has the event yet", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join({ credit: 1 })
      yield* settled
      consumer.member.setPaused(true)
      yield* TestClock.adjust(ackTimeoutMs * 2)
      expect(consumer.member.holds("a", "1")).toBe(true)
      expect(yield* consumer.ack("1")).toEqual(["done"])
      consumer.member.setPaused(false)
      yield* TestClock.adjust(ackTimeoutMs * 2)
      expect(consumer.story).toEqual(["1#1"])
    }))

  test("follows a disconnect at once, and the attempt counts", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const first = yield* joinApart()
      yield* settled
      const other = yield* join()
      yield* first.disconnect
      yield* settled
      expect(first.consumer.story).toEqual(["1#1"])
      expect(other.story).toEqual(["1#2"])
    }))

  test("follows a goodbye at once, and the attempt does not count", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const first = yield* joinApart()
      yield* settled
      const other = yield* join()
      yield* first.consumer.member.leave
      yield* first.consumer.member.leave
      yield* first.disconnect
      yield* settled
      expect(other.story).toEqual(["1#1", "2#1"])
    }))

  test("spares what was acknowledged before the goodbye", ({ setPace }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const first = yield* joinApart()
      yield* settled
      setPace(() => [5, 5])
      const acked = yield* Effect.forkChild(first.consumer.ack("1"))
      yield* Effect.yieldNow
      const left = yield* Effect.forkChild(first.consumer.member.leave)
      yield* TestClock.adjust(5)
      expect(left.pollUnsafe()).toBe(undefined)
      yield* TestClock.adjust(100)
      expect(yield* Fiber.join(acked)).toEqual(["done"])
      yield* Fiber.join(left)
      const state = yield* stateOf()
      expect(state.floor).toBe(1)
      expect([...state.waiting]).toMatchObject([[2, { attempt: 0 }]])
    }))

  test("comes also for what was on its way to a member that left", ({ setPace }) =>
    Effect.gen(function* () {
      const first = yield* joinApart()
      setPace((operation) => (operation === "GroupStore.modify" ? [5, 5] : [0, 0]))
      yield* publish("a", "1")
      yield* TestClock.adjust(7)
      expect([...(yield* stateOf()).inFlight.keys()]).toEqual([1])
      yield* Effect.forkChild(first.consumer.member.leave)
      yield* TestClock.adjust(50)
      expect(first.consumer.story).toEqual([])
      const other = yield* join()
      yield* TestClock.adjust(50)
      expect(other.story).toEqual(["1#1"])
    }))

  test("brings what is left to a member that comes later, whoever was the last to go", () =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3")
      const gone = yield* joinApart()
      yield* settled
      yield* gone.consumer.ack("2")
      yield* gone.disconnect
      yield* TestClock.adjust(ackTimeoutMs * 3)
      const next = yield* joinApart()
      yield* settled
      expect(next.consumer.story).toEqual(["1#2", "3#2"])
      // An answer of somebody who is gone does not disturb who came after.
      expect(yield* gone.consumer.ack("1")).toEqual(["stale"])
      yield* publish("a", "4")
      yield* settled
      expect(next.consumer.story).toEqual(["1#2", "3#2", "4#1"])
    }))
})

describe("GroupRunner: refusals", () => {
  test("come again after a back-off that doubles, and are given up after the last attempt", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      for (const [attempt, delay] of [
        [1, 50],
        [2, 100],
        [3, 200]
      ] as const) {
        yield* consumer.nack("1")
        yield* TestClock.adjust(delay - 1)
        expect(consumer.deliveries.at(-1)!.attempt).toBe(attempt)
        yield* TestClock.adjust(1)
        expect(consumer.deliveries.at(-1)!.attempt).toBe(attempt + 1)
      }
      yield* consumer.nack("1", { reason: "for the last time" })
      yield* TestClock.adjust(60_000)
      expect(consumer.story).toEqual(["1#1", "1#2", "1#3", "1#4"])
      expect(yield* deadLetters()).toMatchObject([
        { headers: { [DeadLetter.headers.attempts]: "4", [DeadLetter.headers.reason]: "for the last time" } }
      ])
      expect(yield* stateOf()).toMatchObject({ floor: 1 })
    }))

  test("say themselves when to come again", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      yield* consumer.nack("1", { delayMs: 700 })
      yield* TestClock.adjust(699)
      expect(consumer.story).toEqual(["1#1"])
      yield* TestClock.adjust(1)
      expect(consumer.story).toEqual(["1#1", "1#2"])
    }))

  test("of mode `release` come again at once, and do not count", () =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      for (let i = 0; i < 10; i++) yield* consumer.nack("1", { mode: "release" })
      yield* settled
      expect(new Set(consumer.story)).toEqual(new Set(["1#1"]))
      expect(consumer.deliveries).toHaveLength(11)
      yield* consumer.nack("1", { mode: "release", delayMs: 500 })
      yield* TestClock.adjust(400)
      expect(consumer.deliveries).toHaveLength(11)
    }))

  test("of mode `poison` go to the dead letters at once, with all that is known", () =>
    Effect.gen(function* () {
      const original = record("a", "1", { n: 1 }, { key: "k", type: "t", headers: { h: "v" } })
      yield* Appender.use(({ append }) => append([original, record("a", "2")]))
      const consumer = yield* join()
      yield* settled
      expect(yield* consumer.nack("1", { mode: "poison", reason: "cannot be read" })).toEqual(["done"])
      yield* settled
      const { generation } = yield* stateOf()
      expect(yield* deadLetters()).toMatchObject([
        {
          id: `1:${generation}`,
          topic: "$dead.g.a",
          key: "k",
          type: "t",
          payload: { n: 1 },
          headers: {
            h: "v",
            [DeadLetter.headers.group]: "g",
            [DeadLetter.headers.topic]: "a",
            [DeadLetter.headers.seq]: "1",
            [DeadLetter.headers.id]: "1",
            [DeadLetter.headers.attempts]: "1",
            [DeadLetter.headers.reason]: "cannot be read"
          }
        }
      ])
      yield* consumer.ack("2")
      expect(yield* stateOf()).toMatchObject({ floor: 2 })
    }))

  test("are let go only when they stand in the dead letters", ({ setOutage }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      setOutage("EventStore.append")
      yield* consumer.nack("1", { mode: "poison" })
      yield* TestClock.adjust("1 minute")
      const state = yield* stateOf()
      expect(state.floor).toBe(0)
      expect([...state.dying.keys()]).toEqual([1])
      expect(yield* deadLetters()).toEqual([])
      setOutage(undefined)
      yield* TestClock.adjust("5 seconds")
      expect(yield* deadLetters()).toHaveLength(1)
      expect(yield* stateOf()).toMatchObject({ floor: 1 })
      expect(consumer.story).toEqual(["1#1"])
    }))

  test("leave one dead letter, also when the hub does not hear that it was stored", ({ next }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      next("EventStore.append", "fail after", "fail after")
      yield* consumer.nack("1", { mode: "poison" })
      yield* TestClock.adjust("10 seconds")
      expect(yield* deadLetters()).toHaveLength(1)
      expect(yield* stateOf()).toMatchObject({ floor: 1 })
    }))

  test("of dead letters never end: a group on them tries for ever", ({ log }) =>
    Effect.gen(function* () {
      yield* log.append([record("$dead.g.a", "1")])
      const consumer = yield* join({
        pattern: "$dead.g.a",
        group: "undertakers",
        options: { maxAttempts: 2 }
      })
      yield* settled
      for (let i = 0; i < 5; i++) {
        yield* consumer.nack("1", { mode: i % 2 === 0 ? "poison" : "fail", delayMs: 1 })
        yield* settled
      }
      expect(consumer.story).toEqual(["1#1", "1#2", "1#3", "1#4", "1#5", "1#6"])
    }))
})

describe("GroupRunner: events that may kill their handler", () => {
  test("come alone from the third time on, and take nobody with them", () =>
    Effect.gen(function* () {
      yield* publish("a", "bad", "2", "3", "4")
      const healthy = ["2", "3", "4", "5", "6"]
      let crashes = 0
      // A worker that dies of one event, with all that it has at the time.
      for (let life = 0; life < 10; life++) {
        const { consumer, disconnect } = yield* joinApart({ credit: 3 })
        yield* settled
        if (life === 2) yield* publish("a", "5", "6")
        while (
          !consumer.deliveries.some((one) => one.record.id === "bad" && consumer.member.holds("a", "bad"))
        ) {
          const open = consumer.ids.filter((id) => consumer.member.holds("a", id))
          if (open.length === 0) break
          yield* consumer.ack(...open)
          yield* settled
        }
        const held = consumer.ids.filter((id) => consumer.member.holds("a", id))
        if (held.includes("bad")) {
          crashes++
          if (crashes > 2) expect(held).toEqual(["bad"])
        }
        yield* disconnect
        yield* settled
      }
      yield* settled
      expect(crashes).toBe(4)
      expect((yield* deadLetters()).map(({ headers }) => headers?.[DeadLetter.headers.id])).toEqual(["bad"])
      expect(yield* stateOf()).toMatchObject({ floor: 1 + healthy.length })
    }))

  test("wait for a member to be idle, and hold up nobody else", () =>
    Effect.gen(function* () {
      yield* publish("a", "bad")
      for (let i = 0; i < 2; i++) {
        const { disconnect } = yield* joinApart()
        yield* settled
        yield* disconnect
        yield* settled
      }
      yield* publish("a", "2", "3", "4", "5")
      const one = yield* join({ credit: 2 })
      yield* settled
      // It had nothing: the suspect comes first, and alone.
      expect(one.story).toEqual(["bad#3"])
      const other = yield* join({ credit: 2 })
      yield* settled
      expect(other.ids).toEqual(["2", "3"])
      yield* one.ack("bad")
      yield* settled
      expect(one.story).toEqual(["bad#3", "4#1", "5#1"])
    }))

  /** An event of a topic that was delivered twice without an answer; `holder` has it last, and takes no more. */
  const suspect = (topic: string) =>
    Effect.gen(function* () {
      yield* publish(topic, "bad")
      const first = yield* joinApart({ pattern: topic })
      yield* settled
      yield* first.disconnect
      yield* settled
      const holder = yield* join({ pattern: topic })
      yield* settled
      expect(holder.story).toEqual(["bad#2"])
      holder.member.setPaused(true)
      yield* TestClock.adjust(ackTimeoutMs)
      return holder
    })

  test("come when the member is idle again that was kept free for them", ({ next, setPace }) =>
    Effect.gen(function* () {
      const paused = yield* join({ pattern: "a.x" })
      paused.member.setPaused(true)
      yield* publish("a.x", "1")
      yield* suspect("a.z")
      const consumer = new Consumer({ pattern: "a.*", credit: 1 })
      yield* consumer.join
      setPace((operation) => (operation === "GroupStore.modify" ? [5, 0] : [0, 0]))
      next("GroupStore.modify", "fail")
      // `a.x` sets its credit aside, and the store fails; `a.z` waits for that credit.
      consumer.member.start()
      yield* TestClock.adjust(50)
      expect(consumer.story).toEqual(["bad#3"])
      yield* consumer.answer({ _tag: "Ack", topic: "a.z", ids: ["bad"] }).pipe(Effect.forkChild)
      yield* TestClock.adjust(500)
      expect(consumer.story).toEqual(["bad#3", "1#1"])
    }))

  test("come to another when the member goes that was kept free for them", () =>
    Effect.gen(function* () {
      yield* publish("a.x", "1", "2", "3")
      const nearest = yield* joinApart({ pattern: "a.*", credit: 1 })
      yield* settled
      const other = yield* join({ pattern: "a.*", credit: 5 })
      yield* settled
      expect([nearest.consumer.ids.length, other.ids.length]).toEqual([1, 2])
      nearest.consumer.member.setPaused(true)
      other.member.setPaused(true)
      const extend = (consumer: Consumer) =>
        consumer.answer({ _tag: "Extend", topic: "a.x", ids: consumer.ids, byMs: 60_000 })
      yield* extend(nearest.consumer)
      yield* extend(other)
      yield* suspect("a.z")
      nearest.consumer.member.setPaused(false)
      other.member.setPaused(false)
      yield* other.answer({ _tag: "Ack", topic: "a.x", ids: other.ids })
      yield* settled
      expect(other.ids).not.toContain("bad")
      yield* nearest.disconnect
      yield* settled
      // What the other left comes first; then it is kept free.
      expect(other.story).toEqual(["2#1", "3#1", "1#2"])
      yield* other.answer({ _tag: "Ack", topic: "a.x", ids: ["1"] })
      yield* settled
      expect(other.story).toEqual(["2#1", "3#1", "1#2", "bad#3"])
    }))

  test("keep no member waiting when they are done before they come", ({ setPace }) =>
    Effect.gen(function* () {
      const holder = yield* suspect("a.x")
      const consumer = new Consumer({ pattern: "a.*", credit: 1 })
      yield* consumer.join
      setPace((operation) => (operation === "GroupStore.modify" ? [5, 0] : [0, 0]))
      yield* Effect.forkChild(holder.answer({ _tag: "Extend", topic: "a.x", ids: ["nothing"] }))
      yield* TestClock.adjust(1)
      // Both are part of the next round: the answer, and the member that is to have the event alone.
      const late = yield* Effect.forkChild(holder.ack("bad"))
      yield* Effect.yieldNow
      consumer.member.start()
      yield* TestClock.adjust(6)
      yield* publish("a.y", "1")
      yield* TestClock.adjust(100)
      expect(yield* Fiber.join(late)).toEqual(["done"])
      expect(consumer.story).toEqual(["1#1"])
    }))
})

describe("GroupRunner: key order", () => {
  const keyed = (id: string, key?: string) => record("a", id, null, key === undefined ? {} : { key })

  test("gives events of a key one at a time, to whichever member, and lets others flow past", () =>
    Effect.gen(function* () {
      yield* Appender.use(({ append }) =>
        append([
          keyed("x1", "x"),
          keyed("x2", "x"),
          keyed("y1", "y"),
          keyed("n1"),
          keyed("x3", "x"),
          keyed("n2")
        ])
      )
      const one = yield* join({ options: { keyOrdered: true } })
      const other = yield* join({ options: { keyOrdered: true } })
      yield* settled
      const open = () =>
        [one, other].flatMap((consumer) => consumer.ids.filter((id) => consumer.member.holds("a", id)))
      expect(open().toSorted()).toEqual(["n1", "n2", "x1", "y1"])
      const ack = (id: string) => (one.member.holds("a", id) ? one : other).ack(id)
      yield* ack("x1")
      yield* settled
      expect(open().toSorted()).toEqual(["n1", "n2", "x2", "y1"])
      yield* (one.member.holds("a", "x2") ? one : other).nack("x2", { delayMs: 100 })
      yield* settled
      expect(open()).not.toContain("x3")
      yield* TestClock.adjust(100)
      expect(open()).toContain("x2")
      expect(open()).not.toContain("x3")
      yield* ack("x2")
      yield* settled
      expect(open()).toContain("x3")
    }))
})

describe("GroupRunner: what was trimmed", () => {
  test("before the group took it is told, and passed over", ({ log }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2", "3", "4")
      yield* joinApart({ from: "start", credit: 1 }).pipe(
        Effect.flatMap(({ consumer, disconnect }) => Effect.andThen(consumer.member.leave, disconnect))
      )
      yield* log.trim({ topic: "a", upTo: 3 })
      const consumer = yield* join()
      yield* settled
      expect(consumer.gaps).toEqual([{ topic: "a", from: 1, to: 3 }])
      expect(consumer.ids).toEqual(["4"])
      yield* consumer.ack("4")
      expect(yield* stateOf()).toMatchObject({ floor: 4 })
    }))

  test(
    "while it waited to come again is told, too, where it is not in memory",
    ({ log }) =>
      Effect.gen(function* () {
        yield* Appender.use(({ append }) => append(records("a", 200)))
        const consumer = yield* join({ credit: 200 })
        yield* settled
        yield* consumer.nack("e1", { delayMs: 500 })
        yield* consumer.ack(...records("a", 199, 2).map(({ id }) => id))
        yield* log.trim({ topic: "a", upTo: 150 })
        yield* TestClock.adjust(1_000)
        expect(consumer.deliveries).toHaveLength(200)
        expect(consumer.gaps).toHaveLength(1)
        expect(yield* stateOf()).toMatchObject({ floor: 200 })
      }),
    { cacheBytes: 0 }
  )

  test("while it waited to come again comes, as long as it is in memory", ({ log }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const consumer = yield* join()
      yield* settled
      yield* consumer.nack("1", { delayMs: 500 })
      yield* consumer.ack("2")
      yield* log.trim({ topic: "a", upTo: 2 })
      yield* TestClock.adjust(1_000)
      expect(consumer.story).toEqual(["1#1", "2#1", "1#2"])
      expect(consumer.gaps).toEqual([])
      yield* consumer.ack("1")
      expect(yield* stateOf()).toMatchObject({ floor: 2 })
    }))
})

describe("GroupRunner: stores that fail", () => {
  test("count no attempt and lose nothing, however long it takes", ({ setOutage }) =>
    Effect.gen(function* () {
      yield* publish("a", "1", "2")
      const consumer = yield* join({ credit: 2, options: { maxAttempts: 1 } })
      yield* settled
      setOutage("GroupStore")
      expect((yield* Effect.flip(consumer.ack("1")))._tag).toBe("StoreUnavailable")
      yield* TestClock.adjust(ackTimeoutMs * 20)
      yield* publish("a", "3")
      expect(
        (yield* Effect.flip(
          Effect.forkChild(consumer.ack("1")).pipe(
            Effect.tap(() => TestClock.adjust(1_000)),
            Effect.flatMap(Fiber.join)
          )
        ))._tag
      ).toBe("StoreUnavailable")
      setOutage(undefined)
      yield* TestClock.adjust(500)
      expect(yield* consumer.ack("1")).toEqual(["done"])
      yield* consumer.ack("2")
      yield* settled
      expect(consumer.story).toEqual(["1#1", "2#1", "3#1"])
      expect(yield* deadLetters()).toEqual([])
    }))

  test("that had stored a claim all the same do not keep the event from its member", ({ next }) =>
    Effect.gen(function* () {
      const consumer = yield* join()
      next("GroupStore.modify", "fail after", "fail after")
      yield* publish("a", "1", "2")
      yield* TestClock.adjust(ackTimeoutMs - 100)
      expect(consumer.story).toEqual(["1#1", "2#1"])
      expect(yield* consumer.ack("1", "2")).toEqual(["done", "done"])
    }))

  test("that had stored an answer all the same say so when it is given again", ({ next }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const consumer = yield* join()
      yield* settled
      next("GroupStore.modify", "fail after")
      expect((yield* Effect.flip(consumer.ack("1")))._tag).toBe("StoreUnavailable")
      yield* TestClock.adjust(500)
      expect(yield* consumer.ack("1")).toEqual(["already"])
      yield* TestClock.adjust(ackTimeoutMs * 2)
      expect(consumer.story).toEqual(["1#1"])
    }))

  test("still hear of a member that went", ({ setOutage }) =>
    Effect.gen(function* () {
      yield* publish("a", "1")
      const gone = yield* joinApart()
      yield* settled
      setOutage("GroupStore")
      yield* gone.disconnect
      yield* TestClock.adjust(300)
      setOutage(undefined)
      const other = yield* join()
      yield* TestClock.adjust(300)
      expect(other.story).toEqual(["1#2"])
    }))

  test(
    "and cannot be read delay what they hold, and count no attempt for it",
    ({ setOutage }) =>
      Effect.gen(function* () {
        yield* Appender.use(({ append }) => append(records("a", 300)))
        const consumer = yield* join({ credit: 300 })
        yield* settled
        yield* consumer.nack("e1", { delayMs: 100, mode: "release" })
        yield* consumer.ack(...records("a", 299, 2).map(({ id }) => id))
        setOutage("EventStore.read")
        yield* TestClock.adjust(ackTimeoutMs * 5)
        expect(consumer.deliveries).toHaveLength(300)
        setOutage(undefined)
        // It arrives after its deadline: the member has all its time nevertheless.
        while (consumer.deliveries.length === 300) yield* TestClock.adjust(100)
        yield* TestClock.adjust(ackTimeoutMs - 200)
        expect(consumer.story.slice(300)).toEqual(["e1#1"])
        expect(yield* consumer.ack("e1")).toEqual(["done"])
      }),
    { cacheBytes: 0 }
  )

  test("refuse a member, and take it when they work again", ({ setOutage }) =>
    Effect.gen(function* () {
      setOutage("EventStore.topics")
      expect((yield* Effect.flip(Effect.scoped(join())))._tag).toBe("StoreUnavailable")
      setOutage(undefined)
      const consumer = yield* join()
      yield* publish("a", "1")
      yield* settled
      expect(consumer.ids).toEqual(["1"])
    }))

  test("and held an event all the same: the group gets it", ({ next }) =>
    Effect.gen(function* () {
      const consumer = yield* join()
      next("EventStore.append", "fail after")
      yield* Effect.flip(publish("a", "1"))
      yield* settled
      expect(consumer.ids).toEqual(["1"])
    }))
})

describe("GroupRunner: clocks", () => {
  for (const skew of [-60_000, 60_000]) {
    it.effect(`that differ by ${skew} ms change nothing: time is the store's`, () =>
      Effect.gen(function* () {
        const trouble = yield* Trouble
        const { groups } = trouble
        const skewed = Layer.succeed(GroupStore, {
          ...groups,
          modify: (at, f) => groups.modify(at, (state, now) => f(state, now + skew))
        })
        const context = yield* Layer.build(
          Layer.fresh(
            dispatcher().pipe(Layer.provideMerge(GroupCommitAppender.layer()), Layer.provide(skewed))
          )
        )
        yield* Effect.gen(function* () {
          yield* TestClock.setTime(1_000_000)
          yield* publish("a", "1", "2")
          const consumer = yield* join({ credit: 2 })
          yield* settled
          yield* consumer.nack("1", { delayMs: 300 })
          yield* TestClock.adjust(299)
          expect(consumer.story).toEqual(["1#1", "2#1"])
          yield* TestClock.adjust(1)
          expect(consumer.story).toEqual(["1#1", "2#1", "1#2"])
          yield* consumer.ack("1")
          yield* TestClock.adjust(ackTimeoutMs - 310 - 1)
          expect(consumer.story).toHaveLength(3)
          const before = trouble.calls.length
          yield* TestClock.adjust(1)
          expect(consumer.story).toEqual(["1#1", "2#1", "1#2", "2#2"])
          yield* TestClock.adjust(ackTimeoutMs - 1)
          expect(trouble.calls.length - before).toBeLessThan(20)
        }).pipe(Effect.provide(context))
      }).pipe(Effect.provide(TestStores.layer()))
    )
  }
})
