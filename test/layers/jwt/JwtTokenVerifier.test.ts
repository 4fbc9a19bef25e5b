/** Tokens by a secret: what a good one says, and every way to make a bad one that we know of. */
import { createHmac } from "node:crypto"
import { describe, expect, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { base64url, type JWTPayload, SignJWT, UnsecuredJWT } from "jose"
import * as Settings from "../../../src/domain/Settings.ts"
import { inspectToken } from "../../../src/layers/jwt/inspectToken.ts"
import * as JwtTokenVerifier from "../../../src/layers/jwt/JwtTokenVerifier.ts"
import * as Keys from "../../../src/layers/jwt/Keys.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"
import { makeKey, sign } from "./Issuer.ts"

const secret = new TextEncoder().encode("0123456789abcdef0123456789abcdef")
const now = 1_000_000

const good: JWTPayload = { sub: "alice", scopes: ["publish:a"], iat: now - 10, exp: now + 60 }

const signed = (payload: JWTPayload, alg = "HS256", key = secret, header = {}) =>
  Effect.promise(() => new SignJWT(payload).setProtectedHeader({ alg, ...header }).sign(key))

/** A token with any header at all, signed by the secret. */
const forged = (header: object, payload: object = good, hash = "sha256") => {
  const text = [header, payload].map((part) => base64url.encode(JSON.stringify(part))).join(".")
  return `${text}.${createHmac(hash, secret).update(text).digest("base64url")}`
}

const verifying = (options: Partial<JwtTokenVerifier.Options> = {}) => {
  const layer = JwtTokenVerifier.layer({ keys: { _tag: "Secrets", secrets: [secret] }, ...options })
  return (token: string) => TokenVerifier.use(({ verify }) => verify(token)).pipe(Effect.provide(layer))
}

const verify = verifying()
const refused = (token: string) => Effect.map(Effect.flip(verify(token)), ({ _tag }) => _tag)

const test = (title: string, run: () => Effect.Effect<void, unknown>) =>
  it.effect(title, () => Effect.andThen(TestClock.setTime(now * 1_000), Effect.suspend(run)))

describe("JwtTokenVerifier: what a token says", () => {
  test("is its subject, its times, its id and its rights", () =>
    Effect.gen(function* () {
      expect(yield* verify(yield* signed({ ...good, jti: "t1" }))).toEqual({
        sub: "alice",
        expiresAt: (now + 60) * 1_000,
        issuedAt: (now - 10) * 1_000,
        tokenId: "t1",
        policy: { rules: [{ effect: "allow", action: "publish", topics: ["a"] }] }
      })
    }))

  test("is a policy, which wins over scopes, and is no right when there is neither", () =>
    Effect.gen(function* () {
      const policy = { rules: [{ effect: "deny", action: "*", topics: ["**"] }] }
      expect((yield* verify(yield* signed({ ...good, policy }))).policy).toEqual(policy)
      const { scopes: _, ...without } = good
      expect((yield* verify(yield* signed(without))).policy).toEqual({ rules: [] })
    }))

  test("is refused when it cannot be read as it was meant", () =>
    Effect.gen(function* () {
      for (const claims of [
        { scopes: "publish:a" },
        { scopes: ["publish"] },
        { scopes: ["fly:a"] },
        { scopes: [1] },
        { policy: { rules: [{ effect: "allow", action: "publish", topics: ["a"], unless: "b" }] } },
        { policy: "none" },
        { sub: "" },
        { jti: "x".repeat(257) },
        { sub: "x".repeat(257) }
      ]) {
        expect(
          yield* refused(yield* signed({ ...good, ...claims } as JWTPayload)),
          JSON.stringify(claims)
        ).toBe("TokenInvalid")
      }
    }))
})

describe("JwtTokenVerifier: signatures", () => {
  test("are HS256 by the secret, and nothing else", () =>
    Effect.gen(function* () {
      const longer = new Uint8Array(64).fill(1)
      const rsa = yield* makeKey("k", "RS256")
      const bad: Record<string, string> = {
        "another secret": yield* signed(good, "HS256", new Uint8Array(32).fill(7)),
        "an empty signature": `${(yield* signed(good)).split(".").slice(0, 2).join(".")}.`,
        "no algorithm": new UnsecuredJWT(good).encode(),
        "alg None": forged({ alg: "None" }),
        "alg nOnE": forged({ alg: "nOnE" }),
        "no alg at all": forged({ typ: "JWT" }),
        "HS256 in other letters": forged({ alg: "hs256" }),
        HS384: yield* signed(good, "HS384", longer),
        HS512: yield* signed(good, "HS512", longer),
        "HS384 by the same secret": forged({ alg: "HS384" }, good, "sha384"),
        "HS512 by the same secret": forged({ alg: "HS512" }, good, "sha512"),
        RS256: yield* sign(rsa, good),
        "a key of its own": forged({ alg: "HS256", jwk: { kty: "oct", k: "AAAA" }, crit: ["jwk"] }),
        "an extension that must be understood": forged({ alg: "HS256", crit: ["exp2"], exp2: 1 }),
        "an unencoded payload": forged({ alg: "HS256", b64: false, crit: ["b64"] })
      }
      for (const [what, token] of Object.entries(bad))
        expect(yield* refused(token), what).toBe("TokenInvalid")
      expect((yield* verify(forged({ alg: "HS256", typ: "JWT", kid: "../../etc/passwd" }))).sub).toBe("alice")
    }))

  test("cover every character of header and payload", () =>
    Effect.gen(function* () {
      const token = yield* signed(good)
      const [header, payload, signature] = token.split(".") as [string, string, string]
      const admin = base64url.encode(JSON.stringify({ ...good, scopes: ["admin:**"] }))
      expect(yield* refused(`${header}.${admin}.${signature}`)).toBe("TokenInvalid")
      for (const part of [0, 1]) {
        const other = [header, payload, signature]
        other[part] = `${other[part]!.slice(0, -2)}AA`
        expect(yield* refused(other.join("."))).toBe("TokenInvalid")
      }
    }))

  test("are not looked for in what is no token", () =>
    Effect.gen(function* () {
      const token = yield* signed(good)
      for (const text of [
        "",
        "a",
        "a.b",
        "a.b.c",
        "....",
        `${token}.x`,
        `${token}.x.y`,
        ` ${token}`,
        "\0",
        "ü.ü.ü"
      ]) {
        expect(yield* refused(text), JSON.stringify(text)).toBe("TokenInvalid")
      }
      expect(yield* refused(`Bearer ${token}`)).toBe("TokenInvalid")
    }))

  test("are not checked for tokens of any length", () =>
    Effect.gen(function* () {
      const long = yield* signed({ ...good, more: "x".repeat(20_000) })
      const failed = yield* Effect.flip(verify(long))
      expect(failed).toMatchObject({ _tag: "TokenInvalid", reason: "it is too long" })
      expect(yield* refused("x".repeat(10_000_000))).toBe("TokenInvalid")
      expect((yield* verify(yield* signed({ ...good, more: "x".repeat(10_000) }))).sub).toBe("alice")
    }))

  test("leave neither the token nor the secret in what is said about them", () =>
    Effect.gen(function* () {
      const token = yield* signed(good, "HS256", new Uint8Array(32).fill(7))
      const failed = yield* Effect.flip(verify(token))
      expect(JSON.stringify(failed)).not.toContain(token.slice(-20))
      expect(failed.message).toBe("the token was refused: its signature is wrong")
    }))
})

describe("JwtTokenVerifier: claims", () => {
  const without = (claim: string) =>
    signed(Object.fromEntries(Object.entries(good).filter(([name]) => name !== claim)))

  test("that have to be there are `sub` and `exp`", () =>
    Effect.gen(function* () {
      for (const claim of ["sub", "exp"]) {
        expect(yield* refused(yield* without(claim)), claim).toBe("TokenInvalid")
      }
      expect((yield* verify(yield* without("iat"))).issuedAt).toBe(undefined)
      expect(yield* refused(forged({ alg: "HS256" }, { ...good, exp: String(now + 60) }))).toBe(
        "TokenInvalid"
      )
      expect(yield* refused(forged({ alg: "HS256" }, { ...good, exp: null }))).toBe("TokenInvalid")
      expect(yield* refused(forged({ alg: "HS256" }, { ...good, sub: 1 }))).toBe("TokenInvalid")
    }))

  test("are over when `exp` has passed, with five seconds for clocks that differ", () =>
    Effect.gen(function* () {
      for (const [exp, isOver] of [
        [now + 1, false],
        [now, false],
        [now - 4, false],
        [now - 5, true],
        [now - 60, true]
      ] as const) {
        const result = yield* Effect.result(verify(yield* signed({ ...good, exp })))
        expect(result._tag === "Failure" ? result.failure._tag : "good", `exp ${exp - now}`).toBe(
          isOver ? "TokenExpired" : "good"
        )
      }
    }))

  test("have not come before `nbf`, with the same five seconds", () =>
    Effect.gen(function* () {
      expect((yield* verify(yield* signed({ ...good, nbf: now + 5 }))).sub).toBe("alice")
      const early = yield* Effect.flip(verify(yield* signed({ ...good, nbf: now + 6 })))
      expect(early).toMatchObject({ _tag: "TokenExpired", reason: "it is not valid yet" })
      expect(yield* refused(forged({ alg: "HS256" }, { ...good, nbf: "soon" }))).toBe("TokenInvalid")
    }))

  test("are judged by the hub's clock, as it goes on, and by another tolerance when that is wanted", () =>
    Effect.gen(function* () {
      const token = yield* signed(good)
      const strict = verifying({ settings: { clockToleranceMs: 0 } })
      yield* TestClock.adjust("59 seconds")
      expect((yield* strict(token)).sub).toBe("alice")
      yield* TestClock.adjust("1 second")
      expect((yield* Effect.flip(strict(token)))._tag).toBe("TokenExpired")
      expect((yield* verify(token)).sub).toBe("alice")
      yield* TestClock.adjust("5 seconds")
      expect(yield* refused(token)).toBe("TokenExpired")
    }))

  test("name the audience and the issuer that are wanted, when any are", () =>
    Effect.gen(function* () {
      const wanted = verifying({ audience: "hub", issuer: "https://issuer" })
      const full = { ...good, aud: "hub", iss: "https://issuer" }
      expect((yield* wanted(yield* signed(full))).sub).toBe("alice")
      expect((yield* wanted(yield* signed({ ...full, aud: ["other", "hub"] }))).sub).toBe("alice")
      const { aud: _aud, ...noAudience } = full
      const { iss: _iss, ...noIssuer } = full
      for (const payload of [
        noAudience,
        noIssuer,
        { ...full, aud: "other" },
        { ...full, aud: [] },
        { ...full, aud: "hub2" },
        { ...full, iss: "https://issuer/" }
      ]) {
        const failed = yield* Effect.flip(wanted(yield* signed(payload)))
        expect(failed._tag, JSON.stringify(payload)).toBe("TokenInvalid")
      }
      expect((yield* verify(yield* signed({ ...good, aud: "anybody", iss: "anyone" }))).sub).toBe("alice")
    }))
})

describe("JwtTokenVerifier: several secrets", () => {
  const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill)
  const sizes = { HS256: 32, HS384: 48, HS512: 64 } as const

  test("each verify, and only what they are long enough for", () =>
    Effect.gen(function* () {
      const secrets = [bytes(32, 1), bytes(48, 2), bytes(64, 3), bytes(40, 4)]
      const verify = verifying({ keys: { _tag: "Secrets", secrets } })
      for (const [alg, size] of Object.entries(sizes)) {
        for (const secret of secrets) {
          const result = yield* Effect.result(
            verify(yield* signed(good, alg, secret)).pipe(Effect.map(({ sub }) => sub))
          )
          expect(result._tag, `${alg} by ${secret.length} bytes`).toBe(
            secret.length >= size ? "Success" : "Failure"
          )
        }
        expect(yield* Effect.flip(verify(yield* signed(good, alg, bytes(64, 9))))).toMatchObject({
          reason: "its signature is wrong"
        })
      }
    }))

  test("that are all too short for an algorithm do not allow it", () =>
    Effect.gen(function* () {
      for (const [alg, size] of Object.entries(sizes)) {
        const verify = verifying({ keys: { _tag: "Secrets", secrets: [bytes(size - 1, 1), bytes(8, 2)] } })
        expect(yield* Effect.flip(verify(yield* signed(good, alg, bytes(size - 1, 1))))).toMatchObject({
          reason: "its algorithm is not allowed"
        })
      }
    }))
})

describe("JwtTokenVerifier: headers", () => {
  const reasonOf = (token: string, options: Partial<JwtTokenVerifier.Options> = {}) =>
    Effect.match(verifying(options)(token), { onSuccess: () => "taken", onFailure: ({ reason }) => reason })

  test("may say `typ` in any case, with or without `application/`, or not at all", () =>
    Effect.gen(function* () {
      for (const typ of [
        "JWT",
        "jwt",
        "application/jwt",
        "Application/JWT",
        "at+jwt",
        "application/AT+JWT",
        undefined
      ]) {
        expect(yield* reasonOf(forged({ alg: "HS256", typ })), String(typ)).toBe("taken")
      }
      for (const typ of ["JWE", "secevent+jwt", "", "JWT ", "application/", "text/jwt", 1, null, ["JWT"]]) {
        expect(yield* reasonOf(forged({ alg: "HS256", typ })), String(typ)).toMatch(/'typ'/)
      }
      const settings = { types: ["application/special+jwt"] }
      expect(yield* reasonOf(forged({ alg: "HS256", typ: "special+JWT" }), { settings })).toBe("taken")
      expect(yield* reasonOf(forged({ alg: "HS256", typ: "JWT" }), { settings })).toMatch(/'typ'/)
    }))

  test("with extensions, an unencoded payload, or an id that is none are refused", () =>
    Effect.gen(function* () {
      for (const [header, reason] of [
        [{ crit: ["exp"] }, /crit/],
        [{ crit: [] }, /crit/],
        [{ crit: ["b64"], b64: true }, /crit/],
        [{ b64: false }, /b64/],
        [{ b64: 0 }, /b64/],
        [{ kid: 1 }, /kid/],
        [{ kid: ["a"] }, /kid/],
        [{ kid: "x".repeat(257) }, /kid/]
      ] as const) {
        expect(yield* reasonOf(forged({ alg: "HS256", ...header })), JSON.stringify(header)).toMatch(reason)
      }
    }))
})

describe("JwtTokenVerifier: times", () => {
  const tagOf = (payload: object, options: Partial<JwtTokenVerifier.Options> = {}) =>
    Effect.match(verifying(options)(forged({ alg: "HS256" }, { ...good, ...payload })), {
      onSuccess: () => "taken",
      onFailure: ({ _tag }) => _tag
    })

  test("of issue must not be to come, with five seconds for clocks that differ", () =>
    Effect.gen(function* () {
      expect(yield* tagOf({ iat: now + 5 })).toBe("taken")
      expect(yield* tagOf({ iat: now + 6 })).toBe("TokenInvalid")
      expect(yield* tagOf({ iat: now + 6 }, { settings: { clockToleranceMs: 6_000 } })).toBe("taken")
    }))

  test("of issue are required, and bounded, when an age is", () =>
    Effect.gen(function* () {
      const aged = { settings: { maxTokenAgeMs: 60_000 } }
      expect(yield* tagOf({ iat: now - 64 }, aged)).toBe("taken")
      expect(yield* tagOf({ iat: now - 65 }, aged)).toBe("TokenExpired")
      expect(yield* tagOf({ iat: undefined }, aged)).toBe("TokenInvalid")
      expect(yield* tagOf({ iat: now - 10_000_000 })).toBe("taken")
    }))

  test("of issue end what was begun with the token as well, when its age does before its expiry", () =>
    Effect.gen(function* () {
      const verify = verifying({ settings: { maxTokenAgeMs: 60_000 } })
      const until = (claims: JWTPayload) =>
        Effect.gen(function* () {
          return (yield* verify(yield* signed({ ...good, ...claims }))).expiresAt / 1_000 - now
        })
      expect(yield* until({ iat: now - 10, exp: now + 3_600 })).toBe(50)
      expect(yield* until({ iat: now - 10, exp: now + 20 })).toBe(20)
      // Within the tolerance: what begins now ends soon.
      expect(yield* until({ iat: now - 64, exp: now + 3_600 })).toBe(-4)
    }))

  test("are numbers that can be times", () =>
    Effect.gen(function* () {
      for (const claim of ["exp", "iat", "nbf"]) {
        for (const value of ["1000", null, true, [], {}, 1e300, -1e300, 8.65e12]) {
          expect(yield* tagOf({ [claim]: value }), `${claim} ${String(value)}`).toBe("TokenInvalid")
        }
      }
      expect(yield* tagOf({ exp: now + 0.5 })).toBe("taken")
      expect(yield* tagOf({ exp: -1 })).toBe("TokenExpired")
    }))
})

describe("JwtTokenVerifier: claims that come twice", () => {
  test("mean what JSON.parse says: the last one", () =>
    Effect.gen(function* () {
      const payload = `{"sub":"bob","scopes":["admin:**"],"exp":1,"sub":"alice","scopes":[],"exp":${now + 60}}`
      const text = `${base64url.encode(JSON.stringify({ alg: "HS256" }))}.${base64url.encode(payload)}`
      const token = `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`
      expect(yield* verify(token)).toMatchObject({
        sub: "alice",
        expiresAt: (now + 60) * 1_000,
        policy: { rules: [] }
      })
    }))
})

describe("JwtTokenVerifier: any change", () => {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=.+/ "

  test("of a character, a missing or another one, makes another token", () =>
    Effect.gen(function* () {
      const token = yield* signed(good)
      const changed = fc.sample(
        fc
          .tuple(fc.nat({ max: token.length - 1 }), fc.constantFrom(...alphabet, ""), fc.nat({ max: 1 }))
          .map(([at, by, cut]) => token.slice(0, at) + by + token.slice(at + cut))
          .filter((changed) => changed !== token),
        200
      )
      // The last character carries bits that are left over: a tolerant reader would not see that they changed.
      for (const last of alphabet) changed.push(token.slice(0, -1) + last)
      for (const other of changed)
        if (other !== token) expect(yield* refused(other), other).toBe("TokenInvalid")
      expect((yield* verify(token)).sub).toBe("alice")
    }))
})

describe("inspectToken", () => {
  test("says of any token what the verifier says", () =>
    Effect.gen(function* () {
      const keys = Keys.ofSecrets([secret])
      const expected = { audience: "hub", issuer: undefined, settings: Settings.auth }
      const verify = verifying({ audience: "hub" })
      const values = fc.constantFrom<unknown>(
        undefined,
        null,
        1,
        now,
        now + 60,
        "x",
        "hub",
        ["hub"],
        ["publish:a"],
        {}
      )
      const payloads = fc.record({
        sub: fc.constantFrom<unknown>("alice", "", undefined),
        exp: fc.constantFrom<unknown>(now + 60, now - 60, undefined, "x"),
        aud: fc.constantFrom<unknown>("hub", ["hub"], undefined, "other"),
        iat: values,
        nbf: values,
        scopes: values
      })
      const headers = fc.record({
        alg: fc.constantFrom("HS256", "HS256", "none"),
        typ: fc.constantFrom(undefined, "JWT", "JWE")
      })
      const spoil = fc.constantFrom("", "", "A")
      for (const [header, payload, end] of fc.sample(fc.tuple(headers, payloads, spoil), 300)) {
        const token = forged(header, payload) + end
        const verified = yield* Effect.result(verify(token))
        const { claims, problems } = yield* inspectToken(token, [{ name: "it", keys }], expected, now * 1_000)
        if (verified._tag === "Success") {
          expect(problems).toEqual([])
          expect(claims).toEqual(verified.success)
        } else {
          expect(problems.length, token).toBeGreaterThan(0)
        }
      }
    }))
})
