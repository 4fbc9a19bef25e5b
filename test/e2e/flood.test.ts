/** What comes too fast, and who reads too slowly: the hub's memory stays bounded, and everybody else is served. */
import { expect, it } from "vitest"
import { type HubProcess, startHub } from "../support/HubProcess.ts"
import { durableStore } from "../support/hubStore.ts"
import { RawClient } from "../support/RawClient.ts"

const MiB = 1024 * 1024

const metric = async (hub: HubProcess, name: string): Promise<number> => {
  const answer = await fetch(`${hub.ops}/metrics`)
  const values = (await answer.text()).split("\n").filter((line) => line.startsWith(name))
  return values.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0)
}

const memory = (hub: HubProcess): Promise<number> => metric(hub, "process_resident_memory_bytes")

const frame = (topic: string, from: number, count: number): ReadonlyArray<object> =>
  Array.from({ length: count }, (_, i) => ({ op: "PUBLISH", ref: from + i, topic, payload: "x".repeat(100) }))

it("a flood over the rates is refused, keeps no memory, and others are served meanwhile", async () => {
  const hub = await startHub({ ...durableStore(), LIMIT_MESSAGES_PER_SECOND: "100" })
  const before = await memory(hub)
  const publishes = 10_000
  const floods = await Promise.all(Array.from({ length: 20 }, () => RawClient.authenticated(hub.ws)))
  const modest = await RawClient.authenticated(hub.ws)
  const ended = floods.map(async (client, n) => {
    const counts = { answers: 0, limited: 0 }
    client.onFrame = (messages) => {
      counts.answers += messages.filter(({ ref }) => typeof ref === "number").length
      counts.limited += messages.filter(({ code }) => code === "rate_limited").length
      // What came is counted, and not kept.
      client.messages.length = 0
      client.frames.length = 0
    }
    for (let sent = 0; sent < publishes; sent += 100) client.send(frame(`flood.${n}`, sent + 1, 100))
    const isOver = () => counts.answers === publishes
    while (!isOver()) await new Promise((resolve) => setTimeout(resolve, 10))
    return counts
  })
  let served = 0
  let isOver = false
  const all = Promise.all(ended).then((counts) => {
    isOver = true
    return counts
  })
  while (!isOver && served < 50) {
    expect(await modest.request({ op: "PUBLISH", topic: "modest", payload: ++served })).toMatchObject({
      op: "OK"
    })
  }
  for (const { limited } of await all) expect(limited).toBeGreaterThan(publishes / 2)
  expect(served).toBeGreaterThan(0)
  const name = 'event_hub_rate_limited_total{limit="connection_messages"}'
  expect(await metric(hub, name)).toBeGreaterThan(publishes)
  expect((await memory(hub)) - before).toBeLessThan(300 * MiB)
  await hub.stop()
})

it("publishers that are faster than the store are held, and none of them is refused", async () => {
  const env = { LIMIT_PAUSE_EVENTS: "100", LIMIT_QUEUED_EVENTS: "120" }
  const hub = await startHub({ ...durableStore(), ...env })
  const clients = await Promise.all(Array.from({ length: 5 }, () => RawClient.authenticated(hub.ws)))
  await Promise.all(
    clients.map(async (client, n) => {
      for (let sent = 0; sent < 2_000; sent += 500) client.send(frame(`t.${n}`, sent + 1, 500))
      const answers = await client.waitForAll("all answers", ({ ref }) => typeof ref === "number", 2_000)
      expect(answers.filter(({ op }) => op !== "OK")).toEqual([])
      expect(answers.map(({ seq }) => seq)).toEqual(answers.map(({ ref }) => ref))
    })
  )
  expect(await metric(hub, "event_hub_intake_pauses_total")).toBeGreaterThan(0)
  await hub.stop()
})

it("one that never reads costs what it may have waiting, and the others get everything", async () => {
  const limit = 1 * MiB
  const hub = await startHub({ ...durableStore(), LIMIT_OUTBOUND_BYTES: String(limit) })
  const stuck = await RawClient.authenticated(hub.ws)
  const readers = await Promise.all(Array.from({ length: 20 }, () => RawClient.authenticated(hub.ws)))
  for (const client of [stuck, ...readers]) {
    expect(await client.request({ op: "SUBSCRIBE", topic: "t" })).toMatchObject({ op: "OK" })
  }
  stuck.socket.pause()
  const before = await memory(hub)
  const publisher = await RawClient.authenticated(hub.ws)
  const [events, bytes] = [1_000, 32 * 1024]
  for (const reader of readers) reader.onFrame = () => void (reader.frames.length = 0)
  for (let i = 1; i <= events; i++) {
    publisher.send({ op: "PUBLISH", ref: i, topic: "t", payload: "x".repeat(bytes) })
    // Together with them, so that nobody but the one is behind.
    if (i % 20 === 0) await Promise.all(readers.map((reader) => reader.events(i)))
  }
  const seqs = (client: RawClient) =>
    client.messages
      .filter(({ op }) => op === "EVENT")
      .map(({ event }) => (event as { readonly seq: number }).seq)
  for (const reader of readers) expect(seqs(reader)).toEqual(Array.from({ length: events }, (_, i) => i + 1))
  expect((await memory(hub)) - before).toBeLessThan(200 * MiB)

  // It was behind, and nothing is missing when it reads again.
  stuck.socket.resume()
  await stuck.events(events)
  expect(seqs(stuck)).toEqual(Array.from({ length: events }, (_, i) => i + 1))
  await hub.stop()
})
