/** How a hub starts, and how it does not: one clear line, a code that is not 0, no stack trace, nothing touched. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { expect, it } from "vitest"
import { runToEnd, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"

/** Every file below a directory, and what is in it. */
const snapshot = (directory: string): Readonly<Record<string, string>> =>
  Object.fromEntries(
    readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const path = join(entry.parentPath, entry.name)
        return [path, readFileSync(path).toString("latin1")]
      })
  )

const refuses = async (
  env: Readonly<Record<string, string>>,
  line: RegExp,
  directory = temporaryDirectory()
) => {
  const before = snapshot(directory)
  const { code, stderr, stdout } = await runToEnd(env, directory)
  expect(stderr).toMatch(line)
  expect(stderr.trimEnd().split("\n")).toHaveLength(1)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect(stdout).toBe("")
  expect(code).toBe(1)
  expect(snapshot(directory)).toEqual(before)
}

it("refuses a file that is not a database", async () => {
  const directory = temporaryDirectory()
  writeFileSync(join(directory, "x.db"), "Dear diary, ".repeat(1_000))
  await refuses(
    { HUB_STORE: "sqlite:x.db" },
    /x\.db' as the hub's store: it is not an SQLite database/,
    directory
  )
})

it("refuses a store that a newer version has written", async () => {
  const directory = temporaryDirectory()
  const path = join(directory, "x.db")
  const hub = await startHub({ HUB_STORE: `sqlite:${path}` })
  await hub.stop()
  const db = new DatabaseSync(path)
  db.exec("UPDATE hub_meta SET value = '99' WHERE name = 'schema_version'")
  db.close()
  await refuses(
    { HUB_STORE: "sqlite:x.db" },
    /written by a newer version \(schema 99, .*update event-hub/,
    directory
  )
})

it("refuses a newer store that was not closed, and leaves its log of writes alone", async () => {
  const directory = temporaryDirectory()
  const living = join(directory, "living")
  mkdirSync(living)
  const path = join(living, "x.db")
  await (await startHub({ HUB_STORE: `sqlite:${path}` })).stop()
  const db = new DatabaseSync(path)
  db.exec("UPDATE hub_meta SET value = '99' WHERE name = 'schema_version'")
  // As a crash would leave it: the change is in the write-ahead log only.
  cpSync(path, join(directory, "x.db"))
  cpSync(`${path}-wal`, join(directory, "x.db-wal"))
  db.close()
  const log = readFileSync(join(directory, "x.db-wal"))
  const { code, stderr } = await runToEnd({ HUB_STORE: "sqlite:x.db" }, directory)
  expect(stderr).toMatch(/written by a newer version/)
  expect(code).toBe(1)
  expect(readFileSync(join(directory, "x.db-wal")).equals(log)).toBe(true)
})

it("refuses a database with a table of another program's under one of the hub's names", async () => {
  const directory = temporaryDirectory()
  const db = new DatabaseSync(join(directory, "x.db"))
  db.exec("CREATE TABLE events (mine TEXT)")
  db.close()
  await refuses({ HUB_STORE: "sqlite:x.db" }, /it has a table 'events' that is not the hub's/, directory)
})

it("refuses a path that is a directory, or goes through a file", async () => {
  const directory = temporaryDirectory()
  writeFileSync(join(directory, "file"), "")
  await refuses({ HUB_STORE: "sqlite:." }, /as the hub's store: /, directory)
  await refuses({ HUB_STORE: "sqlite:file/x.db" }, /file\/x\.db' as the hub's store: /, directory)
})

it("refuses a store that another hub is using", async () => {
  const directory = temporaryDirectory()
  const hub = await startHub({ HUB_STORE: `sqlite:${join(directory, "x.db")}` })
  const { code, stderr } = await runToEnd({ HUB_STORE: "sqlite:x.db" }, directory)
  expect(stderr).toMatch(/another hub is using it/)
  expect(code).toBe(1)
  const client = await RawClient.authenticated(hub.ws)
  expect(await client.request({ op: "PUBLISH", topic: "a", payload: 1 })).toMatchObject({ op: "OK", seq: 1 })
  await hub.stop()
})

it.each(["WS_PORT", "OPS_PORT"])("refuses a %s in use, before it makes a store", async (name) => {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as { readonly port: number }
  try {
    const line = new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port}: the port is in use`)
    await refuses({ [name]: String(port), HUB_STORE: "sqlite:data/x.db" }, line)
  } finally {
    server.close()
  }
})

it.each([
  [
    { JWT_SECRET: "ten bytes!" },
    /JWT_SECRET must have at least 32 bytes \(RFC 7518, section 3\.2\), it has 10/
  ],
  [{ HUB_STORE: "postgres://localhost/x" }, /HUB_STORE must be sqlite:<path> or memory:/],
  [
    { MONGO_URL: "postgres://localhost/x" },
    /MONGO_URL must be a URL such as mongodb:\/\/host:27017\/database/
  ],
  [
    { HUB_STORE: "mongodb://localhost/x" },
    /HUB_STORE is not the place for the URL of a MongoDB: write it into MONGO_URL/
  ],
  [
    { HUB_HOST: "0.0.0.0" },
    /HUB_HOST is not loopback, so JWT_SECRET, JWT_JWKS_URL, JWT_JWKS_FILE or STATIC_TOKEN must be set/
  ],
  [{ HUB_PROT: "1" }, /HUB_PROT is no setting of the hub/],
  [{ WS_PORT: "99999" }, /WS_PORT must be a whole number from 0 to 65,535/]
])("refuses %j", async (env, line) => {
  await refuses(env, line)
})

it("says everything that is wrong at once", async () => {
  await refuses(
    { JWT_SECRET: "short", HUB_LOG: "loud", HUB_PROT: "1", JWT_SECERT: "x", OUTBOX_BATCH_SIZE: "-1" },
    /JWT_SECRET .*HUB_LOG .*OUTBOX_BATCH_SIZE .*HUB_PROT .*JWT_SECERT /
  )
})

it("without configuration makes ./data/hub.db, listens on loopback, and prints a token that is good for everything", async () => {
  const directory = temporaryDirectory()
  const hub = await startHub({ JWT_SECRET: "", HUB_STORE: `sqlite:${join(directory, "data", "hub.db")}` })
  expect(hub.ws).toMatch(/^ws:\/\/127\.0\.0\.1:\d+$/)
  expect(hub.ops).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
  const token = await hub.devToken()
  const client = await RawClient.connect(hub.ws)
  expect(await client.request({ op: "AUTH", token })).toMatchObject({ op: "OK" })
  expect(await client.request({ op: "PUBLISH", topic: "a.b", payload: 1 })).toMatchObject({
    op: "OK",
    seq: 1
  })
  const answer = await fetch(`${hub.ops}/topics`, { headers: { authorization: `Bearer ${token}` } })
  expect(await answer.json()).toMatchObject({ topics: [{ topic: "a.b", head: 1 }] })
  expect(existsSync(join(directory, "data", "hub.db"))).toBe(true)
  await hub.stop()
})

it("a hub in memory touches no file", async () => {
  const directory = temporaryDirectory()
  const hub = await startHub({ HUB_STORE: "memory:", TMPDIR: directory })
  const client = await RawClient.authenticated(hub.ws)
  expect(await client.request({ op: "PUBLISH", topic: "a.b", payload: 1 })).toMatchObject({
    op: "OK",
    seq: 1
  })
  await hub.stop()
  expect(readdirSync(directory)).toEqual([])
})

it("the ready line is machine-readable: compact JSON with both URLs first", async () => {
  const hub = await startHub()
  const [line] = hub.lines
  expect(JSON.stringify(line).startsWith(`{"msg":"ready","ws":"${hub.ws}","ops":"${hub.ops}",`)).toBe(true)
  await hub.stop()
})

it("loads neither effect's barrel nor the MongoDB driver when it runs on SQLite, nor what exports traces", async () => {
  const directory = temporaryDirectory()
  const list = join(directory, "loaded")
  const preload = new URL("../support/listLoaded.ts", import.meta.url).href
  const hub = await startHub({
    HUB_STORE: `sqlite:${join(directory, "x.db")}`,
    NODE_OPTIONS: `--import=${preload}`,
    LIST_LOADED: list
  })
  await hub.stop()
  const loaded = readFileSync(list, "utf8").split("\n")
  expect(loaded.filter((url) => url.endsWith("/effect/dist/Effect.js"))).not.toEqual([])
  expect(loaded.filter((url) => url.endsWith("/layers/sqlite/writerThread.ts"))).not.toEqual([])
  const unwanted = /\/effect\/dist\/index\.js$|\/node_modules\/mongodb\/|\/layers\/otlp\/|\/Otlp\w+\.js$/
  expect(loaded.filter((url) => unwanted.test(url))).toEqual([])
})

it("starts with what an orchestrator injects, and with empty values", async () => {
  const hub = await startHub({
    HUB_SERVICE_HOST: "10.0.0.1",
    HUB_SERVICE_PORT: "80",
    HUB_PORT: "tcp://10.0.0.1:80",
    HUB_PORT_80_TCP: "tcp://10.0.0.1:80",
    HUB_ORIGINS: "",
    JWT_AUD: "",
    MONGO_URL: "",
    HUB_URL: "ws://elsewhere",
    OUTBOX_COLOUR: "green"
  })
  expect(hub.lines.map(({ msg }) => msg)).toContain(
    "OUTBOX_COLOUR is no setting of the hub and has no effect"
  )
  await hub.stop()
})
