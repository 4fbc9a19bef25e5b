/** What a page loads: everything that the entry exports, bundled and minified, fits into 8 KiB. */
import { fileURLToPath } from "node:url"
import { gzipSync } from "node:zlib"
import { build } from "esbuild"
import { expect, it } from "vitest"

it("is at most 8,192 bytes, compressed", async () => {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../../src/client/index.ts", import.meta.url))],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false
  })
  const [{ contents }] = outputFiles as [(typeof outputFiles)[number]]
  const { length } = gzipSync(contents, { level: 9 })
  console.log(`event-hub/client: ${contents.length} bytes, ${length} compressed`)
  expect(length).toBeLessThanOrEqual(8_192)
})
