/**
 * The TypeScript in README.md and docs/client.md: every block is a program that compiles, runs against a hub, and ends.
 *
 * A block with a name (```ts hub.ts) is a file that the others of its document import. One that waits for SIGTERM
 * gets it when it has printed something. What needs what is not here (```ts no-run) is compiled only.
 */
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { beforeAll, describe, expect, it } from "vitest"
import { startEmbeddedHub } from "../support/EmbeddedHub.ts"
import { tokenFor } from "../support/tokens.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** Inside the package, so that `event-hub/…` means this one. */
const output = join(root, "test-output", "docs")

const documents = ["README.md", "docs/client.md"]

interface Block {
  readonly document: string
  readonly title: string
  readonly path: string
  readonly code: string
  readonly runs: boolean
}

const slug = (text: string): string => text.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")

const blocksOf = (document: string): ReadonlyArray<Block> => {
  const blocks: Array<Block> = []
  const counts = new Map<string, number>()
  let heading = document
  let open: { readonly info: string; readonly lines: Array<string> } | undefined
  for (const line of readFileSync(join(root, document), "utf8").split("\n")) {
    if (open === undefined) {
      heading = /^#+ (.*)/.exec(line)?.[1] ?? heading
      const info = /^```(.*)/.exec(line)?.[1]
      if (info !== undefined) open = { info, lines: [] }
    } else if (line !== "```") open.lines.push(line)
    else {
      const [language, word] = open.info.split(" ")
      if (language === "ts") {
        const count = (counts.get(heading) ?? 0) + 1
        counts.set(heading, count)
        const title = count === 1 ? heading : `${heading} (${count})`
        const name = word?.endsWith(".ts") ? word : `${slug(title)}.ts`
        blocks.push({
          document,
          title,
          path: join(output, slug(document), name),
          code: open.lines.join("\n"),
          runs: word !== "no-run"
        })
      }
      open = undefined
    }
  }
  return blocks
}

const blocks = documents.flatMap(blocksOf)

const config = {
  extends: join(root, "tsconfig.json"),
  // The client runs in browsers, too, and so do some of the blocks.
  compilerOptions: { lib: ["es2024", "esnext.disposable", "dom", "dom.iterable"] },
  include: ["**/*.ts"]
}

beforeAll(() => {
  rmSync(output, { recursive: true, force: true })
  for (const { code, path } of blocks) {
    mkdirSync(join(path, ".."), { recursive: true })
    // A module, also where it imports nothing.
    writeFileSync(path, `${code}\n\nexport {}\n`)
  }
  writeFileSync(join(output, "tsconfig.json"), JSON.stringify(config))
})

it("they have names of their own", () => {
  expect(new Set(blocks.map(({ path }) => path)).size).toBe(blocks.length)
  for (const document of documents) expect(blocks.some((block) => block.document === document)).toBe(true)
})

it("every block compiles", () => {
  const { stdout } = spawnSync(process.execPath, [join(root, "node_modules/.bin/tsc"), "-p", output], {
    cwd: root,
    encoding: "utf8"
  })
  expect(stdout).toBe("")
})

const run = async ({ code, path }: Block): Promise<string> => {
  const hub = await startEmbeddedHub()
  const child = spawn(process.execPath, ["--conditions=event-hub-source", path], {
    env: { PATH: process.env["PATH"], HUB_URL: hub.ws, HUB_TOKEN: await tokenFor() },
    stdio: ["ignore", "pipe", "pipe"]
  })
  try {
    let stderr = ""
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()))
    if (code.includes("SIGTERM")) child.stdout.once("data", () => child.kill("SIGTERM"))
    else child.stdout.resume()
    const [status, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null]
    return status === 0 ? stderr : `ended with ${status ?? signal}: ${stderr}`
  } finally {
    child.kill("SIGKILL")
    await hub.stop()
  }
}

describe.each(documents)("%s", (document) => {
  it.each(blocks.filter((block) => block.document === document && block.runs))(
    "$title runs",
    async (block) => {
      expect(await run(block)).toBe("")
    }
  )
})
