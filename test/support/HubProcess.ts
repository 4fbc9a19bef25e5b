/** A hub as its users run it: a process of its own, on free ports, ended by signals. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { anyStore } from "./hubStore.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))

/** A log line of `HUB_LOG=json`. */
export interface LogLine {
  readonly msg: string
  readonly [field: string]: unknown
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface HubProcess {
  readonly ws: string
  readonly ops: string
  readonly process: ChildProcess
  readonly lines: ReadonlyArray<LogLine>
  /** The first line for which `is` holds; waits for it. */
  readonly lineWhere: (is: (line: LogLine) => boolean) => Promise<LogLine>
  /** The token that an unconfigured hub prints. */
  readonly devToken: () => Promise<string>
  /** SIGTERM, and how it ended. */
  readonly stop: () => Promise<Exit>
  /** SIGKILL: no code of the hub runs any more. */
  readonly kill: () => Promise<Exit>
}

export const secret = "a secret of thirty-two bytes, or more"

/** The environment of a test, without what the machine's own would add; compiled once, as `npm start` does. */
const baseEnv = (): Record<string, string> => ({
  PATH: process.env["PATH"] ?? "",
  NODE_COMPILE_CACHE: `${root}node_modules/.cache/node`
})

const living = new Set<ChildProcess>()

/** Of a test that failed before it stopped its hubs; after each file. */
export const killLeftovers = (): void => {
  for (const child of living) child.kill("SIGKILL")
}

/** Runs `src/main.ts`, and waits for nothing. */
export const spawnHub = (env: Readonly<Record<string, string>>, cwd: string = root): ChildProcess => {
  const child = spawn(process.execPath, [main], {
    cwd,
    env: { ...baseEnv(), WS_PORT: "0", OPS_PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"]
  })
  living.add(child)
  child.once("exit", () => living.delete(child))
  return child
}

/** Runs `src/main.ts` to its end: for starts that fail. */
export const runToEnd = async (
  env: Readonly<Record<string, string>>,
  cwd: string = root
): Promise<Exit & { readonly stdout: string; readonly stderr: string }> => {
  const child = spawnHub(env, cwd)
  const output = { stdout: "", stderr: "" }
  child.stdout?.on("data", (chunk: Buffer) => (output.stdout += chunk.toString()))
  child.stderr?.on("data", (chunk: Buffer) => (output.stderr += chunk.toString()))
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null]
  return { code, signal, ...output }
}

/** Starts a hub with HS256 tokens of `secret`, in memory unless told otherwise, and waits until it is ready. */
export const startHub = async (env: Readonly<Record<string, string>> = {}): Promise<HubProcess> => {
  const store = env["MONGO_URL"] === undefined && env["HUB_STORE"] === undefined ? anyStore() : {}
  const child = spawnHub({ ...store, JWT_SECRET: secret, HUB_LOG: "json", ...env })
  const lines: Array<LogLine> = []
  let stderr = ""
  child.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString()))
  const exited = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>
  const exit = exited.then(([code, signal]): Exit => ({ code, signal }))
  const output = createInterface({ input: child.stdout! })

  const lineWhere = (is: (line: LogLine) => boolean): Promise<LogLine> =>
    new Promise((resolve, reject) => {
      const found = lines.find(is)
      if (found !== undefined) return resolve(found)
      output.on("line", () => {
        const line = lines.at(-1)
        if (line !== undefined && is(line)) resolve(line)
      })
      void exit.then(({ code }) => reject(new Error(`the hub ended with ${code}: ${stderr}`)))
    })

  output.on("line", (line) => lines.push(JSON.parse(line) as LogLine))
  const ready = await lineWhere((line) => line.msg === "ready")
  const end = (signal: NodeJS.Signals) => (): Promise<Exit> => {
    child.kill(signal)
    return exit
  }
  return {
    ws: String(ready["ws"]),
    ops: String(ready["ops"]),
    process: child,
    lines,
    lineWhere,
    devToken: async () => String((await lineWhere((line) => "token" in line))["token"]),
    stop: end("SIGTERM"),
    kill: end("SIGKILL")
  }
}
