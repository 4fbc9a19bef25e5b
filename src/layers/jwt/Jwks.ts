/**
 * The keys of an issuer, by the URL of its JWK Set (RFC 7517, section 5).
 *
 * Keys that were had once are used on while the endpoint is away, up to a limit. However many tokens ask, there
 * is one request at a time and at most one a second. A token whose key is not among them waits for the next
 * request, so that a key is good from the moment on that the issuer shows it.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import { createLocalJWKSet, errors, type JSONWebKeySet } from "jose"
import { VerifierUnavailable } from "../../services/TokenVerifier.ts"

export type Keys = ReturnType<typeof createLocalJWKSet>

export interface Jwks {
  /** The keys as they are known. */
  readonly keys: Effect.Effect<Keys, VerifierUnavailable>
  /** The keys as the issuer shows them now. */
  readonly reload: Effect.Effect<Keys, VerifierUnavailable>
}

const minute = 60_000

/** Keys are asked for again after this time, while the known ones are used on. */
const freshMs = 10 * minute
/** Keys that nobody could confirm for so long are not used any more: one of them may have been taken back. */
const staleMs = 24 * 60 * minute
/** Between two requests. */
const pauseMs = 1_000
const requestTimeout = "5 seconds"

const unavailable = (reason: string) => new VerifierUnavailable({ reason: `the JWKS endpoint ${reason}` })

const fetchKeys = async (url: URL, signal: AbortSignal): Promise<Keys> => {
  const response = await fetch(url, {
    signal,
    redirect: "manual",
    headers: { accept: "application/json, application/jwk-set+json" }
  })
  if (response.status !== 200) throw unavailable(`answers ${response.status}`)
  const text = await response.text()
  try {
    return createLocalJWKSet(JSON.parse(text) as JSONWebKeySet)
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof errors.JWKSInvalid) {
      throw unavailable("answers something else than keys")
    }
    throw error
  }
}

export const make = Effect.fnUntraced(function* (url: URL) {
  const clock = yield* Clock.Clock
  const fork = yield* FiberSet.makeRuntime()
  let known: { readonly keys: Keys; readonly at: number } | undefined
  let running: Deferred.Deferred<Keys, VerifierUnavailable> | undefined
  let lastEndedAt = -Infinity

  const request = Effect.tryPromise({
    try: (signal) => fetchKeys(url, signal),
    catch: (error) => (error instanceof VerifierUnavailable ? error : unavailable("does not answer"))
  }).pipe(
    Effect.timeoutOrElse({ duration: requestTimeout, orElse: () => unavailable("is too slow") }),
    Effect.tap((keys) => Effect.sync(() => (known = { keys, at: clock.currentTimeMillisUnsafe() })))
  )

  const reload = Effect.suspend(() => {
    if (running !== undefined) return Deferred.await(running)
    const answer = (running = Deferred.makeUnsafe<Keys, VerifierUnavailable>())
    const wait = Math.max(0, lastEndedAt + pauseMs - clock.currentTimeMillisUnsafe())
    // Whoever asked first may go: the others wait for the same answer.
    fork(
      Effect.sleep(wait).pipe(
        Effect.andThen(request),
        Effect.onExit(() =>
          Effect.sync(() => {
            running = undefined
            lastEndedAt = clock.currentTimeMillisUnsafe()
          })
        ),
        Deferred.into(answer)
      )
    )
    return Deferred.await(answer)
  })

  return {
    reload,
    keys: Effect.suspend(() => {
      const age = known === undefined ? Infinity : clock.currentTimeMillisUnsafe() - known.at
      if (known === undefined || age >= staleMs) return reload
      const { keys } = known
      if (age < freshMs) return Effect.succeed(keys)
      if (running === undefined) fork(Effect.ignore(reload))
      return Effect.succeed(keys)
    })
  } satisfies Jwks
})
