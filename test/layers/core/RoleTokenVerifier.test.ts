/** Tokens whose roles are in no policy file are refused, where there is one. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Logger, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type Claims, parseClaims } from "../../../src/domain/Claims.ts"
import { parsePolicyFile, type PolicyFile } from "../../../src/domain/PolicyFile.ts"
import * as RoleTokenVerifier from "../../../src/layers/core/RoleTokenVerifier.ts"
import { Policies } from "../../../src/services/Policies.ts"
import { TokenInvalid, TokenVerifier } from "../../../src/services/TokenVerifier.ts"

/** The payload is the token. */
const behind = Layer.succeed(TokenVerifier, {
  verify: (token) =>
    Effect.sync((): Claims => Result.getOrThrow(parseClaims({ sub: "ann", exp: 1, ...JSON.parse(token) })))
})

let file: PolicyFile | undefined

const layer = RoleTokenVerifier.layer(behind).pipe(
  Layer.provide(Layer.succeed(Policies, { current: () => file, changes: Stream.never }))
)

const verify = (payload: object) =>
  Effect.gen(function* () {
    const { verify } = yield* TokenVerifier
    return Result.match(yield* Effect.result(verify(JSON.stringify(payload))), {
      onFailure: (error) => `${error._tag}: ${error.message}`,
      onSuccess: ({ roles }) => roles
    })
  }).pipe(Effect.provide(layer))

const roles = (text: string) => (file = Result.getOrThrow(parsePolicyFile(text)))

describe("RoleTokenVerifier", () => {
  it.effect("takes tokens with roles that are there, or without any", () =>
    Effect.gen(function* () {
      roles("role dev:\nrole ops:")
      expect(yield* verify({ roles: ["dev", "ops"] })).toEqual(["dev", "ops"])
      expect(yield* verify({})).toBeUndefined()
      expect(yield* verify({ roles: [] })).toBeUndefined()
      expect(yield* verify({ roles: ["gone"], policy: { rules: [] } })).toBeUndefined()
    })
  )

  it.effect("refuses what names another, or is no list of names", () =>
    Effect.gen(function* () {
      roles("role dev:")
      expect(yield* verify({ roles: ["dev", "Dev"], scopes: ["publish:**"] })).toBe(
        "TokenInvalid: the token was refused: there is no role 'Dev' in the policy file"
      )
      expect(yield* verify({ roles: ["__proto__"] })).toMatch(/^TokenInvalid/)
      for (const bad of ["dev", null, {}, 5, [5], ["dev", null], [["dev"]]]) {
        expect(yield* verify({ roles: bad })).toMatch(/^TokenInvalid: .*'roles' is no array of strings/)
        expect(yield* verify({ roles: bad, policy: { rules: [] } })).toMatch(/^TokenInvalid/)
      }
    })
  )

  it.effect("tells of what is refused under a good signature once a minute, however often it is sent", () => {
    const lines: Array<string> = []
    const logger = Logger.make<unknown, void>(({ message }) => void lines.push(JSON.stringify(message)))
    const broken = Layer.succeed(TokenVerifier, {
      verify: (token) =>
        Effect.fail(new TokenInvalid(token === "" ? { reason: "bad" } : { reason: "bad", sub: token }))
    })
    const told = (of: typeof layer, tokens: ReadonlyArray<string>) =>
      Effect.gen(function* () {
        const { verify } = yield* TokenVerifier
        for (const token of tokens) yield* Effect.exit(verify(token))
        yield* TestClock.adjust("1 minute")
        yield* Effect.exit(verify(tokens[0]!))
        return lines.splice(0)
      }).pipe(Effect.provide(of), Effect.provide(Logger.layer([logger])))
    return Effect.gen(function* () {
      roles("role dev:")
      const unknown = JSON.stringify({ roles: ["gone"] })
      const line = `["a token was refused",{"sub":"ann","why":"there is no role 'gone' in the policy file"}]`
      const more = `["more of its tokens were refused than is logged",{"who":"ann","count":999}]`
      expect(
        yield* told(
          layer,
          Array.from({ length: 1_000 }, () => unknown)
        )
      ).toEqual([line, more, line])
      const of = RoleTokenVerifier.layer(broken)
      expect(yield* told(of, ["bob", "bob"])).toHaveLength(3)
      // Whose it is nobody knows: that is for those who know where it came from.
      expect(yield* told(of, ["", ""])).toEqual([])
    })
  })

  it.effect("does not look at roles without a policy file", () =>
    Effect.gen(function* () {
      file = undefined
      expect(yield* verify({ roles: ["any"] })).toEqual(["any"])
      expect(yield* verify({ roles: 5 })).toBeUndefined()
    })
  )
})
