/** What the gateway does when the code around it has a bug: one connection pays for it, the hub goes on. */
import { Context, Effect, Layer, ManagedRuntime } from "effect"
import { expect, it } from "vitest"
import * as Settings from "../../../src/domain/Settings.ts"
import * as Hub from "../../../src/hub/Hub.ts"
import * as Log from "../../../src/hub/Log.ts"
import * as MemoryHub from "../../../src/hub/MemoryHub.ts"
import * as StaticTokenVerifier from "../../../src/layers/jwt/StaticTokenVerifier.ts"
import * as MemoryRateLimiter from "../../../src/layers/memory/MemoryRateLimiter.ts"
import * as MemoryRevocations from "../../../src/layers/memory/MemoryRevocations.ts"
import * as WebSocketGateway from "../../../src/layers/websocket/WebSocketGateway.ts"
import { AccessControl } from "../../../src/services/AccessControl.ts"
import { Gateway } from "../../../src/services/Gateway.ts"
import { RawClient } from "../../support/RawClient.ts"

const secretOfTheBug = "a detail of the inside"

const buggyAccess = Layer.succeed(AccessControl, {
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
    Layer.provide([buggyAccess, MemoryRateLimiter.layer(), MemoryRevocations.layer]),
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
