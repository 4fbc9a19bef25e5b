/**
 * The business service of order-service-mongo.ts with Effect: `POST /orders` writes the order and its event in one
 * transaction, by `MongoTransaction.run` and `OutboxStore.add`; each typed error has its status code.
 *
 *     MONGO_URL="mongodb://127.0.0.1:27017/prom?replicaSet=rs0" npm start
 *     MONGO_URL="mongodb://127.0.0.1:27017/prom?replicaSet=rs0" npm run example examples/order-service-effect.ts
 *     curl -i 127.0.0.1:8070/orders -H 'content-type: application/json' -d '{"id":"o-1","item":"a kettle","quantity":2}'
 *     HUB_TOKEN=… npm run example examples/consumer.ts
 *
 * The last one is a subscriber: it prints each order as it comes out of the hub. PORT is 8070 unless set. On a server
 * without transactions it starts, and answers 503 to each order. SIGTERM ends it after the requests that run.
 */
import { createServer } from "node:http"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { ByteSize, Config, Effect, Layer, Redacted, Runtime, Schema, SchemaIssue } from "effect"
import { HttpIncomingMessage, HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { OutboxStore, StoreUnavailable } from "event-hub"
import { MongoDatabase, MongoOutboxStore, MongoTransaction } from "event-hub/mongo"
import { RandomIds } from "event-hub/core"
import type { TransactionOptions } from "mongodb"

// --- orders ------------------------------------------------------------------------------------------------------

const OrderId = Schema.String.check(Schema.isPattern(/^[\w-]{1,64}$/))

/** The id is the client's to make, once for each order: the same order sent twice is one. */
const Order = Schema.Struct({
  id: OrderId,
  item: Schema.String.check(Schema.isPattern(/\S/), Schema.isMaxLength(200)),
  quantity: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000 }))
})
type Order = typeof Order.Type

type OrderDocument = Omit<Order, "id"> & { readonly _id: string; readonly placedAt: Date }

class OrderNotFound extends Schema.TaggedError<OrderNotFound>()("OrderNotFound", { id: Schema.String }) {
  override get message() {
    return `there is no order '${this.id}'`
  }
}

/** The id was given to another order before. */
class OrderDiffers extends Schema.TaggedError<OrderDiffers>()("OrderDiffers", { id: Schema.String }) {
  override get message() {
    return `there is another order '${this.id}'`
  }
}

/** The driver's errors keep their labels inside: `MongoTransaction` goes by them. */
const query = <A>(operation: string, f: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
  Effect.tryPromise({ try: f, catch: (cause) => new StoreUnavailable({ operation, cause }) })

const collection = Effect.map(MongoDatabase.MongoDatabase, ({ db }) => db.collection<OrderDocument>("orders"))

const find = Effect.fn("orders.find")(function* (id: string) {
  const orders = yield* collection
  const found = yield* query("orders.find", () => orders.findOne({ _id: id }))
  if (found === null) return yield* new OrderNotFound({ id })
  const { item, placedAt, quantity } = found
  return { id, item, quantity, placedAt }
})

const transaction: TransactionOptions = {
  readConcern: { level: "snapshot" },
  writeConcern: { w: "majority", journal: true },
  readPreference: "primary"
}

/**
 * The order and its event, or nothing; answers whether it is new. What stays the same however often the transaction
 * runs is made outside of it, the event's id above all. An insert of an order that is there would end the transaction;
 * an upsert does not.
 */
const place = Effect.fn("orders.place")(function* ({ id, item, quantity }: Order) {
  const orders = yield* collection
  const outbox = yield* OutboxStore
  const event = {
    id,
    topic: "orders.created",
    key: id,
    type: "order.created",
    payload: { id, item, quantity }
  }
  const fields = { item, quantity, placedAt: new Date() }
  const isNew = yield* MongoTransaction.run(
    Effect.gen(function* () {
      const session = yield* MongoDatabase.MongoSession
      const { upsertedCount } = yield* query("orders.place", () =>
        orders.updateOne({ _id: id }, { $setOnInsert: fields }, { session, upsert: true })
      )
      if (upsertedCount === 0) return false
      yield* outbox.add(event)
      return true
    }),
    { retryForMs: 10_000, retryCommitForMs: 5_000, transaction }
  )
  const order = yield* find(id)
  if (order.item !== item || order.quantity !== quantity) return yield* new OrderDiffers({ id })
  return { isNew, order }
})

// --- HTTP --------------------------------------------------------------------------------------------------------

const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1()

const refusal = (status: number, ...problems: ReadonlyArray<string>) =>
  HttpServerResponse.jsonUnsafe({ problems }, { status })

const invalid = ({ issue }: Schema.SchemaError) =>
  refusal(
    400,
    ...formatIssues(issue).issues.map(({ message, path = [] }) =>
      path.length === 0 ? `the body: ${message}` : `'${path.map(String).join(".")}': ${message}`
    )
  )

/** What did not take place, or nobody knows whether it did: with the same id of the order it may be sent again. */
const unavailable = (error: { readonly message: string }) =>
  Effect.as(
    Effect.logWarning(error),
    HttpServerResponse.setHeader(refusal(503, error.message), "retry-after", "1")
  )

const postOrder = HttpRouter.add(
  "POST",
  "/orders",
  Effect.gen(function* () {
    const order = yield* HttpServerRequest.schemaBodyJson(Order, {
      errors: "all",
      onExcessProperty: "error"
    })
    const { isNew, order: placed } = yield* place(order)
    return HttpServerResponse.jsonUnsafe(placed, {
      status: isNew ? 201 : 200,
      headers: { location: `/orders/${order.id}` }
    })
  }).pipe(
    Effect.catchTags({
      SchemaError: (error) => Effect.succeed(invalid(error)),
      HttpServerError: () => Effect.succeed(refusal(400, "the body must be JSON of at most 64 KiB")),
      OrderDiffers: ({ message }) => Effect.succeed(refusal(409, message)),
      StoreUnavailable: unavailable,
      CommitUnknown: unavailable,
      TransactionsUnsupported: ({ message }) => Effect.succeed(refusal(503, message))
    }),
    // What an order may be always makes an event, and an order that was placed is there.
    Effect.orDie
  )
)

const getOrder = HttpRouter.add(
  "GET",
  "/orders/:id",
  Effect.gen(function* () {
    const { id } = yield* HttpRouter.schemaPathParams(Schema.Struct({ id: OrderId }))
    return HttpServerResponse.jsonUnsafe(yield* find(id))
  }).pipe(
    Effect.catchTags({
      SchemaError: () => Effect.succeed(refusal(404, "no order has such an id")),
      OrderNotFound: ({ message }) => Effect.succeed(refusal(404, message)),
      StoreUnavailable: unavailable
    })
  )
)

const bodies = HttpRouter.middleware(
  (effect) => Effect.provideService(effect, HttpIncomingMessage.MaxBodySize, ByteSize.kibibytes(64)),
  { global: true }
)

// --- the program -------------------------------------------------------------------------------------------------

const database = Layer.unwrap(
  Effect.map(Config.Redacted("MONGO_URL"), (url) => MongoDatabase.layer({ url: Redacted.value(url) }))
)

const outbox = MongoOutboxStore.layer()

const server = NodeHttpServer.layerConfig(() => createServer(), {
  host: Config.succeed("127.0.0.1"),
  port: Config.Int("PORT").pipe(Config.withDefault(8070)),
  gracefulShutdownTimeout: Config.succeed("10 seconds" as const)
})

const service = HttpRouter.serve(Layer.mergeAll(postOrder, getOrder, bodies), { disableLogger: true }).pipe(
  Layer.provide(outbox),
  Layer.provide(database),
  Layer.provide(RandomIds.layer),
  Layer.provide(server)
)

NodeRuntime.runMain(Layer.launch(service), {
  teardown: (exit, done) => Runtime.defaultTeardown(exit, (code) => done(code === 130 ? 0 : code))
})
