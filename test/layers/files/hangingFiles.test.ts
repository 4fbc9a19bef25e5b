/** Files on a file system that does not answer: nobody waits for it, what was known holds on, and it is asked once. */
import { stat } from "node:fs/promises"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Layer, Result } from "effect"
import { afterEach, expect, it, vi } from "vitest"
import * as Log from "../../../src/hub/Log.ts"
import * as PolledConfigFiles from "../../../src/layers/files/PolledConfigFiles.ts"
import { ConfigFiles } from "../../../src/services/ConfigFiles.ts"
import { temporaryDirectory } from "../../support/temporary.ts"

vi.mock("node:fs/promises", async (importOriginal) => {
  const real = await importOriginal<typeof import("node:fs/promises")>()
  return { ...real, stat: vi.fn<typeof stat>(real.stat) }
})

afterEach(() => void vi.mocked(stat).mockReset())

const hang = () => {
  const real = vi.mocked(stat).getMockImplementation()!
  let answer = (): void => {}
  const waits = new Promise<void>((resolve) => {
    answer = resolve
  })
  vi.mocked(stat).mockClear()
  vi.mocked(stat).mockImplementation((async (path: string) => {
    await waits
    return real(path)
  }) as typeof stat)
  return () => {
    vi.mocked(stat).mockImplementation(real)
    answer()
  }
}

const timeoutMs = 100

it("a file system that hangs is a file that cannot be used, until it answers again", async () => {
  const path = join(temporaryDirectory(), "file")
  writeFileSync(path, "1")
  const why: Array<unknown> = []
  const log = Log.layer("json", (line) => {
    const { level, why: reason } = JSON.parse(line) as { readonly level: string; readonly why?: string }
    if (level === "error") why.push(reason)
  })
  const program = Effect.gen(function* () {
    const files = yield* ConfigFiles
    const { current } = yield* files.follow({
      what: "SETTING",
      paths: [path],
      parse: ([text]) => Result.succeed(text)
    })
    const answer = hang()
    writeFileSync(path, "2")
    yield* files.reload
    yield* files.reload
    yield* files.reload
    expect(current()).toBe("1")
    expect(stat).toHaveBeenCalledTimes(1)
    const late = `${path} could not be looked at within ${timeoutMs} ms`
    expect(why).toEqual([late, late, late])
    answer()
    yield* files.reload
    expect(current()).toBe("2")
  })
  const layer = PolledConfigFiles.layer({ intervalMs: 3_600_000, timeoutMs })
  await Effect.runPromise(Effect.scoped(Effect.provide(program, Layer.provideMerge(layer, log))))
})

it("a file system that hangs at the start stops it, with the reason", async () => {
  const path = join(temporaryDirectory(), "file")
  writeFileSync(path, "1")
  const answer = hang()
  const follow = Effect.flatMap(ConfigFiles, (files) =>
    files.follow({ what: "SETTING", paths: [path], parse: ([text]) => Result.succeed(text) })
  )
  const layer = PolledConfigFiles.layer({ intervalMs: 3_600_000, timeoutMs })
  await expect(Effect.runPromise(Effect.scoped(Effect.provide(follow, layer)))).rejects.toThrow(
    `SETTING: ${path} could not be looked at within ${timeoutMs} ms`
  )
  answer()
})
