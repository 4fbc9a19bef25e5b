/** Tokens by the keys of an issuer: good ones, attacks, and an endpoint that is slow, broken or away. */
import { createPublicKey } from "node:crypto"
import { describe, expect, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { exportSPKI, type JWTPayload, SignJWT } from "jose"
import * as JwtTokenVerifier from "../../../src/layers/jwt/JwtTokenVerifier.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"
import { issuer, makeKey, sign } from "./Issuer.ts"

const now = 1_000_000
const good: JWTPayload = { sub: "alice", scopes: ["publish:a"], exp: now + 10_000_000 }

/** Signatures are checked by threads that know nothing of the test's clock. */
const cryptography = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))

/** An issuer with a key of RS256 and one of ES256, and a verifier that knows its URL. */
const setUp = Effect.gen(function* () {
  yield* TestClock.setTime(now * 1_000)
  const endpoint = yield* issuer
  const [rsa, ec] = [yield* makeKey("rsa", "RS256"), yield* makeKey("ec", "ES256")]
  endpoint.shows(rsa, ec)
  const context = yield* Layer.build(JwtTokenVerifier.layer({ keys: { _tag: "Jwks", url: endpoint.url } }))
  const { verify } = Context.get(context, TokenVerifier)
  return { endpoint, rsa, ec, verify }
})

const test = <E>(
  title: string,
  run: (parts: Effect.Success<typeof setUp>) => Effect.Effect<void, E, Scope.Scope>
) => it.effect(title, () => Effect.flatMap(setUp, run))

describe("JwtTokenVerifier with a JWKS endpoint: tokens", () => {
  test("are good by any key that the issuer shows, which is asked once", ({ ec, endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      expect((yield* verify(yield* sign(rsa, good))).sub).toBe("alice")
      expect((yield* verify(yield* sign(ec, { ...good, sub: "bob" }))).sub).toBe("bob")
      expect(endpoint.requests).toBe(1)
    }))

  test("are refused without the right signature", ({ ec, rsa, verify }) =>
    Effect.gen(function* () {
      const other = yield* makeKey("rsa", "RS256")
      const expired = yield* sign(rsa, { ...good, exp: now - 60 })
      expect((yield* Effect.flip(verify(expired)))._tag).toBe("TokenExpired")
      expect(yield* Effect.flip(verify(yield* sign(other, good)))).toMatchObject({
        _tag: "TokenInvalid",
        reason: "its signature is wrong"
      })
      yield* TestClock.adjust("1 second")
      const swapped = yield* sign(ec, good, { kid: "rsa" })
      expect((yield* Effect.flip(verify(swapped)))._tag).toBe("TokenInvalid")
      const { exp: _, ...endless } = good
      expect((yield* Effect.flip(verify(yield* sign(rsa, endless))))._tag).toBe("TokenInvalid")
    }))

  test("signed with the public key as a secret are refused, and the issuer is not even asked", ({
    endpoint,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      const pem = yield* Effect.promise(() => exportSPKI(rsa.publicKey))
      const der = createPublicKey(pem).export({ format: "der", type: "spki" })
      for (const key of [
        new TextEncoder().encode(pem),
        new Uint8Array(der),
        new TextEncoder().encode(rsa.jwk.n)
      ]) {
        for (const alg of ["HS256", "HS384", "HS512"]) {
          const token = yield* Effect.promise(() =>
            new SignJWT(good).setProtectedHeader({ alg, kid: "rsa" }).sign(key)
          )
          expect(yield* Effect.flip(verify(token))).toMatchObject({
            _tag: "TokenInvalid",
            reason: "its algorithm is not allowed"
          })
        }
      }
      for (const text of ["", "a.b.c", "x".repeat(100_000)]) {
        expect((yield* Effect.flip(verify(text)))._tag).toBe("TokenInvalid")
      }
      expect(endpoint.requests).toBe(0)
    }))

  test("that bring their own key, or its address, are not believed", ({ endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      const own = yield* makeKey("rsa", "RS256")
      const token = yield* sign(own, good, {
        jwk: own.jwk,
        jku: String(endpoint.url),
        x5u: String(endpoint.url)
      })
      expect((yield* Effect.flip(verify(token)))._tag).toBe("TokenInvalid")
      expect((yield* verify(yield* sign(rsa, good))).sub).toBe("alice")
    }))

  test("of an unknown key are looked up once more, and no more than once a second", ({
    endpoint,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      yield* verify(yield* sign(rsa, good))
      const unknown = yield* makeKey("unknown", "RS256")
      const token = yield* sign(unknown, good)
      const many = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 20 }), () => Effect.flip(verify(token)), {
          concurrency: "unbounded"
        })
      )
      yield* cryptography
      expect(endpoint.requests).toBe(1)
      yield* TestClock.adjust("1 second")
      for (const refused of yield* Fiber.join(many)) {
        expect(refused).toMatchObject({ _tag: "TokenInvalid", reason: "no key of the issuer fits it" })
      }
      expect(endpoint.requests).toBe(2)
    }))

  test("of a new key are good from the moment on that the issuer shows it", ({ ec, endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      endpoint.shows(rsa)
      yield* verify(yield* sign(rsa, good))
      endpoint.shows(ec)
      const rotated = yield* Effect.forkChild(verify(yield* sign(ec, good)))
      yield* cryptography
      yield* TestClock.adjust("1 second")
      expect((yield* Fiber.join(rotated)).sub).toBe("alice")
      const old = yield* Effect.forkChild(Effect.flip(verify(yield* sign(rsa, good))))
      yield* cryptography
      yield* TestClock.adjust("1 second")
      expect((yield* Fiber.join(old))._tag).toBe("TokenInvalid")
    }))

  test("without a key id are tried with the one key that fits, and refused when several do", ({
    ec,
    endpoint,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      expect((yield* verify(yield* sign(ec, good, { kid: undefined }))).sub).toBe("alice")
      endpoint.shows(rsa, yield* makeKey("rsa-2", "RS256"))
      yield* TestClock.adjust("1 day")
      expect(yield* Effect.flip(verify(yield* sign(rsa, good, { kid: undefined })))).toMatchObject({
        _tag: "TokenInvalid",
        reason: "several keys of the issuer fit it"
      })
    }))
})

describe("JwtTokenVerifier with a JWKS endpoint that does not work", () => {
  const broken = <E>(
    title: string,
    breaks: (parts: Effect.Success<typeof setUp>) => Effect.Effect<void, E, Scope.Scope>,
    reason: string
  ) =>
    test(`says so: ${title}`, (parts) =>
      Effect.gen(function* () {
        const { rsa, verify } = parts
        yield* breaks(parts)
        const refused = yield* Effect.flip(verify(yield* sign(rsa, good)))
        expect(refused).toMatchObject({ _tag: "VerifierUnavailable", reason: `the JWKS endpoint ${reason}` })
      }))

  const answers = (status: number, body: string, headers?: Record<string, string>) =>
    (({ endpoint }) => Effect.sync(() => endpoint.answers(status, body, headers))) satisfies (
      parts: Effect.Success<typeof setUp>
    ) => Effect.Effect<void>

  broken("nobody listens", ({ endpoint }) => endpoint.stops, "does not answer")
  broken(
    "the connection breaks off",
    ({ endpoint }) => Effect.sync(() => endpoint.does((response) => response.destroy())),
    "does not answer"
  )
  broken(
    "the connection breaks off in the middle",
    ({ endpoint }) =>
      Effect.sync(() =>
        endpoint.does((response) => {
          response.writeHead(200, { "content-length": "1000" }).write(`{"keys":[`)
          setImmediate(() => response.destroy())
        })
      ),
    "does not answer"
  )
  broken("500", answers(500, "oops"), "answers 500")
  broken("404", answers(404, "{}"), "answers 404")
  broken("a redirect", answers(302, "", { location: "http://127.0.0.1:1/" }), "answers 302")
  broken("garbage", answers(200, "<html>"), "answers something else than keys")
  broken("an empty body", answers(200, ""), "answers something else than keys")
  broken("JSON that is no key set", answers(200, `{"keys":"none"}`), "answers something else than keys")
  broken("JSON that is no object", answers(200, "null"), "answers something else than keys")

  test("says so: no answer at all, after five seconds, to all that wait", ({ endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      endpoint.hangs()
      const token = yield* sign(rsa, good)
      const asked = yield* Effect.forkChild(endpoint.asked, { startImmediately: true })
      const waiting = yield* Effect.forkChild(
        Effect.forEach([1, 2, 3], () => Effect.flip(verify(token)), { concurrency: "unbounded" })
      )
      yield* Fiber.join(asked)
      yield* TestClock.adjust("4999 millis")
      expect(waiting.pollUnsafe()).toBe(undefined)
      yield* TestClock.adjust("1 millis")
      for (const refused of yield* Fiber.join(waiting)) {
        expect(refused).toMatchObject({
          _tag: "VerifierUnavailable",
          reason: "the JWKS endpoint is too slow"
        })
      }
      expect(endpoint.requests).toBe(1)
    }))

  test("says so, and works as soon as the endpoint does", ({ endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      const token = yield* sign(rsa, good)
      endpoint.answers(503, "")
      expect((yield* Effect.flip(verify(token)))._tag).toBe("VerifierUnavailable")
      endpoint.shows(rsa)
      const again = yield* Effect.forkChild(verify(token))
      yield* cryptography
      yield* TestClock.adjust("1 second")
      expect((yield* Fiber.join(again)).sub).toBe("alice")
    }))

  test("uses the keys that it had for a day, asks at most once a second, and no longer", ({
    endpoint,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      const token = yield* sign(rsa, good)
      yield* verify(token)
      endpoint.answers(500, "")
      yield* TestClock.adjust("9 minutes")
      expect((yield* verify(token)).sub).toBe("alice")
      expect(endpoint.requests).toBe(1)
      yield* TestClock.adjust("2 minutes")
      const asked = yield* Effect.forkChild(endpoint.asked, { startImmediately: true })
      for (let i = 0; i < 50; i++) expect((yield* verify(token)).sub).toBe("alice")
      yield* Fiber.join(asked)
      expect(endpoint.requests).toBe(2)
      yield* TestClock.adjust("23 hours")
      expect((yield* verify(token)).sub).toBe("alice")
      yield* TestClock.adjust("1 hour")
      expect((yield* Effect.flip(verify(token)))._tag).toBe("VerifierUnavailable")
    }))

  test("says so of a token whose key it does not know: it may be good", ({ ec, endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      endpoint.shows(rsa)
      yield* verify(yield* sign(rsa, good))
      endpoint.answers(500, "")
      yield* TestClock.adjust("1 minute")
      expect((yield* Effect.flip(verify(yield* sign(ec, good))))._tag).toBe("VerifierUnavailable")
      expect((yield* verify(yield* sign(rsa, good))).sub).toBe("alice")
    }))

  test("goes on for the others when the first who asked is gone", ({ endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      const token = yield* sign(rsa, good)
      let answer = () => {}
      endpoint.does((response) => {
        answer = () => response.writeHead(200).end(JSON.stringify({ keys: [rsa.jwk] }))
      })
      const asked = yield* Effect.forkChild(endpoint.asked, { startImmediately: true })
      const first = yield* Effect.forkChild(verify(token))
      const second = yield* Effect.forkChild(verify(token))
      yield* Fiber.join(asked)
      yield* Fiber.interrupt(first)
      answer()
      expect((yield* Fiber.join(second)).sub).toBe("alice")
      expect(endpoint.requests).toBe(1)
    }))
})
