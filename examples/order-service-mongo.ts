/**
 * A business service on MongoDB, by the driver alone: `POST /orders` writes the order and its event in one transaction,
 * or neither. A hub over the same database brings the event into the log; whether one runs at that moment does not
 * matter.
 *
 *     MONGO_URL="mongodb://127.0.0.1:27017/prom?replicaSet=rs0" npm start
 *     MONGO_URL="mongodb://127.0.0.1:27017/prom?replicaSet=rs0" npm run example examples/order-service-mongo.ts
 *     curl -i 127.0.0.1:8070/orders -H 'content-type: application/json' -d '{"id":"o-1","item":"a kettle","quantity":2}'
 *
 * PORT is 8070 unless set. With HUB_TOKEN (and HUB_URL) it also prints what a subscriber of the hub gets. SIGTERM ends it
 * after the requests that run.
 */
import { once } from "node:events"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { isDeepStrictEqual } from "node:util"
import { PromClient } from "event-hub/client"
import { createOutbox, MongoDatabase } from "event-hub/mongo"
import { MongoClient, MongoError, MongoServerError, type TransactionOptions } from "mongodb"

interface Order {
  readonly id: string
  readonly item: string
  readonly quantity: number
}

type OrderDocument = Omit<Order, "id"> & { readonly _id: string; readonly placedAt: Date }

interface Answer {
  readonly status: number
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
}

const maxBodyBytes = 65_536
/** The driver alone would try a transaction for two minutes; nobody waits that long for an answer. */
const answerWithinMs = 15_000
const stopWithinMs = 10_000

const say = (line: string): void => console.log(line)

const giveUp: (why: string) => never = (why) => {
  console.error(`order-service: ${why}`)
  process.exit(1)
}

const { HUB_TOKEN, HUB_URL = "ws://127.0.0.1:8090", MONGO_URL = "", PORT = "8070" } = process.env
if (!/^mongodb(\+srv)?:\/\/./.test(MONGO_URL)) {
  giveUp("MONGO_URL must be the URL of a MongoDB, such as mongodb://127.0.0.1:27017/prom?replicaSet=rs0")
}
if (!/^\d{1,5}$/.test(PORT) || Number(PORT) > 65_535) giveUp("PORT must be a number from 0 to 65535")

// --- the database ------------------------------------------------------------------------------------------------

const connect = async () => {
  const client = new MongoClient(MONGO_URL, {
    appName: "order-service",
    serverSelectionTimeoutMS: 5_000,
    // An order that was read was committed by a majority: no failover takes it back.
    readConcern: { level: "majority" },
    readPreference: "primary",
    writeConcern: { w: "majority", journal: true }
  })
  // The same database as the hub's: the one that the URL's path names, else `prom`.
  const db = client.db(/\/\/[^/]*\/[^/?]+/.test(MONGO_URL) ? undefined : "prom")
  const { transactions, version } = await MongoDatabase.featuresOf(db)
  if (!transactions) {
    await client.close()
    giveUp(
      `the MongoDB (version ${version}) has no transactions, so an order and its event cannot be written as one: ` +
        "use a replica set (one member is enough)"
    )
  }
  // Before the first transaction: a collection that is made in one holds up others that need it.
  await db.createCollection("orders").catch((error: unknown) => {
    if (!(error instanceof MongoServerError && error.codeName === "NamespaceExists")) throw error
  })
  const outbox = createOutbox(db)
  await outbox.prepare()
  return { client, outbox, orders: db.collection<OrderDocument>("orders") }
}

const { client, orders, outbox } = await connect().catch((error: unknown) =>
  giveUp(`cannot use the MongoDB: ${error instanceof Error ? error.message : String(error)}`)
)

const transaction: TransactionOptions = {
  readConcern: { level: "snapshot" },
  writeConcern: { w: "majority", journal: true },
  readPreference: "primary"
}

const duplicateKey = 11_000

/**
 * The order and its event, or nothing. False: an order of this id is there already.
 *
 * The function runs again whenever the server calls an error transient, so all that must stay the same is made outside.
 * An error inside has to get out: a transaction in which a command failed is over, whatever is done about it. That is
 * why an order that may be there is upserted; an insert of it would end the transaction.
 */
const place = async ({ id, item, quantity }: Order): Promise<boolean> => {
  const event = {
    id,
    topic: "orders.created",
    key: id,
    type: "order.created",
    payload: { id, item, quantity }
  }
  const fields = { item, quantity, placedAt: new Date() }
  try {
    return await client.withSession((session) =>
      session.withTransaction(async () => {
        const { upsertedCount } = await orders.updateOne(
          { _id: id },
          { $setOnInsert: fields },
          { session, upsert: true }
        )
        if (upsertedCount === 0) return false
        await outbox.add(event, { session })
        return true
      }, transaction)
    )
  } catch (error) {
    // Somebody else placed it at the same moment, and was first.
    if (error instanceof MongoServerError && error.code === duplicateKey) return false
    throw error
  }
}

const find = async (id: string): Promise<(Order & { readonly placedAt: Date }) | undefined> => {
  const found = await orders.findOne({ _id: id })
  if (found === null) return undefined
  const { item, placedAt, quantity } = found
  return { id, item, quantity, placedAt }
}

// --- HTTP --------------------------------------------------------------------------------------------------------

const refusal = (status: number, ...problems: ReadonlyArray<string>): Answer => ({
  status,
  body: { problems }
})

/** Everything that is wrong with it at once, or the order. */
const orderOf = (body: unknown): Order | ReadonlyArray<string> => {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return ["the body must be an object"]
  const { id, item, quantity, ...others } = body as Readonly<Record<string, unknown>>
  const problems = Object.keys(others).map((name) => `there is no field '${name}'`)
  if (typeof id !== "string" || !/^[\w-]{1,64}$/.test(id))
    problems.push(
      "'id' must be 1 to 64 letters, digits, '-' or '_'; it is yours to make, once for each order"
    )
  if (typeof item !== "string" || item.trim() === "" || item.length > 200)
    problems.push("'item' must be a text of 1 to 200 characters")
  if (!Number.isInteger(quantity) || Number(quantity) < 1 || Number(quantity) > 1_000)
    problems.push("'quantity' must be a whole number from 1 to 1000")
  return problems.length > 0 ? problems : { id: String(id), item: String(item), quantity: Number(quantity) }
}

const readBody = async (request: IncomingMessage): Promise<string | undefined> => {
  const chunks: Array<Buffer> = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size <= maxBodyBytes) chunks.push(chunk)
  }
  return size > maxBodyBytes ? undefined : Buffer.concat(chunks).toString("utf8")
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const postOrder = async (request: IncomingMessage): Promise<Answer> => {
  const text = await readBody(request)
  if (text === undefined) return refusal(413, `the body may have at most ${maxBodyBytes} bytes`)
  const body = parse(text)
  if (body === undefined) return refusal(400, "the body must be JSON")
  const order = orderOf(body)
  if (!("id" in order)) return refusal(400, ...order)
  const isNew = await place(order)
  const placed = await find(order.id)
  // Committed by somebody else at this moment, and not yet by a majority.
  if (placed === undefined) return unavailable
  const { placedAt: _, ...rest } = placed
  if (!isDeepStrictEqual(rest, order)) return refusal(409, `there is another order '${order.id}'`)
  return { status: isNew ? 201 : 200, body: placed, headers: { location: `/orders/${order.id}` } }
}

const answer = async (request: IncomingMessage): Promise<Answer> => {
  const path = (request.url ?? "/").split("?")[0]!
  const [, id] = /^\/orders\/([\w-]{1,64})$/.exec(path) ?? []
  const allowed = path === "/orders" ? "POST" : id === undefined ? undefined : "GET"
  if (allowed === undefined) return refusal(404, `there is nothing at ${path}`)
  if (request.method !== allowed) {
    return { ...refusal(405, `${path} is for ${allowed}`), headers: { allow: allowed } }
  }
  if (id === undefined) return postOrder(request)
  const found = await find(id)
  return found === undefined ? refusal(404, `there is no order '${id}'`) : { status: 200, body: found }
}

/** What the database is to blame for. Whether a POST took place may not be known then: with its id it may be repeated. */
const unavailable: Answer = {
  ...refusal(503, "the database does not answer; send the same request again"),
  headers: { "retry-after": "1" }
}

const failed = (error: unknown): Answer => {
  console.error(error)
  return error instanceof MongoError ? unavailable : refusal(500, "something is wrong with this service")
}

/** Takes no part in what the process waits for: the answer may come first. */
const tooLate = (): Promise<Answer> =>
  new Promise((resolve) => {
    setTimeout(() => resolve(unavailable), answerWithinMs).unref()
  })

let isStopping = false

const respond = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const { body, headers, status } = await Promise.race([answer(request).catch(failed), tooLate()])
  response.writeHead(status, {
    ...headers,
    ...(isStopping ? { connection: "close" } : {}),
    "content-type": "application/json"
  })
  response.end(`${JSON.stringify(body)}\n`)
}

const server = createServer((request, response) => void respond(request, response))
server.on("error", (error) => giveUp(`cannot listen on port ${PORT}: ${error.message}`))
server.listen(Number(PORT), "127.0.0.1")
await once(server, "listening")
say(`orders are taken at http://127.0.0.1:${(server.address() as AddressInfo).port}/orders`)

// --- what a subscriber gets --------------------------------------------------------------------------------------

const subscriber =
  HUB_TOKEN === undefined
    ? undefined
    : new PromClient(HUB_URL, HUB_TOKEN, {
        onError: (error) => console.error(error),
        onState: ({ _tag }) => say(`the subscriber's connection: ${_tag}`)
      })

if (subscriber === undefined) {
  say("a subscriber in another process: HUB_TOKEN=… npm run example examples/consumer.ts")
} else {
  // What it does with an event may happen twice when it dies in the middle; see docs/handle-once.md.
  void subscriber.subscribe<Order>(
    "orders.created",
    "order-printer",
    async ({ payload, seq }) =>
      say(`a subscriber got orders.created #${seq}: ${payload.item} (${payload.id})`),
    { from: "start" }
  )
}

// --- the end -----------------------------------------------------------------------------------------------------

const stop = async (): Promise<void> => {
  if (isStopping) return
  isStopping = true
  const closed = once(server, "close")
  server.close()
  const late = setTimeout(() => server.closeAllConnections(), stopWithinMs)
  await closed
  clearTimeout(late)
  await subscriber?.close()
  await client.close()
}

process.on("SIGTERM", () => void stop())
process.on("SIGINT", () => void stop())
