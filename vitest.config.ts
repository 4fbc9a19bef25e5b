import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** They take longest: whoever began with one of them at the end would wait for it alone. */
const longest = [
  "layers/mongo/groupDelivery",
  "e2e/groups",
  "dashboard/views",
  "client/suite",
  "layers/memory/groupDelivery",
  "layers/sqlite/groupDelivery",
  "e2e/takeover",
  "e2e/exactlyOnce"
]

class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/test/${name}.test.ts`))
      return at < 0 ? longest.length : at
    }
    return (await super.sort(files)).toSorted((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  // Examples import the client by the package's name, and mean what is here.
  resolve: {
    alias: [
      {
        find: /^event-hub\/client$/,
        replacement: fileURLToPath(new URL("src/client/index.ts", import.meta.url))
      }
    ]
  },
  test: {
    include: ["test/**/*.test.ts"],
    // Most of the time a test waits for another process.
    maxWorkers: Math.max(2, Math.floor(availableParallelism() / 2)),
    sequence: { sequencer: LongestFirst },
    // A MongoDB, where nobody named one.
    globalSetup: ["test/support/mongoServer.ts"],
    setupFiles: ["test/support/setup.ts"],
    // Nothing is timed by these: they end a test that would never end.
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
