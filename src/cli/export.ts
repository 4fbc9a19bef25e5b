/**
 * `event-hub export`: events of a running hub as a file.
 *
 * What comes is checked line by line: that what the last line counts is there, as it was sent. A file that is not whole
 * is not left under its name.
 */
import { createHash } from "node:crypto"
import { once } from "node:events"
import { createWriteStream } from "node:fs"
import { rename, rm } from "node:fs/promises"
import { pipeline } from "node:stream/promises"
import { createGunzip } from "node:zlib"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Command, Flag } from "effect/cli"
import * as Archive from "../domain/Archive.ts"
import * as Json from "../domain/Json.ts"
import { makeLineSplitter } from "../domain/Lines.ts"
import {
  amount,
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

/** No hub takes a longer payload, so no line of an export is as long. */
const maxLineBytes = 64 * 1024 * 1024

/** Reads what passes, and knows in the end whether it was all. */
const makeCheck = () => {
  const hash = createHash("sha256")
  const found = { events: 0, latest: 0, topics: 0 }
  let lines = 0
  let last: Uint8Array | undefined
  let lastTopic: unknown
  const take = (line: Uint8Array): void => {
    hash.update(line)
    // Whatever is none, its checksum will differ.
    const value = Json.parseObject(new TextDecoder().decode(line)) ?? {}
    const isLatest = Json.isObject(value["latest"])
    const { topic } = Json.isObject(value["latest"]) ? value["latest"] : value
    if (isLatest) found.latest++
    else found.events++
    if (topic !== lastTopic) found.topics++
    lastTopic = topic
  }
  const count = (line: Uint8Array): void => {
    lines++
    if (lines === 1) return
    // The line before the newest is not the last one.
    if (last !== undefined) take(last)
    last = line.slice()
  }
  const splitter = makeLineSplitter(maxLineBytes, {
    line: (_text, bytes) => count(bytes),
    tooLong: () => {
      throw new CannotDo({ reason: "a line of the export is too long" })
    }
  })
  return {
    /** Lines that are no header, so far. */
    count: () => Math.max(0, lines - 1),
    push: splitter.push,
    /** Why it is not whole; nothing when it is. */
    end: (): { readonly missing: string | undefined; readonly said: Archive.Trailer | undefined } => {
      splitter.end()
      const said = last === undefined ? undefined : Archive.trailerOf(new TextDecoder().decode(last))
      return { said, missing: Archive.missingOf(said, { ...found, sha256: hash.digest("hex") }) }
    }
  }
}

/** How many events there are, where that can be known before; a few questions are asked for it, and no more. */
const countAll = async (
  remote: Remote,
  pattern: string,
  signal: AbortSignal
): Promise<number | undefined> => {
  let total = 0
  let after: string | undefined
  for (let page = 0; page < 10; page++) {
    const answer = await ask(remote, { path: "/topics", query: { pattern, after, limit: "1000" } }, signal)
    const { next, topics } = JSON.parse(await bodyOf(answer)) as {
      readonly topics: ReadonlyArray<{ readonly head: number; readonly floor: number }>
      readonly next: string | null
    }
    for (const { floor, head } of topics) total += head - floor
    if (next === null) return total
    after = next
  }
  return undefined
}

export interface ExportOptions {
  readonly remote: Remote
  readonly topic: string
  readonly from: string | undefined
  readonly to: string | undefined
  readonly gzip: boolean
  /** A file, or `-` for standard output. */
  readonly output: string
  readonly progress: Progress
}

const run = async (options: ExportOptions, signal: AbortSignal): Promise<string> => {
  const { from, gzip, output, progress, remote, to, topic } = options
  const begin = performance.now()
  const total = from === undefined && to === undefined ? await countAll(remote, topic, signal) : undefined
  const headers = { "accept-encoding": gzip ? "gzip" : "identity" }
  const answer = await ask(remote, { path: "/export", query: { topic, from, to }, headers }, signal)
  const check = makeCheck()
  const isPacked = answer.headers["content-encoding"] === "gzip"
  let bytes = 0
  /** Why the compressed bytes cannot be looked at any further. It comes whenever it comes. */
  let unreadable: CannotDo | undefined
  const unpack = createGunzip()
    .on("data", (piece: Buffer) => {
      try {
        if (unreadable === undefined) check.push(piece)
      } catch (error) {
        unpack.destroy(error as Error)
      }
    })
    .on("error", (error) => {
      unreadable ??=
        error instanceof CannotDo
          ? error
          : new CannotDo({ reason: `the export cannot be unpacked: ${error.message}` })
    })

  /** Waits for something of the unpacking, which may fail before, meanwhile, or never. */
  const unpacking = async (event: "drain" | "end"): Promise<void> => {
    if (unreadable === undefined) await once(unpack, event).catch(() => {})
    if (unreadable !== undefined) throw unreadable
  }

  /** Looks at what goes by, no faster than it goes. */
  const watched = async function* (chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      bytes += chunk.length
      if (!isPacked) check.push(chunk)
      else if (unreadable !== undefined) throw unreadable
      else if (!unpack.write(chunk)) await unpacking("drain")
      progress.set(check.count(), total, amount(check.count(), bytes, begin))
      yield chunk
    }
    if (!isPacked) return
    unpack.end()
    await unpacking("end")
  }
  try {
    const out = output === "-" ? process.stdout : createWriteStream(`${output}.part`)
    await pipeline(answer, watched, out, { end: output !== "-" })
  } catch (error) {
    if (error instanceof CannotDo) throw error
    if (!answer.complete) throw new CannotDo({ reason: "the connection ended before the export did" })
    throw error
  } finally {
    progress.end()
  }
  const { missing, said } = check.end()
  if (missing !== undefined || said === undefined) {
    throw new CannotDo({ reason: `the export is not whole: ${missing ?? "its last line is missing"}` })
  }
  if (output !== "-") await rename(`${output}.part`, output)
  const of = said.topics === 1 ? "1 topic" : `${grouped(said.topics)} topics`
  return `exported ${amount(said.events, bytes, begin)}, of ${of}`
}

export const exportEvents = (options: ExportOptions): Effect.Effect<string, CannotDo> =>
  Effect.onExit(
    attempt((signal) => run(options, signal)),
    (exit) =>
      exit._tag === "Success" || options.output === "-"
        ? Effect.void
        : Effect.promise(() => rm(`${options.output}.part`, { force: true }))
  )

const text = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional)

export const exportCommand = Command.make(
  "export",
  {
    topic: Flag.String("topic").pipe(
      Flag.withMetavar("pattern"),
      Flag.withDescription("A topic, or a pattern of topics"),
      Flag.withDefault("**")
    ),
    from: text("from", "The first event (a seq of one topic) or time (2026-01-31T12:00:00Z, @milliseconds)"),
    to: text("to", "The last event, or the time before which"),
    gzip: Flag.Boolean("gzip").pipe(Flag.withDescription("Compress it"), Flag.withDefault(false)),
    output: Flag.String("output").pipe(
      Flag.withAlias("o"),
      Flag.withMetavar("file"),
      Flag.withDescription("Where to (default: standard output)"),
      Flag.withDefault("-")
    ),
    ...remoteFlags
  },
  ({ from, gzip, output, silent, to, token, topic, url }) =>
    Effect.gen(function* () {
      const remote = yield* remoteOf({ url, token }, process.env)
      const said = yield* exportEvents({
        remote,
        topic,
        from: Option.getOrUndefined(from),
        to: Option.getOrUndefined(to),
        gzip,
        output,
        progress: progressOn(process.stderr, silent)
      })
      if (!silent) process.stderr.write(`${said}\n`)
    })
).pipe(
  Command.withDescription("Write events of a running hub to a file (docs/replay-and-export.md)"),
  Command.withExamples([
    {
      command: "event-hub export --gzip --output all.ndjson.gz",
      description: "Everything but the hub's own topics"
    },
    {
      command: "event-hub export --topic 'orders.**' --from 2026-01-01 -o orders.ndjson",
      description: "What was stored since a time"
    },
    { command: "event-hub export --topic '$dead.**' -o dead.ndjson", description: "Dead letters" }
  ])
)
