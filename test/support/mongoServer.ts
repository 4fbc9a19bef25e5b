/**
 * Around a whole run of the tests: where TEST_MONGO_URL is not set, a mongod of their own is started, as a replica set of
 * one member, so that transactions and change streams are there. It is the one on the PATH, the one in the cache of
 * mongodb-memory-server, or a download. Without any of these it is said once what is skipped.
 */
import { spawn, spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"

/** Older ones are no server of ours: docs/operations.md. */
const oldestMajor = 6

/** A download that has not begun by then has no way to its server. */
const beginWithinMs = 8_000
const downloadWithinMs = 300_000
const launchWithinMs = 20_000

/** The version that a mongod says it has; none: it is no mongod that runs here. */
const majorOf = (path: string): number | undefined => {
  const { stdout } = spawnSync(path, ["--version"], {
    encoding: "utf8",
    timeout: 5_000,
    killSignal: "SIGKILL"
  })
  const [, major] = /db version v(\d+)\./.exec(stdout ?? "") ?? []
  return major === undefined ? undefined : Number(major)
}

const onPath = (): string | undefined => {
  const file = process.platform === "win32" ? "mongod.exe" : "mongod"
  return (process.env["PATH"] ?? "")
    .split(delimiter)
    .filter((directory) => directory !== "")
    .map((directory) => join(directory, file))
    .find((path) => existsSync(path) && (majorOf(path) ?? 0) >= oldestMajor)
}

const oneLine = (text: string): string =>
  text
    .trim()
    .replaceAll(/\s*\n\s*/g, " ")
    .slice(0, 400)

type Found = { readonly path: string } | { readonly problem: string }

const inCacheOrDownloaded = (): Promise<Found> =>
  new Promise((resolve) => {
    const child = spawn(process.execPath, [fileURLToPath(new URL("mongodBinary.ts", import.meta.url))], {
      // Without the second, it takes a mongod from whoever answers.
      env: { MONGOMS_MAX_RETRIES: "1", ...process.env, npm_config_strict_ssl: "true" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let stdout = ""
    let stderr = ""
    let problem = `no download began within ${beginWithinMs / 1_000} seconds`
    const end = (): void => void child.kill("SIGKILL")
    let timer = setTimeout(end, beginWithinMs)
    child.stdout.on("data", (chunk: Buffer) => {
      if (stdout === "") {
        clearTimeout(timer)
        timer = setTimeout(end, downloadWithinMs)
        problem = `the download took longer than ${downloadWithinMs / 1_000} seconds`
      }
      stdout += chunk.toString()
    })
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()))
    child.on("error", (error) => (stderr += error.message))
    child.on("close", () => {
      clearTimeout(timer)
      const [, path] = /^mongod (.+)$/m.exec(stdout) ?? []
      resolve(path === undefined ? { problem: oneLine(stderr) || problem } : { path })
    })
  })

const find = async (): Promise<Found> => {
  const path = process.env["MONGOMS_SYSTEM_BINARY"] ?? onPath()
  return path === undefined ? inCacheOrDownloaded() : { path }
}

const start = async (systemBinary: string) => {
  process.env["MONGOMS_SYSTEM_BINARY_VERSION_CHECK"] ??= "false"
  const { MongoMemoryReplSet } = await import("mongodb-memory-server-core")
  return MongoMemoryReplSet.create({
    binary: { systemBinary },
    instanceOpts: [{ launchTimeout: launchWithinMs }],
    replSet: { count: 1, storageEngine: "wiredTiger" }
  })
}

const skipped = (problem: string): void =>
  console.warn(
    `\nNO MONGODB: all tests of the MongoDB stores are skipped. ${problem}\n` +
      "To run them, set TEST_MONGO_URL to the URL of a MongoDB (a replica set runs all of them), or put a mongod of\n" +
      `version ${oldestMajor} or newer on the PATH.\n`
  )

export default async (): Promise<(() => Promise<void>) | undefined> => {
  if ((process.env["TEST_MONGO_URL"] ?? "") !== "") return undefined
  // Empty is as good as not set.
  delete process.env["TEST_MONGO_URL"]
  const found = await find()
  if ("problem" in found) {
    skipped(`There is no mongod on the PATH, and none could be had: ${found.problem}`)
    return undefined
  }
  try {
    const server = await start(found.path)
    process.env["TEST_MONGO_URL"] = server.getUri()
    return async () => {
      delete process.env["TEST_MONGO_URL"]
      await server.stop({ doCleanup: true, force: true })
    }
  } catch (error) {
    skipped(
      `${found.path} does not start: ${oneLine(error instanceof Error ? error.message : String(error))}`
    )
    return undefined
  }
}
