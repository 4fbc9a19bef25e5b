/** Revocations of one hub, forgotten when it stops. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import { Revocations } from "../../services/Revocations.ts"

const make = Effect.gen(function* () {
  const revoked = yield* PubSub.sliding<void>(1)
  const tokens = new Set<string>()
  const subjects = new Map<string, number>()
  let everybodyBefore = -Infinity

  return Revocations.of({
    revoke: (revocation) =>
      Effect.sync(() => {
        switch (revocation._tag) {
          case "Token":
            tokens.add(revocation.tokenId)
            break
          case "Subject": {
            const { issuedBefore, sub } = revocation
            subjects.set(sub, Math.max(issuedBefore, subjects.get(sub) ?? -Infinity))
            break
          }
          case "IssuedBefore":
            everybodyBefore = Math.max(everybodyBefore, revocation.issuedBefore)
            break
        }
        PubSub.publishUnsafe(revoked, undefined)
      }),
    isRevoked: ({ issuedAt = -Infinity, sub, tokenId }) => {
      if (tokenId !== undefined && tokens.has(tokenId)) return true
      const before = Math.max(everybodyBefore, subjects.get(sub) ?? -Infinity)
      return before > -Infinity && issuedAt < before
    },
    changes: Stream.fromPubSub(revoked)
  })
})

export const layer: Layer.Layer<Revocations> = Layer.effect(Revocations, make)
