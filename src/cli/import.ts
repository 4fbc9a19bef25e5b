/**
 * `event-hub import`: reads an export back into a running hub.
 *
 * The exit code is 0 when all of it is there, 2 when the file was not whole or had bad lines, and 1 when it was refused.
 */
import { createReadStream } from "node:fs"
import { open } from "node:fs/promises"
import { PassThrough, type Readable } from "node:stream"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Argument, Command, Flag } from "effect/cli"
import type { ImportReport } from "../services/Archive.ts"
import {
  ask,
  attempt,
  bodyOf,
  CannotDo,
  grouped,
  progressOn,
  type Progress,
  type Remote,
  remoteFlags,
  remoteOf
} from "./remote.ts"

/** RFC 1952, section 2.3.1: what every gzip file begins with. */
const isGzip = (bytes: Uint8Array): boolean => bytes[0] === 0x1f && bytes[1] === 0x8b

interface Source {
  readonly bytes: Readable
  /** None: nobody knows before its end. */
  readonly size: number | undefined
  readonly isPacked: boolean
}

const sourceOfFile = async (path: string): Promise<Source> => {
  try {
    const file = await open(path)
    try {
      const { bytesRead, buffer } = await file.read({ buffer: new Uint8Array(2), position: 0 })
      const { size } = await file.stat()
      return { bytes: createReadStream(path), size, isPacked: bytesRead === 2 && isGzip(buffer) }
    } finally {
      await file.close()
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error)
    throw new CannotDo({
      reason: `cannot read '${path}': ${code === "ENOENT" ? "there is no such file" : code}`
    })
  }
}

/** Standard input, of which the beginning is looked at before it is sent. */
const sourceOfInput = async (input: Readable): Promise<Source> => {
  const [first] = await new Promise<[Buffer | null]>((resolve, reject) => {
    const look = (): void => {
      const chunk = input.read() as Buffer | null
      if (chunk === null && !input.readableEnded) return void input.once("readable", look)
      resolve([chunk])
    }
    input.once("error", reject).once("end", () => resolve([null]))
    look()
  })
  if (first !== null) input.unshift(first)
  return { bytes: input, size: undefined, isPacked: first !== null && isGzip(first) }
}

export interface ImportOptions {
  readonly remote: Remote
  /** A file, or `-` for standard input. */
  readonly input: string
  readonly dryRun: boolean
  readonly strict: boolean
  readonly reason: string | undefined
  readonly progress: Progress
}

const run = async (options: ImportOptions, signal: AbortSignal): Promise<ImportReport> => {
  const { dryRun, input, progress, reason, remote, strict } = options
  const { bytes, isPacked, size } = await (input === "-" ? sourceOfInput(process.stdin) : sourceOfFile(input))
  let sent = 0
  const body = new PassThrough()
  bytes.on("error", (error) => body.destroy(error))
  bytes.on("data", (chunk: Buffer) => {
    sent += chunk.length
    const done = `${(sent / 1e6).toFixed(1)} MB`
    progress.set(sent, size, size === undefined ? done : `${done} of ${(size / 1e6).toFixed(1)} MB`)
  })
  bytes.pipe(body)
  try {
    const answer = await ask(
      remote,
      {
        method: "POST",
        path: "/import",
        query: {
          ...(dryRun ? { dryRun: "true" } : {}),
          ...(strict ? { strict: "true" } : {}),
          reason
        },
        headers: {
          "content-type": "application/x-ndjson",
          ...(isPacked ? { "content-encoding": "gzip" } : {})
        },
        body
      },
      signal
    )
    return JSON.parse(await bodyOf(answer)) as ImportReport
  } finally {
    progress.end()
    bytes.destroy()
  }
}

export const importEvents = (options: ImportOptions): Effect.Effect<ImportReport, CannotDo> =>
  attempt((signal) => run(options, signal))

const linesOf = (report: ImportReport): ReadonlyArray<string> => {
  const { appended, bad, badLines, complete, dryRun, duplicates, latest, missing, restored, topics } = report
  const said = [
    `${dryRun ? "would import" : "imported"}: ${grouped(restored)} restored, ${grouped(appended)} appended with new seqs, ` +
      `${grouped(duplicates)} there already, ${grouped(latest)} last events of keys; ${grouped(topics)} topics`
  ]
  if (bad > 0) said.push(`${grouped(bad)} bad lines`)
  for (const { line, reason } of badLines) said.push(`  line ${line}: ${reason}`)
  if (bad > badLines.length) said.push(`  and ${grouped(bad - badLines.length)} more`)
  if (!complete) said.push(`not complete: ${missing ?? "something is missing"}`)
  return said
}

/** It was imported, and not all of it. */
const incompleteCode = 2

export const importCommand = Command.make(
  "import",
  {
    input: Argument.String("file").pipe(
      Argument.withDescription("What an export has written, compressed or not; - for standard input")
    ),
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Check it, say what would be done, and change nothing"),
      Flag.withDefault(false)
    ),
    strict: Flag.Boolean("strict").pipe(
      Flag.withDescription("End at the first bad line"),
      Flag.withDefault(false)
    ),
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why it is done: for the hub's log"),
      Flag.optional
    ),
    ...remoteFlags
  },
  ({ dryRun, input, reason, silent, strict, token, url }) =>
    Effect.gen(function* () {
      const remote = yield* remoteOf({ url, token }, process.env)
      const report = yield* importEvents({
        remote,
        input,
        dryRun,
        strict,
        reason: Option.getOrUndefined(reason),
        progress: progressOn(process.stderr, silent)
      })
      process.stdout.write(`${linesOf(report).join("\n")}\n`)
      if (!report.complete || report.bad > 0) process.exitCode = incompleteCode
    })
).pipe(
  Command.withDescription("Read an export back into a running hub (docs/replay-and-export.md)"),
  Command.withExamples([
    { command: "event-hub import all.ndjson.gz", description: "Again after it was cut off: it goes on" },
    { command: "event-hub import --dry-run all.ndjson", description: "Says what would be done" }
  ])
)
