/** Where the keys come from that signatures are verified with: secrets, a file, an issuer's endpoint (Jwks). */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { compactVerify, type CryptoKey, errors } from "jose"
import { ConfigFiles } from "../../services/ConfigFiles.ts"
import type { VerifierUnavailable } from "../../services/TokenVerifier.ts"
import * as KeySet from "./KeySet.ts"

export interface Keys {
  /** All that can be meant for them. What a token says of itself only chooses among these. */
  readonly algorithms: ReadonlyArray<string>
  /** Those that a signature may be by; none: nobody's whose tokens are taken. */
  readonly find: (
    wanted: KeySet.Wanted
  ) => Effect.Effect<ReadonlyArray<CryptoKey | Uint8Array>, VerifierUnavailable>
}

const isBy = async (key: CryptoKey | Uint8Array, token: string, alg: string): Promise<boolean> => {
  try {
    await compactVerify(token, key, { algorithms: [alg] })
    return true
  } catch (error) {
    // Whatever else is wrong with it: it does not verify.
    if (error instanceof errors.JOSEError || error instanceof TypeError) return false
    throw error
  }
}

/** By any of them. They are few, and which one it is says nothing that an attacker could use. */
export const isSignedBy = async (
  keys: ReadonlyArray<CryptoKey | Uint8Array>,
  token: string,
  alg: string
): Promise<boolean> => {
  for (const key of keys) if (await isBy(key, token, alg)) return true
  return false
}

/** The least bytes of a secret: as many as its hash has (RFC 7518, section 3.2). */
export const hmacs = [
  ["HS256", 32],
  ["HS384", 48],
  ["HS512", 64]
] as const

const leastOf = (alg: string): number => hmacs.find(([name]) => name === alg)?.[1] ?? Infinity

/** A secret verifies only what it is long enough for. */
export const ofSecrets = (secrets: ReadonlyArray<Uint8Array>): Keys => {
  const longEnough = (alg: string) => secrets.filter(({ length }) => length >= leastOf(alg))
  return {
    algorithms: hmacs.map(([alg]) => alg).filter((alg) => longEnough(alg).length > 0),
    find: ({ alg }) => Effect.succeed(longEnough(alg))
  }
}

const warnOf = ({ leftOut }: KeySet.KeySet, what: string) =>
  leftOut.length === 0
    ? Effect.void
    : Effect.logWarning("keys are left out", { of: what, why: leftOut.join("; ") })

/** A file is somebody's configuration: without any key it is a mistake. */
const parseFile =
  (path: string) =>
  (json: string): Result.Result<KeySet.KeySet, string> =>
    Result.flatMap(
      Result.mapError(KeySet.parse(json), (found) => `${path} is ${found}`),
      (set) =>
        set.size > 0
          ? Result.succeed(set)
          : Result.fail([`${path} has no usable key`, ...set.leftOut].join("; "))
    )

/** A JWK Set in a file, taken anew when it changes. `what` is the setting that names it. */
export const ofFile = Effect.fnUntraced(function* ({
  path,
  what
}: {
  readonly path: string
  readonly what: string
}) {
  const { follow } = yield* ConfigFiles
  const parse = parseFile(path)
  const file = yield* follow({
    what,
    paths: [path],
    parse: ([json = ""]) => parse(json)
  })
  yield* warnOf(file.current(), what)
  yield* file.changes.pipe(
    Stream.runForEach((set) => warnOf(set, what)),
    Effect.forkScoped
  )
  return {
    algorithms: KeySet.algorithms,
    find: (wanted) => Effect.promise(() => file.current().find(wanted))
  } satisfies Keys
})
