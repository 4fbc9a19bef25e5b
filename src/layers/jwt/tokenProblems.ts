/**
 * What speaks against a token, besides its signature (RFC 8725, RFC 7519 section 4.1): all of it, in the order in which
 * it is said. The verifier goes by the first; people who look at a token want all.
 */
import { maxSeconds } from "../../domain/Claims.ts"
import type { JsonObject } from "../../domain/Json.ts"
import type * as Settings from "../../domain/Settings.ts"

export interface Expected {
  readonly audience?: string | undefined
  readonly issuer?: string | undefined
  readonly settings: Settings.AuthSettings
}

/** `isTime`: another token of the same subject may be good, or this one later. */
export interface Problem {
  readonly isTime: boolean
  readonly reason: string
}

const type = (name: string): string => name.toLowerCase().replace(/^application\//, "")

/** An identifier of a key is looked up, never used for anything else; a longer one is of nobody's key. */
const maxKeyIdLength = 256

export const headerProblems = (
  header: JsonObject,
  algorithms: ReadonlyArray<string>,
  { types }: Settings.AuthSettings
): ReadonlyArray<string> => {
  const { alg, crit, kid, typ } = header
  const problems: Array<string> = []
  if (typeof alg !== "string" || !algorithms.includes(alg)) problems.push("its algorithm is not allowed")
  if (typ !== undefined && (typeof typ !== "string" || !types.some((known) => type(known) === type(typ)))) {
    problems.push("its type ('typ') is not one that is taken here")
  }
  if (crit !== undefined) problems.push("it has extensions ('crit') that are not understood here")
  // RFC 7797. Without `crit` it has no meaning, and is nothing that an honest issuer writes.
  if (header["b64"] !== undefined && header["b64"] !== true)
    problems.push("its payload is not encoded ('b64')")
  if (kid !== undefined && (typeof kid !== "string" || kid.length > maxKeyIdLength)) {
    problems.push("its key id ('kid') is no text of a usable length")
  }
  return problems
}

const isTime = (value: unknown): value is number => typeof value === "number" && Math.abs(value) <= maxSeconds

const names = (wanted: string, audience: unknown): boolean =>
  audience === wanted || (Array.isArray(audience) && audience.includes(wanted))

export const claimProblems = (
  payload: JsonObject,
  { audience, issuer, settings }: Expected,
  now: number
): ReadonlyArray<Problem> => {
  const { clockToleranceMs: tolerance, maxTokenAgeMs } = settings
  const problems: Array<Problem> = []
  const wrong = (reason: string) => void problems.push({ isTime: false, reason })
  const untimely = (reason: string) => void problems.push({ isTime: true, reason })
  const { aud, exp, iat, iss, nbf, sub } = payload

  if (sub === undefined) wrong("it has no subject ('sub')")
  if (exp === undefined) wrong("it has no expiry ('exp')")
  if (iat === undefined && maxTokenAgeMs !== undefined) wrong("it does not say when it was issued ('iat')")
  for (const [name, value] of Object.entries({ exp, iat, nbf })) {
    if (value !== undefined && !isTime(value)) wrong(`its '${name}' is no time in seconds`)
  }
  if (audience !== undefined && !names(audience, aud)) wrong("it is for another audience ('aud')")
  if (issuer !== undefined && iss !== issuer) wrong("it is of another issuer ('iss')")
  if (isTime(iat) && iat * 1000 > now + tolerance) wrong("it was issued in the future ('iat')")

  if (isTime(nbf) && nbf * 1000 > now + tolerance) untimely("it is not valid yet")
  if (isTime(exp) && exp * 1000 <= now - tolerance) untimely("it has expired")
  if (isTime(iat) && maxTokenAgeMs !== undefined && iat * 1000 + maxTokenAgeMs <= now - tolerance) {
    untimely("it was issued too long ago ('iat')")
  }
  return problems
}
