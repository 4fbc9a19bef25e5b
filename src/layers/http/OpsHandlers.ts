/** The endpoints of OpsApi, over the services of the hub. */
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"
import * as SchemaIssue from "effect/SchemaIssue"
import { HttpApiBuilder, HttpApiMiddleware } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import * as Topic from "../../domain/Topic.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { EventStore } from "../../services/EventStore.ts"
import { Gateway } from "../../services/Gateway.ts"
import type { GroupNotOnTopic, TopicNotFound } from "../../services/Inspector.ts"
import { Inspector } from "../../services/Inspector.ts"
import { type OutboxSource, OutboxSources, ownSource } from "../../services/OutboxSources.ts"
import { StoreLacks } from "../../services/StoreLacks.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { TokenVerifier } from "../../services/TokenVerifier.ts"
import { OpsApi } from "./OpsApi.ts"
import {
  Authorization,
  BadRequest,
  CurrentClaims,
  defaultLimit,
  NotFound,
  Problems,
  Unauthorized,
  Unavailable,
  unavailable
} from "./OpsContract.ts"
import { makeRights } from "./rights.ts"
import { visiblePage } from "./visiblePage.ts"

/** Keys that one request may ask for. */
const maxKeys = 1_000

const problemOf = (error: TopicNotFound | GroupNotOnTopic | StoreUnavailable): NotFound | Unavailable =>
  error._tag === "StoreUnavailable" ? unavailable() : new NotFound({ detail: error.message })

// --- middleware ----------------------------------------------------------------------------------------------

const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1()

/** What a part of a request is called. */
const slots: Readonly<Record<string, string>> = {
  Query: "query parameter",
  Params: "path parameter",
  Payload: "body field"
}

/** A request that does not fit is answered with what does not fit, by name. */
export const problems = HttpApiMiddleware.layerSchemaErrorTransform(Problems, (error) => {
  const slot = slots[error.kind] ?? error.kind.toLowerCase()
  const details = formatIssues(error.cause.issue).issues.map(({ message, path = [] }) => {
    const name = path.map((part) => String(typeof part === "object" ? part.key : part)).join(".")
    if (name === "") return `the ${error.kind === "Payload" ? "body" : error.kind.toLowerCase()}: ${message}`
    if (message === "Missing key") return `${slot} '${name}' is missing`
    return message === "Expected no excess property"
      ? `there is no ${slot} '${name}'`
      : `${slot} '${name}': ${message}`
  })
  // What could be several things is wrong in each of them.
  return Effect.fail(new BadRequest({ detail: [...new Set(details)].join("; ") }))
})

export const authorization = Layer.effect(
  Authorization,
  Effect.gen(function* () {
    const { verify } = yield* TokenVerifier
    return Authorization.of({
      bearer: (effect, { credential }) => {
        const token = Redacted.value(credential)
        if (token === "") {
          return Effect.fail(
            new Unauthorized({ detail: "a bearer token is missing from the Authorization header" })
          )
        }
        return Effect.flatMap(
          Effect.mapError(verify(token), (error) =>
            error._tag === "VerifierUnavailable"
              ? new Unavailable({ detail: error.message })
              : new Unauthorized({ detail: error.message })
          ),
          (claims) => Effect.provideService(effect, CurrentClaims, claims)
        )
      }
    })
  })
)

// --- reads ---------------------------------------------------------------------------------------------------

export const reads = HttpApiBuilder.group(
  OpsApi,
  "reads",
  Effect.fn(function* (handlers) {
    const rights = makeRights(yield* AccessControl)
    const store = yield* EventStore
    const inspector = yield* Inspector

    return handlers.handleAll({
      topics: ({ query }) =>
        Effect.gen(function* () {
          const { after, limit = defaultLimit, pattern: name = "**" } = query
          const claims = yield* CurrentClaims
          const pattern = yield* Effect.mapError(
            Topic.pattern(name),
            (error) => new BadRequest({ detail: `query parameter 'pattern': ${error.message}` })
          )
          const { found, next } = yield* Effect.mapError(
            visiblePage({
              read: (page) => store.topics({ pattern, ...page }),
              nameOf: ({ topic }) => topic,
              show: (info) => (rights.mayRead(claims, info.topic) ? info : undefined),
              after,
              limit
            }),
            unavailable
          )
          return { topics: found, next }
        }),

      cursors: ({ query: { topic } }) =>
        Effect.gen(function* () {
          yield* rights.permitRead(topic)
          const cursors = yield* Effect.mapError(inspector.cursors(topic), problemOf)
          return { topic, cursors }
        }),

      lag: ({ query: { group, topic } }) =>
        Effect.gen(function* () {
          if (!Topic.isSegment(group)) {
            return yield* new BadRequest({
              detail: "query parameter 'group': a group's name is one topic segment"
            })
          }
          yield* rights.permitRead(topic, group)
          return yield* Effect.mapError(inspector.lag({ topic, group }), problemOf)
        }),

      latestByKey: ({ query: { after, key: keys, limit = defaultLimit, topic } }) =>
        Effect.gen(function* () {
          yield* rights.permitRead(topic)
          if (keys === undefined) {
            const page = { topic, limit, ...(after === undefined ? {} : { after }) }
            const { next, ...latest } = yield* Effect.mapError(inspector.latestByKey(page), problemOf)
            return { topic, ...latest, next: next ?? null }
          }
          if (keys.length > maxKeys) {
            return yield* new BadRequest({ detail: `query parameter 'key': at most ${maxKeys} of them` })
          }
          const latest = yield* Effect.mapError(inspector.latestOf({ topic, keys }), problemOf)
          if (keys.length === 1) return latest.get(keys[0]!) ?? null
          return Object.fromEntries(latest)
        })
    })
  })
)

// --- health --------------------------------------------------------------------------------------------------

const gauge = (name: string, description: string) => Metric.gauge(name, { description })

const gauges = {
  connections: gauge("event_hub_connections", "Connections that are open."),
  outboxUp: gauge("event_hub_outbox_up", "1: the outbox is drained; 0: /outbox says why it is not."),
  outboxPending: gauge("event_hub_outbox_pending_records", "Outbox records that are neither sent nor dead."),
  outboxDead: gauge("event_hub_outbox_dead_records", "Outbox records that were given up."),
  outboxAge: gauge(
    "event_hub_outbox_oldest_age_seconds",
    "Age of the oldest outbox record that is not done."
  ),
  loopDelay: gauge(
    "event_hub_event_loop_delay_seconds",
    "99th percentile of the event loop's delay since the last scrape."
  ),
  memory: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
  start: gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.")
}

const detailOf = (lacks: ReadonlyArray<string>) => (lacks.length === 0 ? {} : { detail: lacks.join("; ") })

/** What the server of the hub's own outbox cannot do stands with its store already. */
const outboxCheck = ({ lacks, name, problem }: OutboxSource) => {
  const detail = problem === undefined ? {} : { detail: problem }
  if (name === ownSource) return { name: "outbox", ok: problem === undefined, ...detail }
  return {
    name: `outbox:${name}`,
    ok: problem === undefined,
    required: false,
    ...detailOf(lacks),
    ...detail
  }
}

export const health = HttpApiBuilder.group(
  OpsApi,
  "health",
  Effect.fn(function* (handlers) {
    const store = yield* EventStore
    const sources = yield* OutboxSources
    const lacks = yield* StoreLacks
    const gateway = yield* Gateway
    const loop = monitorEventLoopDelay({ resolution: 10 })
    yield* Effect.acquireRelease(
      Effect.sync(() => loop.enable()),
      () => Effect.sync(() => loop.disable())
    )

    // A look-up of any name, there or not: it is answered by the store itself.
    const storeCheck = Effect.match(store.head("readyz"), {
      onSuccess: () => ({ name: "store", ok: true, ...detailOf(lacks) }),
      onFailure: (error) => ({ name: "store", ok: false, detail: error.message })
    })

    /** Of an outbox that does not answer, the last that is known stays. */
    const measureOutboxes = Effect.gen(function* () {
      const measured = yield* sources.measure
      const now = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
      for (const { name, problem, stats } of measured) {
        const set = (gauge: Metric.Gauge<number>, value: number) =>
          Metric.update(Metric.withAttributes(gauge, { source: name }), value)
        yield* set(gauges.outboxUp, problem === undefined ? 1 : 0)
        if (stats === undefined) continue
        const { counts, oldestAddedAt } = stats
        yield* set(gauges.outboxPending, counts.Pending + counts.Blocked + counts.Claimed)
        yield* set(gauges.outboxDead, counts.Dead)
        yield* set(gauges.outboxAge, oldestAddedAt === undefined ? 0 : (now - oldestAddedAt) / 1000)
      }
    })

    return handlers.handleAll({
      healthz: () => Effect.succeed({ status: "ok" as const }),

      readyz: () =>
        Effect.gen(function* () {
          const checks = [
            gateway.isDraining()
              ? { name: "gateway", ok: false, detail: "the hub is stopping" }
              : { name: "gateway", ok: true },
            yield* Effect.timeoutOrElse(storeCheck, {
              duration: "2 seconds",
              orElse: () => Effect.succeed({ name: "store", ok: false, detail: "it does not answer in time" })
            }),
            ...(yield* sources.list).map(outboxCheck)
          ]
          return checks.every((check) => check.ok || ("required" in check && !check.required))
            ? { ready: true as const, checks }
            : { ready: false as const, checks }
        }),

      metrics: () =>
        Effect.gen(function* () {
          yield* Metric.update(gauges.connections, gateway.connections().length)
          yield* Metric.update(gauges.loopDelay, loop.percentile(99) / 1e9)
          loop.reset()
          yield* Metric.update(gauges.memory, process.memoryUsage.rss())
          yield* Metric.update(gauges.start, performance.timeOrigin / 1000)
          yield* measureOutboxes
          return yield* PrometheusMetrics.format()
        })
    })
  })
)
