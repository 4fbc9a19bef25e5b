/**
 * What is in a token, and all that speaks against it: for people who look at one.
 *
 * The verifier stops at the first problem and says nothing of what it did not verify; here everything is told, and
 * whether the signature is good is one fact among others.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { type Claims, parseClaims } from "../../domain/Claims.ts"
import type { JsonObject } from "../../domain/Json.ts"
import type { VerifierUnavailable } from "../../services/TokenVerifier.ts"
import { isSignedBy, type Keys } from "./Keys.ts"
import { readToken } from "./readToken.ts"
import { claimProblems, type Expected, headerProblems } from "./tokenProblems.ts"

export interface NamedKeys {
  /** For people: the setting that they are of. */
  readonly name: string
  readonly keys: Keys
}

export interface Inspection {
  readonly header: JsonObject | undefined
  readonly payload: JsonObject | undefined
  /** What a hub would make of the payload, were the signature good. */
  readonly claims: Claims | undefined
  /** Whose keys the signature is by. */
  readonly signedBy: string | undefined
  /** None: it would be taken. */
  readonly problems: ReadonlyArray<string>
}

const signerOf = Effect.fnUntraced(function* (
  token: string,
  header: JsonObject,
  sources: ReadonlyArray<NamedKeys>
) {
  const { alg, kid } = header
  for (const { keys, name } of sources) {
    if (typeof alg !== "string" || !keys.algorithms.includes(alg)) continue
    const found = yield* keys.find({ alg, kid: typeof kid === "string" ? kid : undefined })
    if (yield* Effect.promise(() => isSignedBy(found, token, alg))) return name
  }
  return undefined
})

export const inspectToken = (
  token: string,
  sources: ReadonlyArray<NamedKeys>,
  expected: Expected,
  now: number
): Effect.Effect<Inspection, VerifierUnavailable> =>
  Effect.gen(function* () {
    const problems: Array<string> = []
    if (token.length > expected.settings.maxTokenBytes) problems.push("it is too long")
    const read = readToken(token)
    if (Result.isFailure(read)) {
      problems.push(read.failure)
      return { header: undefined, payload: undefined, claims: undefined, signedBy: undefined, problems }
    }
    const { header } = read.success
    // Without any keys it cannot be said which algorithms they are for.
    const isOpen = sources.length === 0
    const algorithms = isOpen ? [String(header["alg"])] : sources.flatMap(({ keys }) => keys.algorithms)
    const signedBy = yield* signerOf(token, header, sources)
    if (isOpen) problems.push("no keys are configured here that its signature could be verified with")
    problems.push(...headerProblems(header, algorithms, expected.settings))
    if (!isOpen && signedBy === undefined) problems.push("its signature is by none of the keys")

    const payload = read.success.payload()
    if (Result.isFailure(payload)) {
      problems.push(payload.failure)
      return { header, payload: undefined, claims: undefined, signedBy, problems }
    }
    const wrongClaims = claimProblems(payload.success, expected, now)
    problems.push(...wrongClaims.map(({ reason }) => reason))
    const claims = parseClaims(payload.success)
    // What is missing or no time has been said.
    if (Result.isFailure(claims) && wrongClaims.every(({ isTime }) => isTime))
      problems.push(claims.failure.message)
    return {
      header,
      payload: payload.success,
      claims: Result.isSuccess(claims) ? claims.success : undefined,
      signedBy,
      problems
    }
  })
