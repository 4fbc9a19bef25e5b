/**
 * An SQLite file as the hub's store: opened, checked, locked against a second hub, and brought to the current
 * schema; with one connection for reads, and the writer behind a queue.
 *
 * Writing waits for the disk, and for applications that write to the same file. The writer is therefore a
 * thread; reads are index look-ups and stay here. docs/decisions has the measurements.
 */
import { closeSync, existsSync, mkdirSync, openSync, readSync, statSync } from "node:fs"
import { dirname, resolve } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { pathToFileURL } from "node:url"
import { Worker } from "node:worker_threads"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Ids } from "../../services/Ids.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { check, connectionPragmas, migrate, SchemaProblem } from "./schema.ts"
import { prepare, type Statements } from "./statements.ts"
import { type BatchResult, type Call, type Commands, openWriter, type WriterFailure } from "./Writer.ts"

/** The file cannot be this hub's store. Nothing in it was changed. */
export class CannotOpen extends Schema.TaggedError<CannotOpen>()("CannotOpen", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `cannot use '${this.path}' as the hub's store: ${this.reason}`
  }
}

export interface Options {
  readonly path: string
  /** `thread`, unless the store is only tested or measured. */
  readonly writer?: "thread" | "inline"
  /** How long a write waits for an application that writes to the same file. */
  readonly busyTimeoutMs?: number
  /** Called when the disk failed while committing. By default it says so and ends the process. */
  readonly onBroken?: (problem: string) => void
}

type Args<Area extends keyof Commands, Name extends keyof Commands[Area]> = Commands[Area][Name] extends (
  args: infer A
) => unknown
  ? A
  : never

type Answer<Area extends keyof Commands, Name extends keyof Commands[Area]> = Commands[Area][Name] extends (
  ...args: never
) => infer R
  ? R
  : never

export class SqliteDatabase extends Context.Service<
  SqliteDatabase,
  {
    readonly path: string
    readonly history: string
    /** Statements on a connection that only reads. */
    readonly read: <A>(
      operation: string,
      f: (statements: Statements) => A
    ) => Effect.Effect<A, StoreUnavailable>
    /**
     * Runs one command of the writer. When it succeeds, it is durable. Interruption does not call it back.
     */
    readonly write: <Area extends keyof Commands, Name extends keyof Commands[Area] & string>(
      area: Area,
      command: Name,
      args: Args<Area, Name>
    ) => Effect.Effect<Answer<Area, Name>, StoreUnavailable>
  }
>()("event-hub/layers/sqlite/SqliteDatabase") {}

/** https://sqlite.org/rescode.html; what the caller can wait out, or an operator can mend. */
const unavailable = new Map([
  [5, "SQLITE_BUSY"],
  [6, "SQLITE_LOCKED"],
  [8, "SQLITE_READONLY"],
  [10, "SQLITE_IOERR"],
  [13, "SQLITE_FULL"],
  [14, "SQLITE_CANTOPEN"]
])

const failWith = (operation: string, failure: WriterFailure): Effect.Effect<never, StoreUnavailable> =>
  failure.code !== undefined && unavailable.has(failure.code)
    ? Effect.fail(new StoreUnavailable({ operation, cause: new Error(failure.message) }))
    : Effect.die(new Error(`${operation}: ${failure.message}`))

const failureOf = (error: unknown): WriterFailure => ({
  message: error instanceof Error ? error.message : String(error),
  code:
    error instanceof Error && "errcode" in error && typeof error.errcode === "number"
      ? error.errcode & 0xff
      : undefined
})

/** Whether an error of `node:sqlite` is about the database and not about what was asked of it. */
export const isUnavailable = (error: unknown): boolean => {
  const { code } = failureOf(error)
  return code !== undefined && unavailable.has(code)
}

const endProcess = (problem: string): void => {
  process.stderr.write(`event-hub: ${problem}\n`)
  process.exit(1)
}

/** Whether the file begins as SQLite files do; an empty file is one that nobody has written to. */
const looksLikeDatabase = (path: string): boolean => {
  const file = openSync(path, "r")
  try {
    const header = Buffer.alloc(16)
    const bytes = readSync(file, header, 0, 16, 0)
    return bytes === 0 || header.toString("latin1") === "SQLite format 3\u0000"
  } finally {
    closeSync(file)
  }
}

/**
 * A look at a file that leaves no trace. Without a log of writes nobody has it open, so it can be read as if it
 * could not change (https://sqlite.org/uri.html#uriimmutable); with one, SQLite itself has to put both together.
 */
const openToLook = (path: string): DatabaseSync => {
  const hasLog = (statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0) > 0
  if (hasLog) return new DatabaseSync(path, { readOnly: true })
  const url = pathToFileURL(path)
  url.searchParams.set("immutable", "1")
  return new DatabaseSync(url, { readOnly: true })
}

const inspect = (path: string): void => {
  if (!existsSync(path)) return
  if (!looksLikeDatabase(path)) throw new SchemaProblem("it is not an SQLite database")
  const db = openToLook(path)
  try {
    check(db)
  } finally {
    db.close()
  }
}

/**
 * Holds the store for this hub. SQLite's own lock on a file beside the store is a lock of the operating
 * system: it dies with the process, however that ends, and applications that use the store never meet it.
 */
const lock = (path: string): DatabaseSync => {
  const db = new DatabaseSync(`${path}.lock`, { timeout: 0 })
  try {
    db.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
    return db
  } catch (error) {
    db.close()
    if (failureOf(error).code === 5) throw new SchemaProblem("another hub is using it")
    throw error
  }
}

const attempt = <A>(path: string, f: () => A): Effect.Effect<A, CannotOpen> =>
  Effect.try({
    try: f,
    catch: (error) => {
      const reason =
        failureOf(error).code === 26
          ? "it is not an SQLite database"
          : error instanceof Error
            ? error.message
            : String(error)
      return new CannotOpen({ path, reason })
    }
  })

/** Where batches of calls are run: a thread, or right here. */
interface Engine {
  readonly run: (calls: ReadonlyArray<Call>, done: (result: BatchResult) => void) => void
}

const inlineEngine = (path: string, busyTimeoutMs: number): Effect.Effect<Engine, CannotOpen, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      attempt(path, () => openWriter({ path, busyTimeoutMs })),
      (writer) => Effect.sync(writer.close)
    ),
    (writer): Engine => ({
      run: (calls, done) => done(writer.run(calls))
    })
  )

/** `.ts` where Node runs the sources, `.js` in a built package. */
const threadFile = new URL(
  import.meta.url.endsWith(".ts") ? "./writerThread.ts" : "./writerThread.js",
  import.meta.url
)

const threadEngine = (
  path: string,
  busyTimeoutMs: number,
  onBroken: (problem: string) => void
): Effect.Effect<Engine, CannotOpen, Scope.Scope> =>
  Effect.gen(function* () {
    const worker = yield* Effect.acquireRelease(
      Effect.callback<Worker, CannotOpen>((resume) => {
        const started = new Worker(threadFile, { workerData: { path, busyTimeoutMs } })
        started.once("message", () => resume(Effect.succeed(started)))
        started.once("error", (error) => resume(Effect.fail(new CannotOpen({ path, reason: String(error) }))))
      }),
      (worker) =>
        Effect.callback<void>((resume) => {
          worker.once("exit", () => resume(Effect.void))
          worker.postMessage("close")
        }).pipe(Effect.timeoutOption("5 seconds"), Effect.andThen(Effect.promise(() => worker.terminate())))
    )
    /** Of the batches that are under way, in their order. */
    const waiting: Array<(result: BatchResult) => void> = []
    worker.removeAllListeners("error")
    worker.on("error", (error) => onBroken(`the writer of '${path}' failed: ${String(error)}`))
    worker.on("message", (result: BatchResult) => {
      waiting.shift()?.(result)
    })
    return {
      run: (calls, done) => {
        waiting.push(done)
        worker.postMessage({ calls })
      }
    }
  })

interface Pending {
  readonly call: Call
  readonly done: (result: BatchResult, index: number) => void
}

const make = Effect.fnUntraced(function* (options: Options) {
  const { busyTimeoutMs = 5_000, onBroken = endProcess, writer = "thread" } = options
  const path = resolve(options.path)
  const newHistory = (yield* Ids).next()
  yield* attempt(path, () => inspect(path))
  yield* attempt(path, () => mkdirSync(dirname(path), { recursive: true }))
  yield* Effect.acquireRelease(
    attempt(path, () => lock(path)),
    (db) => Effect.sync(() => db.close())
  )
  const history = yield* attempt(path, () => {
    const db = new DatabaseSync(path, { timeout: busyTimeoutMs })
    try {
      check(db)
      db.exec(connectionPragmas)
      migrate(db, newHistory)
      const statements = prepare(db)
      // The lock says that whoever claimed records is gone: nobody has to wait for the leases to end.
      if (statements.get("anyClaimed") !== undefined) statements.run("endLeases")
      return statements.get<{ readonly value: string }>("meta", "history")!.value
    } finally {
      db.close()
    }
  })
  const engine = yield* writer === "thread"
    ? threadEngine(path, busyTimeoutMs, onBroken)
    : inlineEngine(path, busyTimeoutMs)
  const reader = yield* Effect.acquireRelease(
    attempt(path, () => {
      const db = new DatabaseSync(path, { readOnly: true, timeout: busyTimeoutMs })
      return { db, statements: prepare(db) }
    }),
    ({ db }) => Effect.sync(() => db.close())
  )

  // --- the queue: what gathers in a turn goes to the writer together, also while it is at work ---
  let queue: Array<Pending> = []
  let underWay = 0

  const send = (): void => {
    if (queue.length === 0) return
    const batch = queue
    queue = []
    underWay++
    engine.run(
      batch.map((pending) => pending.call),
      (result) => {
        underWay--
        if (result._tag === "Broken")
          onBroken(`'${path}' cannot be written any more: ${result.failure.message}`)
        batch.forEach((pending, i) => pending.done(result, i))
      }
    )
  }

  /** A writer without work gets it at once. One that is busy takes a turn's writes as one message, and finds it waiting. */
  const enqueue = (pending: Pending): void => {
    queue.push(pending)
    if (queue.length > 1) return
    if (underWay === 0) queueMicrotask(send)
    else setImmediate(send)
  }

  return SqliteDatabase.of({
    path,
    history,
    read: (operation, f) =>
      Effect.suspend(() => {
        try {
          return Effect.succeed(f(reader.statements))
        } catch (error) {
          return failWith(operation, failureOf(error))
        }
      }),
    write: <Area extends keyof Commands, Name extends keyof Commands[Area] & string>(
      area: Area,
      command: Name,
      args: Args<Area, Name>
    ) =>
      Effect.callback<Answer<Area, Name>, StoreUnavailable>((resume) => {
        const operation = `${area}.${command}`
        enqueue({
          call: [area, command, args],
          done: (result, i) => {
            const own = result._tag === "Committed" ? result.results[i]! : result
            resume(
              "ok" in own && own.ok
                ? Effect.succeed(own.value as Answer<Area, Name>)
                : failWith(operation, own.failure)
            )
          }
        })
      })
  })
})

export const layer = (options: Options): Layer.Layer<SqliteDatabase, CannotOpen, Ids> =>
  Layer.effect(SqliteDatabase, make(options))
