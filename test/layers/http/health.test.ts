/** Whether the hub lives and takes work, its metrics, and the description of its API. */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { endpoints } from "./endpoints.ts"
import { ask } from "./ops.ts"
import { parsePrometheus } from "./prometheus.ts"

let hub: HubProcess

beforeAll(async () => {
  hub = await startHub()
})

afterAll(() => hub.stop())

const allGood = ["gateway", "store", "outbox"].map((name) => ({ name, ok: true }))

it("/healthz and /readyz say 200, to anybody", async () => {
  expect(await ask(hub, "/healthz")).toMatchObject({ status: 200, json: { status: "ok" } })
  expect(await ask(hub, "/readyz")).toMatchObject({ status: 200, json: { ready: true, checks: allGood } })
})

it("while it drains, it is healthy and not ready: 503 says why, and reads go on", async () => {
  const stopping = await startHub()
  const client = await RawClient.authenticated(stopping.ws)
  await client.request({ op: "SUBSCRIBE", topic: "jobs", group: "g" })
  await client.request({ op: "PUBLISH", topic: "jobs", payload: 1, opts: { id: "one" } })
  await client.events(1)
  const exit = stopping.stop()
  // The event is in flight, so the hub waits for its acknowledgement.
  await client.waitFor("DRAIN", ({ op }) => op === "DRAIN")
  expect(await ask(stopping, "/readyz")).toMatchObject({
    status: 503,
    type: "application/json",
    json: {
      ready: false,
      checks: [{ name: "gateway", ok: false, detail: "the hub is stopping" }, ...allGood.slice(1)]
    }
  })
  expect(await ask(stopping, "/healthz")).toMatchObject({ status: 200 })
  await client.request({ op: "ACK", topic: "jobs", group: "g", id: "one" })
  expect(await exit).toEqual({ code: 0, signal: null })
})

describe("/metrics", () => {
  const metrics = async () => {
    const answer = await ask(hub, "/metrics")
    expect([answer.status, answer.type]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"])
    return parsePrometheus(answer.text)
  }

  it("is the Prometheus text format, with what happened", async () => {
    const client = await RawClient.authenticated(hub.ws)
    await client.request({ op: "SUBSCRIBE", topic: "metrics.*" })
    for (let i = 0; i < 3; i++) {
      await client.request({ op: "PUBLISH", topic: "metrics.a", payload: i, opts: { id: `id-${i % 2}` } })
    }
    await client.request({ op: "PUBLISH", topic: "metrics.*", payload: 1 })
    await client.events(2)
    const { families, valueOf } = await metrics()
    expect(valueOf("event_hub_events_appended_total")).toBe(2)
    expect(valueOf("event_hub_events_duplicate_total")).toBe(1)
    expect(valueOf("event_hub_live_deliveries_total")).toBe(2)
    expect(valueOf('event_hub_errors_total{code="invalid_topic"}')).toBe(1)
    expect(valueOf("event_hub_connections")).toBe(1)
    expect(valueOf("process_resident_memory_bytes")).toBeGreaterThan(10_000_000)
    expect(valueOf("process_start_time_seconds")).toBeLessThan(Date.now() / 1000)
    expect(families.get("event_hub_events_appended_total")?.type).toBe("counter")
    expect(families.get("event_hub_append_batch_events")?.type).toBe("histogram")
    for (const { help, name, type } of families.values()) {
      expect(help).not.toBe("")
      if (type === "counter") expect(name).toMatch(/_total$/)
    }
    await client.close()
  })

  it("has no series for any of 200 topics, users, groups and keys", async () => {
    /** One of everything that is counted: a user, a topic, a group; deliveries, answers, errors, a close. */
    const use = async (name: string) => {
      const client = await RawClient.authenticated(hub.ws, { sub: `user-${name}` })
      const topic = `series.${name}`
      const group = `group-${name}`
      await client.request({ op: "SUBSCRIBE", topic, group, opts: { from: "start", maxAttempts: 1 } })
      await client.request({ op: "SUBSCRIBE", topic })
      for (const id of ["good", "bad", "bad"])
        await client.request({ op: "PUBLISH", topic, payload: name, opts: { id, key: `key-${name}` } })
      await client.events(4)
      await client.request({ op: "ACK", topic, group, id: "good" })
      await client.request({ op: "NACK", topic, group, id: "bad" })
      await client.request({ op: "PUBLISH", topic: `${topic}.*`, payload: 1 })
      await client.request({ op: "UNSUBSCRIBE", topic, group })
      await client.close()
    }
    for (const n of [0, 1]) await use(`x${n}x`)
    const before = (await metrics()).series
    await Promise.all(Array.from({ length: 200 }, (_, n) => use(`x${n + 2}x`)))
    const after = (await metrics()).series
    expect(after.filter((name) => /x\d+x/.test(name))).toEqual([])
    // An operation of a store may have been the first of its kind: a few, whatever the number of topics.
    expect(after.length).toBeLessThan(before.length + 100)
  })
})

describe("/openapi.json", () => {
  it("is a description of this API that is whole", async () => {
    const answer = await ask(hub, "/openapi.json")
    expect([answer.status, answer.type]).toEqual([200, "application/json"])
    const spec = answer.json as {
      readonly openapi: string
      readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly security?: unknown }>>>>
      readonly components: Readonly<Record<string, Readonly<Record<string, unknown>>>>
    }
    expect(spec.openapi).toMatch(/^3\.1\./)
    const operations = Object.entries(spec.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { security }]) => ({
        name: `${method} ${path}`,
        isSecured: Array.isArray(security) && security.length > 0
      }))
    )
    const names = (isSecured: boolean) =>
      operations.filter((one) => one.isSecured === isSecured).map(({ name }) => name)
    expect([...names(true), ...names(false)].sort()).toEqual(
      endpoints.map(({ method, path }) => `${method} ${path.replace(/:(\w+)/g, "{$1}")}`.toLowerCase()).sort()
    )
    expect(names(false).sort()).toEqual(["get /healthz", "get /metrics", "get /readyz"])
    for (const [, folder, name] of answer.text.matchAll(/"\$ref":"#\/components\/(\w+)\/([^"]+)"/g)) {
      expect(spec.components[folder ?? ""]?.[name ?? ""]).toBeDefined()
    }
    expect(Object.keys(spec.paths["/readyz"]?.["get"] ?? {})).toContain("responses")
    // What the server refuses before an endpoint is asked, and a body that may be left out.
    expect(spec.paths["/groups/{group}/seek"]?.["post"]).toMatchObject({
      requestBody: { required: true },
      responses: { "413": { content: { "application/problem+json": {} } }, "415": {} }
    })
    expect(spec.paths["/groups/{group}/pause"]?.["post"]).toMatchObject({ requestBody: { required: false } })
    expect(spec.paths["/groups"]?.["get"]).not.toHaveProperty("responses.413")
    expect(answer.text).toContain('"503"')
  })
})
