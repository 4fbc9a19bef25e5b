/** Events from the hooks of repositories: part of the write, or the write fails. */
import { EventEmitter } from "node:events"
import { type ClientSession, type Collection, ObjectId, UUID } from "mongodb"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Result } from "effect"
import { acceptEvent } from "../../../src/domain/Event.ts"
import * as Settings from "../../../src/domain/Settings.ts"
import { createOutbox } from "../../../src/layers/mongo/createOutbox.ts"
import {
  type EventSink,
  type HookContext,
  type HookListener,
  type Operation,
  type WireOptions,
  wireOutbox
} from "../../../src/layers/mongo/wireOutbox.ts"
import type { OutboxEvent } from "../../../src/services/OutboxStore.ts"
import { describeMongo } from "../../support/mongo.ts"
import { inTransaction, partOf, type Scene, withScene } from "./outboxScene.ts"

/** A repository as data layers have them: its listeners run one after the other, and then it writes. */
class Repository {
  readonly listeners: Array<{ readonly event: string; readonly listener: HookListener }> = []
  readonly written: Array<HookContext> = []
  readonly modelName: string | undefined

  constructor(modelName?: string) {
    this.modelName = modelName
  }

  on(event: string, listener: HookListener): this {
    this.listeners.push({ event, listener })
    return this
  }

  off(event: string, listener: HookListener): this {
    const at = this.listeners.findIndex((one) => one.event === event && one.listener === listener)
    if (at >= 0) this.listeners.splice(at, 1)
    return this
  }

  async write(operation: Operation, context: HookContext): Promise<void> {
    for (const { event, listener } of this.listeners) {
      if (event === `before:${operation}`) await listener(context)
    }
    this.written.push(context)
  }
}

interface Added extends OutboxEvent {
  readonly session: object | undefined
}

const recorder = (): EventSink & { readonly added: Array<Added> } => {
  const added: Array<Added> = []
  return {
    added,
    add: (event, { session } = {}) => {
      added.push({ ...event, session })
      return Promise.resolve(event.id ?? "")
    }
  }
}

const wire = (options: Partial<WireOptions> = {}) => {
  const orders = new Repository()
  const outbox = recorder()
  const unwire = wireOutbox({ repos: { orders }, outbox, ...options })
  return { added: outbox.added, orders, unwire }
}

const session = { id: "a session" }

describe("wireOutbox", () => {
  it("adds what is created, updated and deleted, in the session of the write", async () => {
    const { added, orders } = wire()
    const data = { _id: "o1", total: 12 }
    await orders.write("create", { data, session })
    await orders.write("update", { id: "o1", data: { total: 13 }, session })
    await orders.write("delete", { id: "o1", session })
    expect(added).toMatchObject([
      { topic: "orders.created", key: "o1", payload: data },
      { topic: "orders.updated", key: "o1", payload: { id: "o1", changes: { total: 13 } } },
      { topic: "orders.deleted", key: "o1", payload: { id: "o1" } }
    ])
    for (const event of added) expect(event.session).toBe(session)
    expect(orders.written.length).toBe(3)
  })

  it("says in the headers what it is about, by whom and when", async () => {
    const { added, orders } = wire()
    const user = { _id: new ObjectId("0123456789abcdef01234567"), password: "secret" }
    const organizationId = new UUID("00112233-4455-6677-8899-aabbccddeeff")
    await orders.write("update", {
      id: new ObjectId("76543210fedcba9876543210"),
      data: {},
      session,
      user,
      organizationId,
      correlationId: "request 7"
    })
    const [event] = added
    expect(event?.headers).toEqual({
      id: event?.id,
      timestamp: new Date(event?.ts ?? 0).toISOString(),
      resource: "orders",
      resourceId: "76543210fedcba9876543210",
      userId: "0123456789abcdef01234567",
      organizationId: "00112233-4455-6677-8899-aabbccddeeff",
      correlationId: "request 7"
    })
    expect(event?.id).toMatch(/^[0-9a-f-]{36}$/)
  })

  it.each([
    [{ user: "ada" }, { userId: "ada" }],
    [{ user: { id: 7 } }, { userId: "7" }],
    [{ user: { name: "Ada" }, organizationId: null }, {}],
    [{ organizationId: { _id: "acme" } }, { organizationId: "acme" }],
    [{ id: { region: "eu", n: 1 } }, { resourceId: '{"region":"eu","n":1}' }]
  ])("takes from %j what is known", async (context, known) => {
    const { added, orders } = wire()
    await orders.write("delete", { session, ...context })
    expect(added[0]?.headers).toEqual({
      id: added[0]?.id,
      timestamp: expect.any(String),
      resource: "orders",
      ...known
    })
  })

  it("has a payload for a write without data, and no key for a payload of null", async () => {
    const { added, orders } = wire()
    await orders.write("create", { id: "o1", session })
    await orders.write("update", { id: "o1", session })
    expect(added.map(({ key, payload }) => ({ key, payload }))).toEqual([
      { key: undefined, payload: null },
      { key: "o1", payload: { id: "o1", changes: {} } }
    ])
  })

  it("knows no id of a document that gets it later, unless told to make one", async () => {
    const later = wire()
    await later.orders.write("create", { data: { total: 1 }, session })
    expect(later.added[0]).not.toHaveProperty("key")
    expect(later.added[0]?.headers).not.toHaveProperty("resourceId")
    expect(later.orders.written[0]?.data).toEqual({ total: 1 })

    const made = wire({ documentId: () => new ObjectId("0123456789abcdef01234567") })
    await made.orders.write("create", { data: { total: 1 }, session })
    await made.orders.write("create", { data: { _id: "given" }, session })
    await made.orders.write("create", { session })
    expect(made.added.map(({ headers }) => headers?.["resourceId"])).toEqual([
      "0123456789abcdef01234567",
      "given",
      undefined
    ])
    expect(made.orders.written[0]?.data).toEqual({ _id: new ObjectId("0123456789abcdef01234567"), total: 1 })
  })

  it("leaves out what shouldEnqueue refuses, session or not", async () => {
    const { added, orders } = wire({
      shouldEnqueue: ({ context, operation, resource }) =>
        resource === "orders" && operation !== "delete" && context.id !== "o2"
    })
    await orders.write("update", { id: "o1", session })
    await orders.write("update", { id: "o2" })
    await orders.write("delete", { id: "o1" })
    expect(added.map(({ key }) => key)).toEqual(["o1"])
    expect(orders.written.length).toBe(3)
  })

  it("adds to the headers what enrichMeta knows, as texts, and keeps the event's id", async () => {
    const { added, orders } = wire({
      enrichMeta: (context, { operation }) => ({
        id: "other",
        correlationId: String(context["requestId"]),
        userId: undefined,
        timestamp: new Date(0),
        operation,
        attempt: 2,
        urgent: true,
        nothing: null
      }),
      eventId: ({ context, operation, resource }) => `${resource} ${String(context.id)} ${operation}`
    })
    await orders.write("delete", { id: "o1", session, user: "ada", requestId: 5 })
    expect(added[0]?.id).toBe("orders o1 delete")
    expect(added[0]?.headers).toEqual({
      id: "orders o1 delete",
      timestamp: "1970-01-01T00:00:00.000Z",
      resource: "orders",
      resourceId: "o1",
      correlationId: "5",
      operation: "delete",
      attempt: "2",
      urgent: "true"
    })
  })

  it("refuses a write without a session before anything is added or written", async () => {
    const { added, orders } = wire()
    for (const none of [undefined, null]) {
      await expect(orders.write("create", { data: {}, session: none })).rejects.toThrow(
        expect.objectContaining({
          _tag: "SessionRequired",
          resource: "orders",
          operation: "create",
          message: expect.stringMatching(/transaction.*shouldEnqueue.*requireSession/)
        })
      )
    }
    expect(added).toEqual([])
    expect(orders.written).toEqual([])
  })

  it("adds without a session where none is required", async () => {
    const { added, orders } = wire({ requireSession: false })
    await orders.write("delete", { id: "o1" })
    await orders.write("delete", { id: "o1", session })
    expect(added.map((event) => event.session)).toEqual([undefined, session])
  })

  it.each([
    ["the outbox fails", { outbox: { add: () => Promise.reject(new Error("no")) } }],
    [
      "the outbox throws",
      {
        outbox: {
          add: () => {
            throw new Error("no")
          }
        }
      }
    ],
    [
      "a function of the caller throws",
      {
        eventId: () => {
          throw new Error("no")
        }
      }
    ]
  ])("fails the write when %s", async (_, options: Partial<WireOptions>) => {
    const { orders } = wire(options)
    await expect(orders.write("update", { id: "o1", session })).rejects.toThrow("no")
    expect(orders.written).toEqual([])
  })

  it("makes events that a hub accepts, of any data", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom<Operation>("create", "update", "delete"),
        fc.dictionary(fc.string({ unit: "grapheme" }), fc.jsonValue()),
        fc.string({ unit: "grapheme", maxLength: 20 }),
        async (operation, data, id) => {
          const { added, orders } = wire()
          await orders.write(operation, { data: { ...data, _id: id }, id, session, user: { id } })
          const [event] = added
          if (event?.id === undefined || event.ts === undefined) throw new Error("it has no id or time")
          const accepted = acceptEvent({ ...event, id: event.id, ts: event.ts }, Settings.limits)
          expect(Result.isSuccess(accepted)).toBe(true)
        }
      )
    )
  })

  it("ends when it is told, with repositories that forget listeners and with those that do not", async () => {
    const { added, orders, unwire } = wire()
    unwire()
    unwire()
    expect(orders.listeners).toEqual([])

    const emitter = new EventEmitter()
    const kept = { on: emitter.on.bind(emitter) }
    const outbox = recorder()
    const end = wireOutbox({ repos: { orders: kept }, outbox })
    emitter.emit("before:delete", { id: "o1", session })
    end()
    emitter.emit("before:delete", { id: "o2", session })
    await Promise.resolve()
    expect(added).toEqual([])
    expect(outbox.added.map(({ key }) => key)).toEqual(["o1"])
  })

  it("takes repositories that know their names", async () => {
    const outbox = recorder()
    const product = new Repository("Product")
    const order = Object.assign(new Repository(), { model: "Order" })
    wireOutbox({ repos: new Set([product, order]), outbox })
    await product.write("delete", { id: "p1", session })
    await order.write("delete", { id: "o1", session })
    expect(outbox.added.map(({ topic }) => topic)).toEqual(["Product.deleted", "Order.deleted"])
  })

  it.each([
    ["a name that is no topic", "or ders", "orders"],
    ["a name of the hub's own", "$orders", "orders"],
    ["an empty name", "", "orders"],
    ["a name too long for a segment", "o".repeat(65), "orders"]
  ])("refuses %s, and listens to none", (_, bad, good) => {
    const fine = new Repository()
    const repos = { [good]: fine, [bad]: new Repository() }
    expect(() => wireOutbox({ repos, outbox: recorder() })).toThrow(
      expect.objectContaining({ _tag: "CannotWire", resource: bad })
    )
    expect(fine.listeners).toEqual([])
  })

  it.each([
    ["without a name", [new Repository("a"), new Repository()]],
    ["of the same name", [new Repository("a"), new Repository("a")]],
    ["that cannot be listened to", JSON.parse(`{ "a": {} }`)]
  ])("refuses repositories %s", (_, repos: WireOptions["repos"]) => {
    expect(() => wireOutbox({ repos, outbox: recorder() })).toThrow(
      expect.objectContaining({ _tag: "CannotWire" })
    )
  })

  it("listens to none when one cannot be listened to", () => {
    const fine = new Repository()
    const broken = {
      on: () => {
        throw new Error("closed")
      }
    }
    expect(() => wireOutbox({ repos: { fine, broken }, outbox: recorder() })).toThrow("closed")
    expect(fine.listeners).toEqual([])
  })
})

describeMongo("wireOutbox", (url) => {
  /** A repository over a collection, which writes within the session that it is given. */
  class Orders extends Repository {
    readonly collection: Collection

    constructor(collection: Collection) {
      super()
      this.collection = collection
    }

    async insert(data: { readonly n: number }, session: ClientSession): Promise<void> {
      await this.write("create", { data, session })
      await this.collection.insertOne(data, { session })
    }
  }

  const withOrders = (
    test: (
      at: Scene & { readonly orders: Orders; readonly records: () => Promise<ReadonlyArray<string>> }
    ) => Promise<void>
  ) =>
    withScene(url, async (scene) => {
      const outbox = createOutbox(scene.db)
      await outbox.prepare()
      const orders = new Orders(await scene.db.createCollection("orders"))
      wireOutbox({ repos: { orders }, outbox, documentId: () => new ObjectId() })
      const records = async () =>
        (await scene.db.collection("outbox").find().sort({ _id: 1 }).toArray()).map(({ body }) =>
          String(body)
        )
      await test({ ...scene, orders, records })
    })

  it("sends the event as part of the transaction of the business write", () =>
    withOrders(async (at) => {
      const before = at.commands.length
      await inTransaction(at, async (session) => {
        await at.orders.insert({ n: 1 }, session)
        const sent = at.commands.slice(before)
        expect(sent.map(({ commandName }) => commandName)).toEqual(["update", "insert"])
        for (const { command } of sent) expect(partOf(session, command)).toBe(true)
      })
    }))

  it("has the id of the document that is created", () =>
    withOrders(async ({ client, db, orders, records }) => {
      await client.withSession((session) => orders.insert({ n: 1 }, session))
      const [order] = await db.collection("orders").find().toArray()
      const [body = ""] = await records()
      expect(JSON.parse(body)).toMatchObject({
        topic: "orders.created",
        key: order?._id.toHexString(),
        payload: { _id: order?._id.toHexString(), n: 1 },
        headers: { resource: "orders", resourceId: order?._id.toHexString() }
      })
    }))

  it("writes nothing without a session", () =>
    withOrders(async ({ commands, orders }) => {
      const before = commands.length
      await expect(orders.write("create", { data: { n: 1 } })).rejects.toMatchObject({
        _tag: "SessionRequired"
      })
      expect(commands.slice(before)).toEqual([])
    }))

  it("keeps both or neither", ({ skip }) =>
    withOrders(async ({ client, db, features, orders, records }) => {
      if (!features.transactions) skip("the server has no transactions")
      await client.withSession(async (session) => {
        session.startTransaction()
        await orders.insert({ n: 1 }, session)
        await session.abortTransaction()
        await session.withTransaction(() => orders.insert({ n: 2 }, session))
      })
      expect(await db.collection("orders").countDocuments()).toBe(1)
      expect((await records()).map((body) => JSON.parse(body).payload.n)).toEqual([2])
    }))
})
