/** The client of `createClient`, on a network and a clock of the test's: what it holds, each by itself. */
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest"
import {
  createClient,
  defineTopics,
  type Delivery,
  InvalidPayload,
  type LiveItem,
  Nack,
  type Position,
  type StandardSchema
} from "../../src/client/index.ts"
import { collector, gate } from "./clients.ts"
import { FakeNetwork, welcome } from "./FakeWebSocket.ts"
import {
  answer,
  connected,
  delivery,
  drained,
  event,
  failure,
  gap,
  made,
  reconnect,
  refuse,
  requests,
  settle
} from "./playing.ts"

beforeEach(() => {
  vi.useFakeTimers()
  vi.spyOn(Math, "random").mockReturnValue(1)
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

/** Takes numbers; what `validate` returns may take its time. */
const numbers = (
  wrap: <A>(result: A) => A | Promise<A> = (result) => result
): StandardSchema<number, { readonly n: number }> => ({
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) =>
      wrap(
        typeof value === "number"
          ? { value: { n: value } }
          : { issues: [{ message: "no number", path: ["a", { key: 1 }] }] }
      )
  }
})

const ok = { id: "x", seq: 1, storedAt: 0, duplicate: false }

it("gives functions that can be taken out of it", async () => {
  const { client, network } = made()
  const { close, connect, consume, on, publish, subscribe } = client
  const states: Array<string> = []
  const stop = on("state", ({ _tag }) => void states.push(_tag))
  void connect()
  await settle()
  network.last.accept()
  await settle()
  const { ready, unsubscribe } = subscribe("a")
  await settle()
  await answer(network.last, "SUBSCRIBE", { heads: {} })
  await ready
  void consume("a", "g", () => {})
  void failure(publish("a", 1))
  await settle()
  expect(requests(network.last, "SUBSCRIBE")).toHaveLength(2)
  expect(requests(network.last, "PUBLISH")).toHaveLength(1)
  const left = unsubscribe()
  await settle()
  await answer(network.last, "UNSUBSCRIBE")
  await left
  stop()
  void close({ timeoutMs: 0 })
  await vi.advanceTimersByTimeAsync(60_000)
  expect(client.state._tag).toBe("closed")
  expect(states).toEqual(["connecting", "ready"])
})

describe("the client", () => {
  it("says how it stands, until it is asked to stop", async () => {
    const { client, network } = made()
    const seen: Array<string> = []
    const stop = client.on("state", ({ _tag }) => seen.push(_tag))
    expect(client.state).toEqual({ _tag: "idle" })
    const welcomed = client.connect()
    await settle()
    network.last.accept()
    expect(await welcomed).toMatchObject({ history: welcome.history })
    expect(await client.connect()).toMatchObject({ history: welcome.history })
    stop()
    await client.close()
    expect(seen).toEqual(["connecting", "ready"])
    expect(client.state).toEqual({ _tag: "closed", error: undefined })
  })

  it("begins by itself, with a publish and with a subscription", async () => {
    const { client, network } = made()
    void client.publish("a", 1)
    await settle()
    expect(network.sockets).toHaveLength(1)
    const other = made()
    other.client.subscribe("a")
    await settle()
    expect(other.network.sockets).toHaveLength(1)
  })

  it("tells the console of errors that nobody listens to", async () => {
    const told = vi.spyOn(console, "error").mockImplementation(() => {})
    const network = new FakeNetwork()
    const client = createClient({
      url: "ws://hub",
      getToken: () => Promise.reject(new Error("no token")),
      WebSocket: network.WebSocket
    })
    const failed = failure(client.connect())
    await settle()
    expect(told).toHaveBeenCalledWith(new Error("no token"))
    await client.close()
    expect(await failed).toMatchObject({ code: "closed" })
  })

  it("is closed at the end of its block", async () => {
    const { client } = await connected()
    {
      await using one = client
      expect(one.state._tag).toBe("ready")
    }
    expect(client.state._tag).toBe("closed")
  })
})

describe("a token", () => {
  /** Tokens that end ten seconds after they are given out, by the hub's clock. */
  const renewing = async (getToken: () => string | Promise<string>, more: object = {}, lifeMs = 10_000) => {
    const all = made({ getToken, token: undefined, ...more } as object)
    const states: Array<string> = []
    all.client.on("state", ({ _tag }) => states.push(_tag))
    void all.client.connect()
    await settle()
    all.network.last.accept({ expiresAt: welcome.serverTime + lifeMs, heartbeatMs: 2 ** 31 - 1 })
    await settle()
    return { ...all, states }
  }
  const counting = () => {
    let n = 0
    return () => `token ${++n}`
  }

  it("is replaced on the same connection when a tenth of its life is left, again and again", async () => {
    const { client, errors, network, states } = await renewing(counting())
    await vi.advanceTimersByTimeAsync(8_999)
    expect(requests(network.last, "AUTH")).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(requests(network.last, "AUTH")).toMatchObject([{ token: "token 1" }, { token: "token 2" }])
    await answer(network.last, "AUTH", { expiresAt: welcome.serverTime + 19_000 })
    expect(client.state).toMatchObject({ _tag: "ready", welcome: { expiresAt: welcome.serverTime + 19_000 } })
    await vi.advanceTimersByTimeAsync(9_000)
    expect(requests(network.last, "AUTH")).toHaveLength(3)
    await answer(network.last, "AUTH", { expiresAt: welcome.serverTime + 28_000 })
    expect([network.sockets.length, states, errors]).toEqual([1, ["connecting", "ready"], []])
    await client.close()
    expect(vi.getTimerCount()).toBe(0)
  })

  it("is replaced a minute before its end when it lives long, or as long before as one says", async () => {
    const hour = 3_600_000
    const { network } = await renewing(counting(), {}, hour)
    await vi.advanceTimersByTimeAsync(hour - 60_001)
    expect(requests(network.last, "AUTH")).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(requests(network.last, "AUTH")).toHaveLength(2)
    const own = await renewing(counting(), { refreshBeforeMs: 4_000 })
    await vi.advanceTimersByTimeAsync(6_000)
    expect(requests(own.network.last, "AUTH")).toHaveLength(2)
    const never = await renewing(counting(), { refreshBeforeMs: 0 })
    await vi.advanceTimersByTimeAsync(20_000)
    expect(requests(never.network.last, "AUTH")).toHaveLength(1)
  })

  it("is not replaced more often than once a second, and timers are never asked for more than they can", async () => {
    const { network } = await renewing(counting(), {}, 100)
    await vi.advanceTimersByTimeAsync(999)
    expect(requests(network.last, "AUTH")).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(requests(network.last, "AUTH")).toHaveLength(2)
    const timers = vi.spyOn(globalThis, "setTimeout")
    await renewing(counting(), {}, 2 ** 40)
    expect(timers.mock.calls.every(([, ms = 0]) => ms < 2 ** 31)).toBe(true)
  })

  it("that cannot be had, or is the old one, is asked for again with a back-off; the hub's no is told", async () => {
    const answers: Array<() => string> = [
      () => "one",
      () => {
        throw new Error("no network")
      },
      () => "one",
      () => "of another",
      () => "two"
    ]
    const asked = vi.fn<() => string>(() => answers.shift()?.() ?? "late")
    const { errors, network } = await renewing(asked, { requestTimeoutMs: 60_000 }, 20_000)
    await vi.advanceTimersByTimeAsync(18_000)
    expect(errors).toEqual([new Error("no network")])
    await vi.advanceTimersByTimeAsync(1_000)
    expect(asked).toHaveBeenCalledTimes(3)
    expect(requests(network.last, "AUTH")).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(requests(network.last, "AUTH")).toMatchObject([{}, { token: "of another" }])
    await refuse(network.last, "AUTH", "forbidden")
    expect(errors).toMatchObject([{}, { code: "forbidden" }])
    await vi.advanceTimersByTimeAsync(2_000)
    expect(requests(network.last, "AUTH")).toHaveLength(3)
    expect(network.sockets).toHaveLength(1)
  })

  it("that the hub cannot verify at the moment is asked for again, on the same connection", async () => {
    const { client, errors, network } = await renewing(counting())
    await vi.advanceTimersByTimeAsync(9_000)
    await refuse(network.last, "AUTH", "unavailable", { retryable: true })
    expect(errors).toMatchObject([{ code: "unavailable" }])
    await vi.advanceTimersByTimeAsync(2_000)
    expect(requests(network.last, "AUTH")).toMatchObject([{}, { token: "token 2" }, { token: "token 3" }])
    await answer(network.last, "AUTH", { expiresAt: welcome.serverTime + 30_000 })
    expect(client.state._tag).toBe("ready")
    expect(network.sockets).toHaveLength(1)
  })

  it("that comes when its connection is gone is not sent, and one that is refused is the reason of the end", async () => {
    const late = gate()
    let n = 0
    const getToken = async () => {
      const mine = ++n
      if (mine === 2) await late.passed
      return `token ${mine}`
    }
    const { client, network } = await renewing(getToken)
    await vi.advanceTimersByTimeAsync(9_000)
    network.last.end(1006)
    await vi.advanceTimersByTimeAsync(500)
    late.open()
    network.last.accept({ expiresAt: welcome.serverTime + 10_000 })
    await settle()
    expect(requests(network.last, "AUTH")).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(9_000)
    await refuse(network.last, "AUTH", "jwt_invalid")
    network.last.end(4401)
    expect(client.state).toMatchObject({ _tag: "closed", error: { code: "jwt_invalid" } })
    expect(vi.getTimerCount()).toBe(0)
  })

  it("that took the place of another is the one that the hub does not want any more", async () => {
    let n = 0
    const { client, network } = await renewing(() => (++n === 1 ? "one" : "two"))
    await vi.advanceTimersByTimeAsync(9_000)
    await answer(network.last, "AUTH", { expiresAt: null })
    network.last.end(4101)
    await settle()
    expect(client.state).toMatchObject({ _tag: "closed", error: { code: "token_expired" } })
  })

  it("is not replaced when there is only one", async () => {
    const { network } = made({ token: "t" })
    expect(network.sockets).toEqual([])
    const all = await connected()
    await vi.advanceTimersByTimeAsync(20_000)
    expect(requests(all.network.last, "AUTH")).toHaveLength(1)
  })
})

describe("in a browser", () => {
  const page = () => {
    const document = Object.assign(new EventTarget(), { visibilityState: "hidden" })
    const shown = new EventTarget()
    vi.stubGlobal("document", document)
    vi.stubGlobal("addEventListener", shown.addEventListener.bind(shown))
    vi.stubGlobal("removeEventListener", shown.removeEventListener.bind(shown))
    onTestFinished(() => void vi.unstubAllGlobals())
    return {
      online: () => shown.dispatchEvent(new Event("online")),
      show: (state: string) => {
        document.visibilityState = state
        document.dispatchEvent(new Event("visibilitychange"))
      }
    }
  }

  it.each(["online", "visible"])("%s ends the wait, and looks at a connection that there is", async (how) => {
    const { online, show } = page()
    const wake = () => (how === "online" ? online() : show("visible"))
    const { client, network } = await connected()
    wake()
    await settle()
    expect(requests(network.last, "PING")).toHaveLength(1)
    network.last.end(1006)
    show("hidden")
    await settle()
    expect([client.state._tag, network.sockets.length]).toEqual(["waiting", 1])
    wake()
    wake()
    await settle()
    expect(network.sockets).toHaveLength(2)
    await client.close()
    wake()
    await vi.advanceTimersByTimeAsync(60_000)
    expect(network.sockets).toHaveLength(2)
  })

  it("a slot that the hub gave is kept", async () => {
    const { online } = page()
    const { network } = await connected()
    network.last.receive({ op: "DRAIN", retryAfterMs: 5_000 })
    network.last.end(1012)
    online()
    await vi.advanceTimersByTimeAsync(4_999)
    expect(network.sockets).toHaveLength(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(network.sockets).toHaveLength(2)
  })

  it("nothing listens after the end", async () => {
    const removed = vi.fn<() => void>()
    vi.stubGlobal("addEventListener", () => {})
    vi.stubGlobal("removeEventListener", removed)
    onTestFinished(() => void vi.unstubAllGlobals())
    const { client } = await connected()
    await client.close()
    expect(removed).toHaveBeenCalledOnce()
  })
})

describe("back-off", () => {
  it("begins anew after as long as one says", async () => {
    const { client, network } = await connected({ stableAfterMs: 1_000 })
    const waits: Array<number> = []
    client.on("state", (state) => state._tag === "waiting" && waits.push(state.retryInMs))
    for (const lasted of [999, 1_000]) {
      await vi.advanceTimersByTimeAsync(lasted)
      network.last.end(1006)
      await vi.advanceTimersByTimeAsync(1_000)
      network.last.accept()
      await settle()
    }
    network.last.end(1006)
    expect(waits).toEqual([500, 500, 1_000])
  })
})

describe("publish", () => {
  it("waits for a connection, in order and with the same ids, also for the second", async () => {
    const { client, network } = made()
    const all = upTo(5).map((n) => client.publish("a", n))
    await settle()
    network.last.accept()
    await settle()
    const first = requests(network.last, "PUBLISH")
    await reconnect(network)
    const again = requests(network.last, "PUBLISH")
    expect(again.map(({ payload }) => payload)).toEqual(upTo(5))
    expect(again.map(({ opts }) => opts)).toEqual(first.map(({ opts }) => opts))
    expect(new Set(first.map(({ opts }) => opts?.["id"])).size).toBe(5)
    for (const { ref } of again) network.last.receive({ op: "OK", ref, ...ok })
    expect(await Promise.all(all)).toEqual(all.map(() => ok))
  })

  it("is refused when too many wait, or too much of it", async () => {
    const { client } = made({ maxPending: 2 })
    void client.publish("a", 1)
    void client.publish("a", 2)
    expect(await failure(client.publish("a", 3))).toMatchObject({ code: "queue_full", retryable: true })
    const other = made({ maxPendingBytes: 300 })
    void other.client.publish("a", "x".repeat(400))
    expect(await failure(other.client.publish("a", 1))).toMatchObject({ code: "queue_full" })
    const third = made({ maxPendingBytes: 1_000 })
    const published = third.client.publish("a", "x".repeat(600))
    expect(await failure(third.client.publish("a", "x".repeat(600)))).toMatchObject({ code: "queue_full" })
    await settle()
    third.network.last.accept()
    await settle()
    await answer(third.network.last, "PUBLISH", ok)
    await published
    void third.client.publish("a", "x".repeat(600))
    void third.client.publish("a", "x")
    await settle()
    expect(requests(third.network.last, "PUBLISH")).toHaveLength(3)
  })

  it("is taken back by its signal: at once, while it waits, and not repeated when it was sent", async () => {
    const { client, network } = made()
    const reason = new Error("enough")
    expect(await failure(client.publish("a", 0, { signal: AbortSignal.abort(reason) }))).toBe(reason)
    const waiting = new AbortController()
    const sent = new AbortController()
    const failures = [
      failure(client.publish("a", 1, { signal: waiting.signal })),
      failure(client.publish("a", 2, { signal: sent.signal }))
    ]
    waiting.abort(reason)
    await settle()
    network.last.accept()
    await settle()
    const [first] = requests(network.last, "PUBLISH")
    expect(first).toMatchObject({ payload: 2 })
    expect(first?.opts).not.toHaveProperty("signal")
    sent.abort(reason)
    expect(await Promise.all(failures)).toEqual([reason, reason])
    await reconnect(network)
    expect(requests(network.last, "PUBLISH")).toEqual([])
  })

  it("is looked at before, if asked for: what does not fit is not sent, and the order is kept", async () => {
    const slow = gate()
    const topics = defineTopics({
      slow: numbers(async (result) => {
        await slow.passed
        return result
      }),
      "**": numbers()
    })
    const network = new FakeNetwork()
    const client = createClient({
      url: "ws://hub",
      token: "t",
      WebSocket: network.WebSocket,
      topics,
      validatePublish: true
    })
    void client.connect()
    await settle()
    network.last.accept()
    await settle()
    // @ts-expect-error -- that is what is looked at
    const bad = await failure(client.publish("b", "x"))
    expect(bad).toBeInstanceOf(InvalidPayload)
    expect(bad).toMatchObject({
      topic: "b",
      issues: [{ message: "no number" }],
      message: expect.stringContaining("a: 1: no number") as string
    })
    for (const [topic, n] of [
      ["b", 1],
      ["slow", 2],
      ["b", 3]
    ] as const)
      void client.publish(topic, n)
    await reconnect(network)
    expect(requests(network.last, "PUBLISH").map(({ payload }) => payload)).toEqual([1])
    slow.open()
    await settle()
    void client.publish("b", 4)
    await settle()
    expect(requests(network.last, "PUBLISH").map(({ payload }) => payload)).toEqual([1, 2, 3, 4])
    const untyped = await connected({
      topics: defineTopics({ slow: topics.schemas.slow }),
      validatePublish: true
    })
    const [behind, own] = [new AbortController(), vi.spyOn(AbortSignal.prototype, "removeEventListener")]
    const late = new AbortController()
    const aborted = failure(untyped.client.publish("slow", 0, { signal: late.signal }))
    late.abort("enough")
    expect(await aborted).toBe("enough")
    const checked = untyped.client.publish("slow", 1)
    void untyped.client.publish("other", 2, { signal: behind.signal })
    expect(requests(untyped.network.last, "PUBLISH")).toEqual([])
    await settle()
    expect(requests(untyped.network.last, "PUBLISH").map(({ payload }) => payload)).toEqual([1, 2])
    for (const { ref } of requests(untyped.network.last, "PUBLISH")) {
      untyped.network.last.receive({ op: "OK", ref, ...ok })
    }
    await checked
    expect(own.mock.contexts).toContain(behind.signal)
    const unchecked = await connected({ topics })
    void unchecked.client.publish("b", "x")
    await settle()
    expect(requests(unchecked.network.last, "PUBLISH")).toHaveLength(1)
  })

  it("fails with a typed timeout", async () => {
    const { client } = await connected({ requestTimeoutMs: 500 })
    const failed = failure(client.publish("a", 1))
    await vi.advanceTimersByTimeAsync(500)
    expect(await failed).toMatchObject({ code: "timeout", retryable: true })
  })
})

describe("connect and close", () => {
  it("are aborted with the reason", async () => {
    const reason = new Error("enough")
    const { client, network } = made()
    expect(await failure(client.connect({ signal: AbortSignal.abort(reason) }))).toBe(reason)
    expect(network.sockets).toEqual([])
    const controller = new AbortController()
    const failed = failure(client.connect({ signal: controller.signal }))
    await settle()
    controller.abort(reason)
    expect(await failed).toBe(reason)
    network.last.accept()
    await settle()
    client.consume("a", "g", () => new Promise(() => {}))
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive(delivery("a", 1))
    const closing = new AbortController()
    const closed = failure(client.close({ signal: closing.signal }))
    await vi.advanceTimersByTimeAsync(1_000)
    expect(client.state._tag).toBe("ready")
    closing.abort(reason)
    expect(await closed).toBe(reason)
    expect(client.state._tag).toBe("closed")
    expect(vi.getTimerCount()).toBe(0)
  })

  it("a close waits for what runs no longer than it says, and leaves what stands", async () => {
    const { client, network } = await connected()
    const group = client.consume("a", "g", () => new Promise(() => {}), { concurrency: 1 })
    const live = client.subscribe("b", () => {})
    await settle()
    for (const { ref } of requests(network.last, "SUBSCRIBE"))
      network.last.receive({ op: "OK", ref, heads: {} })
    network.last.receive([delivery("a", 1), delivery("a", 2)])
    await settle()
    const closed = client.close({ timeoutMs: 700 })
    await vi.advanceTimersByTimeAsync(699)
    expect(requests(network.last, "UNSUBSCRIBE")).toEqual([])
    await vi.advanceTimersByTimeAsync(1)
    expect(requests(network.last, "UNSUBSCRIBE")).toMatchObject([{ topic: "a", group: "g" }, { topic: "b" }])
    for (const { ref } of requests(network.last, "UNSUBSCRIBE")) network.last.receive({ op: "OK", ref })
    await closed
    await Promise.all([group.done, live.done])
    expect(await failure(client.subscribe("c").ready)).toMatchObject({ code: "closed" })
  })
})

describe("a live subscription", () => {
  const live = async (handler?: (event: object) => unknown, options: object = {}) => {
    const all = await connected()
    const subscription = handler
      ? all.client.subscribe("a", handler, options)
      : all.client.subscribe("a", options)
    await settle()
    await answer(all.network.last, "SUBSCRIBE", { heads: {} })
    await subscription.ready
    return { ...all, subscription }
  }

  it("hands its events to a handler at once, without a turn in between", async () => {
    const seen = collector()
    const { network } = await live(seen.handler as (event: object) => void)
    network.last.receive([event("a", 1), event("a", 2)])
    expect(seen.payloads()).toEqual([1, 2])
  })

  it("hands events and gaps to who iterates, and ends with it", async () => {
    const { network, subscription } = await live()
    const { ended, seen } = drained<LiveItem>(subscription)
    network.last.receive([event("a", 1), gap("a", 2, 4), event("a", 5)])
    await settle()
    expect(seen).toEqual([
      { _tag: "event", id: "a-1", topic: "a", seq: 1, ts: 0, storedAt: 0, payload: 1 },
      { _tag: "gap", topic: "a", from: 2, to: 4, reason: "trimmed" },
      { _tag: "event", id: "a-5", topic: "a", seq: 5, ts: 0, storedAt: 0, payload: 5 }
    ])
    const left = subscription.unsubscribe()
    await settle()
    await answer(network.last, "UNSUBSCRIBE")
    await Promise.all([left, ended, subscription.done])
    network.last.receive(event("a", 6))
    expect(seen).toHaveLength(3)
  })

  it("has one iterator, asked one after the other, and leaving its loop unsubscribes", async () => {
    const { client, network, subscription } = await live()
    const iterator = subscription[Symbol.asyncIterator]()
    const both = [iterator.next(), iterator.next()]
    network.last.receive([event("a", 1), event("a", 2), event("a", 3)])
    expect((await Promise.all(both)).map(({ value }) => value?._tag === "event" && value.seq)).toEqual([1, 2])
    const returned = iterator.return?.()
    await settle()
    await answer(network.last, "UNSUBSCRIBE")
    expect(await returned).toEqual({ done: true, value: undefined })
    expect(await iterator.next()).toEqual({ done: true, value: undefined })
    client.subscribe("a")
    await settle()
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(2)
  })

  it("goes on behind what an iterator has asked on from, and repeats what it was given last to nobody", async () => {
    const { network, subscription } = await live()
    const iterator = subscription[Symbol.asyncIterator]()
    network.last.receive([event("a", 1), event("a", 2), event("a", 3)])
    await iterator.next()
    await iterator.next()
    expect(subscription.position).toEqual({ from: { topics: { a: 1 }, rest: "start" }, history: "h" })
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts).toEqual(subscription.position)
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([event("a", 2), event("a", 3)])
    const { value } = await iterator.next()
    expect(value).toMatchObject({ seq: 3 })
  })

  it("goes on from its position in another client, by time without what it has seen", async () => {
    const { network, subscription } = await live(() => {}, { from: { time: 5 } })
    network.last.receive([event("a", 1), event("a", 2)])
    const saved = JSON.parse(JSON.stringify(subscription.position)) as Position
    expect(saved).toEqual({ from: { time: 5 }, history: "h", seen: { a: 2 } })
    const seen = collector()
    const other = await connected()
    other.client.subscribe("a", seen.handler, { ...saved })
    await settle()
    expect(requests(other.network.last, "SUBSCRIBE")[0]?.opts).toEqual({ from: { time: 5 }, history: "h" })
    await answer(other.network.last, "SUBSCRIBE", { heads: {} })
    other.network.last.receive([event("a", 1), event("a", 2), event("a", 3)])
    expect(seen.payloads()).toEqual([3])
    expect(other.client.subscribe("b", { ...saved }).position).toEqual(saved)
  })

  it("passes what to do with slow readers on to the hub", async () => {
    const { network } = await live(() => {}, { overflow: "close" })
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts).toEqual({ overflow: "close" })
  })

  it("leaves when too much waits, and comes back behind it: what waits is bounded, and nothing is lost", async () => {
    const { network, subscription } = await live(undefined, { maxBuffered: 3 })
    const iterator = subscription[Symbol.asyncIterator]()
    const take = async () => {
      const { value } = await iterator.next()
      return value?._tag === "event" ? value.seq : value
    }
    network.last.receive(upTo(5).map((seq) => event("a", seq)))
    await settle()
    expect(requests(network.last, "UNSUBSCRIBE")).toHaveLength(1)
    expect(await take()).toBe(1)
    // There would be room again, and it was let go.
    network.last.receive(event("a", 6))
    expect([await take(), await take()]).toEqual([2, 3])
    const next = take()
    await settle()
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(1)
    await refuse(network.last, "UNSUBSCRIBE", "unavailable")
    await vi.advanceTimersByTimeAsync(1_000)
    expect(requests(network.last, "UNSUBSCRIBE")).toHaveLength(2)
    await answer(network.last, "UNSUBSCRIBE")
    expect(requests(network.last, "SUBSCRIBE")[1]?.opts).toEqual({
      from: { topics: { a: 3 }, rest: "start" },
      history: "h"
    })
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([4, 5, 6].map((seq) => event("a", seq)))
    expect([await next, await take(), await take()]).toEqual([4, 5, 6])
  })

  it("that is away when the connection goes comes back with the next one", async () => {
    const { network, subscription } = await live(undefined, { maxBuffered: 1 })
    network.last.receive(upTo(3).map((seq) => event("a", seq)))
    await settle()
    await reconnect(network)
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(1)
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive(event("a", 1))
    const { value } = await subscription[Symbol.asyncIterator]().next()
    expect(value).toMatchObject({ seq: 1 })
  })

  it("that was not taken up in time, is, and leaves, is not taken up a second time before it has left", async () => {
    const { network, subscription } = await live(undefined, { maxBuffered: 1 })
    await reconnect(network)
    await vi.advanceTimersByTimeAsync(10_000)
    network.last.receive(upTo(3).map((seq) => event("a", seq)))
    await vi.advanceTimersByTimeAsync(1_000)
    expect(requests(network.last, "UNSUBSCRIBE")).toHaveLength(1)
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(1)
    void subscription.unsubscribe()
  })

  it("tells of no gap where it was handed events before they were trimmed", async () => {
    const { network, subscription } = await live()
    const iterator = subscription[Symbol.asyncIterator]()
    network.last.receive(event("a", 1))
    await iterator.next()
    await reconnect(network)
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([gap("a", 1, 3), event("a", 4)])
    expect(await iterator.next()).toMatchObject({ value: { _tag: "gap", from: 2, to: 3 } })
  })

  it("tells once of a gap that waits when the connection goes", async () => {
    const { network, subscription } = await live()
    network.last.receive(gap("a", 1, 2))
    await reconnect(network)
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([gap("a", 1, 2), event("a", 3)])
    const { seen } = drained<LiveItem>(subscription)
    await settle()
    expect(seen.map(({ _tag }) => _tag)).toEqual(["gap", "event"])
  })

  it("tells of gaps and of handlers that fail, where nobody else is told", async () => {
    const { errors, network } = await live(() => Promise.reject(new Error("I cannot")))
    network.last.receive([gap("a", 1, 2), event("a", 3)])
    await settle()
    expect(errors).toMatchObject([{ code: "gap" }, new Error("I cannot")])
  })

  it("waits for anything that can be waited for", async () => {
    const end = gate()
    const seen: Array<unknown> = []
    // oxlint-disable-next-line unicorn/no-thenable -- promises of others are like this
    const thenable = { then: (f: () => void) => void end.passed.then(f) }
    const { network } = await live((one) => {
      seen.push(one)
      return thenable
    })
    network.last.receive([event("a", 1), event("a", 2)])
    await settle()
    expect(seen).toHaveLength(1)
    end.open()
    await settle()
    expect(seen).toHaveLength(2)
  })

  describe("that ends", () => {
    const end = { op: "END", sub: "a", reason: "revoked" }

    it("fails `done` and who iterates", async () => {
      const { errors, network, subscription } = await live()
      const { ended } = drained(subscription)
      network.last.receive(end)
      expect(await failure(subscription.done)).toMatchObject({ code: "forbidden" })
      expect(await failure(ended)).toMatchObject({ code: "forbidden" })
      expect(await failure(subscription[Symbol.asyncIterator]().next())).toMatchObject({ code: "forbidden" })
      await subscription.unsubscribe()
      expect(errors).toEqual([])
    })

    it("tells `onEnd`, or `error` where nobody looks", async () => {
      const ends: Array<unknown> = []
      const told = await live(() => {}, { onEnd: (error: unknown) => ends.push(error) })
      told.network.last.receive(end)
      expect(ends).toMatchObject([{ code: "forbidden" }])
      const { errors, network } = await live(() => {})
      network.last.receive(end)
      expect([told.errors, errors]).toMatchObject([[], [{ code: "forbidden" }]])
    })

    it("before it stands fails `ready`, or tells `error` where nobody looks", async () => {
      const { client, errors, network } = await connected()
      const ends: Array<unknown> = []
      const looked = client.subscribe("a", () => {}, { onEnd: (error) => ends.push(error) })
      const failed = failure(looked.ready)
      for (let i = 0; i < 2; i++) {
        expect(await failure(client.subscribe("a").ready)).toMatchObject({ code: "already_subscribed" })
      }
      expect(errors).toEqual([])
      client.subscribe("a", () => {})
      await settle()
      expect(errors).toMatchObject([{ code: "already_subscribed" }])
      await refuse(network.last, "SUBSCRIBE", "forbidden")
      expect(await failed).toMatchObject({ code: "forbidden" })
      expect([errors.length, ends]).toEqual([1, []])
    })
  })

  it("is ended by its signal, standing or not", async () => {
    const reason = new Error("enough")
    const controller = new AbortController()
    const { client, network, subscription } = await live(undefined, { signal: controller.signal })
    const { ended } = drained(subscription)
    controller.abort(reason)
    await settle()
    await answer(network.last, "UNSUBSCRIBE")
    await Promise.all([subscription.done, ended])
    const late = client.subscribe("b", { signal: controller.signal })
    expect(await failure(late.ready)).toBe(reason)
    await settle()
    await refuse(network.last, "UNSUBSCRIBE", "not_subscribed")
    await late.done
    expect(requests(network.last, "SUBSCRIBE")).toHaveLength(1)
  })
})

describe("payloads that are looked at", () => {
  const topics = (wrap?: Parameters<typeof numbers>[0]) => defineTopics({ a: numbers(wrap) })
  const bad = (seq: number, more: object = {}) =>
    event("a", seq, { event: { ...event("a", seq).event, payload: "x" }, ...more })

  const begun = async (wrap?: Parameters<typeof numbers>[0]) => connected({ topics: topics(wrap) })

  it.each([
    ["at once", undefined],
    ["later", async <A>(result: A) => result]
  ])("come as the schema gives them, or as invalid, in order: %s", async (_how, wrap) => {
    const { client, network } = await begun(wrap)
    const subscription = client.subscribe("a")
    const { seen } = drained(subscription)
    await settle()
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive([event("a", 1), bad(2), gap("a", 3, 3), event("a", 4)])
    await settle()
    expect(seen).toMatchObject([
      { _tag: "event", payload: { n: 1 } },
      { _tag: "invalid", event: { seq: 2, payload: "x" }, issues: [{ message: "no number" }] },
      { _tag: "gap" },
      { _tag: "event", payload: { n: 4 } }
    ])
    expect(subscription.position.from).toEqual({ topics: { a: 4 }, rest: "start" })
  })

  it("go to the handler only when they fit; others to `onInvalid` or `error`", async () => {
    const { client, errors, network } = await begun()
    const seen = collector()
    const invalid: Array<unknown> = []
    client.subscribe("a", seen.handler, { onInvalid: (...args) => invalid.push(args) })
    client.subscribe("*", seen.handler)
    await settle()
    for (const { ref } of requests(network.last, "SUBSCRIBE"))
      network.last.receive({ op: "OK", ref, heads: {} })
    network.last.receive([bad(1), bad(1, { sub: "*" }), event("a", 2)])
    await settle()
    expect(seen.payloads()).toEqual([{ n: 2 }])
    expect(invalid).toMatchObject([[{ seq: 1 }, [{ message: "no number" }]]])
    expect(errors).toMatchObject([{ name: "InvalidPayload", topic: "a" }])
  })

  it("are not handed over when they were looked at too late", async () => {
    const slow = gate()
    const { client, network } = await begun(async (result) => {
      await slow.passed
      return result
    })
    const seen = collector()
    const subscription = client.subscribe("a", seen.handler)
    await settle()
    await answer(network.last, "SUBSCRIBE", { heads: {} })
    network.last.receive(event("a", 1))
    void subscription.unsubscribe()
    slow.open()
    await settle()
    expect(seen.events).toEqual([])
  })

  it("of a group are poison when they do not fit, or when the schema throws", async () => {
    const { client, errors, network } = await begun((result) => {
      if ("issues" in (result as object)) throw new Error("broken")
      return result
    })
    const seen = collector()
    client.consume("a", "g", seen.handler)
    await settle()
    await answer(network.last, "SUBSCRIBE")
    const { ctx, group } = delivery("a", 1) as { readonly ctx?: object; readonly group?: string }
    network.last.receive([bad(1, { ctx, group }), delivery("a", 2)])
    await settle()
    expect(seen.payloads()).toEqual([{ n: 2 }])
    expect(requests(network.last, "NACK")).toMatchObject([
      { id: "a-1", mode: "poison", attempt: 1, reason: "invalid payload of 'a': Error: broken" }
    ])
    expect(requests(network.last, "ACK")).toMatchObject([{ ids: ["a-2"] }])
    expect(errors).toMatchObject([{ name: "InvalidPayload" }])
  })
})

describe("a group", () => {
  const group = async (
    handler?: (event: { readonly seq: number }, delivery: Delivery) => unknown,
    options: object = {}
  ) => {
    const all = await connected()
    const subscription = handler
      ? all.client.consume("a", "g", handler, options)
      : all.client.consume("a", "g", options)
    await settle()
    await answer(all.network.last, "SUBSCRIBE")
    await subscription.ready
    return { ...all, subscription }
  }
  /** Time passes, and the hub answers what keeps the connection. */
  const pass = async ({ network }: Awaited<ReturnType<typeof connected>>, ms: number) => {
    await vi.advanceTimersByTimeAsync(ms)
    await answer(network.last, "PING")
  }

  it("says what it wants of the hub", async () => {
    const options = {
      credit: 5,
      ackTimeoutMs: 9,
      maxAttempts: 3,
      keyOrdered: true,
      from: "start",
      history: "h"
    }
    const { network } = await group(() => {}, options)
    expect(requests(network.last, "SUBSCRIBE")[0]?.opts).toEqual(options)
  })

  it("answers as its handlers end, and not what they answered themselves", async () => {
    const { errors, network } = await group((event, delivery) => {
      if (event.seq === 2) throw new Nack("release", { delayMs: 5 })
      if (event.seq === 3) void delivery.nack({ mode: "poison", reason: "why" })
    })
    network.last.receive(upTo(3).map((seq) => delivery("a", seq)))
    await settle()
    expect(requests(network.last, "ACK")).toEqual([{ op: "ACK", topic: "a", group: "g", ids: ["a-1"] }])
    expect(requests(network.last, "NACK")).toMatchObject([
      { id: "a-2", mode: "release", delayMs: 5, attempt: 1 },
      { id: "a-3", mode: "poison", reason: "why", attempt: 1 }
    ])
    expect(errors).toMatchObject([{ name: "Nack" }])
  })

  it("is answered by functions that a handler takes out of its delivery", async () => {
    const { network } = await group(async ({ seq }, { ack, extend, nack }) => {
      if (seq === 1) return void ack()
      if (seq === 2) return void nack({ mode: "poison" })
      await extend(60_000)
    })
    network.last.receive(upTo(3).map((seq) => delivery("a", seq)))
    await settle()
    expect(requests(network.last, "ACK")).toMatchObject([{ ids: ["a-1"] }])
    expect(requests(network.last, "NACK")).toMatchObject([{ id: "a-2", mode: "poison" }])
    expect(requests(network.last, "EXTEND")).toMatchObject([{ id: "a-3", byMs: 60_000 }])
  })

  it("says why it refuses an event, also where an error has no message", async () => {
    const errors = [new Error("no address"), new TypeError(), "away", ""]
    const { network } = await group(({ seq }) => {
      throw errors[seq - 1]
    })
    network.last.receive(upTo(4).map((seq) => delivery("a", seq)))
    await settle()
    const reasons = requests(network.last, "NACK").map((one) => (one as { readonly reason?: string }).reason)
    expect(reasons).toEqual(["no address", "TypeError", "away", ""])
  })

  it("gives deliveries to who iterates, who answers them; acknowledgements of a turn go together", async () => {
    const { network, subscription } = await group()
    const { seen } = drained<Delivery>(subscription)
    network.last.receive([1, 2, 3].map((seq) => delivery("a", seq, 31_000, seq)))
    await settle()
    expect(seen.map(({ attempt, redelivered }) => [attempt, redelivered])).toEqual([
      [1, false],
      [2, true],
      [3, true]
    ])
    const acks = [seen[0]?.ack(), seen[1]?.ack()]
    await settle()
    expect(requests(network.last, "ACK")).toMatchObject([{ ids: ["a-1", "a-2"] }])
    await answer(network.last, "ACK", { stale: ["a-2"] })
    await acks[0]
    expect(await failure(acks[1]!)).toMatchObject({ name: "HubError", code: "stale" })
    for (const again of [seen[0]!.ack(), seen[0]!.nack(), seen[0]!.extend(1)]) {
      expect(await failure(again)).toMatchObject({ code: "stale" })
    }
    const extended = seen[2]!.extend(60_000)
    await settle()
    await answer(network.last, "EXTEND")
    await extended
    expect(seen[2]!.deadline).toBe(61_000)
    const nacked = failure(seen[2]!.nack())
    await settle()
    await refuse(network.last, "NACK", "unavailable")
    expect(await nacked).toMatchObject({ code: "unavailable" })
  })

  it("splits acknowledgements that are too many for a message", async () => {
    const { network } = await group(() => {})
    for (const part of [0, 600]) network.last.receive(upTo(600).map((seq) => delivery("a", part + seq)))
    await settle()
    expect(requests(network.last, "ACK").map(({ ids }) => ids?.length)).toEqual([1_000, 200])
  })

  it("aborts deliveries that are no more its own: the connection, the group or the time is over", async () => {
    const signals: Array<AbortSignal> = []
    const all = await group(
      (_event, { signal }) => {
        signals.push(signal)
        return new Promise(() => {})
      },
      { extendForMs: 0 }
    )
    const { network, subscription } = all
    network.last.receive(delivery("a", 1))
    await pass(all, 25_000)
    await pass(all, 4_999)
    expect(signals[0]?.aborted).toBe(false)
    await pass(all, 1)
    expect(signals[0]?.reason).toMatchObject({ code: "stale" })
    network.last.receive(delivery("a", 2, 71_000))
    network.last.end(1006)
    expect(signals[1]?.aborted).toBe(true)
    await vi.advanceTimersByTimeAsync(500)
    network.last.accept()
    await settle()
    await answer(network.last, "SUBSCRIBE")
    network.last.receive(delivery("a", 3))
    void subscription.unsubscribe()
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, true])
    expect(requests(network.last, "EXTEND")).toEqual([])
  })

  it("a signal that is asked for too late is aborted", async () => {
    const { network, subscription } = await group()
    const { seen } = drained<Delivery>(subscription)
    network.last.receive(delivery("a", 1))
    await settle()
    network.last.end(1006)
    expect(seen[0]?.signal.aborted).toBe(true)
    expect(await failure(seen[0]!.ack())).toMatchObject({ code: "stale" })
  })

  it("extends what takes long at half of what is left, also what waits, up to a limit", async () => {
    const all = await group(() => new Promise(() => {}), { concurrency: 1, extendForMs: 40_000 })
    const { network } = all
    network.last.receive([delivery("a", 1), delivery("a", 2)])
    await pass(all, 14_999)
    expect(requests(network.last, "EXTEND")).toEqual([])
    await pass(all, 1)
    const first = requests(network.last, "EXTEND")
    expect(first).toMatchObject([
      { topic: "a", group: "g", id: "a-1", attempt: 1, byMs: 30_000 },
      { id: "a-2", attempt: 1, byMs: 30_000 }
    ])
    for (const { ref } of first) network.last.receive({ op: "OK", ref })
    await pass(all, 14_999)
    expect(requests(network.last, "EXTEND")).toHaveLength(2)
    await pass(all, 1)
    const second = requests(network.last, "EXTEND").slice(2)
    expect(second).toHaveLength(2)
    for (const { ref } of second) network.last.receive({ op: "OK", ref })
    for (let i = 0; i < 10; i++) await pass(all, 10_000)
    expect(requests(network.last, "EXTEND")).toHaveLength(6)
  })

  it("does not begin what lapsed while it waited, nor what the hub has given to others", async () => {
    const end = gate()
    const begun: Array<number> = []
    const all = await group(
      async ({ seq }) => {
        begun.push(seq)
        await end.passed
      },
      { concurrency: 1 }
    )
    const { network } = all
    network.last.receive([delivery("a", 1), delivery("a", 2)])
    await pass(all, 15_000)
    const [one, two] = requests(network.last, "EXTEND")
    network.last.receive([
      { op: "OK", ref: one?.ref },
      { op: "OK", ref: two?.ref, stale: ["a-2"] }
    ])
    await settle()
    end.open()
    await settle()
    expect(begun).toEqual([1])
    expect(requests(network.last, "ACK")).toMatchObject([{ ids: ["a-1"] }])
  })

  it("is closed without what was not begun", async () => {
    const end = gate()
    const { client, network } = await group(() => end.passed, { concurrency: 1 })
    network.last.receive([delivery("a", 1), delivery("a", 2)])
    const closed = client.close()
    end.open()
    await settle()
    expect(requests(network.last, "ACK")).toMatchObject([{ ids: ["a-1"] }])
    await answer(network.last, "UNSUBSCRIBE")
    await closed
  })

  it("is closed after what iterators were given is answered", async () => {
    const { client, network, subscription } = await group()
    const { ended, seen } = drained<Delivery>(subscription)
    network.last.receive(delivery("a", 1))
    await settle()
    const closed = client.close()
    await ended
    await settle()
    expect(requests(network.last, "UNSUBSCRIBE")).toEqual([])
    void seen[0]?.ack()
    await settle()
    expect((network.last.sent.flat() as ReadonlyArray<{ readonly op: string }>).slice(-2)).toMatchObject([
      { op: "ACK" },
      { op: "UNSUBSCRIBE" }
    ])
    await answer(network.last, "UNSUBSCRIBE")
    await closed
  })

  it("tells of gaps", async () => {
    const gaps: Array<unknown> = []
    const { network } = await group(() => {}, { onGap: (one: unknown) => gaps.push(one) })
    network.last.receive({ ...gap("a", 1, 2), group: "g" })
    expect(gaps).toMatchObject([{ from: 1, to: 2 }])
  })
})
