/**
 * Revocations over their store: all of them in memory, since each token and each session is asked about, and a look at
 * the store time and again, which is one small read as long as nobody has changed anything.
 *
 * A look that fails, or takes too long, changes nothing: what was known holds on. Whether that is enough to take new
 * tokens is a question of time (`isCurrent`).
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Revocation from "../../domain/Revocation.ts"
import * as Settings from "../../domain/Settings.ts"
import { Ids } from "../../services/Ids.ts"
import { Revocations, TooManyRevocations } from "../../services/Revocations.ts"
import { RevocationStore } from "../../services/RevocationStore.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"

export interface Options {
  readonly settings?: Settings.RevocationSettings
  /** What the hub holds against old tokens: it says when a revocation may be forgotten. */
  readonly tokens?: Revocation.TokenLife
}

/** Entries of one read. */
const pageSize = 1_000

/** Where there are many, so many of the last are read before all of them: what is new mostly stands at the end. */
const overlap = 500

/** How often it is looked for what may be forgotten. */
const pruneEvery = "1 hour"

const make = Effect.fnUntraced(function* ({
  settings = Settings.revocations,
  tokens = Settings.auth
}: Options) {
  const { intervalMs, maxEntries, staleMs } = settings
  const store = yield* RevocationStore
  const ids = yield* Ids
  const clock = yield* Clock.Clock
  const changes = yield* PubSub.sliding<void>(1)
  /** One look at a time. What is revoked here does not wait for it. */
  const alone = yield* Semaphore.make(1)

  const millis = (): number => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)

  let index = Revocation.makeIndex()
  let known = new Set<string>()
  /** Behind this id stand the last of those that are known. */
  let lastFrom: string | undefined
  let version: string | undefined
  /** Everything that was revoked before is known; by a clock that never jumps. */
  let currentAt = millis()
  /** When a look that is under way got something from the store. */
  let heardAt: number | undefined
  /** What became known while all of them are read, and may be missing there. */
  let meanwhile: Map<string, Revocation.Entry> | undefined

  /** One call of the store; all of a look may take longer. */
  const soon = <A>(call: Effect.Effect<A, StoreUnavailable>): Effect.Effect<A, StoreUnavailable> =>
    Effect.timeoutOrElse(call, {
      duration: staleMs,
      orElse: () =>
        Effect.fail(
          new StoreUnavailable({ operation: "RevocationStore", cause: new Error("it takes too long") })
        )
    })

  const told = (): void => void PubSub.publishUnsafe(changes, undefined)

  const learn = (entry: Revocation.Entry): boolean => {
    meanwhile?.set(entry.id, entry)
    if (known.has(entry.id)) return false
    index.add(entry.what)
    known.add(entry.id)
    return true
  }

  /** Those behind an id, page by page. */
  const read = (
    from: string | undefined,
    take: (entries: ReadonlyArray<Revocation.Entry>) => void,
    between: Effect.Effect<void, StoreUnavailable> = Effect.void
  ): Effect.Effect<void, StoreUnavailable> =>
    Effect.gen(function* () {
      let after = from
      do {
        const page = yield* soon(store.list({ after, limit: pageSize }))
        heardAt = millis()
        take(page.items)
        after = page.next
        if (after !== undefined) {
          // A store may answer within a turn of the event loop: others have theirs in between.
          yield* Effect.yieldNow
          yield* between
        }
      } while (after !== undefined)
    })

  /** What others revoked last is in force before all of them are read. */
  const readLast = Effect.suspend(() => {
    let isNew = false
    return Effect.ensuring(
      read(lastFrom, (entries) => {
        for (const entry of entries) if (learn(entry)) isNew = true
      }),
      Effect.sync(() => isNew && told())
    )
  })

  /** Answers when it was looked last for what is new, for the first time at `began`. */
  const readAll = Effect.fnUntraced(
    function* (began: number) {
      const found = Revocation.makeIndex()
      const ids = new Set<string>()
      const added = new Map<string, Revocation.Entry>()
      meanwhile = added
      let seen = version
      let lookedAt = began
      const take = (entries: ReadonlyArray<Revocation.Entry>): void => {
        for (const { id, what } of entries) {
          found.add(what)
          ids.add(id)
        }
      }
      const lookForNew = Effect.suspend(() => {
        lookedAt = millis()
        return Effect.flatMap(soon(store.version), (now) => {
          if (now === seen) return Effect.void
          seen = now
          return readLast
        })
      })
      /** All of them may be many: what is new does not wait for the rest. */
      const between = Effect.suspend(() => (millis() - lookedAt < intervalMs ? Effect.void : lookForNew))
      yield* read(undefined, take, between)
      if (ids.size > pageSize) yield* lookForNew
      lastFrom = ids.size > pageSize ? [...ids].at(-overlap) : undefined
      take([...added.values()])
      const isOther = ids.size !== known.size || [...ids].some((id) => !known.has(id))
      index = found
      known = ids
      if (isOther) told()
      return lookedAt
    },
    Effect.ensuring(Effect.sync(() => (meanwhile = undefined)))
  )

  const look = Effect.gen(function* () {
    const began = millis()
    // Before the entries: what is added while they are read makes it another one.
    const now = yield* soon(store.version)
    if (now === version) return void (currentAt = began)
    if (lastFrom !== undefined) yield* readLast
    currentAt = yield* readAll(began)
    version = now
  }).pipe(
    Effect.ensuring(Effect.sync(() => (heardAt = undefined))),
    // A span twice a second would tell nobody anything.
    Effect.withTracerEnabled(false),
    alone.withPermit
  )

  /** Many entries take long, and as long as they come nothing is wrong. */
  const isCurrent = (): boolean => millis() - Math.max(currentAt, heardAt ?? currentAt) <= staleMs

  /** Whatever is wrong once, it is looked again: a loop that ended would lock everybody out. */
  const otherwise =
    (handle: (cause: Cause.Cause<StoreUnavailable>) => Effect.Effect<void>) =>
    <A>(effect: Effect.Effect<A, StoreUnavailable>): Effect.Effect<A | void> =>
      Effect.catchCause(effect, (cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.interrupt : handle(cause)
      )

  const isDefect = (cause: Cause.Cause<StoreUnavailable>): boolean => cause.reasons.some(Cause.isDieReason)

  let failing = false
  const lookAgain = look.pipe(
    Effect.andThen(
      Effect.suspend(() => {
        if (!failing) return Effect.void
        failing = false
        return Effect.logInfo("revocations are known again")
      })
    ),
    otherwise((cause) =>
      Effect.suspend(() => {
        if (failing) return Effect.void
        failing = true
        const what = "what was revoked elsewhere is not known"
        return isDefect(cause) ? Effect.logError(what, cause) : Effect.logWarning(what, Cause.squash(cause))
      })
    )
  )

  yield* look
  yield* Effect.sleep(intervalMs).pipe(Effect.andThen(lookAgain), Effect.forever, Effect.forkScoped)

  yield* Effect.suspend(() => store.prune(clock.currentTimeMillisUnsafe())).pipe(
    otherwise((cause) => {
      const what = "revocations could not be pruned"
      return isDefect(cause) ? Effect.logError(what, cause) : Effect.logDebug(what, cause)
    }),
    Effect.andThen(Effect.sleep(pruneEvery)),
    Effect.forever,
    Effect.forkScoped
  )

  return Revocations.of({
    revoke: (what, { by = "the hub", expiresAt, reason } = {}) =>
      Effect.gen(function* () {
        // What can stand for all of the others always goes.
        if (known.size >= maxEntries && what._tag !== "IssuedBefore") {
          return yield* new TooManyRevocations({ limit: maxEntries })
        }
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
        learn(entry)
        told()
        return entry
      }),
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
