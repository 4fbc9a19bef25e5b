/** Policies from a file: what is wrong with it is told in one line, with its path and its places. */
import { truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, Layer } from "effect"
import { describe, expect, it } from "vitest"
import * as FilePolicies from "../../../src/layers/files/FilePolicies.ts"
import * as PolledConfigFiles from "../../../src/layers/files/PolledConfigFiles.ts"
import { ConfigFiles } from "../../../src/services/ConfigFiles.ts"
import { Policies } from "../../../src/services/Policies.ts"
import { temporaryDirectory } from "../../support/temporary.ts"

const path = (text: string) => {
  const path = join(temporaryDirectory(), "policies.txt")
  writeFileSync(path, text)
  return path
}

const run = <A>(path: string, use: Effect.Effect<A, never, ConfigFiles>, maxBytes?: number) =>
  Effect.runPromise(
    use.pipe(
      Effect.provide(
        FilePolicies.layer(path, maxBytes).pipe(
          Layer.provideMerge(PolledConfigFiles.layer({ intervalMs: 3_600_000 }))
        )
      )
    )
  )

const roles = Effect.map(Policies, (policies) => [...(policies.current()?.roles.keys() ?? [])])

describe("FilePolicies", () => {
  it("has the roles of the file, and those of the next one", async () => {
    const file = path("role a:\nrole b: allow * **")
    const said = await run(
      file,
      Effect.gen(function* () {
        const policies = yield* Policies
        const first = policies.current()
        expect(policies.current()).toBe(first)
        writeFileSync(file, "role c:")
        yield* (yield* ConfigFiles).reload
        return [[...first!.roles.keys()], yield* roles]
      })
    )
    expect(said).toEqual([["a", "b"], ["c"]])
  })

  it("without one there are none", async () => {
    expect(await Effect.runPromise(Effect.map(Policies, ({ current }) => current()))).toBeUndefined()
  })

  it("what is wrong at the start is one line", async () => {
    const bad = path("role a:\n  look\nrole b")
    await expect(run(bad, roles)).rejects.toThrow(
      `HUB_POLICY: ${bad}:2:3: a rule begins with 'allow' or 'deny', not 'look'; ${bad}:3:7: a ':' is missing behind the name: role b:`
    )
    const worse = path("nonsense\n".repeat(100))
    await expect(run(worse, roles)).rejects.toThrow(/; and 80 more$/)
    const worst = path("nonsense\n".repeat(100_000))
    await expect(run(worst, roles)).rejects.toThrow(/; and 80 more$/)
  })

  it("that is large is no policy, and is not read", async () => {
    const file = path("role a:\n")
    truncateSync(file, 1024 * 1024 + 1)
    await expect(run(file, roles)).rejects.toThrow(/HUB_POLICY: .* has more than 1048576 bytes/)
    truncateSync(file, 101)
    await expect(run(file, roles, 100)).rejects.toThrow(/has more than 100 bytes/)
  })
})
