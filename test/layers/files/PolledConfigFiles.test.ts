/** Files of the configuration: what is in them now holds, what cannot be used changes nothing, and the log says why. */
import { mkdirSync, renameSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Context, Effect, Exit, Layer, Metric, Result, Scope, Stream } from "effect"
import { describe, expect, it, onTestFinished } from "vitest"
import * as Log from "../../../src/hub/Log.ts"
import * as PolledConfigFiles from "../../../src/layers/files/PolledConfigFiles.ts"
import { ConfigFiles } from "../../../src/services/ConfigFiles.ts"
import { temporaryDirectory } from "../../support/temporary.ts"

interface Logged {
  readonly level: string
  readonly msg: string
  readonly why?: string
}

/** Digits, each file. */
const parse = (texts: ReadonlyArray<string>): Result.Result<number, string> =>
  texts.every((text) => /^\d+$/.test(text))
    ? Result.succeed(Number(texts.join("")))
    : Result.fail("no number")

const metricsOf = (context: Context.Context<never>) =>
  Metric.snapshotUnsafe(context).flatMap((metric) =>
    metric.id.startsWith("event_hub_config_file") ? [metric] : []
  )

const open = async (paths: ReadonlyArray<string>, intervalMs: number) => {
  const scope = Effect.runSync(Scope.make())
  const logged: Array<Logged> = []
  onTestFinished(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  const layer = PolledConfigFiles.layer({ intervalMs }).pipe(
    Layer.provideMerge(Layer.succeed(Metric.MetricRegistry, new Map())),
    Layer.provideMerge(Log.layer("json", (line) => void logged.push(JSON.parse(line) as Logged)))
  )
  const program = Effect.gen(function* () {
    const files = yield* ConfigFiles
    const value = yield* files.follow({ what: "SETTING", paths, parse })
    const changes: Array<number> = []
    yield* Effect.forkScoped(
      Stream.runForEach(value.changes, (n) => Effect.sync(() => void changes.push(n))),
      { startImmediately: true }
    )
    const context = yield* Effect.context<never>()
    const reload = () => Effect.runPromiseWith(context)(files.reload)
    return { reload, current: value.current, changes, logged, metrics: () => metricsOf(context) }
  })
  return Effect.runPromise(
    Effect.flatMap(Layer.buildWithScope(layer, scope), (context) =>
      program.pipe(Effect.provideContext(context), Effect.provideService(Scope.Scope, scope))
    )
  )
}

const often = 20
const never = 3_600_000

const until = async (what: string, is: () => boolean): Promise<void> => {
  await expect.poll(is, { message: what, timeout: 20_000 }).toBe(true)
}

describe("a file", () => {
  const file = () => join(temporaryDirectory(), "file")

  it("is taken anew when it is written, and when another takes its place", async () => {
    const path = file()
    writeFileSync(path, "1")
    const { changes, current } = await open([path], often)
    expect(current()).toBe(1)
    writeFileSync(path, "2")
    await until("what was written", () => current() === 2)
    writeFileSync(`${path}.new`, "3")
    renameSync(`${path}.new`, path)
    await until("what was renamed", () => current() === 3)
    await until("both changes", () => changes.length === 2)
    expect(changes).toEqual([2, 3])
  })

  it("is taken anew when the link to its directory changes, as mounted volumes do it", async () => {
    const root = temporaryDirectory()
    for (const [name, text] of [
      ["a", "1"],
      ["b", "2"]
    ] as const) {
      mkdirSync(join(root, name))
      writeFileSync(join(root, name, "file"), text)
    }
    symlinkSync("a", join(root, "data"))
    symlinkSync(join("data", "file"), join(root, "file"))
    const { current } = await open([join(root, "file")], often)
    expect(current()).toBe(1)
    symlinkSync("b", join(root, "next"))
    renameSync(join(root, "next"), join(root, "data"))
    await until("what is behind the link", () => current() === 2)
  })

  it("that is gone, or cannot be used, changes nothing, and each time the log says why", async () => {
    const path = file()
    writeFileSync(path, "1")
    const { changes, current, logged } = await open([path], often)
    const errors = () => logged.filter(({ level }) => level === "error").map(({ why }) => why)
    rmSync(path)
    await until("a line about the missing file", () => errors().length === 1)
    writeFileSync(path, "x")
    await until("a line about the bad file", () => errors().length === 2)
    truncateSync(path)
    await until("a line about the empty file", () => errors().length === 3)
    expect(errors()).toEqual([`${path} cannot be read (ENOENT)`, "no number", "no number"])
    expect(current()).toBe(1)
    writeFileSync(path, "1")
    await until("the good news", () => logged.some(({ msg }) => msg === "a file is what it was again"))
    writeFileSync(path, "5")
    await until("what it says then", () => current() === 5)
    await until("one change", () => changes.length > 0)
    expect(changes).toEqual([5])
    expect(errors()).toHaveLength(3)
  })

  it("is looked at when it is asked for, changed or not", async () => {
    const path = file()
    writeFileSync(path, "1")
    const { changes, current, logged, reload } = await open([path], never)
    writeFileSync(path, "2")
    await reload()
    expect(current()).toBe(2)
    await reload()
    writeFileSync(path, "bad")
    await reload()
    await reload()
    expect(current()).toBe(2)
    await until("the change", () => changes.length === 1)
    expect(logged.filter(({ level }) => level === "error")).toHaveLength(2)
  })

  it("counts what was taken and what was not, and shows whether it holds", async () => {
    const path = file()
    writeFileSync(path, "1")
    const { metrics, reload } = await open([path], never)
    const state = () => {
      const value = (id: string, outcome?: string) =>
        metrics().find((metric) => metric.id === id && metric.attributes?.["outcome"] === outcome)?.state
      return [
        value("event_hub_config_file_current"),
        value("event_hub_config_file_reloads_total", "taken"),
        value("event_hub_config_file_reloads_total", "refused")
      ]
    }
    const expected = (current: number, taken: number, refused: number) => [
      expect.objectContaining({ value: current }),
      expect.objectContaining({ count: taken }),
      expect.objectContaining({ count: refused })
    ]
    expect(state()).toEqual(expected(1, 0, 0))
    for (const [text, current, taken, refused] of [
      ["2", 1, 1, 0],
      ["x", 0, 1, 1],
      ["2", 1, 1, 1],
      ["3", 1, 2, 1]
    ] as const) {
      writeFileSync(path, text)
      await reload()
      expect(state()).toEqual(expected(current, taken, refused))
    }
  })

  it("that cannot be used at the start stops it, with the setting and the reason", async () => {
    const path = file()
    await expect(open([path], never)).rejects.toThrow(`SETTING: ${path} cannot be read (ENOENT)`)
    writeFileSync(path, "x")
    await expect(open([path], never)).rejects.toThrow("SETTING: no number")
    await expect(open([temporaryDirectory()], never)).rejects.toThrow(/SETTING: .* is no file/)
    truncateSync(path, 17 * 1024 * 1024)
    await expect(open([path], never)).rejects.toThrow(/has more than 16777216 bytes/)
  })
})

it("files that belong together are taken together", async () => {
  const directory = temporaryDirectory()
  const paths = ["one", "two"].map((name) => join(directory, name))
  for (const path of paths) writeFileSync(path, "1")
  const { changes, current, logged } = await open(paths, often)
  expect(current()).toBe(11)
  writeFileSync(paths[0]!, "x")
  await until("a line about the pair", () => logged.some(({ level }) => level === "error"))
  expect(current()).toBe(11)
  writeFileSync(paths[0]!, "2")
  await until("the pair", () => current() === 21)
  expect(changes.every((n) => n === 21)).toBe(true)
})
