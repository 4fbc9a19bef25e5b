/**
 * Traces of events, from their publishers through a hub that is a process of its own to the handlers of a group: what a
 * receiver of OTLP sees of them, what it does not, and what a hub does without one.
 */
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Effect, Layer } from "effect"
import { FetchHttpClient } from "effect/http"
import { OtlpSerialization, OtlpTracer } from "effect/observability"
import { expect, it, onTestFinished } from "vitest"
import * as EventHub from "../../src/client/effect.ts"
import { createOutbox } from "../../src/layers/sqlite/index.ts"
import { askAs, json } from "../layers/http/ops.ts"
import { parsePrometheus } from "../layers/http/prometheus.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { type OtlpReceiver, type ReceivedSpan, startOtlpReceiver } from "../support/OtlpReceiver.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"

const traceId = "0af7651916cd43dd8448eb211c80319c"
const spanId = "b7ad6b7169203331"
const sampled = `00-${traceId}-${spanId}-01`
const unsampled = `00-${traceId}-${spanId}-00`

const receiverOf = async (): Promise<OtlpReceiver> => {
  const receiver = await startOtlpReceiver()
  onTestFinished(() => receiver.close())
  return receiver
}

const start = async (env: Readonly<Record<string, string>>): Promise<HubProcess> => {
  const hub = await startHub({
    OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
    OTEL_BSP_SCHEDULE_DELAY: "20",
    ...env
  })
  onTestFinished(async () => void (await hub.kill()))
  return hub
}

const connect = async (hub: HubProcess): Promise<RawClient> => {
  const client = await RawClient.authenticated(hub.ws)
  onTestFinished(() => client.close())
  return client
}

const valueOf = async (hub: HubProcess, series: string): Promise<number> =>
  parsePrometheus(await (await fetch(`${hub.ops}/metrics`)).text()).valueOf(series)

/** Everything that runs in it is traced, and told to the receiver as of a service of this name. */
const asService =
  (receiver: OtlpReceiver, serviceName: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provide(
      effect,
      OtlpTracer.layer({
        url: `${receiver.url}/v1/traces`,
        resource: { serviceName },
        exportInterval: "20 millis"
      }).pipe(Layer.provide([FetchHttpClient.layer, OtlpSerialization.layerJson]))
    )

/** The only span of that name, of that service. */
const only = (spans: ReadonlyArray<ReceivedSpan>, service: string, name: string): ReceivedSpan => {
  const found = spans.filter((span) => span.service === service && span.name === name)
  expect([service, name, found.length]).toEqual([service, name, 1])
  return found[0]!
}

it("one trace goes from a publisher through the hub to the handler of a group", async () => {
  const receiver = await receiverOf()
  const hub = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_SERVICE_NAME: "the hub" })
  const connected = EventHub.make({ url: hub.ws, getToken: Effect.promise(() => tokenFor()) })

  const publisher = Effect.gen(function* () {
    const client = yield* connected
    yield* client.publish("orders.new", { n: 1 }, { id: "one" }).pipe(Effect.withSpan("place order"))
  }).pipe(Effect.scoped, asService(receiver, "shop"))

  const handler = Effect.gen(function* () {
    const client = yield* connected
    const work = client.consume("orders.*", "mail", () => Effect.void.pipe(Effect.withSpan("send mail")), {
      from: "start"
    })
    yield* Effect.raceFirst(
      work,
      Effect.promise(() => receiver.until((spans) => spans.some(({ name }) => name === "send mail")))
    )
  }).pipe(Effect.scoped, asService(receiver, "mailer"))

  await Effect.runPromise(publisher)
  await Effect.runPromise(handler)
  await receiver.until((spans) => spans.some(({ name }) => name === "deliver"))

  const ordered = only(receiver.spans, "shop", "place order")
  const published = only(receiver.spans, "shop", "EventHubClient.publish")
  const received = only(receiver.spans, "the hub", "publish")
  const appended = only(receiver.spans, "the hub", "append")
  const delivered = only(receiver.spans, "the hub", "deliver")
  const handled = only(receiver.spans, "mailer", "EventHubClient.handle")
  const mailed = only(receiver.spans, "mailer", "send mail")

  const all = [ordered, published, received, appended, delivered, handled, mailed]
  expect(new Set(all.map((span) => span.traceId))).toEqual(new Set([ordered.traceId]))
  expect(all.map((span) => span.parentSpanId)).toEqual([
    undefined,
    ordered.spanId,
    published.spanId,
    received.spanId,
    published.spanId,
    published.spanId,
    handled.spanId
  ])
  expect(new Set(all.map((span) => span.spanId)).size).toBe(all.length)
  for (const span of all) {
    expect(BigInt(span.endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(span.startTimeUnixNano))
  }
  const about = {
    "messaging.system": "event_hub",
    "messaging.destination.name": "orders.new",
    "messaging.message.id": "one"
  }
  // The kinds of OTLP: 1 is internal, 4 a producer's, 5 a consumer's.
  expect([received.kind, appended.kind, delivered.kind]).toEqual([4, 1, 5])
  expect(received.attributes).toEqual({
    ...about,
    "messaging.operation.name": "publish",
    "messaging.operation.type": "send"
  })
  expect(appended.attributes).toMatchObject({ ...about, "messaging.batch.message_count": 1 })
  expect(delivered.attributes).toEqual({
    ...about,
    "messaging.operation.name": "deliver",
    "messaging.operation.type": "receive",
    "messaging.consumer.group.name": "mail",
    "event_hub.seq": 1,
    "event_hub.attempt": 1,
    "event_hub.deliveries": 1
  })
})

it("one trace goes from an outbox record to a live subscriber, with its tracestate", async () => {
  const receiver = await receiverOf()
  const path = join(temporaryDirectory(), "hub.db")
  const hub = await start({
    HUB_STORE: `sqlite:${path}`,
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: `${receiver.url}/elsewhere`,
    OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20t,x-tenant=a"
  })
  const client = await connect(hub)
  await client.request({ op: "SUBSCRIBE", topic: "bills.*" })
  const db = new DatabaseSync(path)
  onTestFinished(() => db.close())
  const outbox = createOutbox(db)
  const headers = { traceparent: sampled, tracestate: "vendor=1" }
  outbox.transaction(() => outbox.add({ topic: "bills.paid", id: "one", payload: 1, headers }))
  const [event] = await client.events(1)
  expect(event).toMatchObject({ event: { headers } })
  await receiver.until((spans) => spans.length >= 3)

  const waited = only(receiver.spans, "event-hub", "outbox")
  const appended = only(receiver.spans, "event-hub", "append")
  const delivered = only(receiver.spans, "event-hub", "deliver")
  for (const span of [waited, appended, delivered]) {
    expect(span).toMatchObject({ traceId, traceState: "vendor=1" })
  }
  expect([waited.parentSpanId, appended.parentSpanId, delivered.parentSpanId]).toEqual([
    spanId,
    waited.spanId,
    spanId
  ])
  expect(delivered.attributes).not.toHaveProperty("messaging.consumer.group.name")
  expect(receiver.requests[0]).toMatchObject({
    path: "/elsewhere",
    headers: { authorization: "Bearer t", "x-tenant": "a" }
  })
})

it("what is published over HTTP is in its trace, too", async () => {
  const receiver = await receiverOf()
  const hub = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url })
  const events = ["one", "two"].map((id) => ({
    topic: "a",
    id,
    payload: 1,
    ...(id === "one" ? { headers: { traceparent: sampled } } : {})
  }))
  const answer = await askAs(hub, {}, "/publish", json(events))
  expect(answer.status).toBe(200)
  const ofOne = ({ attributes }: ReceivedSpan) => attributes["messaging.message.id"] === "one"
  await receiver.until((spans) => spans.filter(ofOne).length === 2)
  const spans = receiver.spans.filter(ofOne)
  const published = only(spans, "event-hub", "publish")
  expect(published).toMatchObject({ traceId, parentSpanId: spanId, status: { code: 0 } })
  expect(only(spans, "event-hub", "append").parentSpanId).toBe(published.spanId)
})

it("what its publisher does not trace is not traced, and what says nothing is up to the sampler", async () => {
  const receiver = await receiverOf()
  const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url }
  const publishAll = async (hub: HubProcess): Promise<ReadonlyArray<unknown>> => {
    const client = await connect(hub)
    await client.request({ op: "SUBSCRIBE", topic: "a" })
    await client.request({
      op: "PUBLISH",
      topic: "a",
      payload: 1,
      opts: { id: "unsampled", headers: { traceparent: unsampled } }
    })
    await client.request({ op: "PUBLISH", topic: "a", payload: 1, opts: { id: "silent" } })
    await client.request({
      op: "PUBLISH",
      topic: "a",
      payload: 1,
      opts: { id: "sampled", headers: { traceparent: sampled } }
    })
    const events = await client.events(3)
    await hub.stop()
    return events.map((message) => (message["event"] as { readonly headers?: unknown }).headers)
  }
  const tracedIds = () =>
    new Set(receiver.spans.splice(0).map(({ attributes }) => attributes["messaging.message.id"]))

  const headers = await publishAll(await start(endpoint))
  const begun = receiver.spans.find(
    ({ attributes, name }) => attributes["messaging.message.id"] === "silent" && name === "publish"
  )!
  // The hub begins the trace, and whoever gets the event goes on with it.
  expect(begun.parentSpanId).toBeUndefined()
  expect(headers).toEqual([
    { traceparent: unsampled },
    { traceparent: `00-${begun.traceId}-${begun.spanId}-01` },
    { traceparent: sampled }
  ])
  expect(tracedIds()).toEqual(new Set(["silent", "sampled"]))

  const silent = await publishAll(await start({ ...endpoint, OTEL_TRACES_SAMPLER: "parentbased_always_off" }))
  expect(silent[1]).toBeUndefined()
  expect(tracedIds()).toEqual(new Set(["sampled"]))
})

it("protobuf is what it speaks unless it is told otherwise", async () => {
  const receiver = await receiverOf()
  const hub = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_EXPORTER_OTLP_PROTOCOL: "" })
  const client = await connect(hub)
  await client.request({ op: "PUBLISH", topic: "a", payload: 1 })
  await receiver.until(() => receiver.requests.length > 0)
  expect(receiver.requests[0]).toMatchObject({
    path: "/v1/traces",
    headers: { "content-type": "application/x-protobuf" }
  })
})

it("a receiver that fails costs a warning, once, and the spans that have no room", async () => {
  const receiver = await receiverOf()
  receiver.answer = 503
  const hub = await start({
    OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url,
    OTEL_BSP_MAX_QUEUE_SIZE: "10",
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "4"
  })
  const client = await connect(hub)
  for (let i = 0; i < 50; i++) await client.request({ op: "PUBLISH", topic: "a", payload: i })
  await receiver.until(() => receiver.requests.length > 1)
  const isWarning = ({ msg }: { readonly msg: string }) => msg.startsWith("traces cannot be exported")
  await hub.lineWhere(isWarning)
  expect(await valueOf(hub, "event_hub_trace_spans_exported_total")).toBe(0)
  // Two spans of each publish; ten of all may wait, and four be under way.
  expect(await valueOf(hub, "event_hub_trace_spans_dropped_total")).toBeGreaterThanOrEqual(86)
  receiver.answer = 200
  await hub.lineWhere(({ msg }) => msg === "traces are exported again")
  expect(hub.lines.filter(isWarning)).toEqual([
    expect.objectContaining({ endpoint: `${receiver.url}/v1/traces`, reason: "it answered with status 503" })
  ])
  expect(await valueOf(hub, "event_hub_trace_spans_exported_total")).toBeGreaterThan(0)
})

it("a receiver that is not there does not hold up a hub that stops", async () => {
  const receiver = await startOtlpReceiver()
  await receiver.close()
  const hub = await start({ OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url })
  const client = await connect(hub)
  await client.request({ op: "PUBLISH", topic: "a", payload: 1 })
  await hub.lineWhere(({ msg }) => msg.startsWith("traces cannot be exported"))
  expect(await hub.stop()).toEqual({ code: 0, signal: null })
})

it("what is wrong with its settings is told, and stops nothing but traces", async () => {
  const hub = await start({
    OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4317",
    OTEL_EXPORTER_OTLP_PROTOCOL: "grpc",
    OTEL_TRACES_SAMPLER: "sometimes"
  })
  const warnings = hub.lines.filter((line) => line["level"] === "warn").map(({ msg }) => msg)
  expect(warnings).toEqual([
    expect.stringMatching(/^OTEL_EXPORTER_OTLP_PROTOCOL must be http\/protobuf or http\/json.*'grpc'/),
    expect.stringMatching(/^OTEL_TRACES_SAMPLER must be one of always_on, /)
  ])
  const client = await connect(hub)
  await client.request({ op: "PUBLISH", topic: "a", payload: 1 })
  expect(await valueOf(hub, "event_hub_trace_spans_exported_total")).toBe(0)
})
