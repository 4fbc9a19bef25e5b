/** The client against a hub, as programs use it: with each WebSocket there is, and with everything that is refused. */
import { execFile } from "node:child_process"
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { WebSocketServer } from "ws"
import { type DeliveryContext, type HubError, PromClient, type WireEvent } from "../../src/client/index.ts"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { everything, tokenFor } from "../support/tokens.ts"
import { collector, gate, makeClient, platforms, until } from "./clients.ts"
import { welcome } from "./FakeWebSocket.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub({ GROUP_RETRY_BASE_MS: "1", GROUP_RETRY_MAX_MS: "1" })
})

afterAll(() => hub.stop())

const connected = async (...[options]: [Parameters<typeof makeClient>[1]?]) => {
  const made = makeClient(hub.ws, options)
  await made.client.connect()
  return made
}

const lagOf = async (topic: string, group: string) => {
  const headers = { authorization: `Bearer ${await tokenFor()}` }
  const answer = await fetch(`${hub.ops}/lag?topic=${topic}&group=${group}`, { headers })
  return (await answer.json()) as { readonly pending: number; readonly inFlight: number }
}

const failure = (promise: Promise<unknown>): Promise<HubError> =>
  promise.then(
    () => {
      throw new Error("it did not fail")
    },
    (error: HubError) => error
  )

/** A hub that takes every token and answers nothing else. */
const muteHub = async (): Promise<string> => {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  onTestFinished(() => {
    for (const client of server.clients) client.terminate()
    server.close()
  })
  server.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => {
      for (const { op, ref } of [JSON.parse(data.toString())].flat()) {
        if (op === "AUTH") socket.send(JSON.stringify({ op: "OK", ref, ...welcome }))
      }
    })
  })
  await once(server, "listening")
  return `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
}

describe.each(platforms)("with %s", (name, platform) => {
  const topicOf = (what: string) => `${name.replaceAll(" ", "-")}.${what}`

  it("connects, and says how it stands", async () => {
    const states: Array<string> = []
    const { client } = await connected({ ...platform, onState: ({ _tag }) => states.push(_tag) })
    expect(client.state).toMatchObject({
      _tag: "ready",
      welcome: { history: expect.any(String) as string, heartbeatMs: 25_000 }
    })
    await client.close()
    expect(states).toEqual(["connecting", "ready", "closed"])
  })

  it("publishes: the answer has the id, the seq and the time, and the same id again is a duplicate", async () => {
    const { client } = await connected(platform)
    const topic = topicOf("published")
    const first = await client.publish<{ readonly n: number }>(topic, { n: 1 }, { id: "one", type: "t" })
    expect(first).toEqual({ id: "one", seq: 1, storedAt: expect.any(Number) as number, duplicate: false })
    expect(await client.publish(topic, { n: 2 }, { id: "one" })).toEqual({ ...first, duplicate: true })
    const second = await client.publish(topic, null)
    expect(second).toMatchObject({ seq: 2, duplicate: false })
    expect(second.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })

  it("follows a pattern live, in order, from the start or from now on", async () => {
    const { client } = await connected(platform)
    await client.publish(topicOf("live.a"), 1, { key: "k", headers: { h: "v" } })
    const all = collector()
    const fresh = collector()
    await client.subscribe(topicOf("live.*"), undefined, all.handler, { from: "start" })
    await client.subscribe(topicOf("live.**"), null, fresh.handler)
    for (let i = 2; i <= 500; i++) void client.publish(topicOf("live.a"), i)
    await all.first(500)
    await fresh.first(499)
    expect(all.payloads()).toEqual(Array.from({ length: 500 }, (_, i) => i + 1))
    expect(fresh.payloads()).toEqual(Array.from({ length: 499 }, (_, i) => i + 2))
    expect(all.events[0]).toMatchObject({
      topic: topicOf("live.a"),
      seq: 1,
      key: "k",
      headers: { h: "v" },
      payload: 1
    })
  })

  it("takes part in a group, and acknowledges what its handler has done", async () => {
    const { client, errors } = await connected(platform)
    const topic = topicOf("group")
    const contexts: Array<DeliveryContext | undefined> = []
    await client.subscribe(topic, "g", (_event, context) => void contexts.push(context))
    await Promise.all(Array.from({ length: 50 }, (_, i) => client.publish(topic, i)))
    await until("all are handled", () => contexts.length === 50)
    await expect.poll(() => lagOf(topic, "g")).toMatchObject({ pending: 0, inFlight: 0 })
    expect(contexts).toHaveLength(50)
    expect(contexts[0]).toEqual({ attempt: 1, redelivered: false, deadline: expect.any(Number) as number })
    expect(errors).toEqual([])
  })
})

describe("a client that the hub will not have", () => {
  it.each([
    ["a foreign secret", { secret: "another secret of thirty-two bytes or more" }, "jwt_invalid"],
    ["a token that is over", { expiresIn: -60 }, "token_expired"]
  ] as const)("is told why: %s", async (_what, token, code) => {
    const { client } = makeClient(hub.ws, { token: await tokenFor(token) })
    const published = failure(client.publish("a", 1))
    const subscribed = failure(client.subscribe("a", undefined, () => {}))
    const error = await failure(client.connect())
    expect(error).toMatchObject({ name: "HubError", code, retryable: false })
    expect(client.state).toEqual({ _tag: "closed", error })
    expect([await published, await subscribed]).toEqual([error, error])
    expect(await failure(client.publish("a", 1))).toBe(error)
    expect(await failure(client.connect())).toBe(error)
  })

  it("without a token is told that", async () => {
    expect(await failure(makeClient(hub.ws, { token: "" }).client.connect())).toMatchObject({
      code: "no_token"
    })
  })

  it("with a URL that is none does not try", async () => {
    expect(await failure(makeClient("nowhere").client.connect())).toMatchObject({ code: "closed" })
  })
})

describe("a publish that fails has a code", () => {
  it("forbidden, invalid_topic, bad_request", async () => {
    const { client } = await connected({ token: () => tokenFor({ scopes: ["publish:mine.**"] }) })
    expect(await failure(client.publish("theirs", 1))).toMatchObject({ code: "forbidden", retryable: false })
    expect(await failure(client.publish("$dead.mine", 1))).toMatchObject({ code: "forbidden" })
    expect(await failure(client.publish("mine.*", 1))).toMatchObject({ code: "invalid_topic" })
    expect(await failure(client.publish("mine.a", undefined))).toMatchObject({ code: "bad_request" })
    expect(await client.publish("mine.a", 1)).toMatchObject({ seq: 1 })
  })

  it("payload_too_large, by the hub or before it is sent, and the connection stays", async () => {
    const states: Array<string> = []
    const { client } = await connected({ onState: ({ _tag }) => states.push(_tag) })
    for (const megabytes of [0.3, 2]) {
      const failed = failure(client.publish("large", "x".repeat(megabytes * 1024 * 1024)))
      expect(await failed).toMatchObject({ code: "payload_too_large", retryable: false })
    }
    expect(await client.publish("large", "x".repeat(255 * 1024))).toMatchObject({ seq: 1 })
    expect(states).toEqual(["connecting", "ready"])
  })

  it("frames stay within what the hub takes, however much is published at once", async () => {
    const { client } = await connected()
    const payload = "€".repeat(50_000)
    const all = await Promise.all(Array.from({ length: 40 }, () => client.publish("frames", payload)))
    expect(all.map(({ seq }) => seq)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1))
  })

  it("queue_full, when more wait than may; those that wait are sent", async () => {
    const token = gate()
    const { client } = makeClient(hub.ws, {
      maxPending: 2,
      token: async () => {
        await token.passed
        return tokenFor()
      }
    })
    const waiting = [client.publish("queue", 1), client.publish("queue", 2)]
    expect(await failure(client.publish("queue", 3))).toMatchObject({ code: "queue_full", retryable: true })
    token.open()
    expect((await Promise.all(waiting)).map(({ seq }) => seq)).toEqual([1, 2])
    expect(await client.publish("queue", 3)).toMatchObject({ seq: 3 })
  })

  it("closed, when the client is, or was while it waited", async () => {
    const { client } = makeClient(hub.ws, { token: () => new Promise(() => {}) })
    const waiting = failure(client.publish("a", 1))
    await client.close()
    expect(await waiting).toMatchObject({ code: "closed", retryable: false })
    expect(await failure(client.publish("a", 1))).toMatchObject({ code: "closed" })
    expect(await failure(client.subscribe("a", undefined, () => {}))).toMatchObject({ code: "closed" })
    expect(await failure(client.connect())).toMatchObject({ code: "closed" })
  })

  it("timeout, when the hub does not answer", async () => {
    const { client } = makeClient(await muteHub(), { requestTimeoutMs: 50 })
    expect(await failure(client.publish("a", 1))).toMatchObject({ code: "timeout", retryable: true })
    const subscribed = failure(client.subscribe("a", undefined, () => {}))
    expect(await subscribed).toMatchObject({ code: "timeout", retryable: true })
  })

  it("and what is no JSON fails as it does anywhere", async () => {
    const { client } = await connected()
    expect(await failure(client.publish("a", 1n))).toBeInstanceOf(TypeError)
  })
})

it("publishes what the payload was when it was published", async () => {
  const { client } = makeClient(hub.ws)
  const seen = collector()
  const payload = { n: 1 }
  const published = client.publish("snapshot", payload)
  payload.n = 2
  await published
  await client.subscribe("snapshot", undefined, seen.handler, { from: "start" })
  expect((await seen.first(1))[0]?.payload).toEqual({ n: 1 })
})

describe("a subscription that fails has a code", () => {
  it("forbidden, invalid_pattern, bad_request, group_conflict, unrecoverable_position", async () => {
    const { client } = await connected({
      token: () => tokenFor({ scopes: ["subscribe:mine.**", "publish:**"] })
    })
    const attempt = (...args: Parameters<PromClient["subscribe"]>) => failure(client.subscribe(...args))
    const handler = () => {}
    expect(await attempt("**", undefined, handler)).toMatchObject({ code: "forbidden" })
    expect(await attempt("mine.a*", undefined, handler)).toMatchObject({ code: "invalid_pattern" })
    expect(await attempt("mine.*", null, handler, { from: { after: 1 } })).toMatchObject({
      code: "bad_request"
    })
    await client.subscribe("mine.a", "three", handler, { maxAttempts: 3 })
    await client.unsubscribe("mine.a", "three")
    expect(await attempt("mine.a", "three", handler, { maxAttempts: 4 })).toMatchObject({
      code: "group_conflict"
    })
    const from = { topics: { "mine.b": 0 } }
    expect(await attempt("mine.b", null, handler, { from, history: "another" })).toMatchObject({
      code: "unrecoverable_position"
    })
  })

  it("already_subscribed and not_subscribed; after a failure it may be tried again", async () => {
    const { client } = await connected()
    await client.subscribe("twice", undefined, () => {})
    expect(await failure(client.subscribe("twice", undefined, () => {}))).toMatchObject({
      code: "already_subscribed"
    })
    await client.subscribe("twice", "g", () => {})
    await client.unsubscribe("twice")
    expect(await failure(client.unsubscribe("twice"))).toMatchObject({ code: "not_subscribed" })
    await client.subscribe("twice", undefined, () => {})
    for (let i = 1; i <= 2; i++) {
      expect(await failure(client.subscribe("bad*", undefined, () => {}))).toMatchObject({
        code: "invalid_pattern"
      })
    }
    expect(await failure(client.unsubscribe("bad*"))).toMatchObject({ code: "not_subscribed" })
  })
})

describe("a handler that throws", () => {
  it("gets a group's event again, until it is a dead letter", async () => {
    const { client, errors } = await connected()
    const attempts: Array<number | undefined> = []
    const dead = collector()
    await client.subscribe("$dead.fails.poison", undefined, dead.handler)
    await client.subscribe(
      "poison",
      "fails",
      (_event, context) => {
        attempts.push(context?.attempt)
        throw new Error("I cannot")
      },
      { maxAttempts: 3 }
    )
    const { id } = await client.publish("poison", { n: 1 }, { key: "k" })
    const [letter] = await dead.first(1)
    expect(letter).toMatchObject({
      payload: { n: 1 },
      key: "k",
      headers: {
        "dead-group": "fails",
        "dead-topic": "poison",
        "dead-id": id,
        "dead-attempts": "3",
        "dead-reason": "I cannot"
      }
    })
    expect(attempts).toEqual([1, 2, 3])
    expect(errors).toEqual([1, 2, 3].map(() => new Error("I cannot")))
    // The letter is written before the group lets go of the event.
    await expect.poll(() => lagOf("poison", "fails")).toMatchObject({ pending: 0, inFlight: 0 })
  })

  it("goes on to the next event when it is live", async () => {
    const { client, errors } = await connected()
    const seen: Array<number> = []
    await client.subscribe("bumpy", undefined, async ({ seq }) => {
      seen.push(seq)
      if (seq === 2) await Promise.reject(new Error("I cannot"))
    })
    for (let i = 0; i < 3; i++) await client.publish("bumpy", i)
    await until("all are handled", () => seen.length === 3)
    expect(seen).toEqual([1, 2, 3])
    expect(errors).toEqual([new Error("I cannot")])
  })
})

describe("handlers", () => {
  /** Runs until it is let go, and knows how many of its kind run. */
  const holding = () => {
    const running = new Map<number, () => void>()
    let most = 0
    return {
      running,
      most: () => most,
      handler: ({ seq }: WireEvent): Promise<void> =>
        new Promise((resolve) => {
          running.set(seq, () => {
            running.delete(seq)
            resolve()
          })
          most = Math.max(most, running.size)
        })
    }
  }

  it("of a group run as many at a time as it says", async () => {
    const { client } = await connected()
    const held = holding()
    await client.subscribe("wide", "g", held.handler, { concurrency: 3 })
    for (let i = 0; i < 10; i++) await client.publish("wide", i)
    for (let done = 0; done < 10; done++) {
      await until("as many as may", () => held.running.size === Math.min(3, 10 - done))
      held.running.get(Math.min(...held.running.keys()))?.()
    }
    expect(held.most()).toBe(3)
    await expect.poll(() => lagOf("wide", "g")).toMatchObject({ pending: 0 })
  })

  it("of a live subscription run one after the other, in order", async () => {
    const { client } = await connected()
    const held = holding()
    await client.subscribe("narrow.*", undefined, held.handler)
    for (let i = 0; i < 5; i++) await client.publish("narrow.a", i)
    for (let seq = 1; seq <= 5; seq++) {
      await until("the next", () => held.running.has(seq))
      held.running.get(seq)?.()
    }
    expect(held.most()).toBe(1)
  })

  it("may use the client: publish, and unsubscribe themselves", async () => {
    const { client, errors } = await connected()
    const out = collector()
    await client.subscribe("chain.out", undefined, out.handler)
    await client.subscribe("chain.in", "g", async ({ payload }) => {
      await client.publish("chain.out", payload)
      if (payload === 3) await client.unsubscribe("chain.in", "g")
    })
    for (let i = 1; i <= 2; i++) await client.publish("chain.in", i)
    const lag = () => lagOf("chain.in", "g")
    await expect.poll(lag, { timeout: 20_000 }).toMatchObject({ pending: 0 })
    await client.publish("chain.in", 3)
    await out.first(3)
    await expect.poll(lag, { timeout: 20_000 }).toMatchObject({ pending: 1, inFlight: 0 })
    expect(errors).toEqual([])
  })
})

describe("unsubscribe", () => {
  it("ends a live subscription: no event comes after it", async () => {
    const { client } = await connected()
    const gone = collector()
    const stays = collector()
    await client.subscribe("left", undefined, gone.handler)
    await client.subscribe("left.**", undefined, stays.handler)
    await client.publish("left", 1)
    await gone.first(1)
    await client.unsubscribe("left")
    await client.publish("left", 2)
    await stays.first(2)
    expect(gone.payloads()).toEqual([1])
  })

  it("gives a group's events back: those not begun at once, uncounted, and so those being handled", async () => {
    const { client: one, errors } = await connected()
    const { client: other } = await connected()
    const begun = gate()
    const end = gate()
    const handled: Array<unknown> = []
    await one.subscribe(
      "shared",
      "g",
      async ({ payload }) => {
        handled.push(payload)
        begun.open()
        await end.passed
      },
      { concurrency: 1 }
    )
    for (let i = 1; i <= 3; i++) await one.publish("shared", i)
    await begun.passed
    await one.unsubscribe("shared", "g")
    const taken: Array<unknown> = []
    await other.subscribe(
      "shared",
      "g",
      ({ payload }, context) => void taken.push([payload, context?.attempt])
    )
    await until("the other has them", () => taken.length === 3)
    expect(taken.sort()).toEqual([
      [1, 1],
      [2, 1],
      [3, 1]
    ])
    end.open()
    await one.publish("shared", 4)
    await until("the other has it", () => taken.length === 4)
    expect(handled).toEqual([1])
    expect(errors).toEqual([])
  })

  it("before it stands fails the subscription", async () => {
    const { client } = makeClient(hub.ws, { token: () => new Promise(() => {}) })
    const subscribed = failure(client.subscribe("early", undefined, () => {}))
    await client.unsubscribe("early")
    expect(await subscribed).toMatchObject({ code: "not_subscribed" })
  })
})

describe("close", () => {
  it("waits for handlers that run, acknowledges what they did, and gives the rest back uncounted", async () => {
    const { client: one } = await connected({ closeTimeoutMs: 20_000 })
    const begun = gate()
    const end = gate()
    const handled: Array<unknown> = []
    await one.subscribe(
      "closing",
      "g",
      async ({ payload }) => {
        begun.open()
        await end.passed
        await one.publish("closing.done", payload)
        handled.push(payload)
      },
      { concurrency: 1 }
    )
    for (let i = 1; i <= 3; i++) await one.publish("closing", i)
    await begun.passed
    let isClosed = false
    const closed = one.close().then(() => (isClosed = true))
    expect(await failure(one.subscribe("more", undefined, () => {}))).toMatchObject({ code: "closed" })
    expect(await lagOf("closing", "g")).toMatchObject({ pending: 3, inFlight: 3 })
    expect([isClosed, one.state._tag]).toEqual([false, "ready"])
    end.open()
    await closed
    expect(handled).toEqual([1])
    expect(await lagOf("closing", "g")).toMatchObject({ pending: 2, inFlight: 0 })

    const { client: other } = await connected()
    const taken: Array<unknown> = []
    await other.subscribe("closing", "g", ({ payload }, context) => {
      taken.push([payload, context?.attempt])
    })
    await until("the other has the rest", () => taken.length === 2)
    expect(taken.sort()).toEqual([
      [2, 1],
      [3, 1]
    ])
  })

  it("waits for publishes under way", async () => {
    const { client } = await connected({ closeTimeoutMs: 20_000 })
    const published = Promise.all(Array.from({ length: 200 }, (_, i) => client.publish("last.words", i)))
    await client.close()
    expect((await published).at(-1)).toMatchObject({ seq: 200 })
  })

  it("does not wait for ever", async () => {
    const { client } = await connected({ closeTimeoutMs: 20 })
    const begun = gate()
    await client.subscribe("stuck", "g", () => {
      begun.open()
      return new Promise(() => {})
    })
    await client.publish("stuck", 1)
    await begun.passed
    await client.close()
    expect(client.state).toEqual({ _tag: "closed", error: undefined })
  })

  it("may be called twice, and before anything else", async () => {
    const { client } = await connected()
    await Promise.all([client.close(), client.close()])
    await client.close()
    const { client: fresh } = makeClient(hub.ws)
    await fresh.close()
    expect(fresh.state._tag).toBe("closed")
    expect(await failure(fresh.connect())).toMatchObject({ code: "closed" })
  })
})

describe("callbacks that throw", () => {
  it("are uncaught errors of the program, and stop nothing", async () => {
    const uncaught: Array<unknown> = []
    // The test runner listens for them, too.
    const listeners = process.listeners("uncaughtException")
    process.removeAllListeners("uncaughtException")
    process.on("uncaughtException", (error) => uncaught.push(error))
    onTestFinished(() => {
      process.removeAllListeners("uncaughtException")
      for (const listener of listeners) process.on("uncaughtException", listener)
    })
    const { client } = await connected({
      onState: () => {
        throw new Error("in onState")
      },
      onError: () => {
        throw new Error("in onError")
      }
    })
    const seen: Array<unknown> = []
    await client.subscribe("callbacks", undefined, ({ payload }) => {
      seen.push(payload)
      throw new Error("in a handler")
    })
    await client.publish("callbacks", 1)
    await client.publish("callbacks", 2)
    await until("both came", () => seen.length === 2)
    await client.close()
    const three = [1, 2, 3].map(() => new Error("in onState"))
    await until("all are uncaught", () => uncaught.length === 5)
    expect(uncaught).toEqual([...three.slice(1), ...[1, 2].map(() => new Error("in onError")), three[0]])
  })
})

it("lets its process end when it is closed", async () => {
  const program = `
    import { PromClient } from ${JSON.stringify(new URL("../../src/client/index.ts", import.meta.url).href)}
    const client = new PromClient(${JSON.stringify(hub.ws)}, ${JSON.stringify(await tokenFor())})
    await client.subscribe("**", undefined, () => {})
    await client.publish("ends", 1)
    await client.close()
    console.log("closed")
  `
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program])
  expect(stdout).toBe("closed\n")
})

it("has the rights that its token gives, and no more", async () => {
  const { client } = await connected({ token: await tokenFor({ scopes: everything.slice(0, 1) }) })
  expect(await client.publish("rights", 1)).toMatchObject({ seq: 1 })
  expect(await failure(client.subscribe("rights", undefined, () => {}))).toMatchObject({ code: "forbidden" })
})
