/** Tokens whose roles are in no policy file are refused, where there is one. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Layer, Result, Stream } from "effect"
import { type Claims, parseClaims } from "../../../src/domain/Claims.ts"
import { parsePolicyFile, type PolicyFile } from "../../../src/domain/PolicyFile.ts"
import * as RoleTokenVerifier from "../../../src/layers/core/RoleTokenVerifier.ts"
import { Policies } from "../../../src/services/Policies.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"

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

  it.effect("does not look at roles without a policy file", () =>
    Effect.gen(function* () {
      file = undefined
      expect(yield* verify({ roles: ["any"] })).toEqual(["any"])
      expect(yield* verify({ roles: 5 })).toBeUndefined()
    })
  )
})
