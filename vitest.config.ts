import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Most of the time a test waits for another process.
    maxWorkers: Math.max(2, Math.floor(availableParallelism() / 2)),
    // A MongoDB, where nobody named one.
    globalSetup: ["test/support/mongoServer.ts"],
    setupFiles: ["test/support/setup.ts"],
    // Nothing is timed by these: they end a test that would never end.
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
