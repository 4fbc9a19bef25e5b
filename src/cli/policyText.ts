/** What the verbs about policy files have in common: where the text comes from, and what is wrong with it. */
import { readFile } from "node:fs/promises"
import { text } from "node:stream/consumers"
import * as Effect from "effect/Effect"
import { Argument } from "effect/cli"
import { parsePolicyFile, type PolicyFile } from "../domain/PolicyFile.ts"
import { CannotDo } from "./remote.ts"

export const fileArgument = Argument.String("file").pipe(
  Argument.withDescription("A policy file; - for standard input")
)

export const fromInput = "-"

/** As problems name it. */
export const nameOf = (file: string): string => (file === fromInput ? "standard input" : file)

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : String(error)

export const readText = (file: string): Effect.Effect<string, CannotDo> =>
  Effect.tryPromise({
    try: () => (file === fromInput ? text(process.stdin) : readFile(file, "utf8")),
    catch: (error) => {
      const code = codeOf(error)
      return new CannotDo({
        reason: `cannot read '${file}': ${code === "ENOENT" ? "there is no such file" : code}`
      })
    }
  })

/** For verbs that need a file without problems; `check` tells all of them. */
export const parsed = (file: string, text: string): Effect.Effect<PolicyFile, CannotDo> =>
  Effect.mapError(Effect.fromResult(parsePolicyFile(text)), ({ column, line, problems }) => {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more: event-hub policy check)` : ""
    return new CannotDo({ reason: `${nameOf(file)}:${line}:${column}: ${problems[0].reason}${more}` })
  })

export const say = (text: string): void => void process.stdout.write(text)
