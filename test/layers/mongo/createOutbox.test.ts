/** The outbox of programs without Effect: part of their transaction, or nothing. */
import { expect, it } from "@effect/vitest"
import { type CommandStartedEvent, type Db, MongoClient } from "mongodb"
import { onTestFinished } from "vitest"
import { createOutbox } from "../../../src/layers/mongo/createOutbox.ts"
import { describeMongo, urlOfNewDatabase } from "../../support/mongo.ts"
import { hasTransactions, noTransactions } from "./transactions.ts"

describeMongo("createOutbox", (url) => {
  const open = async (): Promise<{ readonly client: MongoClient; readonly db: Db }> => {
    const client = new MongoClient(urlOfNewDatabase(url), { monitorCommands: true })
    const db = client.db()
    onTestFinished(async () => {
      await db.dropDatabase()
      await client.close()
    })
    return { client, db }
  }

  const records = (db: Db, collection = "outbox") =>
    db.collection(collection).find().sort({ _id: 1 }).toArray()

  it("adds records in the order of their adding, stamped by the server", async () => {
    const { db } = await open()
    const outbox = createOutbox(db)
    const ids = []
    for (let n = 0; n < 20; n++)
      ids.push(await outbox.add({ topic: "orders.created", key: "k", payload: { n } }))
    const found = await records(db)
    expect(found.map(({ id }) => id)).toEqual(ids)
    expect(found[0]).toMatchObject({ topic: "orders.created", key: "k", state: "pending", attempts: 0 })
    expect(found[0]?.["addedAt"]).toBeInstanceOf(Date)
    expect(found[0]?.["order"]).toBe(found[0]?._id)
    expect(JSON.parse(String(found[3]?.["body"]))).toMatchObject({ id: ids[3], payload: { n: 3 } })
  })

  it("adds the same id once on a topic", async () => {
    const { db } = await open()
    const outbox = createOutbox(db, { collection: "events_to_send" })
    expect(await outbox.add({ topic: "a", id: "one", payload: 1 })).toBe("one")
    const first = await records(db, "events_to_send")
    expect(await outbox.add({ topic: "a", id: "one", payload: 2 })).toBe("one")
    expect(await records(db, "events_to_send")).toEqual(first)
    await outbox.add({ topic: "b", id: "one", payload: 3 })
    expect((await records(db, "events_to_send")).map(({ topic }) => topic)).toEqual(["a", "b"])
  })

  it("with a later notBefore waits for its time", async () => {
    const { db } = await open()
    const outbox = createOutbox(db)
    await outbox.add({ topic: "a", payload: 1 }, { notBefore: Date.now() + 60_000 })
    await outbox.add({ topic: "a", payload: 2 }, { notBefore: Date.now() - 60_000 })
    expect((await records(db)).map(({ state }) => state)).toEqual(["waiting", "pending"])
  })

  it.each([
    [{ topic: "a..b", payload: 1 }, "InvalidTopic"],
    [{ topic: "$dead.x", payload: 1 }, "InvalidTopic"],
    [{ topic: "a", payload: "x".repeat(300_000) }, "PayloadTooLarge"],
    [{ topic: "a", payload: undefined }, "InvalidEvent"],
    [{ topic: "a", payload: 1, id: "" }, "InvalidEvent"]
  ])("rejects %o before anything is written", async (event, tag) => {
    const { client, db } = await open()
    const commands: Array<string> = []
    client.on("commandStarted", ({ commandName }) => void commands.push(commandName))
    await expect(createOutbox(db).add(event)).rejects.toMatchObject({ _tag: tag })
    expect(commands).toEqual([])
  })

  it("sends its write as a part of the session's transaction", async () => {
    const { client, db } = await open()
    const outbox = createOutbox(db)
    await outbox.prepare()
    const commands: Array<CommandStartedEvent> = []
    client.on("commandStarted", (event) => void commands.push(event))
    const session = client.startSession()
    session.startTransaction()
    // A server without transactions may refuse them; what it was sent is what counts here.
    for (const payload of [1, 2]) {
      await outbox.add({ topic: "a", id: `${payload}`, payload }, { session }).catch(() => {})
    }
    await session.abortTransaction().catch(() => {})
    await session.endSession()
    const [first, second] = commands.filter(({ command }) => command["update"] === "outbox")
    expect(first?.command).toMatchObject({ autocommit: false, startTransaction: true })
    expect(first?.command["lsid"]).toBeDefined()
    expect(String(first?.command["txnNumber"])).toBe("1")
    expect(first?.command["writeConcern"]).toBeUndefined()
    if (second !== undefined) expect(second.command).toMatchObject({ autocommit: false })
    expect(commands.some(({ commandName }) => commandName === "createIndexes")).toBe(false)
  })

  it("is committed and aborted with the transaction, and the same id twice ends none", async ({ skip }) => {
    const { client, db } = await open()
    if (!(await hasTransactions(url))) return skip(noTransactions)
    const outbox = createOutbox(db)
    const orders = db.collection("orders")
    await outbox.prepare()
    await db.createCollection("orders")
    await client.withSession((session) =>
      session.withTransaction(async () => {
        await orders.insertOne({ n: 1 }, { session })
        await outbox.add({ topic: "a", id: "one", payload: 1 }, { session })
        await outbox.add({ topic: "a", id: "one", payload: 2 }, { session })
      })
    )
    const failed = client.withSession((session) =>
      session.withTransaction(async () => {
        await orders.insertOne({ n: 2 }, { session })
        await outbox.add({ topic: "a", id: "one", payload: 3 }, { session })
        await outbox.add({ topic: "a", id: "two", payload: 4 }, { session })
        throw new Error("no")
      })
    )
    await expect(failed).rejects.toThrow("no")
    expect((await records(db)).map(({ id }) => id)).toEqual(["one"])
    expect(await orders.countDocuments()).toBe(1)
  })

  it("commits that are in the opposite order of their adds both arrive", async ({ skip }) => {
    const { client, db } = await open()
    if (!(await hasTransactions(url))) return skip(noTransactions)
    const outbox = createOutbox(db)
    await outbox.prepare()
    const [one, two] = [client.startSession(), client.startSession()]
    one.startTransaction()
    two.startTransaction()
    await outbox.add({ topic: "a", id: "first", payload: 1 }, { session: one })
    await outbox.add({ topic: "a", id: "second", payload: 2 }, { session: two })
    await two.commitTransaction()
    await one.commitTransaction()
    await Promise.all([one.endSession(), two.endSession()])
    expect((await records(db)).map(({ id }) => id)).toEqual(["first", "second"])
  })
})
