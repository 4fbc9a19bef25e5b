/** What the gateway does when the code around it has a bug: one connection pays for it, the hub goes on. */
import { Context, Effect, Layer, ManagedRuntime, PubSub, Stream } from "effect"
import { expect, it } from "vitest"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Policy from "../../../src/domain/Policy.ts"
import * as Hub from "../../../src/hub/Hub.ts"
import * as Log from "../../../src/hub/Log.ts"
import * as MemoryHub from "../../../src/hub/MemoryHub.ts"
import * as StaticTokenVerifier from "../../../src/layers/jwt/StaticTokenVerifier.ts"
import * as StoreRevocations from "../../../src/layers/core/StoreRevocations.ts"
import * as MemoryRateLimiter from "../../../src/layers/memory/MemoryRateLimiter.ts"
import * as WebSocketGateway from "../../../src/layers/websocket/WebSocketGateway.ts"
import { AccessControl } from "../../../src/services/AccessControl.ts"
import { Gateway } from "../../../src/services/Gateway.ts"
import { GroupDelivery } from "../../../src/services/GroupDelivery.ts"
import { LiveFeed } from "../../../src/services/LiveFeed.ts"
import { Revocations } from "../../../src/services/Revocations.ts"
import { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { TokenVerifier } from "../../../src/services/TokenVerifier.ts"
import { RawClient } from "../../support/RawClient.ts"

const secretOfTheBug = "a detail of the inside"

const buggyAccess = Layer.succeed(AccessControl, {
  policyOf: ({ policy }) => policy,
  changes: Stream.never,
  decide: ({ policy }, { topic }) => {
    if (topic === "bug") throw new Error(secretOfTheBug)
    return { _tag: "Allowed", rule: policy.rules[0]! }
  },
  decideSubscription: ({ policy }) => ({ _tag: "Allowed", rule: policy.rules[0]! }),
  decideAdministration: () => ({ _tag: "Denied", rule: undefined, reason: "no_rule_matches" })
})

it("a bug met by a message costs its connection, with an id that stands in the log, and no other", async () => {
  const logged: Array<string> = []
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0 }).pipe(
    Layer.provide([buggyAccess, MemoryRateLimiter.layer(), StoreRevocations.layer()]),
    Layer.provide(StaticTokenVerifier.layer("t", undefined)),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", (line) => void logged.push(line)))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const [unlucky, other] = await Promise.all([RawClient.connect(url), RawClient.connect(url)])
    for (const client of [unlucky, other]) await client.request({ op: "AUTH", token: "t" })
    unlucky.send({ op: "PUBLISH", topic: "bug", payload: 1 })
    expect(await unlucky.closed).toMatchObject({ code: 1012 })
    const error = unlucky.messages.at(-1)
    expect(error).toMatchObject({ op: "ERR", code: "internal" })
    expect(JSON.stringify(error)).not.toContain(secretOfTheBug)
    const id = /[0-9a-f-]{36}/.exec(String(error?.["msg"]))?.[0] ?? "no id"
    expect(logged.filter((line) => line.includes(id) && line.includes(secretOfTheBug))).toHaveLength(1)
    expect(await other.request({ op: "PUBLISH", topic: "fine", payload: 1 })).toMatchObject({ op: "OK" })
  } finally {
    await runtime.dispose()
  }
})

it("a bug in a verifier is no token that is bad: the client is told to come back, and the log has the bug", async () => {
  const logged: Array<string> = []
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0 }).pipe(
    Layer.provide([buggyAccess, MemoryRateLimiter.layer(), StoreRevocations.layer()]),
    Layer.provide(Layer.succeed(TokenVerifier, { verify: () => Effect.die(new Error(secretOfTheBug)) })),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", (line) => void logged.push(line)))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const client = await RawClient.connect(url)
    const answer = await client.request({ op: "AUTH", token: "t" })
    expect(answer).toMatchObject({ op: "ERR", code: "unavailable", msg: expect.stringMatching(/it failed$/) })
    expect(JSON.stringify(answer)).not.toContain(secretOfTheBug)
    expect(await client.closed).toMatchObject({ code: 1013 })
    expect(logged.filter((line) => line.includes(secretOfTheBug))).toHaveLength(1)
  } finally {
    await runtime.dispose()
  }
})

/** Everything is allowed but to subscribe one topic, which may become another. */
const changingAccess = () => {
  const changes = Effect.runSync(PubSub.unbounded<void>())
  let denied = "nothing yet"
  const layer = Layer.succeed(AccessControl, {
    policyOf: ({ policy }) => policy,
    changes: Stream.fromPubSub(changes),
    decide: ({ policy }) => ({ _tag: "Allowed", rule: policy.rules[0]! }),
    decideSubscription: ({ policy }, { pattern }) =>
      pattern === denied
        ? { _tag: "Denied", rule: undefined, reason: "no_rule_matches" }
        : { _tag: "Allowed", rule: policy.rules[0]! },
    decideAdministration: () => ({ _tag: "Denied", rule: undefined, reason: "no_rule_matches" })
  })
  const deny = (topic: string) => {
    denied = topic
    return Effect.runPromise(PubSub.publish(changes, undefined))
  }
  return { layer, deny }
}

it("rights that change end the subscriptions that they do not reach to, of all connections", async () => {
  const access = changingAccess()
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0 }).pipe(
    Layer.provide([access.layer, MemoryRateLimiter.layer(), StoreRevocations.layer()]),
    Layer.provide(StaticTokenVerifier.layer("t", undefined)),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", () => {}))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const clients = await Promise.all(Array.from({ length: 12 }, () => RawClient.connect(url)))
    const topics = Array.from({ length: 100 }, (_, i) => `t${i}`)
    for (const client of clients) {
      client.send([
        { op: "AUTH", token: "t" },
        ...topics.map((topic, ref) => ({ op: "SUBSCRIBE", topic, ref }))
      ])
      await client.waitForAll("the subscriptions", ({ ref }) => ref !== undefined, topics.length)
    }
    await access.deny("t7")
    for (const client of clients) {
      await client.waitFor("END", ({ op }) => op === "END")
      await client.settled()
      const ends = client.messages.filter(({ op }) => op === "END")
      expect(ends).toEqual([{ op: "END", sub: "t7", reason: "revoked" }])
    }
    const [first] = clients
    await first!.request({ op: "PUBLISH", topic: "t7", payload: 1 })
    await first!.request({ op: "PUBLISH", topic: "t8", payload: 2 })
    const [event] = await first!.events(1)
    expect(event).toMatchObject({ topic: "t8" })
  } finally {
    await runtime.dispose()
  }
})

it("a subscription whose right is lost before it stands is refused, and holds nothing up", async () => {
  const access = changingAccess()
  let open = (): void => {}
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  const slowFeed = Layer.effect(
    LiveFeed,
    Effect.gen(function* () {
      const feed = yield* LiveFeed
      return {
        ...feed,
        subscribe: (wanted) =>
          Effect.andThen(
            Effect.promise(() => opened),
            feed.subscribe(wanted)
          )
      }
    })
  )
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0 }).pipe(
    Layer.provide([access.layer, MemoryRateLimiter.layer(), StoreRevocations.layer()]),
    Layer.provide(StaticTokenVerifier.layer("t", undefined)),
    Layer.provide(slowFeed),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", () => {}))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const client = await RawClient.connect(url)
    await client.request({ op: "AUTH", token: "t" })
    const refused = client.request({ op: "SUBSCRIBE", topic: "a" })
    await client.request({ op: "PING" })
    await access.deny("a")
    expect(await refused).toMatchObject({ op: "ERR", code: "forbidden" })
    await client.settled()
    expect(client.messages.filter(({ op }) => op === "END" || op === "ERR")).toHaveLength(1)
    expect(await client.request({ op: "PUBLISH", topic: "a", payload: 1 })).toMatchObject({ op: "OK" })
    await access.deny("nothing")
    open()
    expect(await client.request({ op: "SUBSCRIBE", topic: "a" })).toMatchObject({ op: "OK" })
    await client.request({ op: "PUBLISH", topic: "a", payload: 2 })
    expect(await client.events(1)).toMatchObject([{ event: { payload: 2 } }])
    await client.settled()
    expect(client.messages.filter(({ op }) => op === "EVENT")).toHaveLength(1)
  } finally {
    await runtime.dispose()
  }
})

/** Groups whose members cannot say goodbye, and join when they may. */
const brokenGroups = (mayJoin: Promise<void>) =>
  Layer.effect(
    GroupDelivery,
    Effect.gen(function* () {
      const groups = yield* GroupDelivery
      const leave = new StoreUnavailable({ operation: "leave", cause: undefined })
      return {
        ...groups,
        join: (membership) =>
          Effect.promise(() => mayJoin).pipe(
            Effect.andThen(groups.join(membership)),
            Effect.map((member) => ({ ...member, leave: Effect.fail(leave) }))
          )
      }
    })
  )

it.each([
  ["before it stands is refused", false, [{ op: "ERR", ref: "s", code: "forbidden" }]],
  ["is told of its end", true, [{ op: "END", sub: "a", group: "g", reason: "revoked" }]]
])("a group's subscription that loses its right %s, and of nothing else", async (_, stands, told) => {
  const access = changingAccess()
  let join = (): void => {}
  const mayJoin = new Promise<void>((resolve) => {
    join = resolve
  })
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0 }).pipe(
    Layer.provide([access.layer, MemoryRateLimiter.layer(), StoreRevocations.layer()]),
    Layer.provide(StaticTokenVerifier.layer("t", undefined)),
    Layer.provide(brokenGroups(mayJoin)),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", () => {}))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const client = await RawClient.connect(url)
    await client.request({ op: "AUTH", token: "t" })
    client.send({ op: "SUBSCRIBE", ref: "s", topic: "a", group: "g" })
    if (stands) {
      join()
      await client.waitFor("OK", ({ ref }) => ref === "s")
    } else await client.settled()
    await access.deny("a")
    await client.waitFor("the news", ({ code, op }) => op === "END" || code === "forbidden")
    join()
    await client.settled()
    await client.settled()
    const news = client.messages.filter(({ op }) => op === "END" || op === "ERR")
    expect(news).toMatchObject(told)
    expect(news).toHaveLength(1)
  } finally {
    await runtime.dispose()
  }
})

it("an AUTH whose verifier never answers is unavailable, and the token before it is good", async () => {
  let asked = 0
  const verifier = Layer.effect(
    TokenVerifier,
    Effect.gen(function* () {
      const { verify } = yield* TokenVerifier
      return { verify: (token) => (++asked === 2 ? Effect.never : verify(token)) }
    })
  ).pipe(Layer.provide(StaticTokenVerifier.layer("t", undefined)))
  const settings = { ...Settings.gateway, authTimeoutMs: 200 }
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0, settings }).pipe(
    Layer.provide([changingAccess().layer, MemoryRateLimiter.layer(), StoreRevocations.layer()]),
    Layer.provide(verifier),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", () => {}))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const client = await RawClient.connect(url)
    await client.request({ op: "AUTH", token: "t" })
    client.send([
      { op: "AUTH", ref: "again", token: "t" },
      { op: "PUBLISH", ref: "behind", topic: "a", payload: 1 }
    ])
    expect(await client.waitFor("ERR", ({ ref }) => ref === "again")).toMatchObject({
      op: "ERR",
      code: "unavailable",
      retryable: true
    })
    expect(await client.waitFor("OK", ({ ref }) => ref === "behind")).toMatchObject({ op: "OK" })
    expect(await client.request({ op: "AUTH", token: "t" })).toMatchObject({ op: "OK", revoked: [] })
  } finally {
    await runtime.dispose()
  }
})

it("a token that is revoked while it is taken is refused, whoever heard of it when it was not there yet", async () => {
  const token: { isRevoked: boolean } = { isRevoked: false }
  const verifier = Layer.succeed(TokenVerifier, {
    verify: () =>
      Effect.sync(() => {
        token.isRevoked = true
        return { sub: "alice", expiresAt: Infinity, issuedAt: 1, tokenId: "t1", policy: Policy.none }
      })
  })
  const revocations = Layer.effect(
    Revocations,
    Effect.map(Revocations, (known) => ({ ...known, isRevoked: () => token.isRevoked }))
  ).pipe(Layer.provide(StoreRevocations.layer()))
  const gateway = WebSocketGateway.layer({ host: "127.0.0.1", port: 0 }).pipe(
    Layer.provide([changingAccess().layer, MemoryRateLimiter.layer(), revocations, verifier]),
    Layer.provide(Hub.bus(MemoryHub.stores(), Settings)),
    Layer.provide(Log.layer("json", () => {}))
  )
  const runtime = ManagedRuntime.make(gateway)
  try {
    const { url } = Context.get(await runtime.runPromise(Effect.context<Gateway>()), Gateway)
    const client = await RawClient.connect(url)
    client.send([
      { op: "AUTH", token: "t", ref: 1 },
      { op: "PUBLISH", topic: "a", payload: 1, ref: 2 }
    ])
    const answer = await client.waitFor("an answer", ({ ref }) => ref === 1)
    expect(answer).toMatchObject({ op: "ERR", code: "jwt_invalid" })
    expect(client.messages.some(({ op }) => op === "OK")).toBe(false)
  } finally {
    await runtime.dispose()
  }
})
