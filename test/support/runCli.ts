/** The `event-hub` command as people run it: a process of its own, to its end. */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

export interface CliRun {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export const runCli = async (
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> = {},
  input = ""
): Promise<CliRun> => {
  const child = spawn(process.execPath, ["src/cli/main.ts", ...args], {
    cwd: root,
    env: { PATH: process.env["PATH"] ?? "", NODE_COMPILE_CACHE: `${root}node_modules/.cache/node`, ...env },
    stdio: "pipe"
  })
  let stdout = ""
  let stderr = ""
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()))
  // A command that does not read to the end of its input is nothing to worry about.
  child.stdin.on("error", () => {})
  child.stdin.end(input)
  const [code] = (await once(child, "close")) as [number | null]
  return { code, stdout, stderr }
}
