/** Policies from a file, taken anew whenever it changes. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { parsePolicyFile, type PolicyFile } from "../../domain/PolicyFile.ts"
import * as Settings from "../../domain/Settings.ts"
import { type CannotUseFile, ConfigFiles } from "../../services/ConfigFiles.ts"
import { Policies } from "../../services/Policies.ts"

/** Of a file of which nothing is right. */
const maxProblems = 20

/** What is wrong, in one line of a log. */
const parse =
  (path: string) =>
  ([text = ""]: ReadonlyArray<string>): Result.Result<PolicyFile, string> =>
    Result.mapError(parsePolicyFile(text), ({ problems }) => {
      const told = problems
        .slice(0, maxProblems)
        .map(({ column, line, reason }) => `${path}:${line}:${column}: ${reason}`)
      if (problems.length > maxProblems) told.push(`and ${problems.length - maxProblems} more`)
      return told.join("; ")
    })

export const layer = (
  path: string,
  maxBytes: number = Settings.files.maxPolicyBytes
): Layer.Layer<never, CannotUseFile, ConfigFiles> =>
  Layer.effect(
    Policies,
    Effect.gen(function* () {
      const files = yield* ConfigFiles
      const { changes, current } = yield* files.follow({
        what: "HUB_POLICY",
        paths: [path],
        maxBytes,
        parse: parse(path)
      })
      return { current, changes: Stream.map(changes, () => undefined) }
    })
  )
