/** Scenarios of publishes and live subscriptions: types, what survives the hub's death, and the offline queue. */
import * as v from "valibot"
import { type Delivery, defineTopics, InvalidPayload, type Published } from "../../../src/client/index.ts"
import { codeOf, equal, failure, holds, made, soon, until, upTo } from "./checks.ts"
import type { Scenario } from "./Scenario.ts"

/** What is published is not what is received: the total is written in one way and read in another. */
const topics = defineTopics({
  "orders.*.created": v.object({ id: v.string(), total: v.pipe(v.string(), v.transform(Number)) })
})

const typed: Scenario = {
  name: "typed topics: payloads by their schema, and invalid ones as items, errors and poison",
  run: async (setting) => {
    await using client = setting.createClient({ ...soon(setting), topics, validatePublish: true })
    await using stranger = made(setting)
    const errors: Array<unknown> = []
    client.on("error", (error) => errors.push(error))
    const live = client.subscribe("orders.*.created")
    const totals: Array<number> = []
    const group = client.consume(
      "orders.*.created",
      "orders",
      ({ payload }) => void totals.push(payload.total)
    )
    const dead: Array<unknown> = []
    const letters = stranger.subscribe("$dead.orders.**", ({ payload }) => void dead.push(payload))
    await Promise.all([live.ready, group.ready, letters.ready])

    await client.publish("orders.eu.created", { id: "a", total: "12" })
    await stranger.publish("orders.eu.created", { id: 7 })
    // @ts-expect-error a total is a string where it is published
    const refused = await failure(client.publish("orders.eu.created", { id: "c", total: 1 }))
    await client.publish("orders.us.created", { id: "b", total: "3" })

    holds("it is refused before it is sent", refused instanceof InvalidPayload)
    const items: Array<unknown> = []
    for await (const item of live) {
      if (item._tag === "event") items.push([item.topic, item.seq, item.payload.id, item.payload.total])
      else if (item._tag === "invalid") items.push([item.event.topic, item.event.seq, item.issues.length])
      else items.push(item)
      if (items.length === 3) break
    }
    equal(
      "in order of each topic",
      items.toSorted((a, b) => String(a).localeCompare(String(b))),
      [
        ["orders.eu.created", 1, "a", 12],
        ["orders.eu.created", 2, 2],
        ["orders.us.created", 1, "b", 3]
      ]
    )
    await until("the group is done", () => totals.length === 2 && dead.length === 1)
    equal(
      "the group's",
      totals.toSorted((a, b) => a - b),
      [3, 12]
    )
    equal("the dead letter", dead, [{ id: 7 }])
    equal(
      "what is told",
      errors.map((error) => error instanceof InvalidPayload && error.topic),
      ["orders.eu.created"]
    )
  }
}

const resume: Scenario = {
  name: "resume: a hub that is killed loses nothing of a live subscription, and repeats nothing",
  hub: {},
  run: async (setting) => {
    const { control } = setting
    await using publisher = made(setting)
    await using reader = made(setting)
    const iterated: Array<unknown> = []
    const called: Array<number> = []
    const live = reader.subscribe("resume.a")
    const calls = reader.subscribe("resume.*", ({ seq }) => void called.push(seq))
    await Promise.all([live.ready, calls.ready])
    const iterating = (async () => {
      for await (const item of live) iterated.push(item._tag === "event" ? item.seq : item)
    })()

    let isOver = false
    const answers: Array<Published> = []
    /** Has one publish under way, also while the hub is away. */
    const publishing = async () => {
      while (!isOver) answers.push(await publisher.publish("resume.a", "x"))
    }
    const publishers = upTo(8).map(publishing)
    for (const _ of upTo(2)) {
      const enough = called.length + 100
      await until("events come", () => called.length >= enough)
      await control.kill()
      await until("it is known", () => reader.state._tag !== "ready" && publisher.state._tag !== "ready")
      await control.start()
    }
    const enough = called.length + 100
    await until("events come again", () => called.length >= enough)
    isOver = true
    await Promise.all(publishers)
    // A repeat would come before this.
    const { seq: last } = await publisher.publish("resume.a", "end")
    await until("the end", () => iterated.at(-1) === last && called.at(-1) === last)
    await live.unsubscribe()
    await iterating
    equal("each once, in order, by the iterator", iterated, upTo(last))
    equal("and by the callback", called, upTo(last))
    equal(
      "each publish is one event",
      answers.map(({ seq }) => seq).toSorted((a, b) => a - b),
      upTo(last - 1)
    )
  }
}

const resumeGroup: Scenario = {
  name: "resume: a hub that is killed knows what was acknowledged, and hands out again what was not",
  hub: {},
  run: async (setting) => {
    const { control } = setting
    await using publisher = made(setting)
    await using worker = made(setting)
    const group = worker.consume("jobs.a", "jobs", { ackTimeoutMs: 5_000, extendForMs: 0 })
    await group.ready
    const deliveries = group[Symbol.asyncIterator]()
    const next = async (): Promise<Delivery> => {
      const { done, value } = await deliveries.next()
      if (done) throw new Error("it has ended")
      return value
    }
    for (const n of upTo(20)) await publisher.publish("jobs.a", n)
    for (const n of upTo(19)) {
      const delivery = await next()
      equal("in order", delivery.event.payload, n)
      await delivery.ack()
    }
    const held = await next()
    await control.kill()
    await until("it is known", () => held.signal.aborted && publisher.state._tag !== "ready")
    equal("an answer that is too late", await codeOf(held.ack()), "stale")
    const waiting = upTo(10).map((n) => publisher.publish("jobs.a", 20 + n))
    await control.start()
    await Promise.all(waiting)
    const after: Array<readonly [number, boolean]> = []
    while (after.length < 11) {
      const delivery = await next()
      after.push([Number(delivery.event.payload), delivery.redelivered])
      await delivery.ack()
    }
    equal(
      "what it had in hand, and what is new",
      after.toSorted(([a], [b]) => a - b),
      upTo(11).map((n) => [19 + n, n === 1])
    )
  }
}

const offline: Scenario = {
  name: "offline queue: what is published while the hub is away arrives once, in order, with its ids",
  hub: {},
  run: async (setting) => {
    const { control } = setting
    await using client = made(setting)
    await using small = made(setting, { maxPending: 2 })
    await Promise.all([client.connect(), small.connect()])
    await client.publish("offline.a", 0, { id: "first" })
    await control.kill()
    await until("it is known", () => client.state._tag !== "ready" && small.state._tag !== "ready")
    const waiting = upTo(30).map((n) =>
      // Every other one gets its id by itself.
      client.publish("offline.a", n, n % 2 === 0 ? { id: `id-${n}` } : {})
    )
    const few = upTo(2).map((n) => small.publish("offline.b", n))
    equal("one too many", await codeOf(small.publish("offline.b", 3)), "queue_full")
    await control.start()
    const answers = await Promise.all(waiting)
    await Promise.all(few)
    equal(
      "in order",
      answers.map(({ seq }) => seq),
      upTo(30).map((n) => n + 1)
    )
    holds(
      "no second event",
      answers.every(({ duplicate }) => !duplicate)
    )
    holds(
      "given ids stay",
      upTo(15).every((n) => answers[2 * n - 1]?.id === `id-${2 * n}`)
    )
    const seen: Array<unknown> = []
    const live = client.subscribe("offline.*", { from: "start" })
    for await (const item of live) {
      if (item._tag === "event" && item.topic === "offline.a") seen.push([item.id, item.payload])
      if (seen.length === 31) break
    }
    equal("the log", seen, [["first", 0], ...answers.map(({ id }, i) => [id, i + 1])])
  }
}

export const live: ReadonlyArray<Scenario> = [typed, resume, resumeGroup, offline]
