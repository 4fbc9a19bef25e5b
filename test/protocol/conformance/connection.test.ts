/** PROTOCOL.md, "Connecting": subprotocols, origins, and who is let in at all. */
import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { describe, expect, it } from "vitest"
import { RawClient } from "../../support/RawClient.ts"
import { tokenFor } from "../../support/tokens.ts"
import { legacy, ok, useHub } from "./support.ts"

const hub = useHub()

const from = (origin: string, headers: Readonly<Record<string, string>> = {}) =>
  hub.connect({ ws: { headers: { ...headers, Origin: origin } } })

describe("subprotocol", () => {
  it("MUST be accepted when it is event-hub.v1", async () => {
    const client = await hub.connect()
    expect(client.socket.protocol).toBe("event-hub.v1")
  })

  it("MUST be event-hub.v1 when the client offers others, too", async () => {
    const client = await hub.connect({ protocols: ["other.v2", "event-hub.v1"] })
    expect(client.socket.protocol).toBe("event-hub.v1")
  })

  it("MUST NOT be demanded: a client that offers none is accepted, with none", async () => {
    const client = await hub.connect(legacy)
    expect(client.socket.protocol).toBe("")
    await ok(client, { op: "AUTH", token: await tokenFor() })
  })

  it.each([["other.v1"], ["event-hub.v2"], ["EVENT-HUB.V1"]])(
    "MUST be refused with HTTP 400 when it is only %s",
    async (protocol) => {
      await expect(hub.connect({ protocols: [protocol] })).rejects.toThrow("HTTP 400")
    }
  )
})

describe("origin", () => {
  it("MUST NOT be demanded from programs, which have none", async () => {
    await expect(hub.client()).resolves.toBeInstanceOf(RawClient)
  })

  it.each(["https://evil.example", "http://localhost.evil.example", "null", "file://"])(
    "MUST be refused with HTTP 403 before the upgrade when it is foreign: %s",
    async (origin) => {
      await expect(from(origin)).rejects.toThrow("HTTP 403")
    }
  )

  it.each(["http://localhost", "http://localhost:5173", "https://127.0.0.1:8443", "http://[::1]:3000"])(
    "MUST be accepted when it is loopback: %s",
    async (origin) => {
      await expect(from(origin)).resolves.toBeInstanceOf(RawClient)
    }
  )

  it("MUST be accepted when it is the host that the request names, on any port", async () => {
    const client = await from("https://hub.example:8443", { Host: "hub.example" })
    expect(client.socket.protocol).toBe("event-hub.v1")
  })

  it("MUST be refused when it is another host than the request names", async () => {
    await expect(from("https://page.example", { Host: "hub.example" })).rejects.toThrow("HTTP 403")
  })

  describe("with an allow-list", () => {
    const strict = useHub({ HUB_ORIGINS: "https://app.example.com,https://admin.example.com:8443" })
    const fromListed = (origin: string) => strict.connect({ ws: { headers: { Origin: origin } } })

    it.each(["https://app.example.com", "https://admin.example.com:8443"])(
      "MUST be accepted when it is on the list: %s",
      async (origin) => {
        await expect(fromListed(origin)).resolves.toBeInstanceOf(RawClient)
      }
    )

    it.each(["http://app.example.com", "https://app.example.com:8443", "http://localhost:5173"])(
      "MUST be refused when it is not on the list, loopback included: %s",
      async (origin) => {
        await expect(fromListed(origin)).rejects.toThrow("HTTP 403")
      }
    )

    it("MUST NOT be demanded from programs", async () => {
      await expect(strict.connect()).resolves.toBeInstanceOf(RawClient)
    })
  })
})

describe("the port", () => {
  it("MUST NOT take a token from the URL", async () => {
    const client = await RawClient.connect(`${hub.url}/?token=${await tokenFor()}`)
    client.send({ op: "PING", ref: 1 })
    expect(await client.closed).toMatchObject({ code: 4401 })
    expect(client.messages).toMatchObject([{ op: "ERR", ref: 1, code: "no_token" }])
  })

  it("MUST answer a request that is no WebSocket handshake with HTTP 426", async () => {
    const response = await fetch(hub.url.replace("ws:", "http:"))
    expect(response.status).toBe(426)
  })
})

describe("more connections than the hub takes", () => {
  const small = useHub({ LIMIT_CONNECTIONS: "2", HUB_RECONNECT_SPREAD_MS: "1234" })

  it("MUST be closed with 4202, after an ERR that says when to come back", async () => {
    const first = await small.client()
    const second = await small.client()
    const third = await small.connect()
    third.send({ op: "AUTH", ref: 1, token: await tokenFor() })
    expect(await third.closed).toMatchObject({ code: 4202 })
    expect(third.messages).toMatchObject([
      { op: "ERR", code: "unavailable", retryable: true, retryAfterMs: 1234 }
    ])

    await ok(first, { op: "PING" })
    await second.close()
    // The hub may notice that somebody went a moment after the client did.
    for (;;) {
      const next = await small.connect()
      const answer = await next.request({ op: "AUTH", token: await tokenFor() }).catch(() => undefined)
      if (answer?.op === "OK") return
    }
  })

  it("MUST get HTTP 503 when a hundred that were refused have not gone", async () => {
    const { hostname, port } = new URL(small.url)
    const request = [
      "GET / HTTP/1.1",
      `Host: ${hostname}:${port}`,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      "",
      ""
    ].join("\r\n")
    const sockets: Array<Socket> = []
    // They never answer the hub's close frame, so they stay for as long as the hub waits for that.
    const open = async (): Promise<string> => {
      const socket = connect(Number(port), hostname)
      sockets.push(socket)
      socket.write(request)
      const [data] = (await once(socket, "data")) as [Buffer]
      return data.toString("latin1").split("\r\n")[0] ?? ""
    }
    const answers: Array<string> = []
    for (let i = 0; i < 110; i++) answers.push(await open())
    for (const socket of sockets) socket.destroy()
    expect(answers[0]).toContain(" 101 ")
    expect(answers.at(-1)).toContain(" 503 ")
    const count = answers.filter((answer) => answer.includes(" 101 ")).length
    // Those of the test before may be there for a moment.
    expect(count).toBeGreaterThanOrEqual(90)
    expect(count).toBeLessThanOrEqual(102)
  })
})
