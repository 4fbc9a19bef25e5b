/**
 * ConfigFiles by looking again and again: at what the file system says of a file, and at its text when that changed.
 *
 * Not by being told: what a mounted volume of a container, or an editor, does is to put another file in the place of
 * the one that was there, and that is told differently everywhere, or not at all.
 */
import { readFile, stat } from "node:fs/promises"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import * as Settings from "../../domain/Settings.ts"
import { CannotUseFile, ConfigFiles, type FileOptions } from "../../services/ConfigFiles.ts"

/** A configuration of many megabytes is none. */
const maxBytes = 16 * 1024 * 1024

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : String(error)

/** What tells one state of a file from the next. */
const stampOf = async (path: string): Promise<string> => {
  const { ctimeNs, dev, ino, mtimeNs, size } = await stat(path, { bigint: true })
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ")
}

interface Seen {
  /** Of the files as they were looked at last. */
  readonly stamp: string
  readonly texts: Result.Result<ReadonlyArray<string>, string>
}

const cannotRead = (path: string, error: unknown) => `${path} cannot be read (${codeOf(error)})`

const readOne = async (path: string): Promise<Result.Result<string, string>> => {
  try {
    const { size } = await stat(path)
    if (size > maxBytes) return Result.fail(`${path} has more than ${maxBytes} bytes`)
    return Result.succeed(await readFile(path, "utf8"))
  } catch (error) {
    return Result.fail(cannotRead(path, error))
  }
}

/** The files, unless they are as they were. */
const look = async (paths: ReadonlyArray<string>, before: string | undefined): Promise<Seen | undefined> => {
  const stamps = await Promise.all(paths.map((path) => stampOf(path).catch(codeOf)))
  const stamp = stamps.join("\n")
  if (stamp === before) return undefined
  const read = await Promise.all(paths.map(readOne))
  const bad = read.find(Result.isFailure)
  return {
    stamp,
    texts:
      bad === undefined
        ? Result.succeed(read.filter(Result.isSuccess).map(({ success }) => success))
        : Result.fail(bad.failure)
  }
}

const make = ({ intervalMs }: Settings.FileSettings) =>
  Effect.sync(() => {
    const looks = new Set<(force: boolean) => Effect.Effect<void>>()

    const follow = <A>({ parse, paths, what }: FileOptions<A>) =>
      Effect.gen(function* () {
        const changes = yield* PubSub.unbounded<A>()
        const turn = yield* Semaphore.make(1)
        let stamp: string | undefined
        let texts: ReadonlyArray<string> | undefined

        /** What they say now; nothing when that is what they said before. */
        const next = (force: boolean) =>
          Effect.map(
            Effect.promise(() => look(paths, force ? undefined : stamp)),
            (seen): Result.Result<A, string> | undefined => {
              if (seen === undefined) return undefined
              ;({ stamp } = seen)
              if (Result.isFailure(seen.texts)) return Result.fail(seen.texts.failure)
              const found = seen.texts.success
              if (texts !== undefined && found.every((text, i) => text === texts?.[i])) return undefined
              const parsed = parse(found)
              // What cannot be used is no state to compare with: when it is said again, it is told again.
              if (Result.isSuccess(parsed)) texts = found
              return parsed
            }
          )

        const first = yield* next(true)
        if (first === undefined || Result.isFailure(first)) {
          return yield* new CannotUseFile({ what, reason: first?.failure ?? "it cannot be read" })
        }
        let value = first.success

        const again = (force: boolean): Effect.Effect<void> =>
          turn.withPermits(1)(
            Effect.flatMap(next(force), (found) => {
              if (found === undefined) return Effect.void
              if (Result.isFailure(found)) {
                return Effect.logError("a file cannot be used; what it said before holds on", {
                  setting: what,
                  why: found.failure
                })
              }
              value = found.success
              return Effect.andThen(
                PubSub.publish(changes, value),
                Effect.logInfo("a file was taken anew", { setting: what, files: paths.join(", ") })
              )
            })
          )

        yield* Effect.acquireRelease(
          Effect.sync(() => looks.add(again)),
          () => Effect.sync(() => looks.delete(again))
        )
        yield* Effect.sleep(intervalMs).pipe(Effect.andThen(again(false)), Effect.forever, Effect.forkScoped)
        return { current: () => value, changes: Stream.fromPubSub(changes) }
      })

    return ConfigFiles.of({
      follow,
      reload: Effect.suspend(() =>
        Effect.forEach([...looks], (again) => again(true), { concurrency: "unbounded", discard: true })
      )
    })
  })

export const layer = (settings: Settings.FileSettings = Settings.files): Layer.Layer<ConfigFiles> =>
  Layer.effect(ConfigFiles, make(settings))
