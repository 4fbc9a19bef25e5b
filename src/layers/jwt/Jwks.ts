/**
 * The keys of an issuer, by the URL of its JWK Set (RFC 7517, section 5).
 *
 * Keys that were had once are used on while the endpoint is away, up to a limit. However many tokens ask, there
 * is one request at a time and at most one in each cooldown. A token whose key is not among them waits for the next
 * request, so that a key is good from the moment on that the issuer shows it; what that did not bring is not waited
 * for again until another may be made.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { CryptoKey } from "jose"
import * as Settings from "../../domain/Settings.ts"
import { VerifierUnavailable } from "../../services/TokenVerifier.ts"
import type { Keys } from "./Keys.ts"
import * as KeySet from "./KeySet.ts"

/** What came of a request. */
export const outcomes = ["ok", "unreachable", "timeout", "status", "unusable"] as const
export type Outcome = (typeof outcomes)[number]

export interface Options {
  readonly url: URL
  readonly settings?: Settings.JwksSettings | undefined
  /** After each request. */
  readonly onRequest?: ((outcome: Outcome) => void) | undefined
}

class Failed extends Schema.TaggedError<Failed>()("Failed", {
  outcome: Schema.Literals(outcomes),
  reason: Schema.String
}) {}

const unusable = (reason: string) => new Failed({ outcome: "unusable", reason })

const unavailable = (reason: string) => new VerifierUnavailable({ reason: `the JWKS endpoint ${reason}` })

const textOf = async (body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string> => {
  const chunks: Array<Uint8Array> = []
  let size = 0
  for await (const chunk of body) {
    size += chunk.length
    if (size > maxBytes) throw unusable(`answers more than ${maxBytes} bytes`)
    chunks.push(chunk)
  }
  return new TextDecoder().decode(Buffer.concat(chunks))
}

const fetchKeys = async (url: URL, maxBytes: number, signal: AbortSignal): Promise<KeySet.KeySet> => {
  const response = await fetch(url, {
    signal,
    // Whoever can make the issuer redirect would have the keys.
    redirect: "manual",
    headers: { accept: "application/json, application/jwk-set+json" }
  })
  if (response.status !== 200) {
    void response.body?.cancel()
    throw new Failed({ outcome: "status", reason: `answers ${response.status}` })
  }
  const set = KeySet.parse(response.body === null ? "" : await textOf(response.body, maxBytes))
  if (Result.isFailure(set)) throw unusable("answers something else than keys")
  return set.success
}

/** How many keys that were looked for in vain are remembered until the next request: any token can name one. */
const maxMissed = 1_000

export const make = Effect.fnUntraced(function* ({ onRequest, settings, url }: Options) {
  const { cooldownMs, freshMs, maxBytes, staleMs, timeoutMs } = settings ?? Settings.jwks
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime()
  // The clock that nobody sets: by the other one, keys could be fresh for as long as it is wrong.
  const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
  const inWords = (at: number) => new Date(clock.currentTimeMillisUnsafe() + at - now()).toISOString()
  const shown = `${url.origin}${url.pathname}`

  let known: { readonly set: KeySet.KeySet; readonly at: number } | undefined
  let running: Deferred.Deferred<KeySet.KeySet, VerifierUnavailable> | undefined
  let lastEndedAt = -Infinity
  /** What the last request did not bring. */
  const missed = new Set<string>()
  let isFailing = false
  let leftOut = ""

  const succeeded = (set: KeySet.KeySet) =>
    Effect.gen(function* () {
      known = { set, at: now() }
      onRequest?.("ok")
      if (isFailing) yield* Effect.logInfo("the JWKS endpoint answers again", { url: shown })
      isFailing = false
      const left = set.leftOut.join("; ")
      if (left !== leftOut && left !== "") {
        yield* Effect.logWarning("keys are left out", { of: shown, why: left })
      }
      leftOut = left
    })

  /** Told when it begins, and not with every token that comes meanwhile. */
  const failed = ({ outcome, reason }: Failed) =>
    Effect.suspend(() => {
      onRequest?.(outcome)
      if (isFailing) return Effect.void
      isFailing = true
      return Effect.logWarning("the JWKS endpoint does not work; the keys that are known are used on", {
        url: shown,
        why: `it ${reason}`,
        ...(known === undefined
          ? { known: 0 }
          : { known: known.set.size, until: inWords(known.at + staleMs) })
      })
    })

  const request = Effect.tryPromise({
    try: (signal) => fetchKeys(url, maxBytes, signal),
    catch: (error) =>
      error instanceof Failed ? error : new Failed({ outcome: "unreachable", reason: "does not answer" })
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeoutMs,
      orElse: () => Effect.fail(new Failed({ outcome: "timeout", reason: "is too slow" }))
    }),
    Effect.tap(succeeded),
    Effect.tapError(failed),
    Effect.mapError(({ reason }) => unavailable(reason))
  )

  const reload: Effect.Effect<KeySet.KeySet, VerifierUnavailable> = Effect.suspend(() => {
    if (running !== undefined) return Deferred.await(running)
    const wait = Math.max(0, lastEndedAt + cooldownMs - now())
    // Nobody keeps a connection waiting for longer than a request itself may take.
    if (wait > timeoutMs) return Effect.fail(unavailable("was asked a short time ago"))
    const answer = (running = Deferred.makeUnsafe<KeySet.KeySet, VerifierUnavailable>())
    // Whoever asked first may go: the others wait for the same answer.
    fork(
      Effect.sleep(wait).pipe(
        Effect.andThen(request),
        Effect.onExit(() =>
          Effect.sync(() => {
            running = undefined
            lastEndedAt = now()
            missed.clear()
          })
        ),
        Deferred.into(answer)
      )
    )
    return Deferred.await(answer)
  })

  const findIn = (set: KeySet.KeySet, wanted: KeySet.Wanted): Effect.Effect<ReadonlyArray<CryptoKey>> =>
    Effect.promise(() => set.find(wanted))

  /** By what the issuer shows now. */
  const findAnew = (wanted: KeySet.Wanted) =>
    Effect.gen(function* () {
      const name = JSON.stringify([wanted.alg, wanted.kid])
      if (missed.has(name) && now() < lastEndedAt + cooldownMs) return []
      const found = yield* findIn(yield* reload, wanted)
      if (found.length === 0 && missed.size < maxMissed) missed.add(name)
      return found
    })

  /** Old keys are asked for again beside, while they are used. */
  const refresh = (at: number): void => {
    if (now() - at < freshMs || running !== undefined || now() < lastEndedAt + cooldownMs) return
    fork(Effect.exit(reload))
  }

  return {
    algorithms: KeySet.algorithms,
    find: (wanted) =>
      Effect.suspend(() => {
        if (known === undefined || now() - known.at >= staleMs) return findAnew(wanted)
        refresh(known.at)
        return Effect.flatMap(findIn(known.set, wanted), (found) =>
          found.length > 0 ? Effect.succeed(found) : findAnew(wanted)
        )
      })
  } satisfies Keys
})
