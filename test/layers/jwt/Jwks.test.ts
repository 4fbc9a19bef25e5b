/** Tokens by the keys of an issuer: good ones, attacks, and an endpoint that is slow, broken or away. */
import { createPublicKey } from "node:crypto"
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import { Clock, Context, Effect, Fiber, Layer, Logger, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { exportSPKI, type JWTPayload, SignJWT } from "jose"
import * as Settings from "../../../src/domain/Settings.ts"
import * as JwtTokenVerifier from "../../../src/layers/jwt/JwtTokenVerifier.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"
import { issuer, makeKey, sign } from "./Issuer.ts"

const now = 1_000_000
const good: JWTPayload = { sub: "alice", scopes: ["publish:a"], exp: now + 10_000_000 }

/** Signatures are checked by threads that know nothing of the test's clock. */
const cryptography = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 10)))

/** Lets the test's time go on until the fiber has ended. */
const ended = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<A, E> =>
  Effect.gen(function* () {
    while (fiber.pollUnsafe() === undefined) {
      yield* cryptography
      yield* TestClock.adjust("250 millis")
    }
    return yield* Fiber.join(fiber)
  })

const until = (is: () => boolean): Effect.Effect<void> =>
  Effect.gen(function* () {
    while (!is()) yield* cryptography
  })

/** Made once: they are dear. */
const keys = Effect.runPromise(
  Effect.all([makeKey("rsa", "RS256"), makeKey("ec", "ES256"), makeKey("b", "ES256")])
)

/** An issuer with a key of RS256 and one of ES256, and a verifier that knows its URL. */
const setUpWith = (settings: Partial<Settings.JwksSettings>) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(now * 1_000)
    const endpoint = yield* issuer
    const [rsa, ec] = yield* Effect.promise(() => keys)
    endpoint.shows(rsa, ec)
    const outcomes: Array<string> = []
    const log: Array<string> = []
    const logger = Logger.make<unknown, void>(({ message }) => void log.push(JSON.stringify(message)))
    const verifier = JwtTokenVerifier.layer({
      keys: {
        _tag: "Jwks",
        url: endpoint.url,
        settings: { ...Settings.jwks, ...settings },
        onRequest: (outcome) => void outcomes.push(outcome)
      }
    })
    const context = yield* Layer.build(Layer.provide(verifier, Logger.layer([logger])))
    const { verify } = Context.get(context, TokenVerifier)
    return { endpoint, rsa, ec, verify, outcomes, log }
  })

const setUp = setUpWith({})

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
      for (const refused of yield* ended(many)) {
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
      expect((yield* ended(rotated)).sub).toBe("alice")
      const old = yield* Effect.forkChild(Effect.flip(verify(yield* sign(rsa, good))))
      expect((yield* ended(old))._tag).toBe("TokenInvalid")
    }))

  test("without a key id are tried with each key that fits", ({ ec, endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      const nameless = { kid: undefined }
      expect((yield* verify(yield* sign(ec, good, nameless))).sub).toBe("alice")
      const other = yield* makeKey("rsa-2", "RS256")
      endpoint.shows(other, rsa)
      yield* TestClock.adjust("1 day")
      expect((yield* verify(yield* sign(rsa, good, nameless))).sub).toBe("alice")
      expect((yield* verify(yield* sign(other, good, nameless))).sub).toBe("alice")
      const stranger = yield* makeKey("rsa", "RS256")
      expect(yield* Effect.flip(verify(yield* sign(stranger, good, nameless)))).toMatchObject({
        reason: "its signature is wrong"
      })
    }))

  test("of a key id that two keys have are tried with the first", ({ endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      const twin = yield* makeKey("rsa", "RS256")
      endpoint.shows(rsa, twin)
      expect((yield* verify(yield* sign(rsa, good))).sub).toBe("alice")
      expect(yield* Effect.flip(verify(yield* sign(twin, good)))).toMatchObject({
        reason: "its signature is wrong"
      })
    }))

  test("of a key that was just looked for in vain are refused at once, and looked for again later", ({
    ec,
    endpoint,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      endpoint.shows(rsa)
      const token = yield* sign(ec, good)
      expect((yield* Effect.flip(verify(token))).reason).toBe("no key of the issuer fits it")
      endpoint.shows(rsa, ec)
      for (let i = 0; i < 100; i++) {
        expect((yield* Effect.flip(verify(token))).reason).toBe("no key of the issuer fits it")
      }
      expect(endpoint.requests).toBe(1)
      yield* TestClock.adjust("1 second")
      expect((yield* verify(token)).sub).toBe("alice")
      expect(endpoint.requests).toBe(2)
    }))

  test("of ten thousand unknown keys are one request in each cooldown", ({ endpoint, rsa, verify }) =>
    Effect.gen(function* () {
      yield* verify(yield* sign(rsa, good))
      const [header, ...rest] = (yield* sign(rsa, good)).split(".")
      const named = (kid: string) => {
        const named = { ...JSON.parse(Buffer.from(header!, "base64url").toString()), kid }
        return [Buffer.from(JSON.stringify(named)).toString("base64url"), ...rest].join(".")
      }
      for (let round = 1; round <= 3; round++) {
        const many = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 3_334 }, (_, i) => named(`${round}-${i}`)),
            (token) => Effect.flip(verify(token)),
            { concurrency: "unbounded" }
          )
        )
        for (const { _tag } of yield* ended(many)) expect(_tag).toBe("TokenInvalid")
      }
      const seconds = (yield* Clock.currentTimeMillis) / 1_000 - now
      expect(endpoint.requests).toBeLessThanOrEqual(1 + seconds)
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
      expect((yield* ended(again)).sub).toBe("alice")
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

  test("uses old keys no longer when the clock on the wall is set back meanwhile", ({
    endpoint,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      const token = yield* sign(rsa, good)
      yield* verify(token)
      endpoint.answers(500, "")
      yield* TestClock.setTime((now - 3 * 24 * 3_600) * 1_000)
      yield* TestClock.adjust("25 hours")
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

interface Step {
  readonly endpoint: string
  readonly signer: string
  readonly waitMs: number
}

/** Two keys that come and go, at an endpoint that does, too; what a token gets is compared with what may be known. */
const life = (steps: ReadonlyArray<Step>) =>
  Effect.gen(function* () {
    const cooldownMs = 1_000
    const { ec: a, endpoint, verify } = yield* setUpWith({ cooldownMs, freshMs: 2_000, staleMs: 20_000 })
    const [, , b] = yield* Effect.promise(() => keys)
    const shows: Readonly<Record<string, () => void>> = {
      a: () => endpoint.shows(a),
      b: () => endpoint.shows(b),
      ab: () => endpoint.shows(a, b),
      "500": () => endpoint.answers(500, ""),
      garbage: () => endpoint.answers(200, `{"keys":[{`),
      gone: () => endpoint.does((response) => response.destroy())
    }
    const everShown = new Set<string>()
    const begin = yield* Clock.currentTimeMillis
    for (const { endpoint: shown, signer, waitMs } of steps) {
      shows[shown]!()
      yield* TestClock.adjust(waitMs)
      const token = yield* sign(signer === "a" ? a : b, good)
      const verified = yield* Effect.forkChild(Effect.result(verify(token)))
      const result = yield* ended(verified)
      const isAnswering = ["a", "b", "ab"].includes(shown)
      if (isAnswering) for (const name of shown) everShown.add(name)
      if (isAnswering && shown.includes(signer)) expect(result._tag).toBe("Success")
      if (result._tag === "Success") expect(everShown).toContain(signer)
      // Nobody is refused for good while the endpoint cannot be asked.
      else expect(result.failure._tag).toBe(isAnswering ? "TokenInvalid" : "VerifierUnavailable")
    }
    const elapsed = (yield* Clock.currentTimeMillis) - begin
    expect(endpoint.requests).toBeLessThanOrEqual(1 + Math.floor(elapsed / cooldownMs))
  })

describe("JwtTokenVerifier with a JWKS endpoint that changes", () => {
  test("tells once that it fails, and once that it is back, however many ask", ({
    ec,
    endpoint,
    log,
    outcomes,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      const token = yield* sign(rsa, good)
      const unknown = yield* sign(yield* makeKey("unknown", "ES256"), good)
      yield* verify(token)
      const bad: ReadonlyArray<readonly [string, () => void]> = [
        ["status", () => endpoint.answers(500, "")],
        ["unusable", () => endpoint.answers(200, "<html>")],
        ["unusable", () => endpoint.answers(200, JSON.stringify({ keys: [], more: "x".repeat(300_000) }))],
        ["timeout", () => endpoint.hangs()],
        ["unreachable", () => endpoint.does((response) => response.destroy())],
        ["status", () => endpoint.answers(302, "", { location: String(endpoint.url) })]
      ]
      for (const [, breaks] of bad) {
        breaks()
        const asked = yield* Effect.forkChild(Effect.flip(verify(unknown)))
        expect((yield* ended(asked))._tag).toBe("VerifierUnavailable")
        expect((yield* verify(token)).sub).toBe("alice")
      }
      expect(outcomes).toEqual(["ok", ...bad.map(([outcome]) => outcome)])
      expect(log.filter((line) => line.includes("does not work"))).toHaveLength(1)
      endpoint.shows(rsa, ec)
      const asked = yield* Effect.forkChild(Effect.flip(verify(unknown)))
      expect((yield* ended(asked))._tag).toBe("TokenInvalid")
      expect(log.filter((line) => line.includes("answers again"))).toHaveLength(1)
      expect(log).toHaveLength(2)
      expect(endpoint.requests).toBe(outcomes.length)
    }))

  test("is believed when it shows no keys any more: they were taken back", ({
    endpoint,
    outcomes,
    rsa,
    verify
  }) =>
    Effect.gen(function* () {
      const token = yield* sign(rsa, good)
      yield* verify(token)
      endpoint.answers(200, `{"keys":[]}`)
      yield* TestClock.adjust("11 minutes")
      const asked = yield* Effect.forkChild(endpoint.asked, { startImmediately: true })
      expect((yield* verify(token)).sub).toBe("alice")
      yield* Fiber.join(asked)
      yield* until(() => outcomes.length === 2)
      const last = yield* Effect.forkChild(Effect.flip(verify(token)))
      expect((yield* ended(last)).reason).toBe("no key of the issuer fits it")
    }))

  it.effect("is not waited for over a long cooldown: the answer is that it cannot be known now", () =>
    Effect.gen(function* () {
      const { ec, endpoint, rsa, verify } = yield* setUpWith({ cooldownMs: 3_600_000 })
      endpoint.shows(rsa)
      yield* verify(yield* sign(rsa, good))
      endpoint.shows(rsa, ec)
      const token = yield* sign(ec, good)
      for (let i = 0; i < 10; i++) {
        expect(yield* Effect.flip(verify(token))).toMatchObject({
          _tag: "VerifierUnavailable",
          reason: "the JWKS endpoint was asked a short time ago"
        })
      }
      expect((yield* verify(yield* sign(rsa, good))).sub).toBe("alice")
      yield* TestClock.adjust("1 hour")
      expect((yield* verify(token)).sub).toBe("alice")
      expect(endpoint.requests).toBe(2)
    })
  )

  it.effect(
    "of any life: what it shows is taken, what it showed is used on, and no request is too many",
    () =>
      Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(
            fc.array(
              fc.record({
                endpoint: fc.constantFrom("a", "b", "ab", "500", "garbage", "gone"),
                signer: fc.constantFrom("a", "b"),
                waitMs: fc.constantFrom(1_000, 5_000, 30_000)
              }),
              { minLength: 1, maxLength: 12 }
            ),
            (steps) => Effect.runPromise(Effect.provide(Effect.scoped(life(steps)), TestClock.layer()))
          ),
          { numRuns: 20 }
        )
      )
  )
})
