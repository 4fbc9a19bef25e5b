/** The outbox of a relay of another library, and that a hub never shares it. */
import type { Collection } from "mongodb"
import { describe, expect, it } from "vitest"
import { outboxIn } from "../../../src/layers/mongo/addToOutbox.ts"
import { createOutbox } from "../../../src/layers/mongo/createOutbox.ts"
import {
  createRelayStore,
  type RelayEvent,
  type RelaySession,
  type RelayStore
} from "../../../src/layers/mongo/createRelayStore.ts"
import { claimOwnership } from "../../../src/layers/mongo/outboxOwner.ts"
import { describeMongo } from "../../support/mongo.ts"
import { inTransaction, partOf, withScene } from "./outboxScene.ts"

const event = (id: string, payload: unknown = { n: 1 }): RelayEvent => ({
  type: "orders.created",
  payload,
  meta: { id, timestamp: new Date(1_000), resource: "orders" }
})

const ids = async (store: RelayStore, limit = 100) =>
  (await store.getPending(limit)).map(({ meta }) => meta.id)

const expiry = async (collection: Collection) =>
  (await collection.indexes())
    .filter(({ key }) => "deliveredAt" in key)
    .map((index) => index.expireAfterSeconds)

describe("createRelayStore", () => {
  it.each([-1, NaN, 1e15])("refuses to keep what is delivered for %d ms", (keepDeliveredMs) => {
    const collection: () => never = () => {
      throw new Error("not asked")
    }
    expect(() =>
      createRelayStore({ connection: { collection }, name: "relay" }, { keepDeliveredMs })
    ).toThrow(RangeError)
  })
})

describeMongo("createRelayStore", (url) => {
  it("gives what is pending in the order of adding, until it is acknowledged", () =>
    withScene(url, async ({ db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      const all = Array.from({ length: 20 }, (_, i) => `event ${19 - i}`)
      for (const id of all) await store.save(event(id))
      expect(await ids(store)).toEqual(all)
      expect(await ids(store, 3)).toEqual(all.slice(0, 3))
      await store.acknowledge("event 19")
      await store.acknowledge("event 17")
      await store.acknowledge("event 17")
      await store.acknowledge("never saved")
      expect(await ids(store, 2)).toEqual(["event 18", "event 16"])
    }))

  it("gives an event as it was saved, whatever is in it", () =>
    withScene(url, async ({ db }) => {
      const store = createRelayStore(db.collection("relay"))
      const payload = {
        $set: "$$ROOT",
        "a.b": "$payload",
        none: null,
        list: [{ $literal: 1 }],
        when: new Date(5)
      }
      await store.save(event("$meta", payload))
      await store.save(event("no payload", null))
      await store.save({ type: "$type", payload: "$eventId", meta: { id: "in meta", $: "$createdAt" } })
      expect(await store.getPending(10)).toEqual([
        event("$meta", payload),
        event("no payload", null),
        { type: "$type", payload: "$eventId", meta: { id: "in meta", $: "$createdAt" } }
      ])
    }))

  it("keeps the first of an id, pending or delivered", () =>
    withScene(url, async ({ db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      await store.save(event("one", null))
      const [before] = await db.collection("relay").find().toArray()
      await store.save({ ...event("one", 2), type: "other" })
      expect(await db.collection("relay").find().toArray()).toEqual([before])
      await store.acknowledge("one")
      await store.save(event("one", 3))
      expect(await ids(store)).toEqual([])
    }))

  it("sends one command for an event, one for a page, and one to acknowledge", () =>
    withScene(url, async ({ commands, db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      await store.ready()
      const before = commands.length
      await store.save(event("one"))
      await store.getPending(100)
      await store.acknowledge("one")
      expect(commands.slice(before).map(({ commandName }) => commandName)).toEqual([
        "update",
        "find",
        "update"
      ])
    }))

  it("takes one of many that save an id at the same moment", () =>
    withScene(url, async ({ db }) => {
      const stores = Array.from({ length: 4 }, () => createRelayStore({ connection: db, name: "relay" }))
      await Promise.all(
        Array.from({ length: 40 }, (_, i) => stores[i % 4]!.save(event(`event ${i % 5}`, `by ${i}`)))
      )
      expect((await ids(stores[0]!)).toSorted()).toEqual([0, 1, 2, 3, 4].map((i) => `event ${i}`))
    }))

  it("does not take an event for saved that another unique index refused", () =>
    withScene(url, async ({ db }) => {
      await db.collection("relay").createIndex({ "meta.resource": 1 }, { unique: true })
      const store = createRelayStore({ connection: db, name: "relay" })
      await store.save(event("first"))
      await expect(store.save(event("second"))).rejects.toMatchObject({ code: 11_000 })
      expect(await ids(store)).toEqual(["first"])
    }))

  it.each([
    [{ ...event("x"), type: "" }, "type"],
    [event(""), "meta.id"],
    [JSON.parse(`{ "type": "t", "meta": { "id": { "$gt": "" } } }`), "meta.id"],
    [JSON.parse(`{ "type": "t" }`), "no meta"]
  ])("refuses %j before anything is sent", (bad: RelayEvent, reason) =>
    withScene(url, async ({ commands, db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      const before = commands.length
      await expect(store.save(bad)).rejects.toThrow(
        expect.objectContaining({ _tag: "InvalidRelayEvent", message: expect.stringContaining(reason) })
      )
      expect(commands.slice(before)).toEqual([])
    })
  )

  it.each([0, -1, 1.5, NaN])("refuses a limit of %d, which the server would take for none", (limit) =>
    withScene(url, async ({ db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      await expect(store.getPending(limit)).rejects.toThrow(RangeError)
    })
  )

  it.each([
    ["save", (store: RelayStore, session: RelaySession) => store.save(event("one"), { session })],
    [
      "saveInSession",
      (store: RelayStore, session: RelaySession) => store.saveInSession(event("one"), session)
    ]
  ])("%s writes as part of the session's transaction", (_, save) =>
    withScene(url, async (scene) => {
      const store = createRelayStore({ connection: scene.db, name: "relay" })
      await store.ready()
      const before = scene.commands.length
      await inTransaction(scene, async (session) => {
        await save(store, session)
        const sent = scene.commands.slice(before)
        expect(sent.map(({ commandName }) => commandName)).toEqual(["update"])
        expect(sent.every(({ command }) => partOf(session, command))).toBe(true)
      })
    })
  )

  it("leaves nothing of a transaction that was aborted, and one event of an id twice in one", ({ skip }) =>
    withScene(url, async ({ client, db, features }) => {
      if (!features.transactions) skip("the server has no transactions")
      const store = createRelayStore({ connection: db, name: "relay" })
      await store.ready()
      await client.withSession(async (session) => {
        session.startTransaction()
        await store.saveInSession(event("aborted"), session)
        await session.abortTransaction()
        await session.withTransaction(async () => {
          await store.saveInSession(event("twice", 1), session)
          await store.saveInSession(event("twice", 2), session)
        })
        await session.withTransaction(() => store.saveInSession(event("twice", 3), session))
      })
      expect(await store.getPending(10)).toEqual([event("twice", 1)])
    }))

  it("writes at once where the session is none", () =>
    withScene(url, async ({ db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      await store.saveInSession(event("one"), null)
      await store.saveInSession(event("two"), undefined)
      await store.save(event("three"), { session: null })
      expect(await ids(store)).toEqual(["one", "two", "three"])
    }))

  it("purges what was delivered so long ago, and nothing that is pending", () =>
    withScene(url, async ({ db }) => {
      const store = createRelayStore({ connection: db, name: "relay" })
      expect(await store.purge(0)).toBe(0)
      for (const id of ["old", "new", "pending"]) await store.save(event(id))
      await store.acknowledge("old")
      await store.acknowledge("new")
      await db.collection("relay").updateOne({ eventId: "old" }, { $set: { deliveredAt: new Date(0) } })
      expect(await store.purge(3_600_000)).toBe(1)
      expect(await store.purge(Number.MAX_VALUE)).toBe(0)
      expect(await store.purge(Infinity)).toBe(0)
      expect(await store.purge(0)).toBe(1)
      expect(await ids(store)).toEqual(["pending"])
      await expect(store.purge(-1)).rejects.toThrow(RangeError)
      await expect(store.purge(NaN)).rejects.toThrow(RangeError)
    }))

  it("lets the server delete by the time of delivery alone, after a time that can be changed", () =>
    withScene(url, async ({ db }) => {
      const relay = db.collection("relay")
      await createRelayStore(relay).ready()
      expect(await expiry(relay)).toEqual([7 * 24 * 60 * 60])
      await createRelayStore(relay, { keepDeliveredMs: 1_500 }).ready()
      expect(await expiry(relay)).toEqual([2])
      await createRelayStore(relay, { keepDeliveredMs: Infinity }).ready()
      expect(await expiry(relay)).toEqual([undefined])
      const expiring = (await relay.indexes()).filter((index) => index.expireAfterSeconds !== undefined)
      expect(expiring).toEqual([])
    }))

  it("leaves indexes as they are that somebody else made", () =>
    withScene(url, async ({ db }) => {
      const relay = db.collection("relay")
      await relay.createIndex({ eventId: 1 }, { name: "their ids", unique: true })
      await relay.createIndex({ createdAt: 1, _id: 1 }, { name: "their order" })
      await relay.createIndex({ deliveredAt: 1 }, { name: "theirs", expireAfterSeconds: 60 })
      await createRelayStore(relay).ready()
      expect(await expiry(relay)).toEqual([60])
      const names = (await relay.indexes()).map(({ name }) => name)
      expect(names.toSorted()).toEqual(
        ["_id_", "event_hub_owner", "their ids", "their order", "theirs"].toSorted()
      )
    }))

  it("takes over what such a relay's collection held before", () =>
    withScene(url, async ({ db }) => {
      const stored = { eventId: "before", type: "t", payload: 1, meta: { id: "before" } }
      await db.collection("relay").insertOne({ ...stored, status: "pending", createdAt: new Date(1) })
      const store = createRelayStore({ connection: db, name: "relay" })
      await store.save(event("after"))
      expect(await ids(store)).toEqual(["before", "after"])
      await store.save(event("before", 2))
      expect((await store.getPending(1))[0]?.payload).toBe(1)
    }))

  it("opens again after a failure", () =>
    withScene(url, async ({ db }) => {
      const relay = db.collection("relay")
      const { insertedId } = await relay.insertOne({ hello: "world" })
      const store = createRelayStore(relay)
      await expect(store.ready()).rejects.toMatchObject({ _tag: "OwnedByOther", found: "other" })
      await relay.deleteOne({ _id: insertedId })
      await store.ready()
    }))
})

describeMongo("claimOwnership", (url) => {
  it("gives a relay no collection with records of a hub's", () =>
    withScene(url, async ({ db }) => {
      await createOutbox(db).add({ topic: "orders.created", payload: 1 })
      const store = createRelayStore({ connection: db, name: "outbox" })
      await expect(store.ready()).rejects.toMatchObject({ _tag: "OwnedByOther", wanted: "relay" })
      await claimOwnership(outboxIn(db, "outbox"), "hub")
    }))

  it("refuses a hub on a relay's collection, and the other way round", () =>
    withScene(url, async ({ db }) => {
      await createRelayStore({ connection: db, name: "relay" }).ready()
      await expect(claimOwnership(db.collection("relay"), "hub")).rejects.toThrow(
        /'relay' is the outbox of a relay.*give a hub a collection of its own/
      )
      await claimOwnership(db.collection("outbox"), "hub")
      await claimOwnership(db.collection("outbox"), "hub")
      const store = createRelayStore({ connection: db, name: "outbox" })
      for (const call of [
        () => store.ready(),
        () => store.save(event("one")),
        () => store.getPending(1),
        () => store.acknowledge("one"),
        () => store.purge(0)
      ]) {
        await expect(call()).rejects.toThrow(
          expect.objectContaining({ _tag: "OwnedByOther", found: "hub", wanted: "relay" })
        )
      }
      expect(await db.collection("outbox").countDocuments()).toBe(0)
    }))

  it("knows a collection without a mark by what is in it", () =>
    withScene(url, async ({ db }) => {
      await db.collection("a").insertOne({ eventId: "one", type: "t", meta: { id: "one" } })
      await expect(claimOwnership(db.collection("a"), "hub")).rejects.toMatchObject({ found: "relay" })
      await db.collection("b").insertOne({ topic: "t", state: "pending" })
      await expect(claimOwnership(db.collection("b"), "relay")).rejects.toMatchObject({ found: "other" })
      await claimOwnership(db.collection("b"), "hub")
      await expect(claimOwnership(db.collection("b"), "relay")).rejects.toMatchObject({ found: "hub" })
    }))

  it("lets one of two have a collection that both open at the same moment", () =>
    withScene(url, async ({ db }) => {
      for (let round = 0; round < 5; round++) {
        const tries = await Promise.allSettled(
          Array.from({ length: 6 }, (_, i) =>
            claimOwnership(db.collection(`c${round}`), i % 2 === 0 ? "hub" : "relay")
          )
        )
        const refused = tries.filter(({ status }) => status === "rejected")
        expect(refused.length).toBe(3)
        for (const one of refused) expect(one).toMatchObject({ reason: { _tag: "OwnedByOther" } })
      }
    }))
})
