/**
 * The public keys of a JWK Set (RFC 7517, section 5): those that a signature may be verified with, and why not the others.
 *
 * A set may hold keys for other things, and mistakes. What is symmetric or private is known to too many, what is short is
 * broken, and what contradicts itself was not meant for this: such a key is left out, and the others hold.
 */
import { createPublicKey } from "node:crypto"
import * as Result from "effect/Result"
import { createLocalJWKSet, type CryptoKey, errors, type JWK } from "jose"
import { isObject, type JsonObject } from "../../domain/Json.ts"

/** Signatures by a private key: whoever only has the public one cannot make a token (RFC 8725, section 3.1). */
export const algorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519"
]

/** What a header says about the key that signed. */
export interface Wanted {
  readonly alg: string
  readonly kid?: string | undefined
}

export interface KeySet {
  /** How many keys it has to offer. */
  readonly size: number
  /** Why the others are left out, each by its place and id. */
  readonly leftOut: ReadonlyArray<string>
  /** The one key of that id; for a token that names none, all that fit its algorithm, up to a limit. */
  readonly find: (wanted: Wanted) => Promise<ReadonlyArray<CryptoKey>>
}

/** Each costs a verification. An issuer that changes its keys has two or three. */
const maxTried = 8

const minRsaBits = 2048

const privateMembers = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"]

const algorithmsOf = ({ crv, kty }: JsonObject): ReadonlyArray<string> => {
  if (kty === "RSA") return algorithms.filter((alg) => /^[RP]S/.test(alg))
  if (kty === "EC") {
    return crv === "P-256" ? ["ES256"] : crv === "P-384" ? ["ES384"] : crv === "P-521" ? ["ES512"] : []
  }
  return kty === "OKP" && crv === "Ed25519" ? ["EdDSA", "Ed25519"] : []
}

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)

/** Why a key is left out; otherwise what is looked at of it: no certificate, and no address of one. */
const usable = (key: JsonObject): Result.Result<JWK, string> => {
  const { alg, key_ops: operations, kid, kty, use } = key
  if (kty === "oct") return Result.fail("it is symmetric: whoever can read it can make tokens")
  if (privateMembers.some((member) => key[member] !== undefined)) {
    return Result.fail("it is a private key: whoever can read it can make tokens")
  }
  if (use !== undefined && use !== "sig") return Result.fail("it is not for signatures ('use')")
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes("verify"))) {
    return Result.fail("it is not for verifying ('key_ops')")
  }
  const fitting = algorithmsOf(key)
  if (fitting.length === 0) return Result.fail("keys of its kind are not taken")
  if (alg !== undefined && !fitting.some((known) => known === alg)) {
    return Result.fail("its algorithm ('alg') is not one for such a key")
  }
  if (kid !== undefined && typeof kid !== "string") return Result.fail("its id ('kid') is no text")
  const jwk: JWK = {}
  for (const member of ["kty", "crv", "x", "y", "n", "e", "alg", "kid"] as const) {
    const value = text(key[member])
    if (value !== undefined) jwk[member] = value
  }
  // RFC 9864, section 2.2: EdDSA by a key of this curve and Ed25519 are one algorithm with two names.
  if (kty === "OKP") delete jwk.alg
  try {
    const { asymmetricKeyDetails: details } = createPublicKey({ key: { ...jwk }, format: "jwk" })
    if (kty === "RSA") {
      if ((details?.modulusLength ?? 0) < minRsaBits)
        return Result.fail(`it has less than ${minRsaBits} bits`)
      // With an exponent of 1 every message is its own signature.
      if ((details?.publicExponent ?? 0n) < 3n) return Result.fail("its exponent is too small")
    }
  } catch {
    return Result.fail("it is no key")
  }
  return Result.succeed(jwk)
}

/** All that fit, where jose says that there are several. */
const several = async (error: errors.JWKSMultipleMatchingKeys): Promise<ReadonlyArray<CryptoKey>> => {
  const keys: Array<CryptoKey> = []
  for await (const key of error) {
    keys.push(key)
    if (keys.length === maxTried) break
  }
  return keys
}

export const parse = (json: string): Result.Result<KeySet, string> => {
  let set: unknown
  try {
    set = JSON.parse(json)
  } catch {
    return Result.fail("no JSON")
  }
  if (!isObject(set) || !Array.isArray(set["keys"]) || !set["keys"].every(isObject)) {
    return Result.fail("no JWK Set")
  }
  const keys: Array<JWK> = []
  const leftOut: Array<string> = []
  for (const [i, key] of set["keys"].entries()) {
    const found = usable(key)
    if (Result.isSuccess(found)) keys.push(found.success)
    else {
      const id = text(key["kid"])
      leftOut.push(`key ${i + 1}${id === undefined ? "" : ` '${id.slice(0, 64)}'`}: ${found.failure}`)
    }
  }
  const local = createLocalJWKSet({ keys })
  return Result.succeed({
    size: keys.length,
    leftOut,
    find: async ({ alg, kid }) => {
      try {
        return [await local({ alg, ...(kid === undefined ? {} : { kid }) })]
      } catch (error) {
        if (error instanceof errors.JWKSNoMatchingKey) return []
        if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error
        const keys = await several(error)
        // Two keys of one id are the issuer's mistake; trying both would let anybody double the work.
        return kid === undefined ? keys : keys.slice(0, 1)
      }
    }
  })
}
