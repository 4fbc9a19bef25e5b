/** Both ports with TLS: what they speak, that a renewed certificate is taken without a restart, and that a bad one is not. */
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { readFileSync, renameSync, writeFileSync } from "node:fs"
import { get as httpGet } from "node:http"
import { type Agent, get, request } from "node:https"
import { connect as connectPlain } from "node:net"
import { join } from "node:path"
import { connect, type ConnectionOptions } from "node:tls"
import { describe, expect, it, onTestFinished } from "vitest"
import { hasChromium, launchChromium } from "../support/chromium.ts"
import { type HubProcess, type LogLine, runToEnd, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { everything, tokenFor } from "../support/tokens.ts"

const hasOpenssl = ((): boolean => {
  try {
    execFileSync("openssl", ["version"], { stdio: "ignore" })
    return true
  } catch {
    console.warn("There is no openssl to make a certificate with: TLS is NOT tested.")
    return false
  }
})()

interface Files {
  readonly TLS_CERT: string
  readonly TLS_KEY: string
}

/** A certificate for this machine, of its own making. */
const makeCertificate = (
  directory: string,
  name: string,
  days = 30,
  kind: ReadonlyArray<string> = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
): Files => {
  const files = { TLS_CERT: join(directory, `${name}.crt`), TLS_KEY: join(directory, `${name}.key`) }
  const made = ["req", "-x509", "-newkey", ...kind, "-nodes", "-days", `${days}`]
  const whom = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
  execFileSync("openssl", [...made, ...whom, "-keyout", files.TLS_KEY, "-out", files.TLS_CERT], {
    stdio: "ignore"
  })
  return files
}

const portOf = (url: string): number => Number(new URL(url).port)

/** Whose certificate a port shows, and what is spoken; or why nothing is. */
const handshake = async (url: string, options: ConnectionOptions = {}): Promise<string> => {
  const socket = connect({ port: portOf(url), host: "127.0.0.1", rejectUnauthorized: false, ...options })
  try {
    await once(socket, "secureConnect")
    return `${String(socket.getPeerCertificate().subject.CN)} ${String(socket.getProtocol())}`
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error)
  } finally {
    socket.destroy()
  }
}

const answerOf = (
  url: string,
  options: { readonly ca: string; readonly agent?: Agent; readonly method?: string }
): Promise<{
  readonly status: number | undefined
  readonly headers: NodeJS.Dict<string | string[]>
  readonly text: string
}> =>
  new Promise((resolve, reject) => {
    const asked = request(url, options, (response) => {
      let text = ""
      response.on("data", (chunk: Buffer) => (text += chunk.toString()))
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers, text }))
    })
    asked.on("error", reject).end()
  })

const started = async (env: Readonly<Record<string, string>>): Promise<HubProcess> => {
  const hub = await startHub({ HUB_FILES_INTERVAL_MS: "100", ...env })
  onTestFinished(async () => void (await hub.stop()))
  return hub
}

describe.runIf(hasOpenssl)("TLS", () => {
  it("both ports speak it, in nothing older than 1.2, and say so where they say where they are", async () => {
    const files = makeCertificate(temporaryDirectory(), "first")
    const ca = readFileSync(files.TLS_CERT, "utf8")
    const hub = await started({ ...files })
    expect([hub.ops, hub.ws].map((url) => new URL(url).protocol)).toEqual(["https:", "wss:"])

    const page = await answerOf(`${hub.ops}/`, { ca })
    expect(page.status).toBe(200)
    expect(page.headers["strict-transport-security"]).toMatch(/^max-age=\d+$/)
    expect(page.headers["content-security-policy"]).toContain(
      `connect-src 'self' wss://127.0.0.1:${portOf(hub.ws)};`
    )
    const client = await RawClient.authenticated(hub.ws, { scopes: everything }, { ws: { ca } })
    expect(await client.request({ op: "PUBLISH", topic: "a", payload: 1 })).toMatchObject({ op: "OK" })
    await client.close()

    for (const url of [hub.ops, hub.ws]) {
      expect(await handshake(url)).toBe("first TLSv1.3")
      expect(await handshake(url, { maxVersion: "TLSv1.2" })).toBe("first TLSv1.2")
      const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const
      expect(await handshake(url, old)).toMatch(/^(?:ERR_SSL|ECONNRESET|EPROTO)/)
    }
    // Whoever speaks HTTP there gets no answer in the open.
    const plain = connectPlain(portOf(hub.ops), "127.0.0.1")
    plain.on("error", () => {})
    let told = ""
    plain.on("data", (chunk: Buffer) => (told += chunk.toString("latin1")))
    plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await new Promise((resolve) => plain.once("close", resolve))
    expect(told).not.toContain("HTTP/1.1")
    expect((await answerOf(`${hub.ops}/healthz`, { ca })).status).toBe(200)
  })

  it("handshakes that fail are counted, and are a line in the log for each kind; and those that do not begin make room", async () => {
    const files = makeCertificate(temporaryDirectory(), "first")
    const ca = readFileSync(files.TLS_CERT, "utf8")
    const hub = await started({ ...files, LIMIT_OPS_CONNECTIONS: "3" })
    for (const url of [hub.ops, hub.ws]) {
      for (let i = 0; i < 3; i++) {
        const plain = connectPlain(portOf(url), "127.0.0.1")
        plain.on("error", () => {})
        plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await new Promise((resolve) => plain.resume().once("close", resolve))
      }
    }
    const line = await hub.lineWhere(({ msg }) => msg === "a TLS handshake failed")
    expect(line).toMatchObject({
      address: "127.0.0.1",
      code: expect.stringMatching(/^ERR_SSL_/),
      reason: "http request"
    })
    const failed = async () =>
      Number(
        /^event_hub_tls_handshakes_failed_total (\S+)$/m.exec(
          (await answerOf(`${hub.ops}/metrics`, { ca })).text
        )?.[1]
      )
    expect(await failed()).toBe(6)
    expect(hub.lines.filter(({ msg }) => msg === "a TLS handshake failed")).toHaveLength(1)

    const silent = Array.from({ length: 9 }, () => connectPlain(portOf(hub.ops), "127.0.0.1"))
    for (const socket of silent) socket.on("error", () => {})
    await Promise.all(silent.map((socket) => once(socket, "connect")))
    expect((await answerOf(`${hub.ops}/healthz`, { ca })).status).toBe(200)
    for (const socket of silent) socket.destroy()
  })

  it("a renewed certificate is shown to who connects from then on; one that is of no use never is", async () => {
    const directory = temporaryDirectory()
    const files = makeCertificate(directory, "first")
    const hub = await started({ ...files })
    const client = await RawClient.authenticated(
      hub.ws,
      { scopes: everything },
      { ws: { ca: readFileSync(files.TLS_CERT, "utf8") } }
    )

    const put = (from: Files) => {
      renameSync(from.TLS_KEY, files.TLS_KEY)
      renameSync(from.TLS_CERT, files.TLS_CERT)
    }
    put(makeCertificate(directory, "second", 3))
    for (const url of [hub.ops, hub.ws]) {
      await expect.poll(() => handshake(url), { timeout: 10_000 }).toBe("second TLSv1.3")
    }
    await hub.lineWhere(
      ({ msg, names }) => msg === "the certificate expires soon" && String(names).includes("localhost")
    )
    // Whoever was there stays.
    expect(await client.request({ op: "PING" })).toMatchObject({ op: "OK" })
    await client.close()

    const other = makeCertificate(directory, "third")
    renameSync(other.TLS_CERT, files.TLS_CERT)
    const isKept = ({ level, why }: LogLine, reason: string) =>
      level === "error" && String(why).includes(reason)
    await hub.lineWhere((line) => isKept(line, "TLS_KEY is not the key of TLS_CERT"))
    writeFileSync(files.TLS_CERT, "no certificate")
    await hub.lineWhere((line) => isKept(line, "TLS_CERT holds no certificate"))
    expect(await handshake(hub.ops)).toBe("second TLSv1.3")
    expect(await handshake(hub.ws)).toBe("second TLSv1.3")
    expect(JSON.stringify(hub.lines)).not.toContain("PRIVATE KEY")
  })

  it("a certificate that is of no use stops the start, before anything was touched", async () => {
    const directory = temporaryDirectory()
    const [one, other] = [makeCertificate(directory, "one"), makeCertificate(directory, "other")]
    const small = makeCertificate(directory, "small", 30, ["rsa:512"])
    const store = join(directory, "data", "hub.db")
    const tries: ReadonlyArray<readonly [Partial<Files>, RegExp]> = [
      [{ ...one, TLS_KEY: other.TLS_KEY }, /TLS_KEY is not the key of TLS_CERT/],
      [{ ...one, TLS_CERT: join(directory, "nothing.crt") }, /nothing\.crt cannot be read \(ENOENT\)/],
      [{ TLS_CERT: one.TLS_KEY, TLS_KEY: one.TLS_KEY }, /TLS_CERT holds no certificate/],
      [{ TLS_CERT: one.TLS_CERT, TLS_KEY: one.TLS_CERT }, /TLS_KEY holds no key/],
      [small, /TLS_CERT and TLS_KEY cannot be used: .*key too small/],
      [{ TLS_CERT: one.TLS_CERT }, /TLS_CERT must be set together with TLS_KEY/]
    ]
    for (const [files, reason] of tries) {
      const { code, stderr } = await runToEnd({ ...files, HUB_STORE: `sqlite:${store}` })
      expect(code).not.toBe(0)
      expect(stderr.trim().split("\n")).toHaveLength(1)
      expect(stderr).toMatch(reason)
    }
    expect(() => readFileSync(store)).toThrow(/ENOENT/)
  })

  it.runIf(hasChromium("the page over TLS is"))(
    "the page connects to the gateway, and keeps its token to itself",
    async () => {
      const hub = await started({ ...makeCertificate(temporaryDirectory(), "page") })
      const token = await tokenFor({ scopes: [...everything, "subscribe:$hub.**", "admin:**"] })
      const browser = await launchChromium()
      onTestFinished(() => browser.close())
      const context = await browser.newContext({ ignoreHTTPSErrors: true })
      const page = await context.newPage()
      const sockets: Array<string> = []
      page.on("websocket", (socket) => sockets.push(socket.url()))
      await page.goto(`${hub.ops}/#token=${token}`)
      await page.waitForSelector("h1:text-is('Overview')")
      await expect.poll(() => sockets, { timeout: 10_000 }).toContain(`${hub.ws}/`)
      // Only in memory: neither in the address, nor in its history, nor anywhere that outlives the page.
      expect(page.url()).toBe(`${hub.ops}/`)
      const kept = await page.evaluate<string>(
        "JSON.stringify([location.href, history.state, document.cookie, {...localStorage}, {...sessionStorage}, document.documentElement.outerHTML])"
      )
      expect(kept).not.toContain(token)
      expect(await context.cookies()).toEqual([])
    }
  )
})

it("without it, nobody is told to ask for it", async () => {
  const hub = await started({})
  const headers = await new Promise<NodeJS.Dict<string | string[]>>((resolve, reject) => {
    httpGet(`${hub.ops}/healthz`, (response) => resolve(response.resume().headers)).on("error", reject)
  })
  expect(headers["strict-transport-security"]).toBeUndefined()
  await expect(
    new Promise((_, reject) => get(hub.ops.replace("http:", "https:"), () => {}).on("error", reject))
  ).rejects.toThrow(/SSL|EPROTO|ECONNRESET|socket/)
})
