/** What a browser loads of the package: the page, its style, and one module that holds the client, too. */
import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"
import { temporaryDirectory } from "../support/temporary.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** The step of `npm run build` that makes the dashboard, into another folder. */
const buildInto = (directory: string): void => {
  const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    readonly scripts: { readonly build: string }
  }
  const step = scripts.build.split(" && ").find((command) => command.startsWith("esbuild "))
  const [command = "", ...args] = (step ?? "").replace("dist/dashboard", directory).split(" ")
  execFileSync(join(root, "node_modules", ".bin", command), args, { cwd: root })
}

it("is at most 100 kB, uncompressed, in three files", () => {
  const directory = temporaryDirectory()
  buildInto(directory)
  // Nothing else is named in them, so nothing else is loaded.
  const files = ["index.html", "main.js", "style.css"].map((name) =>
    readFileSync(join(directory, name), "utf8")
  )
  for (const file of files) expect(file).not.toMatch(/^import|@import|\burl\(|\bimport\(/m)
  const bytes = files.reduce((sum, file) => sum + Buffer.byteLength(file), 0)
  console.log(`the dashboard: ${bytes} bytes`)
  expect(bytes).toBeLessThanOrEqual(100_000)
})
