/** Which keys of a JWK Set are used, and why not the others. */
import { generateKeyPairSync } from "node:crypto"
import { describe, expect, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import fc from "fast-check"
import type { JWK } from "jose"
import * as KeySet from "../../../src/layers/jwt/KeySet.ts"
import { makeKey } from "./Issuer.ts"

const parse = (...keys: ReadonlyArray<unknown>) => Result.getOrThrow(KeySet.parse(JSON.stringify({ keys })))

const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 })
const weak = generateKeyPairSync("rsa", { modulusLength: 1024 })
const ec = generateKeyPairSync("ec", { namedCurve: "P-256" })
const koblitz = generateKeyPairSync("ec", { namedCurve: "secp256k1" })
const x25519 = generateKeyPairSync("x25519")

type Exportable = { readonly export: (options: { readonly format: "jwk" }) => unknown }
const jwkOf = (key: Exportable, more: object = {}): JWK => ({
  ...(key.export({ format: "jwk" }) as JWK),
  ...more
})

const good = jwkOf(rsa.publicKey)

describe("KeySet", () => {
  it.each([
    ["symmetric", { kty: "oct", k: "c2VjcmV0", alg: "HS256" }, /symmetric/],
    ["private RSA", jwkOf(rsa.privateKey), /private/],
    ["private EC", jwkOf(ec.privateKey), /private/],
    ["short RSA", jwkOf(weak.publicKey), /less than 2048 bits/],
    ["an RSA exponent of one", { ...good, e: "AQ" }, /exponent/],
    ["for encryption", { ...good, use: "enc" }, /'use'/],
    ["for signing", { ...good, key_ops: ["sign"] }, /'key_ops'/],
    ["operations that are no list", { ...good, key_ops: "verify" }, /'key_ops'/],
    ["RSA for ES256", { ...good, alg: "ES256" }, /'alg'/],
    ["RSA for HS256", { ...good, alg: "HS256" }, /'alg'/],
    ["RSA for encryption by alg", { ...good, alg: "RSA-OAEP" }, /'alg'/],
    ["an alg that is no text", { ...good, alg: 1 }, /'alg'/],
    ["P-256 for ES384", jwkOf(ec.publicKey, { alg: "ES384" }), /'alg'/],
    ["an unknown curve", jwkOf(koblitz.publicKey), /kind/],
    ["X25519", jwkOf(x25519.publicKey), /kind/],
    ["of no kind", {}, /kind/],
    ["a point that is not on the curve", jwkOf(ec.publicKey, { y: "AAAA" }), /no key/],
    ["no modulus", { kty: "RSA", e: "AQAB" }, /no key/],
    ["an id that is no text", { ...good, kid: 7 }, /'kid'/]
  ])("leaves out a key that is %s, and uses the others", (_, key, reason) => {
    const set = parse(key, { ...good, kid: "good" })
    expect(set.size).toBe(1)
    expect(set.leftOut).toHaveLength(1)
    expect(set.leftOut[0]).toMatch(reason)
    expect(set.leftOut[0]).toMatch(/^key 1/)
  })

  it.each([
    ["no JSON", ""],
    ["no JSON", "{"],
    ["no JWK Set", "null"],
    ["no JWK Set", "[]"],
    ["no JWK Set", "{}"],
    ["no JWK Set", `{"keys":{}}`],
    ["no JWK Set", `{"keys":[1]}`],
    ["no JWK Set", `{"keys":[null]}`]
  ])("is not: %s %j", (reason, text) => expect(KeySet.parse(text)).toEqual(Result.fail(reason)))

  it("never says what a key is made of", () => {
    const { leftOut } = parse(jwkOf(rsa.privateKey), { kty: "oct", k: "c2VjcmV0LXNlY3JldA" })
    expect(leftOut.join()).not.toContain("c2VjcmV0")
    expect(leftOut.join()).not.toContain(jwkOf(rsa.privateKey).d)
  })

  it("is read without a word, whatever it is", () =>
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.dictionary(fc.constantFrom("kty", "n", "e", "crv", "x", "kid", "alg"), fc.jsonValue()),
            fc.jsonValue()
          )
        ),
        (keys) => {
          const set = KeySet.parse(JSON.stringify({ keys }))
          if (Result.isSuccess(set)) expect(set.success.size + set.success.leftOut.length).toBe(keys.length)
        }
      )
    ))

  it.effect("has a key for every algorithm that is taken", () =>
    Effect.gen(function* () {
      for (const alg of KeySet.algorithms) {
        const { jwk } = yield* makeKey("k", alg)
        const { alg: _, ...open } = jwk
        for (const key of [jwk, open]) {
          const set = parse(key)
          expect(set.leftOut, alg).toEqual([])
          expect(yield* Effect.promise(() => set.find({ alg, kid: "k" })), alg).toHaveLength(1)
          expect(yield* Effect.promise(() => set.find({ alg, kid: "other" })), alg).toHaveLength(0)
          expect(yield* Effect.promise(() => set.find({ alg })), alg).toHaveLength(1)
        }
      }
    })
  )

  it.effect("takes EdDSA by a key of Ed25519 and Ed25519 for one, whatever token and key call it", () =>
    Effect.gen(function* () {
      const { jwk } = yield* makeKey("k", "EdDSA")
      for (const named of ["EdDSA", "Ed25519"]) {
        const set = parse({ ...jwk, alg: named })
        for (const alg of ["EdDSA", "Ed25519"]) {
          expect(yield* Effect.promise(() => set.find({ alg, kid: "k" })), `${alg} ${named}`).toHaveLength(1)
        }
      }
    })
  )

  it("tries no more than eight keys for a token that names none, and one for a token that names it", async () => {
    const many = parse(...Array.from({ length: 20 }, () => ({ ...good, kid: "same" })))
    expect(await many.find({ alg: "RS256" })).toHaveLength(8)
    expect(await many.find({ alg: "RS256", kid: "same" })).toHaveLength(1)
  })
})
