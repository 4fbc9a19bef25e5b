/** SIGTERM: the hub finishes what it has taken, says goodbye, and ends with 0; nothing holds it up. */
import { expect, it } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { durableStore } from "../support/hubStore.ts"
import { RawClient } from "../support/RawClient.ts"

it("under load, every publish that was answered is there afterwards", async () => {
  const env = durableStore()
  const hub = await startHub(env)
  const publishers = await Promise.all([1, 2, 3].map(() => RawClient.authenticated(hub.ws)))
  const subscriber = await RawClient.authenticated(hub.ws)
  await subscriber.request({ op: "SUBSCRIBE", topic: "load.**" })
  // Each keeps 200 publishes under way for as long as its connection lasts.
  publishers.forEach((publisher, p) => {
    let sent = 0
    const publish = (n: number) => {
      for (let i = 0; i < n; i++)
        publisher.send({ op: "PUBLISH", ref: ++sent, topic: `load.${p}`, payload: sent })
    }
    publish(200)
    publisher.onFrame = (messages) => publish(messages.filter(({ ref }) => typeof ref === "number").length)
  })
  await subscriber.events(2_000)
  const exit = hub.stop()
  const closed = await Promise.all(publishers.map((publisher) => publisher.closed))
  expect(closed.map(({ code }) => code)).toEqual([1012, 1012, 1012])
  expect(await exit).toEqual({ code: 0, signal: null })

  const again = await startHub(env)
  const reader = await RawClient.authenticated(again.ws)
  for (const [p, publisher] of publishers.entries()) {
    const answered = publisher.messages.filter(({ op, ref }) => op === "OK" && typeof ref === "number")
    expect(answered.length).toBeGreaterThan(0)
    const { heads } = await reader.request({ op: "SUBSCRIBE", topic: `load.${p}` })
    const head = (heads as Readonly<Record<string, number>>)[`load.${p}`] ?? 0
    expect(head).toBeGreaterThanOrEqual(Math.max(...answered.map(({ seq }) => Number(seq))))
  }
  await again.stop()
})

it("a second SIGTERM during the drain changes nothing", async () => {
  const hub = await startHub()
  const client = await RawClient.authenticated(hub.ws)
  await client.request({ op: "SUBSCRIBE", topic: "jobs", group: "g" })
  await client.request({ op: "PUBLISH", topic: "jobs", payload: 1, opts: { id: "one" } })
  await client.events(1)
  const exit = hub.stop()
  // The event is in flight, so the hub waits for its acknowledgement.
  await client.waitFor("DRAIN", ({ op }) => op === "DRAIN")
  hub.process.kill("SIGTERM")
  expect(await client.request({ op: "ACK", topic: "jobs", group: "g", id: "one" })).toMatchObject({
    op: "OK"
  })
  expect(await client.closed).toMatchObject({ code: 1012 })
  expect(await exit).toEqual({ code: 0, signal: null })
  expect(hub.lines.map(({ msg }) => msg).slice(-2)).toEqual(["stopping", "stopped"])
})

it("neither a client that never reads nor one that never answers holds it up", async () => {
  const hub = await startHub({ HUB_DRAIN_MS: "200" })
  const stuck = await RawClient.authenticated(hub.ws)
  await stuck.request({ op: "SUBSCRIBE", topic: "**" })
  await stuck.request({ op: "SUBSCRIBE", topic: "big", group: "g" })
  stuck.socket.pause()
  const publisher = await RawClient.authenticated(hub.ws)
  const payload = "x".repeat(200_000)
  for (let i = 0; i < 50; i++) await publisher.request({ op: "PUBLISH", topic: "big", payload })
  expect(await hub.stop()).toEqual({ code: 0, signal: null })
  stuck.socket.terminate()
})
