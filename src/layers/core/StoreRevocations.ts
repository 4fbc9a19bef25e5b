/**
 * Revocations over their store: all of them in memory, since each token and each session is asked about, and a look at
 * the store time and again, which is one small read as long as nobody has changed anything.
 *
 * A look that fails, or takes too long, changes nothing: what was known holds on. Whether that is enough to take new
 * tokens is a question of time (`isCurrent`).
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Revocation from "../../domain/Revocation.ts"
import * as Settings from "../../domain/Settings.ts"
import { Ids } from "../../services/Ids.ts"
import { Revocations } from "../../services/Revocations.ts"
import { RevocationStore } from "../../services/RevocationStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"

export interface Options {
  readonly settings?: Settings.RevocationSettings
  /** What the hub holds against old tokens: it says when a revocation may be forgotten. */
  readonly tokens?: Revocation.TokenLife
}

/** Entries of one read. */
const pageSize = 1_000

/** How often it is looked for what may be forgotten. */
const pruneEvery = "1 hour"

const make = Effect.fnUntraced(function* ({
  settings = Settings.revocations,
  tokens = Settings.auth
}: Options) {
  const { intervalMs, staleMs } = settings
  const store = yield* RevocationStore
  const ids = yield* Ids
  const clock = yield* Clock.Clock
  const changes = yield* PubSub.sliding<void>(1)
  /** What is known is changed by one at a time: what was read before a revocation must not take its place. */
  const alone = yield* Semaphore.make(1)

  const millis = (): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

  let index = Revocation.makeIndex()
  let known = new Set<string>()
  let version: string | undefined
  /** Everything that was revoked before is known; by a clock that never jumps. */
  let currentAt = millis()

  /** One call of the store; all of a look may take longer. */
  const soon = <A>(call: Effect.Effect<A, StoreUnavailable>): Effect.Effect<A, StoreUnavailable> =>
    Effect.timeoutOrElse(call, {
      duration: staleMs,
      orElse: () =>
        Effect.fail(
          new StoreUnavailable({ operation: "RevocationStore", cause: new Error("it takes too long") })
        )
    })

  const readAll = Effect.gen(function* () {
    const entries: Array<Revocation.Entry> = []
    let after: string | undefined
    do {
      const page = yield* soon(store.list({ after, limit: pageSize }))
      entries.push(...page.items)
      after = page.next
    } while (after !== undefined)
    return entries
  })

  const look = Effect.gen(function* () {
    const began = millis()
    // Before the entries: what is added while they are read makes it another one.
    const now = yield* soon(store.version)
    if (now !== version) {
      const entries = yield* readAll
      const isOther = entries.length !== known.size || entries.some(({ id }) => !known.has(id))
      version = now
      if (isOther) {
        index = Revocation.makeIndex(entries.map(({ what }) => what))
        known = new Set(entries.map(({ id }) => id))
        PubSub.publishUnsafe(changes, undefined)
      }
    }
    currentAt = began
  }).pipe(
    // A span twice a second would tell nobody anything.
    Effect.withTracerEnabled(false),
    alone.withPermit
  )

  const isCurrent = (): boolean => millis() - currentAt <= staleMs

  let failing = false
  const lookAgain = look.pipe(
    Effect.matchEffect({
      onSuccess: () =>
        Effect.suspend(() => {
          if (!failing) return Effect.void
          failing = false
          return Effect.logInfo("revocations are known again")
        }),
      onFailure: (error) =>
        Effect.suspend(() => {
          if (failing) return Effect.void
          failing = true
          return Effect.logWarning("what was revoked elsewhere is not known", error)
        })
    })
  )

  yield* look
  yield* Effect.sleep(intervalMs).pipe(Effect.andThen(lookAgain), Effect.forever, Effect.forkScoped)

  yield* Effect.suspend(() => store.prune(clock.currentTimeMillisUnsafe())).pipe(
    Effect.catch((error) => Effect.logDebug("revocations could not be pruned", error)),
    Effect.andThen(Effect.sleep(pruneEvery)),
    Effect.forever,
    Effect.forkScoped
  )

  return Revocations.of({
    revoke: (what, { by = "the hub", expiresAt, reason } = {}) =>
      Effect.gen(function* () {
        const revokedAt = clock.currentTimeMillisUnsafe()
        const until = Revocation.untilOf(what, { revokedAt, expiresAt }, tokens)
        const entry = {
          id: ids.next(),
          what,
          revokedAt,
          by,
          ...(reason === undefined ? {} : { reason }),
          ...(until === undefined ? {} : { until })
        }
        yield* store.add(entry)
        index.add(what)
        known.add(entry.id)
        PubSub.publishUnsafe(changes, undefined)
        return entry
      }).pipe(alone.withPermit),
    remove: (id) => Effect.tap(store.remove(id), () => lookAgain),
    list: store.list,
    isRevoked: (claims) => index.isRevoked(claims),
    isCurrent,
    changes: Stream.fromPubSub(changes)
  })
})

export const layer = (
  options: Options = {}
): Layer.Layer<Revocations, StoreUnavailable, RevocationStore | Ids> =>
  Layer.effect(Revocations, make(options))
