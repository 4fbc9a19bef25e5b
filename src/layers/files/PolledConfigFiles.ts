/**
 * ConfigFiles by reading again and again: what is in a file, and not what the file system says of its time, which is too
 * coarse to tell one state from the next.
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
import { goOn } from "../core/goOn.ts"
import * as metrics from "../core/metrics.ts"
import { CannotUseFile, ConfigFiles, type FileOptions } from "../../services/ConfigFiles.ts"

/** A configuration of many megabytes is none. */
const defaultMaxBytes = 16 * 1024 * 1024

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : String(error)

/** What tells one state of a file from the next. */
const stampOf = async (path: string): Promise<string> => {
  const { ctimeNs, dev, ino, mtimeNs, size } = await stat(path, { bigint: true })
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ")
}

type Files = Pick<FileOptions<never>, "maxBytes" | "paths">

/** The text of each, or why one of them cannot be had. */
type Texts = Result.Result<ReadonlyArray<string>, string>

const cannotRead = (path: string, error: unknown) => `${path} cannot be read (${codeOf(error)})`

const readOne = async (path: string, maxBytes: number): Promise<Result.Result<string, string>> => {
  try {
    const found = await stat(path)
    // What is read from a pipe is gone, and from a device it never ends.
    if (!found.isFile()) return Result.fail(`${path} is no file`)
    if (found.size > maxBytes) return Result.fail(`${path} has more than ${maxBytes} bytes`)
    return Result.succeed(await readFile(path, "utf8"))
  } catch (error) {
    return Result.fail(cannotRead(path, error))
  }
}

const stampsOf = async (paths: ReadonlyArray<string>): Promise<string> =>
  (await Promise.all(paths.map((path) => stampOf(path).catch(codeOf)))).join("\n")

const readAll = async ({ maxBytes = defaultMaxBytes, paths }: Files): Promise<Texts> => {
  const read = await Promise.all(paths.map((path) => readOne(path, maxBytes)))
  const bad = read.find(Result.isFailure)
  return bad === undefined
    ? Result.succeed(read.filter(Result.isSuccess).map(({ success }) => success))
    : Result.fail(bad.failure)
}

/** None while they change: half of what somebody is writing is nothing. */
const look = async (files: Files): Promise<Texts | undefined> => {
  const stamps = await stampsOf(files.paths)
  const texts = await readAll(files)
  return (await stampsOf(files.paths)) === stamps ? texts : undefined
}

const areSame = (a: Texts, b: Texts): boolean =>
  Result.isSuccess(a)
    ? Result.isSuccess(b) && a.success.every((text, i) => text === b.success[i])
    : Result.isFailure(b) && a.failure === b.failure

/**
 * What is asked of the file system, when it answers in time. One that hangs is not asked anew as long as it does: each
 * question takes a thread of the few that the process has, and never gives it back.
 */
const patiently = (timeoutMs: number, paths: ReadonlyArray<string>) => {
  let last: Promise<unknown> = Promise.resolve()
  const late = (): Texts => Result.fail(`${paths.join(", ")} could not be looked at within ${timeoutMs} ms`)
  return <A>(ask: () => Promise<A>): Effect.Effect<A | Texts> =>
    Effect.promise(() => last).pipe(
      Effect.andThen(
        Effect.promise(() => {
          const asked = ask()
          last = asked
          return asked
        })
      ),
      Effect.timeoutOrElse({ duration: timeoutMs, orElse: () => Effect.sync(late) })
    )
}

const make = ({ intervalMs, timeoutMs }: Settings.FileSettings) =>
  Effect.gen(function* () {
    const looks = new Set<(isAsked: boolean) => Effect.Effect<void>>()
    const recorder = yield* metrics.recorder

    const follow = <A>({ maxBytes, parse, paths, what }: FileOptions<A>) =>
      Effect.gen(function* () {
        const files = { maxBytes, paths }
        const patient = patiently(timeoutMs, paths)
        const first = yield* patient(() => readAll(files))
        const begun = Result.flatMap(first, parse)
        if (Result.isFailure(begun)) return yield* new CannotUseFile({ what, reason: begun.failure })
        const changes = yield* PubSub.unbounded<A>()
        const turn = yield* Semaphore.make(1)
        let value = begun.success
        /** What the value was made of, and what was there when they were looked at last. */
        let taken = first
        let last = first
        let isCurrent = true
        yield* recorder.gauge(metrics.configFileCurrent, () => (isCurrent ? 1 : 0), { setting: what })
        const reloads = {
          taken: recorder.counter(metrics.configFileReloads, { setting: what, outcome: "taken" }),
          refused: recorder.counter(metrics.configFileReloads, { setting: what, outcome: "refused" })
        }

        const refuse = (why: string) => {
          isCurrent = false
          reloads.refused.count++
          return Effect.logError("a file cannot be used; what it said before holds on", {
            setting: what,
            why
          })
        }

        const take = (texts: Texts): Effect.Effect<void> => {
          last = texts
          const told = { setting: what, files: paths.join(", ") }
          if (areSame(texts, taken)) {
            if (isCurrent) return Effect.void
            isCurrent = true
            return Effect.logInfo("a file is what it was again", told)
          }
          const parsed = Result.flatMap(texts, parse)
          if (Result.isFailure(parsed)) return refuse(parsed.failure)
          taken = texts
          value = parsed.success
          isCurrent = true
          reloads.taken.count++
          return Effect.andThen(PubSub.publish(changes, value), Effect.logInfo("a file was taken anew", told))
        }

        /** Asked for, it is told again what is wrong. */
        const again = (isAsked: boolean): Effect.Effect<void> =>
          turn.withPermits(1)(
            Effect.flatMap(
              patient<Texts | undefined>(() => (isAsked ? readAll(files) : look(files))),
              (texts) =>
                texts === undefined || (!isAsked && areSame(texts, last)) ? Effect.void : take(texts)
            )
          )

        yield* Effect.acquireRelease(
          Effect.sync(() => looks.add(again)),
          () => Effect.sync(() => looks.delete(again))
        )
        yield* Effect.sleep(intervalMs).pipe(
          Effect.andThen(goOn("looking at a file")(again(false))),
          Effect.forever,
          Effect.forkScoped
        )
        return { current: () => value, changes: Stream.fromPubSub(changes) }
      })

    return ConfigFiles.of({
      follow,
      reload: Effect.suspend(() =>
        Effect.forEach([...looks], (again) => again(true), { concurrency: "unbounded", discard: true })
      )
    })
  })

export const layer = (settings: Partial<Settings.FileSettings> = {}): Layer.Layer<ConfigFiles> =>
  Layer.effect(ConfigFiles, make({ ...Settings.files, ...settings }))
