/**
 * The two order services, each a process on a database of its own: the order and its event are there together, once, or
 * not at all. What needs transactions runs where the server has them; that both refuse where it has none, elsewhere.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { MongoClient } from "mongodb"
import { expect, it, onTestFinished } from "vitest"
import { hasTransactions, noTransactions } from "../layers/mongo/transactions.ts"
import { startHub } from "../support/HubProcess.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../support/mongo.ts"
import { RawClient } from "../support/RawClient.ts"
import { tokenFor } from "../support/tokens.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const names = ["order-service-mongo.ts", "order-service-effect.ts"] as const

const begin = (name: string, env: Readonly<Record<string, string>>) => {
  const child = spawn(process.execPath, ["--conditions=event-hub-source", `examples/${name}`], {
    cwd: root,
    env: { PATH: process.env["PATH"], PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"]
  })
  onTestFinished(() => void child.kill("SIGKILL"))
  const output = { stdout: "", stderr: "" }
  child.stdout.on("data", (chunk: Buffer) => (output.stdout += chunk.toString()))
  child.stderr.on("data", (chunk: Buffer) => (output.stderr += chunk.toString()))
  const closed = once(child, "close") as Promise<[number | null, NodeJS.Signals | null]>
  const lines = createInterface({ input: child.stdout })
  const lineWith = (text: string | RegExp): Promise<string> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = output.stdout.split("\n").find((line) => line.search(text) >= 0)
        if (found !== undefined) resolve(found)
      }
      lines.on("line", look)
      look()
      void closed.then(() => reject(new Error(`the service ended: ${output.stdout}${output.stderr}`)))
    })
  return { child, closed, lineWith, output }
}

const start = async (name: string, env: Readonly<Record<string, string>>) => {
  const service = begin(name, env)
  const listening = await service.lineWith(/http:\/\//)
  const [, port] = /http:\/\/[^/]*:(\d+)/.exec(listening) ?? []
  const base = `http://127.0.0.1:${port}`
  const answerOf = async (response: Response) => ({
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Readonly<Record<string, unknown>>
  })
  return {
    ...service,
    post: async (body: unknown) =>
      answerOf(
        await fetch(`${base}/orders`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: typeof body === "string" ? body : JSON.stringify(body)
        })
      ),
    get: async (id: string) => answerOf(await fetch(`${base}/orders/${id}`)),
    stop: async () => {
      service.child.kill("SIGTERM")
      return service.closed
    }
  }
}

const kettle = { id: "o-1", item: "a kettle", quantity: 2 }

describeMongo("the order services", (mongo) => {
  const open = async () => {
    const url = urlOfNewDatabase(mongo)
    const client = new MongoClient(url)
    onTestFinished(async () => {
      await client.close()
      await dropDatabase(url)
    })
    const db = client.db()
    const count = (collection: string) => db.collection(collection).countDocuments()
    return { url, db, count }
  }

  it("order-service-mongo ends where there are no transactions, says why, and writes nothing", async ({
    skip
  }) => {
    if (await hasTransactions(mongo)) return skip("the server of TEST_MONGO_URL has transactions")
    const { db, url } = await open()
    const { closed, output } = begin("order-service-mongo.ts", { MONGO_URL: url })
    expect(await closed).toEqual([1, null])
    expect(output.stderr).toMatch(/^order-service: the MongoDB .* has no transactions, .*replica set.*\n$/)
    expect(output.stdout).toBe("")
    expect(await db.listCollections().toArray()).toEqual([])
  })

  it("order-service-effect answers 503 where there are no transactions, and writes nothing", async ({
    skip
  }) => {
    if (await hasTransactions(mongo)) return skip("the server of TEST_MONGO_URL has transactions")
    const { count, url } = await open()
    const service = await start("order-service-effect.ts", { MONGO_URL: url })
    const { body, status } = await service.post(kettle)
    expect(status).toBe(503)
    expect(body).toEqual({
      problems: [expect.stringMatching(/has no transactions; use a replica set \(one member is enough\)/)]
    })
    expect((await service.get("o-1")).status).toBe(404)
    expect([await count("orders"), await count("outbox")]).toEqual([0, 0])
    expect(await service.stop()).toEqual([0, null])
  })

  it("order-service-effect says what is wrong with a request", async () => {
    const { count, url } = await open()
    const service = await start("order-service-effect.ts", { MONGO_URL: url })
    const { body, status } = await service.post({ id: "o 1", item: "", quantity: 1.5, more: 1 })
    expect(status).toBe(400)
    for (const field of ["'id'", "'item'", "'quantity'", "'more'"]) {
      expect(body["problems"]).toContainEqual(expect.stringContaining(field))
    }
    expect((await service.post("{")).status).toBe(400)
    expect((await service.post("[]")).status).toBe(400)
    expect((await service.post(JSON.stringify("x".repeat(70_000)))).status).toBe(400)
    expect(await count("orders")).toBe(0)
    expect(await service.stop()).toEqual([0, null])
  })

  it.each([
    [{}, /MONGO_URL must be/],
    [{ MONGO_URL: "mongodb://127.0.0.1:1/x", PORT: "x" }, /PORT must be/],
    [
      { MONGO_URL: "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=100" },
      /cannot use the MongoDB: .*ECONNREFUSED/
    ]
  ])("order-service-mongo says what is wrong with %o", async (env, problem) => {
    const { closed, output } = begin("order-service-mongo.ts", env)
    expect(await closed).toEqual([1, null])
    expect(output.stderr).toMatch(problem)
    expect(output.stderr.trim().split("\n")).toHaveLength(1)
  })

  for (const name of names) {
    it(`${name}: an order and its event are one, however often it is sent`, async ({ skip }) => {
      if (!(await hasTransactions(mongo))) return skip(noTransactions)
      const { count, url } = await open()
      const service = await start(name, { MONGO_URL: url })

      const first = await service.post(kettle)
      expect(first.status).toBe(201)
      expect(first.headers.get("location")).toBe("/orders/o-1")
      expect(first.body).toMatchObject(kettle)
      const second = await service.post(kettle)
      expect(second.status).toBe(200)
      expect(second.body).toEqual(first.body)
      expect((await service.get("o-1")).body).toEqual(first.body)
      expect((await service.post({ ...kettle, quantity: 3 })).status).toBe(409)
      expect((await service.post({ ...kettle, quantity: 0 })).status).toBe(400)
      expect((await service.get("nobody")).status).toBe(404)

      // At once: one is first, and the others hear of the same order.
      const lamp = { id: "o-2", item: "a lamp", quantity: 1 }
      const answers = await Promise.all(Array.from({ length: 8 }, () => service.post(lamp)))
      expect(answers.map(({ status }) => status).toSorted((a, b) => b - a)).toEqual([
        201,
        ...Array(7).fill(200)
      ])
      expect([await count("orders"), await count("outbox")]).toEqual([2, 2])

      // A hub that comes later brings both into the log, in the order of their placing.
      const hub = await startHub({ MONGO_URL: url })
      const reader = await RawClient.authenticated(hub.ws)
      await reader.request({ op: "SUBSCRIBE", topic: "orders.created", opts: { from: "start" } })
      await service.post({ id: "o-3", item: "a rug", quantity: 1 })
      await reader.events(3)
      await reader.settled()
      const events = reader.messages.filter(({ op }) => op === "EVENT")
      expect(events.map(({ event }) => event)).toMatchObject([
        { seq: 1, id: "o-1", key: "o-1", type: "order.created", payload: kettle },
        { seq: 2, id: "o-2", key: "o-2", payload: lamp },
        { seq: 3, id: "o-3" }
      ])
      expect(await service.stop()).toEqual([0, null])
      await hub.stop()
    })

    it(`${name}: no order without its event`, async ({ skip }) => {
      if (!(await hasTransactions(mongo))) return skip(noTransactions)
      const { count, db, url } = await open()
      const service = await start(name, { MONGO_URL: url })
      // The second write of the transaction is refused, after the first one was taken.
      await db.command({ collMod: "outbox", validator: { neverThere: { $exists: true } } })
      const { status } = await service.post(kettle)
      expect(status).toBe(503)
      expect((await service.get("o-1")).status).toBe(404)
      expect([await count("orders"), await count("outbox")]).toEqual([0, 0])
      await db.command({ collMod: "outbox", validator: {} })
      expect((await service.post(kettle)).status).toBe(201)
      expect([await count("orders"), await count("outbox")]).toEqual([1, 1])
      expect(await service.stop()).toEqual([0, null])
    })

    it(`${name}: finishes what it has begun when it is told to stop`, async ({ skip }) => {
      if (!(await hasTransactions(mongo))) return skip(noTransactions)
      const { count, url } = await open()
      const service = await start(name, { MONGO_URL: url })
      await service.post(kettle)
      const orders = Array.from({ length: 20 }, (_, n) => ({ ...kettle, id: `late-${n}` }))
      const answers = orders.map((order) => service.post(order).catch(() => undefined))
      await Promise.race(answers)
      expect(await service.stop()).toEqual([0, null])
      // Whoever got an answer has an order; and there are as many events as orders.
      const placed = (await Promise.all(answers)).filter((one) => one?.status === 201).length
      expect(await count("orders")).toBeGreaterThanOrEqual(placed + 1)
      expect(await count("outbox")).toBe(await count("orders"))
    })
  }

  it("order-service-mongo shows what a subscriber gets", async ({ skip }) => {
    if (!(await hasTransactions(mongo))) return skip(noTransactions)
    const { url } = await open()
    const hub = await startHub({ MONGO_URL: url })
    const env = { MONGO_URL: url, HUB_URL: hub.ws, HUB_TOKEN: await tokenFor() }
    const service = await start("order-service-mongo.ts", env)
    await service.post(kettle)
    expect(await service.lineWith("a subscriber got")).toBe(
      "a subscriber got orders.created #1: a kettle (o-1)"
    )
    expect(await service.stop()).toEqual([0, null])
    await hub.stop()
  })
})
