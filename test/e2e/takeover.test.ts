/**
 * One of two hubs over one MongoDB goes, and the other has its work: what the members of a group had in hand there, and
 * the outbox records that it had claimed. A hub that is killed lets go when a lease ends, a short one here; a hub that is
 * told to stop gives back at once, while every lease is long. Each test prints how long it took in truth; what it asserts
 * is far below whatever would bring the work back if nobody took it over.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { MongoClient } from "mongodb"
import { expect, it, onTestFinished } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../support/mongo.ts"
import { type Message, RawClient } from "../support/RawClient.ts"
import { createOutbox } from "../../src/layers/mongo/createOutbox.ts"

/** The acknowledgement time-out, or the lease of a claim, where it has to pass; and where it must not be what helps. */
const short = 2_000
const long = 120_000

/** No assertion about speed: a machine that is busy takes its time, and `long` is never reached. */
const farBelowLong = 40_000

/** What brings work back by itself is put far away. */
const lonely = { GROUP_REFRESH_MS: `${long}`, HUB_DRAIN_MS: "300" }

const report = (what: string, tookMs: number): void =>
  console.log(`takeover: ${what}: ${Math.round(tookMs)} ms`)

interface Delivery {
  readonly topic: string
  readonly id: string
  readonly at: number
}

/** A member of the group, which acknowledges what it gets as long as it is not told to keep it. */
class Worker {
  readonly got = new Map<string, Delivery>()
  readonly kept = new Map<string, Delivery>()
  isKeeping = false
  readonly client: RawClient

  private constructor(client: RawClient) {
    this.client = client
    client.onFrame = (messages) => this.#received(messages)
  }

  static async join(url: string, opts: Readonly<Record<string, unknown>>): Promise<Worker> {
    const client = await RawClient.authenticated(url)
    const worker = new Worker(client)
    const answer = await client.request({ op: "SUBSCRIBE", topic: "jobs.*", group: "workers", opts })
    expect(answer.op).toBe("OK")
    return worker
  }

  #received(messages: ReadonlyArray<Message>): void {
    const done = new Map<string, Array<string>>()
    for (const message of messages) {
      if (message.op !== "EVENT") continue
      const { id } = message["event"] as { readonly id: string }
      const delivery = { topic: String(message["topic"]), id, at: performance.now() }
      if (this.isKeeping) this.kept.set(id, delivery)
      else {
        this.got.set(id, delivery)
        done.set(delivery.topic, [...(done.get(delivery.topic) ?? []), id])
      }
    }
    const acks = [...done].map(([topic, ids]) => ({ op: "ACK", topic, group: "workers", ids }))
    if (acks.length > 0) this.client.send(acks)
  }
}

const until = async (what: string, is: () => boolean | Promise<boolean>): Promise<void> => {
  const limit = performance.now() + farBelowLong
  while (!(await is())) {
    if (performance.now() > limit) throw new Error(`${what} did not happen within ${farBelowLong} ms`)
    await sleep(5)
  }
}

/** Publishes until it is stopped; answers the ids of all that were acknowledged. */
const load = async (url: string) => {
  const client = await RawClient.authenticated(url)
  const ids: Array<string> = []
  let isStopped = false
  const running = (async () => {
    for (let n = 0; !isStopped; n += 5) {
      const messages = Array.from({ length: 5 }, (_, i) => ({
        op: "PUBLISH",
        ref: n + i,
        topic: i % 2 === 0 ? "jobs.a" : "jobs.b",
        payload: null,
        opts: { id: `e${n + i}`, key: `k${(n + i) % 50}` }
      }))
      client.messages.length = 0
      client.send(messages)
      const answers = await client.waitForAll("answers", ({ ref }) => typeof ref === "number", 5)
      expect(answers.map(({ op }) => op)).toEqual(Array(5).fill("OK"))
      ids.push(...messages.map(({ opts }) => opts.id))
      await sleep(5)
    }
  })()
  return {
    ids,
    stop: async () => {
      isStopped = true
      await running
      await client.close()
    }
  }
}

const database = (mongo: string): string => {
  const url = urlOfNewDatabase(mongo)
  onTestFinished(() => dropDatabase(url))
  return url
}

const twoHubs = async (settings: Readonly<Record<string, string>>) => {
  const [leaving, staying] = await Promise.all([startHub(settings), startHub(settings)])
  onTestFinished(async () => {
    await leaving.kill()
    await staying.kill()
  })
  return { leaving, staying }
}

const group = async (
  mongo: string,
  how: "kill" | "stop",
  { isLoaded, keyOrdered }: { readonly isLoaded: boolean; readonly keyOrdered: boolean }
): Promise<void> => {
  const { leaving, staying } = await twoHubs({ ...lonely, MONGO_URL: database(mongo) })
  const ackTimeoutMs = how === "kill" ? short : long
  const opts = { from: "start", credit: 20, keyOrdered, ackTimeoutMs, maxAttempts: 100 }
  const [one, other] = [await Worker.join(leaving.ws, opts), await Worker.join(staying.ws, opts)]
  const publishing = await load(staying.ws)
  await until("work on both", () => one.got.size > 0 && other.got.size > 0)
  one.isKeeping = true
  await until("work in hand", () => one.kept.size >= 5)
  if (!isLoaded) await publishing.stop()

  const began = performance.now()
  const ended = leaving[how]()
  await until("what one had, to the other", () => [...one.kept.keys()].every((id) => other.got.has(id)))
  const last = Math.max(...[...one.kept.keys()].map((id) => other.got.get(id)!.at))
  report(
    `${one.kept.size} events of a group after ${how}, ${isLoaded ? "under load" : "in silence"}` +
      `${keyOrdered ? ", by key" : ""}${how === "kill" ? `, time-out ${short} ms` : ""}`,
    last - began
  )
  if (how === "stop") expect((await ended).code).toBe(0)

  // And nothing is left behind.
  if (isLoaded) await publishing.stop()
  await until("everything", () => publishing.ids.every((id) => one.got.has(id) || other.got.has(id)))
}

const keys = 100

interface Row {
  readonly _id: string
  readonly id: string
  readonly state: string
}

const outboxOf = async (mongo: string, leaseMs: number) => {
  const url = database(mongo)
  const client = new MongoClient(url)
  onTestFinished(() => client.close())
  const outbox = createOutbox(client.db())
  await outbox.prepare()
  const hubs = await twoHubs({
    ...lonely,
    MONGO_URL: url,
    OUTBOX_LEASE_MS: `${leaseMs}`,
    OUTBOX_BATCH_SIZE: "50"
  })
  const rows = client.db().collection<Row>("outbox")
  let added = 0
  /** Of each key one at a time: its next one is added when that was answered. */
  const add = async (count: number): Promise<void> => {
    for (const end = added + count; added < end;) {
      const some = Array.from({ length: Math.min(keys, end - added) }, () => added++)
      await Promise.all(
        some.map((n) => outbox.add({ topic: "jobs.a", id: `r${n}`, key: `k${n % keys}`, payload: n }))
      )
    }
  }
  const claimed = async () => (await rows.find({ state: "claimed" }).toArray()).map(({ id }) => id)
  const open = (ids: ReadonlyArray<string>) =>
    rows.countDocuments({ id: { $in: [...ids] }, state: { $ne: "sent" } })
  const allSent = async () => (await rows.countDocuments({ state: { $ne: "sent" } })) === 0
  return { ...hubs, add, claimed, open, allSent, count: () => added }
}

const readAll = async (url: string, count: number): Promise<ReadonlyArray<number>> => {
  const reader = await RawClient.authenticated(url)
  await reader.request({ op: "SUBSCRIBE", topic: "jobs.a", opts: { from: "start" } })
  await reader.events(count)
  await reader.settled()
  const events = reader.messages.filter(({ op }) => op === "EVENT")
  await reader.close()
  return events.map(({ event }) => (event as { readonly payload: number }).payload)
}

/** Each once, and those of a key in the order of their adding. */
const expectInOrder = (found: ReadonlyArray<number>, count: number): void => {
  expect(found.toSorted((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, n) => n))
  for (const line of Map.groupBy(found, (n) => n % keys).values()) {
    expect(line).toEqual(line.toSorted((a, b) => a - b))
  }
}

describeMongo("of two hubs over one database", (mongo) => {
  for (const how of ["kill", "stop"] as const) {
    const passive = how === "kill" ? "is killed" : "is told to stop"
    for (const keyOrdered of [false, true]) {
      it(`one ${passive} under load: the other's members get what was in hand${keyOrdered ? ", by key" : ""}`, () =>
        group(mongo, how, { isLoaded: true, keyOrdered }))
    }

    it(`one ${passive} while nothing else happens: the other's members get what was in hand`, () =>
      group(mongo, how, { isLoaded: false, keyOrdered: true }))
  }

  it("one is killed with outbox records in its claim: the other sends them", async () => {
    const { add, allSent, claimed, count, leaving, open, staying } = await outboxOf(mongo, short)
    // All that is claimed from here on is claimed by the one that will go.
    staying.process.kill("SIGSTOP")
    let held: ReadonlyArray<string> = []
    await until("a claim", async () => {
      const adding = add(200)
      for (let looks = 0; held.length === 0 && looks < 20; looks++) {
        if ((await claimed()).length === 0) continue
        leaving.process.kill("SIGSTOP")
        // What it had sent to the server before is done by then, or it is not done at all.
        await sleep(100)
        held = await claimed()
        if (held.length === 0) leaving.process.kill("SIGCONT")
      }
      await adding
      return held.length > 0
    })
    const began = performance.now()
    await leaving.kill()
    staying.process.kill("SIGCONT")
    const adding = add(500)
    await until("what was claimed is sent", async () => (await open(held)) === 0)
    report(`${held.length} claimed records after kill, lease ${short} ms`, performance.now() - began)
    await adding
    await until("everything is sent", allSent)
    expectInOrder(await readAll(staying.ws, count()), count())
  })

  it("one is told to stop with outbox records in its claim: none waits for the end of a lease", async () => {
    const { add, allSent, claimed, count, leaving, open, staying } = await outboxOf(mongo, long)
    const adding = add(2_000)
    await until("claims", async () => (await claimed()).length > 0)
    const held = await claimed()
    const began = performance.now()
    const ended = leaving.stop()
    await until("what was claimed is sent", async () => (await open(held)) === 0)
    report(`${held.length} claimed records after stop`, performance.now() - began)
    expect((await ended).code).toBe(0)
    await adding
    await until("everything is sent", allSent)
    expectInOrder(await readAll(staying.ws, count()), count())
  })
})
