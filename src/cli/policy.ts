/** `event-hub policy`: checks, explains and formats the files with the roles that tokens refer to. */
import { randomUUID } from "node:crypto"
import { realpath, rename, rm, stat, writeFile } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Command, Flag } from "effect/cli"
import type { PolicyProblem } from "../domain/Policy.ts"
import { parsePolicyFile } from "../domain/PolicyFile.ts"
import { formatPolicyFile } from "../domain/PolicyFileFormat.ts"
import { warningsOf } from "../domain/PolicyWarnings.ts"
import { explain } from "./policyExplain.ts"
import { fileArgument, fromInput, nameOf, parsed, readText, say } from "./policyText.ts"
import { CannotDo } from "./remote.ts"

const counted = (n: number, what: string): string => `${n} ${what}${n === 1 ? "" : "s"}`

export interface Checked {
  readonly errors: ReadonlyArray<PolicyProblem>
  readonly warnings: ReadonlyArray<PolicyProblem>
  readonly roles: ReadonlyArray<{ readonly name: string; readonly line: number; readonly rules: number }>
}

export const checkText = (text: string): Checked => {
  const file = parsePolicyFile(text)
  if (Result.isFailure(file)) return { errors: file.failure.problems, warnings: [], roles: [] }
  const roles = [...file.success.roles.values()].map(({ line, name, rules }) => ({
    name,
    line,
    rules: rules.length
  }))
  return { errors: [], warnings: warningsOf(text), roles }
}

const textOf = (file: string, { errors, roles, warnings }: Checked): string => {
  const line = (kind: string) => (problem: PolicyProblem) =>
    `${nameOf(file)}:${problem.line}:${problem.column}: ${kind}: ${problem.reason}\n`
  const rules = roles.reduce((sum, role) => sum + role.rules, 0)
  const sum = [
    ...(errors.length > 0
      ? [counted(errors.length, "error")]
      : [counted(roles.length, "role"), counted(rules, "rule")]),
    ...(warnings.length > 0 ? [counted(warnings.length, "warning")] : [])
  ]
  return [...errors.map(line("error")), ...warnings.map(line("warning")), `${sum.join(", ")}\n`].join("")
}

const json = Flag.Boolean("json").pipe(Flag.withDescription("For programs"), Flag.withDefault(false))

const check = Command.make(
  "check",
  {
    file: fileArgument,
    json,
    strict: Flag.Boolean("strict").pipe(
      Flag.withDescription("Take warnings for errors"),
      Flag.withDefault(false)
    )
  },
  ({ file, json, strict }) =>
    Effect.map(readText(file), (text) => {
      const checked = checkText(text)
      say(json ? `${JSON.stringify(checked, null, 2)}\n` : textOf(file, checked))
      if (checked.errors.length > 0 || (strict && checked.warnings.length > 0)) process.exitCode = 1
    })
).pipe(
  Command.withDescription(
    "Say what is wrong with a policy file, and what is hardly meant: exit 1 for errors, 0 for warnings"
  ),
  Command.withExamples([
    { command: "event-hub policy check policies.txt", description: "Before a hub takes it" },
    { command: "event-hub policy check --strict policies.txt", description: "In CI: warnings fail, too" }
  ])
)

/** Whole under its name, or not at all: a hub may look at any moment. */
const replaceFile = (file: string, text: string): Effect.Effect<void, CannotDo> =>
  Effect.tryPromise({
    try: async () => {
      const path = await realpath(file)
      const next = `${path}.${randomUUID()}`
      try {
        await writeFile(next, text, { mode: (await stat(path)).mode })
        await rename(next, path)
      } finally {
        await rm(next, { force: true })
      }
    },
    catch: (error) => new CannotDo({ reason: `cannot write '${file}': ${String(error)}` })
  })

const fmt = Command.make(
  "fmt",
  {
    file: fileArgument,
    check: Flag.Boolean("check").pipe(
      Flag.withDescription("Write nothing; exit 1 when it is not formatted"),
      Flag.withDefault(false)
    ),
    write: Flag.Boolean("write").pipe(
      Flag.withAlias("w"),
      Flag.withDescription("Into the file, instead of standard output"),
      Flag.withDefault(false)
    )
  },
  ({ check, file, write }) =>
    Effect.gen(function* () {
      if (check && write) return yield* new CannotDo({ reason: "--check writes nothing: leave out --write" })
      if (write && file === fromInput) {
        return yield* new CannotDo({ reason: "--write needs a file: standard input cannot be written" })
      }
      const text = yield* readText(file)
      yield* parsed(file, text)
      const formatted = formatPolicyFile(text)
      if (check) {
        if (formatted === text) return
        say(`${nameOf(file)} is not formatted: event-hub policy fmt --write\n`)
        process.exitCode = 1
      } else if (!write) say(formatted)
      else if (formatted !== text) yield* replaceFile(file, formatted)
    })
).pipe(
  Command.withDescription("Format a policy file: its comments stay, and so does what it means"),
  Command.withExamples([
    { command: "event-hub policy fmt --write policies.txt", description: "In place" },
    { command: "event-hub policy fmt --check policies.txt", description: "In CI" }
  ])
)

export const policy = Command.make("policy").pipe(
  Command.withDescription("Policy files: the roles that tokens refer to (docs/policies.md)"),
  Command.withSubcommands([check, explain, fmt])
)
