import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    setupFiles: ["test/support/setup.ts"],
    // Nothing is timed by these: they end a test that would never end.
    testTimeout: 60_000,
    hookTimeout: 60_000
  }
})
