import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

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
    // A MongoDB, where nobody named one.
    globalSetup: ["test/support/mongoServer.ts"],
    setupFiles: ["test/support/setup.ts"],
    // Nothing is timed by these: they end a test that would never end.
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
