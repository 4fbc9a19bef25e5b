/** The endpoints of LogApi, over the Archive and the Appender. Who imported or published is logged. */
import { constants, createGunzip, createGzip } from "node:zlib"
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { HttpEffect, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as Selections from "../../domain/Archive.ts"
import type { Claims } from "../../domain/Claims.ts"
import * as Event from "../../domain/Event.ts"
import * as Quota from "../../domain/Quota.ts"
import type { ArchiveSettings, Limits } from "../../domain/Settings.ts"
import * as Topic from "../../domain/Topic.ts"
import { AccessControl } from "../../services/AccessControl.ts"
import { Appender } from "../../services/Appender.ts"
import { Archive } from "../../services/Archive.ts"
import { type AppendResult, EventStore } from "../../services/EventStore.ts"
import { Ids } from "../../services/Ids.ts"
import { RateLimiter } from "../../services/RateLimiter.ts"
import { EventTraces } from "../../services/EventTraces.ts"
import { appendTraced } from "../core/tracedEntries.ts"
import { audited } from "./audit.ts"
import { makeEndedBy } from "./endedBy.ts"
import {
  ContentTooLarge,
  mediaTypes,
  type PublishResult,
  TooManyRequests,
  UnsupportedEncoding
} from "./LogApi.ts"
import { OpsApi } from "./OpsApi.ts"
import { BadRequest, CurrentClaims, defaultLimit, NotFound, unavailable } from "./OpsContract.ts"
import { reusing } from "./reusing.ts"
import { makeRights } from "./rights.ts"

export interface Options {
  readonly limits: Limits
  readonly archive: ArchiveSettings
  /** How far the clocks of the hub and of the issuer of tokens may be apart. */
  readonly clockToleranceMs: number
}

const slotted = (error: Selections.InvalidSelection): BadRequest =>
  new BadRequest({ detail: `query parameter ${error.message}` })

// --- compression ---------------------------------------------------------------------------------------------

/** Whether the client takes gzip (RFC 9110, section 12.5.3): it has to say so, and not with a weight of 0. */
const takesGzip = (accepted: string | undefined): boolean =>
  (accepted ?? "").split(",").some((part) => {
    const [coding, ...parameters] = part.split(";").map((text) => text.trim().toLowerCase())
    const weight = parameters.find((parameter) => parameter.startsWith("q="))
    return (coding === "gzip" || coding === "x-gzip") && (weight === undefined || Number(weight.slice(2)) > 0)
  })

/** Fast, and in pieces that are large enough to be worth a thread's while. */
const gzip = () => createGzip({ level: constants.Z_BEST_SPEED, chunkSize: 64 * 1024 })

/** The body failed on its way, or is not what it says. */
class Broken extends Schema.TaggedError<Broken>()("Broken", { reason: Schema.String }) {
  override toString() {
    return this.reason
  }
}

const broken = (error: unknown): Broken =>
  error instanceof Broken
    ? error
    : new Broken({ reason: error instanceof Error ? error.message : String(error) })

/** What cannot be read of a body ends it, and is no defect of whoever reads it. */
const endingEarly = <E>(bytes: Stream.Stream<Uint8Array, E>): Stream.Stream<Uint8Array, Broken> =>
  Stream.catchCause(bytes, (cause) =>
    Cause.hasInterruptsOnly(cause)
      ? Stream.fromEffect(Effect.interrupt)
      : Stream.fail(broken(Cause.squash(cause)))
  )

/** The bytes that were meant; nothing: they are coded in a way that nobody here knows. */
const decoded = (
  bytes: Stream.Stream<Uint8Array, unknown>,
  coding: string | undefined
): Stream.Stream<Uint8Array, Broken> | undefined => {
  switch (coding?.trim().toLowerCase() ?? "identity") {
    case "":
    case "identity":
      return endingEarly(bytes)
    case "gzip":
    case "x-gzip":
      return endingEarly(
        NodeStream.pipeThroughDuplex(bytes, {
          evaluate: () => createGunzip({ chunkSize: 64 * 1024 }),
          onError: broken
        })
      )
    default:
      return undefined
  }
}

/** What is left of a body that nobody reads on is not waited for, neither by the hub nor by its server. */
const closing = HttpEffect.appendPreResponseHandler((_request, response) =>
  Effect.succeed(HttpServerResponse.setHeader(response, "connection", "close"))
)

// --- publish -------------------------------------------------------------------------------------------------

const reasons = {
  too_large: "it is too large for the store",
  behind_refused: "an event of its topic before it was not published",
  unavailable: "the store does not answer; publish it again, with the same id"
} as const

const resultOf = (result: AppendResult): PublishResult => {
  const { id, topic } = result
  if (result._tag === "NotAppended") {
    return { topic, id, error: { code: result.reason, msg: reasons[result.reason] } }
  }
  const { duplicate, seq, storedAt } = result
  return { topic, id, seq, storedAt, duplicate }
}

export const log = ({ archive: settings, clockToleranceMs, limits }: Options) =>
  HttpApiBuilder.group(
    OpsApi,
    "log",
    Effect.fn(function* (handlers) {
      const access = yield* AccessControl
      const rights = yield* makeRights
      const store = yield* EventStore
      const archive = yield* Archive
      const appender = yield* Appender
      const limiter = yield* RateLimiter
      const ids = yield* Ids
      const traces = yield* EventTraces
      /** What is decided of a token when a request begins is decided again while it goes on. */
      const endedBy = yield* makeEndedBy(clockToleranceMs)

      /** What is asked for, by somebody who may see it. One topic has to be there; of a pattern, what is there is. */
      const select = (asked: {
        readonly topic: string
        readonly from?: string | undefined
        readonly to?: string | undefined
      }) =>
        Effect.gen(function* () {
          const selection = yield* Effect.mapError(
            Effect.fromResult(Selections.parseSelection(asked)),
            slotted
          )
          const { concrete, name } = selection.pattern
          if (concrete) {
            yield* rights.permitRead(name)
            const info = yield* Effect.mapError(store.head(name), unavailable)
            if (info === undefined) return yield* new NotFound({ detail: `there is no topic '${name}'` })
          }
          const claims = yield* CurrentClaims
          return { claims, selection, isVisible: (topic: string) => rights.mayRead(claims, topic) }
        })

      /** Lines of one topic mostly stand together: one decision holds for those of a piece of the file. */
      const mayWriteAs = (claims: Claims) => {
        let last = ""
        let may = false
        const isEnded = endedBy(claims)
        return {
          endedBy: (): string | undefined => {
            last = ""
            return isEnded()
          },
          mayWrite: (topic: string): boolean => {
            if (topic !== last) {
              last = topic
              may = access.decideAdministration(claims, topic)._tag === "Allowed"
            }
            return may
          }
        }
      }

      /** Spends what events cost one by one, as if each were a message; answers how many pass. */
      const spend = (
        { limits: own, sub }: Claims,
        records: ReadonlyArray<Event.EventRecord>
      ): { readonly passing: number; readonly limited: Quota.Limited | undefined } => {
        const account = Quota.accountOf(limits.quotas, { connection: `http ${sub}`, sub }, own)
        for (const [i, { body, topic }] of records.entries()) {
          const limited = limiter.take(Quota.spendingsOf(account, { topic, bytes: Event.utf8Length(body) }))
          if (limited !== undefined) return { passing: i, limited }
        }
        return { passing: records.length, limited: undefined }
      }

      return handlers.handleAll({
        events: ({ query: { after, from, limit = defaultLimit, order = "asc", to, topic } }) =>
          Effect.gen(function* () {
            const selected = yield* select({ topic, from, to })
            const cursor =
              after === undefined
                ? undefined
                : yield* Effect.mapError(
                    Effect.fromResult(Selections.parseCursorOf(selected.selection, after)),
                    slotted
                  )
            const { next, records } = yield* Effect.mapError(
              archive.page({ ...selected, order, limit, after: cursor }),
              unavailable
            )
            return {
              events: records.map(Event.decode),
              next: next === undefined ? null : Selections.formatCursor(next)
            }
          }),

        export: ({ query: { from, to, topic = "**" }, request }) =>
          Effect.gen(function* () {
            const { claims, ...selected } = yield* select({ topic, from, to })
            const exported = yield* Effect.mapError(
              archive.export({ ...selected, endedBy: endedBy(claims) }),
              unavailable
            )
            const { fileName } = exported
            const bytes = Stream.tapError(exported.bytes, ({ message }) =>
              Effect.logWarning("an export was cut off", { sub: claims.sub, reason: message })
            )
            const isPacked = takesGzip(request.headers["accept-encoding"])
            return HttpServerResponse.stream(
              isPacked ? NodeStream.pipeThroughSimple(reusing(bytes), gzip) : reusing(bytes),
              {
                contentType: mediaTypes[0],
                headers: {
                  "content-disposition": `attachment; filename="${fileName}"`,
                  vary: "accept-encoding",
                  ...(isPacked ? { "content-encoding": "gzip" } : {})
                }
              }
            )
          }),

        import: ({ payload, query: { dryRun, reason, strict }, request }) =>
          Effect.gen(function* () {
            const claims = yield* CurrentClaims
            if (
              !access
                .policyOf(claims)
                .rules.some(({ action, effect }) => effect === "allow" && action === "admin")
            ) {
              return yield* rights.forbid(claims, "no right to administrate any topic")
            }
            const coding = request.headers["content-encoding"]
            const bytes = decoded(payload, coding)
            if (bytes === undefined) {
              return yield* new UnsupportedEncoding({
                detail: `a body is sent as it is, or with 'content-encoding: gzip', and not '${coding}'`
              })
            }
            const run = archive.import({
              bytes,
              ...mayWriteAs(claims),
              dryRun: dryRun === "true",
              strict: strict === "true"
            })
            const change =
              dryRun === "true"
                ? run
                : audited(run, {
                    what: "events imported",
                    reason,
                    fields: {},
                    outcome: ({ appended, bad, complete, duplicates, missing, restored, topics }) => ({
                      complete,
                      ...(missing === null ? {} : { missing }),
                      topics,
                      restored,
                      appended,
                      duplicates,
                      bad
                    })
                  })
            return yield* change.pipe(
              Effect.tap(({ complete }) => (complete ? Effect.void : closing)),
              Effect.tapError(() => closing),
              Effect.mapError((error) =>
                error._tag === "NotAnExport" ? new BadRequest({ detail: error.message }) : unavailable()
              )
            )
          }),

        publish: ({ payload, query: { reason } }) =>
          Effect.gen(function* () {
            const claims = yield* CurrentClaims
            const events = Array.isArray(payload) ? payload : [payload]
            if (events.length > settings.maxPublishEvents) {
              return yield* new ContentTooLarge({
                detail: `at most ${settings.maxPublishEvents} events are published at once`
              })
            }
            const now = yield* Clock.currentTimeMillis
            const records: Array<Event.EventRecord> = []
            for (const [i, event] of events.entries()) {
              const { topic } = event
              const where = Array.isArray(payload) ? `event ${i + 1}: ` : ""
              const named = Topic.parseTopic(topic)
              if (Result.isFailure(named)) {
                return yield* new BadRequest({ detail: `${where}${named.failure.message}` })
              }
              const decision = access.decide(claims, { action: "publish", topic })
              if (decision._tag === "Denied") {
                return yield* rights.forbid(claims, `${where}no right to publish '${topic}'`, decision)
              }
              const whole = { ...event, id: event.id ?? ids.next(), ts: event.ts ?? now }
              const record = Event.acceptEvent(whole, limits)
              if (Result.isSuccess(record)) records.push(record.success)
              else {
                const detail = `${where}${record.failure.message}`
                return yield* record.failure._tag === "PayloadTooLarge"
                  ? new ContentTooLarge({ detail })
                  : new BadRequest({ detail })
              }
            }
            const { limited, passing } = spend(claims, records)
            if (limited !== undefined && passing === 0) {
              return yield* new TooManyRequests({
                detail: `${Quota.describe(limited.kind)}; come back in ${limited.retryAfterMs} ms`
              })
            }
            const topics = new Set(records.slice(0, passing).map(({ topic }) => topic))
            const answers = yield* Effect.mapError(
              audited(appendTraced(traces, "publish", records.slice(0, passing), appender.append), {
                what: "events published",
                reason,
                fields: { events: passing, topics: [...topics].slice(0, 10) }
              }),
              unavailable
            )
            const results = answers.map(resultOf)
            if (limited !== undefined) {
              const { kind, retryAfterMs } = limited
              for (const { id, topic } of records.slice(passing)) {
                const error = { code: "rate_limited" as const, msg: Quota.describe(kind), retryAfterMs }
                results.push({ topic, id, error })
              }
            }
            return { results }
          })
      })
    })
  )
