/**
 * The one connection that writes for the hub: runs commands, as many as wait, in one transaction.
 *
 * An fsync is what a durable write costs, so it is shared: whatever came while the last commit was under way
 * is committed together. Each command stands in a savepoint of its own; one that fails takes no other with it.
 *
 * Plain code without Effect, since it runs in a thread that should start fast and stay small.
 */
import { DatabaseSync } from "node:sqlite"
import { eventCommands } from "./eventCommands.ts"
import { groupCommands } from "./groupCommands.ts"
import { outboxCommands } from "./outboxCommands.ts"
import { revocationCommands } from "./revocationCommands.ts"
import { connectionPragmas } from "./schema.ts"
import { prepare, type Statements } from "./statements.ts"

const makeCommands = (statements: Statements) => {
  const events = eventCommands(statements)
  return {
    forget: events.forget,
    commands: {
      events: events.commands,
      groups: groupCommands(statements),
      outbox: outboxCommands(statements),
      revocations: revocationCommands(statements)
    }
  }
}

export type Commands = ReturnType<typeof makeCommands>["commands"]

/** `[area, command, arguments]`: what crosses from the hub to the writer. */
export type Call = readonly [area: string, command: string, args: unknown]

/** A failure as it crosses back; `code` is SQLite's primary result code, when it was SQLite's failure. */
export interface WriterFailure {
  readonly message: string
  readonly code: number | undefined
}

export type CallResult =
  { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly failure: WriterFailure }

export type BatchResult =
  /** Committed, and durable. */
  | { readonly _tag: "Committed"; readonly results: ReadonlyArray<CallResult> }
  /** Rolled back: none of the calls happened. */
  | { readonly _tag: "RolledBack"; readonly failure: WriterFailure }
  /**
   * The disk failed while committing, and what is on it is not known. After a failed fsync the kernel may
   * forget which pages were never written, so trying again proves nothing: the process has to end.
   */
  | { readonly _tag: "Broken"; readonly failure: WriterFailure }

export interface Writer {
  readonly run: (calls: ReadonlyArray<Call>) => BatchResult
  readonly close: () => void
}

/** https://sqlite.org/rescode.html */
const SQLITE_IOERR = 10

const SQLITE_BUSY = 5

/** The pauses of a writer that waits for an application, in milliseconds: longer each time. */
const pauseMs = { first: 0.1, longest: 1 }

const failureOf = (error: unknown): WriterFailure => {
  const message = error instanceof Error ? error.message : String(error)
  const errcode = error instanceof Error && "errcode" in error ? error.errcode : undefined
  return { message, code: typeof errcode === "number" ? errcode & 0xff : undefined }
}

export interface WriterOptions {
  readonly path: string
  /** How long to wait for an application that writes to the same file, in milliseconds. */
  readonly busyTimeoutMs: number
}

export const openWriter = (options: WriterOptions): Writer => {
  const db = new DatabaseSync(options.path, { timeout: options.busyTimeoutMs })
  db.exec(`${connectionPragmas}; PRAGMA cache_size = -16000`)
  const { commands, forget } = makeCommands(prepare(db))
  const find = ([area, command]: Call): ((args: unknown) => unknown) => {
    const found = (commands as unknown as Record<string, Record<string, (args: unknown) => unknown>>)[area]?.[
      command
    ]
    if (found === undefined) throw new Error(`no command ${area}.${command}`)
    return found
  }

  // SQLite's own waits grow to 100 ms, and an application that writes all the time is faster each time.
  db.exec("PRAGMA busy_timeout = 0")
  // To wait for a cell that nobody wakes is the one sleep that synchronous code has.
  const neverWoken = new Int32Array(new SharedArrayBuffer(4))

  const begin = (): void => {
    const until = performance.now() + options.busyTimeoutMs
    for (let pause = pauseMs.first; ; pause = Math.min(pauseMs.longest, 1.2 * pause)) {
      try {
        return db.exec("BEGIN IMMEDIATE")
      } catch (error) {
        if (failureOf(error).code !== SQLITE_BUSY || performance.now() >= until) throw error
        Atomics.wait(neverWoken, 0, 0, pause)
      }
    }
  }

  const savepoint = db.prepare("SAVEPOINT call")
  const release = db.prepare("RELEASE call")

  const runOne = (call: Call): CallResult => {
    savepoint.run()
    try {
      const value = find(call)(call[2])
      release.run()
      return { ok: true, value }
    } catch (error) {
      // SQLite ends the transaction itself when it cannot go on: then no call of the batch happened.
      if (!db.isTransaction) throw error
      db.exec("ROLLBACK TO call; RELEASE call")
      forget()
      return { ok: false, failure: failureOf(error) }
    }
  }

  const rollBack = (error: unknown): BatchResult => {
    forget()
    if (db.isTransaction) db.exec("ROLLBACK")
    return { _tag: "RolledBack", failure: failureOf(error) }
  }

  return {
    run: (calls) => {
      const results: Array<CallResult> = []
      try {
        begin()
        for (const call of calls) results.push(runOne(call))
      } catch (error) {
        return rollBack(error)
      }
      try {
        db.exec("COMMIT")
        return { _tag: "Committed", results }
      } catch (error) {
        const failure = failureOf(error)
        return failure.code === SQLITE_IOERR ? { _tag: "Broken", failure } : rollBack(error)
      }
    },
    close: () => db.close()
  }
}
