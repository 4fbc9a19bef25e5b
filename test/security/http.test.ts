/**
 * What strangers do to the ops server: heads and bodies that never end, requests that are none, bodies that are made to
 * be hard to read; and what it gives away, to them and to the log.
 */
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { endpoints } from "../layers/http/endpoints.ts"
import { type Answer, ask, askAs, askRaw, expectProblem, json } from "../layers/http/ops.ts"
import { type HubProcess, runToEnd, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { everything, tokenFor, type TokenOptions } from "../support/tokens.ts"

let hub: HubProcess
/** Waits are short, so that tests of what is late need not wait. For these alone: elsewhere a busy machine is late, too. */
let impatient: HubProcess

const admin: TokenOptions = { scopes: [...everything, "admin:**", "admin:$dead.**"] }

beforeAll(async () => {
  const base = { LIMIT_AUTH_DELAY_MS: "0" }
  const short = { LIMIT_OPS_HEADERS_MS: "300", LIMIT_OPS_BODY_MS: "300" }
  ;[hub, impatient] = await Promise.all([
    startHub({ ...base, TRUST_PROXY: "true" }),
    startHub({ ...base, ...short })
  ])
})

afterAll(() => Promise.all([hub.stop(), impatient.stop()]))

interface Told {
  readonly text: string
  readonly status: number | undefined
}

const open = (to: HubProcess, localAddress?: string): Socket => {
  const port = Number(new URL(to.ops).port)
  const socket = connect({ port, host: "127.0.0.1", ...(localAddress === undefined ? {} : { localAddress }) })
  socket.on("error", () => {})
  onTestFinished(() => void socket.destroy())
  return socket
}

/** However it ends. */
const closed = (socket: Socket): Promise<void> =>
  new Promise((resolve) => void socket.once("close", () => resolve()))

/** Sends bytes as they are, and answers what came until the connection was closed. */
const send = async (
  text: string | Buffer,
  { drip, to = hub }: { readonly drip?: string; readonly to?: HubProcess } = {}
): Promise<Told> => {
  const socket = open(to)
  let got = ""
  socket.on("data", (chunk: Buffer) => (got += chunk.toString()))
  socket.write(text)
  const timer = drip === undefined ? undefined : setInterval(() => socket.write(drip), 20)
  await closed(socket)
  clearInterval(timer)
  const status = /^HTTP\/1\.1 (\d+)/.exec(got)?.[1]
  return { text: got, status: status === undefined ? undefined : Number(status) }
}

const bearer = async () => `Authorization: Bearer ${await tokenFor(admin)}\r\n`

const isServed = async (to: HubProcess = hub) => expect((await ask(to, "/healthz")).status).toBe(200)

/** A body that never comes is a 408, or the end of the connection. */
const expectLate = ({ status }: Told) => expect([408, undefined]).toContain(status)

describe("slow clients are not waited for", () => {
  /** Of the import that goes on: it stands still for a twentieth of what it may, and takes longer in all. */
  const bodyMs = 2_500

  it.each([
    ["nothing at all", ""],
    ["half a head", "GET /healthz HTTP/1.1\r\nHost: x\r\n"]
  ])("who sends %s", async (_what, text) => {
    expectLate(await send(text, { to: impatient }))
    await isServed(impatient)
  })

  it("who sends a head header by header", async () => {
    expect(
      await send("GET /healthz HTTP/1.1\r\nHost: x\r\n", { drip: "a: b\r\n", to: impatient })
    ).toMatchObject({
      status: 408
    })
  })

  it.each([
    ["of a known length", "Content-Length: 100000"],
    ["in chunks", "Transfer-Encoding: chunked"]
  ])("who sends half a body %s", async (_what, length) => {
    const head = `POST /publish HTTP/1.1\r\nHost: x\r\n${await bearer()}Content-Type: application/json\r\n${length}\r\n\r\n`
    expectLate(await send(`${head}${length.startsWith("T") ? "1\r\n{\r\n" : "{"}`, { to: impatient }))
    expectLate(await send(head, { drip: length.startsWith("T") ? "1\r\n \r\n" : " ", to: impatient }))
  })

  it("who sends an import that stands still; and one that goes on slowly is", async () => {
    const head = `POST /import HTTP/1.1\r\nHost: x\r\n${await bearer()}Content-Type: application/x-ndjson\r\n`
    expectLate(await send(`${head}Content-Length: 1000\r\n\r\n{`, { to: impatient }))
    const patient = await startHub({ LIMIT_OPS_BODY_MS: `${bodyMs}` })
    onTestFinished(() => void patient.stop())
    const line = '{"format":"event-hub/export","version":1,"history":"h"}\n'
    const slow = open(patient)
    let got = ""
    slow.on("data", (chunk: Buffer) => (got += chunk.toString()))
    slow.write(`${head}Connection: close\r\nContent-Length: ${line.length + 30}\r\n\r\n${line}`)
    const spaces = async (left: number): Promise<void> => {
      if (left === 0) return
      slow.write(" ")
      await new Promise((resolve) => setTimeout(resolve, (1.5 * bodyMs) / 30))
      return spaces(left - 1)
    }
    await Promise.all([spaces(30), closed(slow)])
    // Longer than any other body may take; it is no whole file, which is all that is wrong with it.
    expect(got).toMatch(/^HTTP\/1\.1 200 /)
    expect(got).toContain('"complete":false')
  })

  it.each([
    ["a question that has none", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 200],
    ["a change that is refused", "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", 401],
    [
      "a question that has none, and waits to be asked for it",
      "GET /healthz HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
      200
    ],
    [
      "another protocol",
      "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: foo\r\nContent-Length: 1000\r\n\r\n",
      200
    ]
  ])("who sends no body with %s, once it is answered", async (_what, text, status) => {
    expect(await send(text, { to: impatient })).toMatchObject({ status })
  })
})

describe("connections that nobody needs make room", () => {
  const started = async (env: Readonly<Record<string, string>>): Promise<HubProcess> => {
    const small = await startHub(env)
    onTestFinished(() => void small.stop())
    return small
  }

  const connected = async (
    to: HubProcess,
    n: number,
    localAddress?: string
  ): Promise<ReadonlyArray<Socket>> => {
    const sockets = Array.from({ length: n }, () => open(to, localAddress))
    await Promise.all(sockets.map((socket) => once(socket, "connect")))
    return sockets
  }

  const openOf = (sockets: ReadonlyArray<Socket>): number =>
    sockets.filter(({ closed, destroyed, readableEnded }) => !closed && !destroyed && !readableEnded).length

  const dropped = async (to: HubProcess): Promise<number> =>
    Number(/^event_hub_ops_connections_dropped_total (\S+)$/m.exec((await ask(to, "/metrics")).text)?.[1])

  it("those that say nothing, the oldest first", async () => {
    const small = await started({ LIMIT_OPS_CONNECTIONS: "10", TRUST_PROXY: "true" })
    const oldest = await connected(small, 10)
    const sockets = await connected(small, 20)
    for (const socket of [...oldest, ...sockets]) socket.resume()
    await isServed(small)
    expect(await dropped(small)).toBeGreaterThanOrEqual(20)
    await expect.poll(() => openOf(oldest), { timeout: 10_000 }).toBe(0)
    expect(openOf(sockets)).toBeGreaterThan(5)
  })

  it("of one address, when it has more than its share", async () => {
    const small = await started({ LIMIT_OPS_CONNECTIONS: "100" })
    const others = await connected(small, 5)
    const sockets = await connected(small, 50, "127.0.0.2")
    for (const socket of [...others, ...sockets]) socket.resume()
    await expect.poll(() => openOf(sockets), { timeout: 10_000 }).toBe(10)
    expect(openOf(others)).toBe(5)
    await isServed(small)
  })

  const asking = async (to: HubProcess, text: string): Promise<Socket> => {
    const socket = open(to)
    socket.write(text)
    await once(socket, "data")
    return socket
  }

  it("those that have their answers", async () => {
    const small = await started({ LIMIT_OPS_CONNECTIONS: "3" })
    const sockets = await Promise.all(
      [1, 2, 3].map(() => asking(small, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
    )
    expect(openOf(sockets)).toBe(3)
    await isServed(small)
  })

  it("and those that wait for theirs stay: there are no more than there may be", async () => {
    const small = await started({ LIMIT_OPS_CONNECTIONS: "3" })
    const head = `POST /import HTTP/1.1\r\nHost: x\r\n${await bearer()}Content-Type: application/x-ndjson\r\n`
    // It is asked for its body: the request has begun.
    const text = `${head}Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n`
    const sockets = await Promise.all([1, 2, 3].map(() => asking(small, text)))
    expect(await send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", { to: small })).toEqual({
      text: "",
      status: undefined
    })
    expect(openOf(sockets)).toBe(3)
    for (const socket of sockets) socket.destroy()
    const isServedNow = () =>
      isServed(small).then(
        () => true,
        () => false
      )
    await expect.poll(isServedNow, { timeout: 10_000 }).toBe(true)
    expect(await dropped(small)).toBeGreaterThan(0)
  })
})

describe("what is no request is answered with what is wrong, and ends the connection", () => {
  const length = (body: string) => `Content-Length: ${body.length}\r\n\r\n${body}`

  it.each<readonly [what: string, text: string, status: number]>([
    ["garbage", "\u0016\u0003\u0001\u0002\r\n\r\n", 400],
    ["a TLS hello", "\u0016\u0003\u0001\u0000\u00a5\u0001\u0000\u0000\u00a1\u0003\u0003", 400],
    [
      "a length and chunks",
      `POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n${length("0\r\n\r\n")}`,
      400
    ],
    [
      "chunks and a length",
      "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      400
    ],
    [
      "two lengths",
      "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
      400
    ],
    ["a length that is none", "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400],
    [
      "a coding hidden behind another",
      "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
      400
    ],
    ["a space before a colon", "GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400],
    ["a bare line feed in a header", "GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\nC: d\r\n\r\n", 400],
    ["a NUL in a header", "GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\u0000\r\n\r\n", 400],
    ["no host", "GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", 400],
    [
      "a chunk without a length",
      "POST /publish HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      400
    ],
    [
      "a header that is too long",
      `GET /healthz HTTP/1.1\r\nHost: x\r\nA: ${"a".repeat(20_000)}\r\n\r\n`,
      431
    ],
    ["too many headers", `GET /healthz HTTP/1.1\r\nHost: x\r\n${"a: b\r\n".repeat(3_000)}\r\n`, 431],
    ["a path that is too long", `GET /${"a".repeat(20_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 431]
  ])("%s", async (_what, text, status) => {
    const told = await send(text)
    // Where only the body is wrong, the head may be answered before it is looked at; no second request is ever seen.
    expect([status, ...(text.includes("Transfer-Encoding") ? [401] : [])]).toContain(told.status)
    expect(told.text.match(/HTTP\/1\.1 /g)).toHaveLength(1)
    await isServed()
  })

  it.each([
    ["CONNECT", undefined],
    ["TRACE", 405],
    ["OPTIONS", 405],
    ["PUT", 405]
  ])("%s does nothing", async (method, status) => {
    const told = await send(
      `${method} ${method === "CONNECT" ? "a:80" : "/healthz"} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`
    )
    expect(told.status).toBe(status)
  })

  it("HTTP/1.0 and requests one behind the other are served", async () => {
    expect((await send("GET /healthz HTTP/1.0\r\n\r\n")).text).toContain('{"status":"ok"}')
    const one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    const { text } = await send(`${one}${one}${one.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")}`)
    expect(text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(3)
  })

  it.each([
    "/groups/%ff",
    "/groups/a%00b",
    `/groups/${"a".repeat(2_000)}`,
    "/assets/..%2f..%2fpackage.json",
    "/%2e%2e/package.json",
    "/groups/a%2fb"
  ])("%s is nowhere", async (path) => {
    const { status } = await askRaw(hub, path, { authorization: `Bearer ${await tokenFor(admin)}` })
    expect([400, 404]).toContain(status)
  })
})

describe("bodies that are made to be hard to read", () => {
  const publish = (
    body: string | Uint8Array<ArrayBuffer>,
    headers: Readonly<Record<string, string>> = {}
  ): Promise<Answer> =>
    askAs(hub, admin, "/publish", {
      ...json(undefined),
      headers: { "content-type": "application/json", ...headers },
      body
    })

  it.each<readonly [what: string, body: string, detail: RegExp]>([
    [
      "too deep",
      `{"topic":"a","payload":${"[".repeat(200)}${"]".repeat(200)}}`,
      /more than 128 objects and arrays/
    ],
    ["far too deep", "[".repeat(200_000), /more than 128 objects and arrays/],
    ["no JSON", '{"topic":', /JSON/],
    ["a number beyond all numbers", '{"topic":"a","payload":1e999}', /number|JSON/],
    ["a prototype as a field", '{"topic":"a","payload":1,"__proto__":{"id":"x"}}', /__proto__/],
    ["a constructor as a field", '{"topic":"a","payload":1,"constructor":{"prototype":{}}}', /constructor/]
  ])("%s", async (_what, body, detail) => {
    expectProblem(await publish(body), 400, detail)
  })

  it("wrong UTF-8", async () => {
    const body = new Uint8Array(
      Buffer.concat([Buffer.from('{"topic":"a","payload":"'), Buffer.from([0xff]), Buffer.from('"}')])
    )
    expectProblem(await publish(body), 400, /UTF-8/)
  })

  it("of two fields of the same name the last counts, and a payload's own fields are only that", async () => {
    const answer = await publish(
      '{"topic":"hard.a","topic":"hard.b","payload":{"__proto__":{"x":1},"constructor":1,"a":"\\ud800"}}'
    )
    expect(answer).toMatchObject({ status: 200, json: { results: [{ topic: "hard.b" }] } })
    const { text } = await askAs(hub, admin, "/events?topic=hard.b")
    expect(text).toContain('{"__proto__":{"x":1},"constructor":1,"a":"\\ud800"}')
  })

  it("compressed ones, where nobody asked for them", async () => {
    const body = new Uint8Array(gzipSync('{"topic":"a","payload":1}'))
    const answer = await publish(body, { "content-encoding": "gzip" })
    expectProblem(answer, 415, /as it is here/)
  })

  it("an import that is a bomb does not fill the memory", async () => {
    const rss = async (): Promise<number> =>
      Number(/^process_resident_memory_bytes (\S+)$/m.exec((await ask(hub, "/metrics")).text)?.[1])
    const line = '{"format":"event-hub/export","version":1,"history":"h"}\n'
    const lines = new Uint8Array(gzipSync(line + "x\n".repeat(200_000)))
    const long = new Uint8Array(gzipSync(Buffer.alloc(128 * 1024 * 1024, 0x20)))
    const headers = { "content-type": "application/x-ndjson", "content-encoding": "gzip" }
    const bomb = async (body: Uint8Array<ArrayBuffer>) => {
      const answer = await askAs(hub, admin, "/import", { method: "POST", headers, body })
      expect(answer.status).toBeLessThan(500)
      expect(answer.text.length).toBeLessThan(100_000)
      return answer
    }
    expect(await bomb(lines)).toMatchObject({ status: 200, json: { appended: 0, restored: 0 } })
    await bomb(long)
    const before = await rss()
    await bomb(long)
    await bomb(lines)
    // What it takes once it takes again: nothing is kept.
    expect((await rss()) - before).toBeLessThan(100 * 1024 * 1024)
  })
})

describe("every answer", () => {
  const expectHeaders = (what: string, headers: Headers) => {
    expect({
      what,
      nosniff: headers.get("x-content-type-options"),
      referrer: headers.get("referrer-policy"),
      cache: headers.get("cache-control"),
      opener: headers.get("cross-origin-opener-policy"),
      resource: headers.get("cross-origin-resource-policy"),
      policy: /^default-src 'none';.*frame-ancestors 'none'/.test(
        headers.get("content-security-policy") ?? ""
      ),
      cookie: headers.get("set-cookie"),
      powered: headers.get("x-powered-by") ?? headers.get("server")
    }).toEqual({
      what,
      nosniff: "nosniff",
      referrer: "no-referrer",
      cache: "no-store",
      opener: "same-origin",
      resource: "same-origin",
      policy: true,
      cookie: null,
      powered: null
    })
  }

  it("has its headers: of every endpoint, with a token and without", async () => {
    for (const { method, name, path } of endpoints) {
      const place = path.replaceAll(/:[^/]+/g, "a")
      for (const token of [undefined, admin]) {
        const init = method === "GET" ? {} : { ...json({}), method }
        const answer =
          token === undefined ? await ask(hub, place, init) : await askAs(hub, token, place, init)
        expectHeaders(`${name} ${answer.status}`, answer.headers)
        expect(answer.status).not.toBe(500)
      }
    }
  })

  it("has them: of pages, files, and of what is not there", async () => {
    for (const path of [
      "/",
      "/docs",
      "/openapi.json",
      "/assets/dashboard/style.css",
      "/assets/dashboard/main.ts",
      "/nowhere",
      "/groups/%ff"
    ]) {
      expectHeaders(path, (await ask(hub, path)).headers)
    }
    expectHeaders("no method", (await ask(hub, "/healthz", { method: "DELETE" })).headers)
    const { text } = await send("garbage\r\n\r\n")
    expectHeaders(
      "garbage",
      new Headers(
        text
          .split("\r\n")
          .slice(1, -2)
          .map((line) => line.split(": ") as [string, string])
      )
    )
  })

  it.each(["/", "/docs"])("%s has nothing inline, and keeps devices to itself", async (path) => {
    const { headers, text } = await ask(hub, path)
    expect(text).not.toMatch(/<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:/i)
    expect(headers.get("content-security-policy")).not.toMatch(/unsafe|\*|data:(?!;)[^;]*script/)
    expect(headers.get("permissions-policy")).toContain("camera=()")
  })

  it("that a proxy passes on names the host that the browser knows", async () => {
    const policy = async (headers: Readonly<Record<string, string>>) =>
      String((await askRaw(hub, "/", headers)).headers["content-security-policy"])
    const { port } = new URL(hub.ws)
    expect(
      await policy({ "x-forwarded-host": "evil.example, hub.example", "x-forwarded-proto": "https" })
    ).toContain(`connect-src 'self' wss://hub.example:${port};`)
    expect(await policy({ "x-forwarded-host": "a;script-src *" })).toContain("connect-src 'self';")
    const direct = await startHub()
    onTestFinished(() => void direct.stop())
    const { headers } = await askRaw(direct, "/", { host: "hub.local", "x-forwarded-host": "evil.example" })
    expect(headers["content-security-policy"]).not.toContain("evil")
  })
})

describe("the log", () => {
  it("says who was refused, by the address that the proxy knows", async () => {
    await ask(hub, "/topics", {
      headers: { authorization: "Bearer x.y.z", "x-forwarded-for": "203.0.113.7, 198.51.100.9" }
    })
    const line = await hub.lineWhere(
      ({ msg, address }) => msg === "a token was refused" && address === "198.51.100.9"
    )
    expect(JSON.stringify(line)).not.toContain("x.y.z")
  })

  it("has a line for a change, whatever is in it", async () => {
    const sub = 'eve\r\n{"msg":"forged"}\u2028\u001b[2K'
    const reason = encodeURIComponent("because\u2028of")
    await askAs(hub, { ...admin, sub }, `/publish?reason=${reason}`, json({ topic: "log.a", payload: 1 }))
    const line = await hub.lineWhere(({ msg, sub: who }) => msg === "events published" && who === sub)
    expect(line).toMatchObject({ sub })
    expect(hub.lines.some(({ msg }) => msg === "forged")).toBe(false)
  })
})

describe("refused tokens", () => {
  it("are answered later each time, and good ones at once", async () => {
    const slow = await startHub({ LIMIT_AUTH_DELAY_MS: "60000", LIMIT_AUTH_DELAY_MAX_MS: "60000" })
    onTestFinished(() => void slow.kill())
    const guess = (signal?: AbortSignal) =>
      ask(slow, "/topics", {
        headers: { authorization: "Bearer x.y.z" },
        ...(signal === undefined ? {} : { signal })
      })
    for (const _ of [1, 2, 3]) expect((await guess()).status).toBe(401)
    const aborted = new AbortController()
    const fourth = guess(aborted.signal).then(
      ({ status }) => status,
      () => "waits"
    )
    expect((await askAs(slow, admin, "/topics")).status).toBe(200)
    expect((await ask(slow, "/topics")).status).toBe(401)
    aborted.abort()
    expect(await fourth).toBe("waits")
  })
})

describe("secrets", () => {
  const secrets = {
    JWT_SECRET: "jwt-secret-that-nobody-is-to-see-aaaa",
    JWT_PREVIOUS_SECRETS: "old-secret-that-nobody-is-to-see-bbbb",
    STATIC_TOKEN: "static-token-that-nobody-is-to-see-cccc",
    OTEL_EXPORTER_OTLP_HEADERS: "authorization=otlp-header-that-nobody-is-to-see-dddd"
  }
  const password = "mongo-password-that-nobody-is-to-see"
  const unreachable = `mongodb://user:${password}@127.0.0.1:1/shop`
  const hidden = [...Object.values(secrets), "otlp-header-that-nobody-is-to-see-dddd", password]

  const expectHidden = (what: string, text: string) =>
    expect({ what, shown: hidden.filter((secret) => text.includes(secret)) }).toEqual({ what, shown: [] })

  it("are in no log, no metric, and no answer, whatever goes wrong", async () => {
    const told = await startHub({
      ...secrets,
      OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:1",
      OUTBOX_SOURCES: `shop=${unreachable}#outbox`,
      MONGO_SERVER_SELECTION_TIMEOUT_MS: "100",
      LIMIT_AUTH_DELAY_MS: "0"
    })
    let stderr = ""
    told.process.stderr?.on("data", (chunk: Buffer) => (stderr += chunk.toString()))
    const good = await tokenFor({ ...admin, secret: secrets.JWT_SECRET })
    const tampered = `${good.slice(0, -4)}AAAA`
    const near = `${secrets.STATIC_TOKEN.slice(0, -1)}x`
    for (const token of [tampered, near, "x", secrets.JWT_SECRET]) {
      for (const path of ["/topics", "/outbox?source=shop", "/readyz", "/nowhere"]) {
        const { headers, text } = await ask(told, path, { headers: { authorization: `Bearer ${token}` } })
        expectHidden(path, text + JSON.stringify([...headers]))
        expect(text).not.toContain(token.length > 20 ? token : "Bearer x")
      }
    }
    for (const token of [good, secrets.STATIC_TOKEN]) {
      for (const path of [
        "/topics",
        "/outbox",
        "/outbox?source=shop",
        "/outboxes",
        "/readyz",
        "/healthz",
        "/metrics",
        "/vitals",
        "/openapi.json"
      ]) {
        const { text } = await ask(told, path, { headers: { authorization: `Bearer ${token}` } })
        expectHidden(path, text)
      }
    }
    const client = await RawClient.connect(told.ws)
    client.send({ op: "AUTH", ref: 1, token: secrets.JWT_SECRET })
    await client.closed
    expectHidden("the gateway", JSON.stringify(client.messages))
    await told.stop()
    expectHidden("the log", JSON.stringify(told.lines))
    expect(JSON.stringify(told.lines)).not.toContain(tampered)
    expectHidden("standard error", stderr)
  })

  it("are in no reason why a hub did not start", async () => {
    const starts: ReadonlyArray<Readonly<Record<string, string>>> = [
      { MONGO_URL: unreachable, MONGO_SERVER_SELECTION_TIMEOUT_MS: "100" },
      { HUB_STORE: unreachable },
      { OUTBOX_SOURCES: `${unreachable} shop` },
      { HUB_STORE: "memory:", JWT_PREVIOUS_SECRETS: `${secrets.JWT_PREVIOUS_SECRETS} short` },
      { HUB_STORE: "memory:", WS_PORT: "x" }
    ]
    for (const env of starts) {
      const { code, stderr, stdout } = await runToEnd({ ...secrets, ...env })
      expect(code).not.toBe(0)
      expectHidden(Object.keys(env).join(), stderr + stdout)
    }
  })
})
