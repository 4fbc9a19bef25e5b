/**
 * What can be revoked, which tokens that concerns, and when it may be forgotten.
 *
 * A revocation outlives the tokens that it is about: it is forgotten only when every one of them is refused for its age
 * or its expiry anyway, and never where nothing says when that is.
 */
import type { Claims } from "./Claims.ts"

export type Revocation =
  /** One token, by its `jti`. */
  | { readonly _tag: "Token"; readonly tokenId: string }
  /** Every token of a subject that was issued before a time (milliseconds since 1970). */
  | { readonly _tag: "Subject"; readonly sub: string; readonly issuedBefore: number }
  /** Every token that was issued before a time. */
  | { readonly _tag: "IssuedBefore"; readonly issuedBefore: number }

/** A revocation as it is kept. */
export interface Entry {
  readonly id: string
  readonly what: Revocation
  readonly revokedAt: number
  /** The `sub` of whoever revoked. */
  readonly by: string
  readonly reason?: string | undefined
  /** From then on it may be forgotten; none: never. */
  readonly until?: number | undefined
}

const isFields = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null

const isRevocation = (value: unknown): value is Revocation => {
  if (!isFields(value)) return false
  const { _tag, issuedBefore, sub, tokenId } = value
  const isTimed = typeof issuedBefore === "number"
  return (
    (_tag === "Token" && typeof tokenId === "string") ||
    (_tag === "Subject" && typeof sub === "string" && isTimed) ||
    (_tag === "IssuedBefore" && isTimed)
  )
}

/** Whether what a store has is an entry that a hub wrote. */
export const isEntry = (value: unknown): value is Entry => {
  if (!isFields(value)) return false
  const { by, id, reason, revokedAt, until, what } = value
  return (
    typeof id === "string" &&
    isRevocation(what) &&
    typeof revokedAt === "number" &&
    typeof by === "string" &&
    (reason === undefined || typeof reason === "string") &&
    (until === undefined || typeof until === "number")
  )
}

/** What the hub holds against old tokens by itself. */
export interface TokenLife {
  readonly clockToleranceMs: number
  readonly maxTokenAgeMs: number | undefined
  /** A token is taken that never expires and does not say when it was issued: the static one. */
  readonly hasAgeless?: boolean | undefined
}

/** When every token that is meant is refused for its age or its expiry, however far apart clocks may be; none: never. */
export const untilOf = (
  what: Revocation,
  at: {
    readonly revokedAt: number
    /** When the token expires, where that is known of the one that is meant. */
    readonly expiresAt?: number | undefined
  },
  { clockToleranceMs, hasAgeless = false, maxTokenAgeMs }: TokenLife
): number | undefined => {
  if (what._tag === "Token" && at.expiresAt !== undefined) return at.expiresAt + clockToleranceMs
  if (maxTokenAgeMs === undefined) return undefined
  // It has no id, so what is about an id is not about it.
  if (hasAgeless && what._tag !== "Token") return undefined
  // A token that is known by its id was issued before; by an issuer whose clock may be ahead.
  const issued = what._tag === "Token" ? at.revokedAt : what.issuedBefore
  return issued + maxTokenAgeMs + 2 * clockToleranceMs
}

/** A token without `iat` counts as issued before any time. */
export const concerns = (what: Revocation, { issuedAt = -Infinity, sub, tokenId }: Claims): boolean => {
  switch (what._tag) {
    case "Token":
      return tokenId === what.tokenId
    case "Subject":
      return sub === what.sub && issuedAt < what.issuedBefore
    case "IssuedBefore":
      return issuedAt < what.issuedBefore
  }
}

/** Many revocations, asked about at once. */
export interface Index {
  readonly add: (what: Revocation) => void
  readonly isRevoked: (claims: Claims) => boolean
}

export const makeIndex = (revocations: Iterable<Revocation> = []): Index => {
  const tokens = new Set<string>()
  const subjects = new Map<string, number>()
  let everybodyBefore = -Infinity

  const add = (what: Revocation): void => {
    switch (what._tag) {
      case "Token":
        tokens.add(what.tokenId)
        break
      case "Subject":
        subjects.set(what.sub, Math.max(what.issuedBefore, subjects.get(what.sub) ?? -Infinity))
        break
      case "IssuedBefore":
        everybodyBefore = Math.max(everybodyBefore, what.issuedBefore)
        break
    }
  }

  for (const what of revocations) add(what)
  return {
    add,
    isRevoked: ({ issuedAt = -Infinity, sub, tokenId }) => {
      if (tokenId !== undefined && tokens.has(tokenId)) return true
      const before = Math.max(everybodyBefore, subjects.get(sub) ?? -Infinity)
      return issuedAt < before
    }
  }
}
