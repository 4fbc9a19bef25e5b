/** `event-hub export` and `event-hub import`, as people run them. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { gunzipSync, gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { runCli } from "../support/runCli.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"
import { askAs, json } from "../layers/http/ops.ts"

const admin = { scopes: ["publish:**", "subscribe:**", "admin:**"] }

let hub: HubProcess
let env: Readonly<Record<string, string>>

beforeAll(async () => {
  hub = await startHub()
  env = { HUB_OPS_URL: hub.ops, HUB_TOKEN: await tokenFor(admin) }
  const events = Array.from({ length: 100 }, (_, i) => ({
    topic: `cli.${i % 2}`,
    id: `${i}`,
    payload: { i }
  }))
  expect((await askAs(hub, admin, "/publish", json(events))).status).toBe(200)
})
afterAll(async () => {
  await hub.stop()
})

const linesOf = (text: string) => text.trimEnd().split("\n")

describe("export", () => {
  it("writes to standard output, and says beside it how much it was", async () => {
    const { code, stderr, stdout } = await runCli(["export", "--topic", "cli.*"], env)
    expect(stderr).toMatch(/^exported 100 events, 0\.0 MB, [\d,]+ events\/s, of 2 topics\n$/)
    expect(linesOf(stdout)).toHaveLength(102)
    expect(code).toBe(0)
  })

  it("writes a range to a file, compressed, and nothing else", async () => {
    const output = join(temporaryDirectory(), "one.ndjson.gz")
    const args = ["export", "--topic", "cli.0", "--from", "11", "--to", "20", "--gzip", "-o", output, "-s"]
    expect(await runCli(args, env)).toEqual({ code: 0, stdout: "", stderr: "" })
    const lines = linesOf(gunzipSync(readFileSync(output)).toString())
    expect(lines.slice(1, -1).map((line) => (JSON.parse(line) as { readonly seq: number }).seq)).toEqual([
      11, 12, 13, 14, 15, 16, 17, 18, 19, 20
    ])
  })

  it("takes the hub and the token from its flags, too", async () => {
    const { HUB_OPS_URL: url = "", HUB_TOKEN: token = "" } = env
    const { code, stderr } = await runCli(["export", "--url", `${url}/`, "--token", token, "-s"], {})
    expect([code, stderr]).toEqual([0, ""])
  })

  it.each([
    [["--topic", "nothing"], {}, /^event-hub: the hub refuses it \(404\): there is no topic 'nothing'\n$/],
    [["--topic", "cli.*", "--from", "3"], {}, /^event-hub: the hub refuses it \(400\): .*'from': a seq/],
    [[], { HUB_TOKEN: "nonsense" }, /^event-hub: the hub refuses it \(401\): /],
    [[], { HUB_TOKEN: "" }, /^event-hub: HUB_TOKEN is not set/],
    [[], { HUB_OPS_URL: "hub:1" }, /^event-hub: 'hub:1' is no URL/],
    [
      [],
      { HUB_OPS_URL: "http://127.0.0.1:1" },
      /^event-hub: no answer from http:\/\/127\.0\.0\.1:1: ECONNREFUSED\n$/
    ]
  ])("with %j and %j fails in one line, and leaves no file", async (args, more, message) => {
    const directory = temporaryDirectory()
    const run = await runCli(["export", ...args, "-o", join(directory, "x")], { ...env, ...more })
    expect(run).toEqual({ code: 1, stdout: "", stderr: expect.stringMatching(message) as string })
    expect(readdirSync(directory)).toEqual([])
  })

  /** A hub whose answers end too early, or are not what they say. */
  const falseHub = async (
    body: string | Uint8Array,
    ending: "end" | "destroy",
    headers: Readonly<Record<string, string>> = {}
  ): Promise<string> => {
    const server = createServer((request, response) => {
      if (request.url?.startsWith("/topics") === true) return response.end('{"topics":[],"next":null}')
      response.writeHead(200, { "content-type": "application/x-ndjson", ...headers })
      return response.write(body, () => (ending === "end" ? response.end() : response.destroy()))
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    onTestFinished(() => void server.close())
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  }

  it.each([
    [
      "breaks off",
      (text: string) => text.slice(0, 300),
      "destroy",
      /the connection ended before the export did/
    ],
    [
      "has no last line",
      (text: string) => linesOf(text).slice(0, -1).join("\n"),
      "end",
      /is not whole: its last line is missing/
    ],
    [
      "was changed",
      (text: string) => text.replace('"i":7}', '"i":8}'),
      "end",
      /is not whole: its checksum differs/
    ],
    [
      "counts more than there is",
      (text: string) => text.replace('"events":100', '"events":101'),
      "end",
      /is not whole: its last line counts 101 events, and there are 100/
    ],
    [
      "counts topics that are not there",
      (text: string) => text.replace('"topics":2', '"topics":3'),
      "end",
      /is not whole: its last line counts 3 topics, and there are 2/
    ]
  ] as const)("that %s is not left under its name", async (_, change, ending, message) => {
    const { stdout } = await runCli(["export", "--topic", "cli.*", "-s"], env)
    const url = await falseHub(change(stdout), ending)
    const directory = temporaryDirectory()
    writeFileSync(join(directory, "old"), "what was there before")
    const run = await runCli(["export", "-o", join(directory, "old")], { ...env, HUB_OPS_URL: url })
    expect(run).toEqual({ code: 1, stdout: "", stderr: expect.stringMatching(message) as string })
    expect(readdirSync(directory)).toEqual(["old"])
    expect(readFileSync(join(directory, "old"), "utf8")).toBe("what was there before")
  })

  it.each([
    ["damaged", () => gzipSync("x".repeat(1_000)).fill(0xff, 12, 20), /the export cannot be unpacked: /],
    [
      "torn",
      () => gzipSync("x".repeat(1_000)).subarray(0, 25),
      /the export cannot be unpacked: unexpected end/
    ],
    [
      "of one endless line",
      () => gzipSync(Buffer.alloc(66 * 1024 * 1024, "x")),
      /a line of the export is too long/
    ]
  ] as const)(
    "whose compressed bytes are %s fails in one line, and leaves no file",
    async (_, body, message) => {
      const url = await falseHub(body(), "end", { "content-encoding": "gzip" })
      const directory = temporaryDirectory()
      const args = ["export", "--gzip", "-s", "-o", join(directory, "x")]
      const run = await runCli(args, { ...env, HUB_OPS_URL: url })
      expect(run).toEqual({ code: 1, stdout: "", stderr: expect.stringMatching(message) as string })
      expect(run.stderr).toMatch(/^event-hub: .*\n$/)
      expect(readdirSync(directory)).toEqual([])
    }
  )
})

describe("import", () => {
  const exported = async (): Promise<string> =>
    (await runCli(["export", "--topic", "cli.*", "-s"], env)).stdout

  it("brings a file into another hub, which may be told to check it only", async () => {
    const other = await startHub()
    onTestFinished(async () => void (await other.stop()))
    const there = { ...env, HUB_OPS_URL: other.ops }
    const file = join(temporaryDirectory(), "cli.ndjson.gz")
    await runCli(["export", "--gzip", "-o", file], env)
    const done = "100 restored, 0 appended with new seqs, 0 there already, 0 last events of keys; 2 topics\n"
    const dry = await runCli(["import", "--dry-run", file], there)
    expect(dry).toEqual({ code: 0, stdout: `would import: ${done}`, stderr: "" })
    const whole = await runCli(["import", "--reason", "moved", file], there)
    expect(whole).toEqual({ code: 0, stdout: `imported: ${done}`, stderr: "" })
    expect(await other.lineWhere(({ msg }) => msg === "events imported")).toMatchObject({ reason: "moved" })
    const again = await runCli(["import", "-"], there, await exported())
    expect(again.stdout).toMatch(/0 restored, 0 appended with new seqs, 100 there already/)
    expect(again.code).toBe(0)
  })

  it("says what was bad or missing, and ends with 2", async () => {
    const lines = linesOf(await exported())
    const bad = lines.toSpliced(3, 0, "bad").slice(0, -1).join("\n")
    const run = await runCli(["import", "-"], env, bad)
    expect(run.code).toBe(2)
    expect(run.stdout).toMatch(
      /100 there already.*\n1 bad lines\n  line 4: it is no JSON object\nnot complete: its last line is missing/
    )
    const strict = await runCli(["import", "--strict", "-"], env, bad)
    expect(strict.code).toBe(2)
    expect(strict.stdout).toMatch(/not complete: it was stopped at line 4/)
  })

  it.each([
    [["/nowhere/at/all"], /^event-hub: cannot read '\/nowhere\/at\/all': there is no such file\n$/],
    [["-"], /^event-hub: the hub refuses it \(400\): .*does not say "format"/]
  ])("of %j is refused in one line", async (args, message) => {
    const run = await runCli(["import", ...args], env, "hello")
    expect(run).toEqual({ code: 1, stdout: "", stderr: expect.stringMatching(message) as string })
    expect(existsSync("/nowhere")).toBe(false)
  })
})
