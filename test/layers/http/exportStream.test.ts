/** An export on its way: a client that does not read, one that goes away, and a store that fails in the middle. */
import { once } from "node:events"
import { type IncomingMessage, request } from "node:http"
import { expect, it, onTestFinished } from "vitest"
import { records } from "../../../src/testing/eventStore.ts"
import { type EmbeddedHub, startEmbeddedHub } from "../../support/EmbeddedHub.ts"
import { tokenFor } from "../../support/tokens.ts"

const events = 400_000

const start = async (): Promise<EmbeddedHub> => {
  const hub = await startEmbeddedHub()
  onTestFinished(() => hub.stop())
  for (let from = 1; from <= events; from += 20_000) {
    await hub.run(hub.events.append(records("a", 20_000, from)))
  }
  return hub
}

const open = async (hub: EmbeddedHub, encoding = "identity"): Promise<IncomingMessage> => {
  const sent = request(`${hub.ops}/export`, {
    headers: { authorization: `Bearer ${await tokenFor()}`, "accept-encoding": encoding }
  })
  sent.on("error", () => {})
  sent.end()
  const [answer] = (await once(sent, "response")) as [IncomingMessage]
  return answer
}

/** So many turns of the event loop, in which whatever can happen does. */
const turns = async (count: number): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** Reads of the store, when they have come to an end. */
const settledReads = async (hub: EmbeddedHub): Promise<number> => {
  for (;;) {
    const before = hub.faults.linesRead
    await turns(2_000)
    if (hub.faults.linesRead === before) return before
  }
}

const wholeReads = events / 400

it("a client that stops reading stops the reads of the store", async () => {
  const hub = await start()
  const answer = await open(hub)
  // Nobody reads: what the sockets hold is read from the store, and no more.
  await expect.poll(() => hub.faults.linesRead, { timeout: 30_000 }).toBeGreaterThan(0)
  const stopped = await settledReads(hub)
  expect(stopped).toBeLessThan(wholeReads * 0.9)
  const text = Buffer.concat(await answer.toArray()).toString()
  expect(hub.faults.linesRead).toBeGreaterThanOrEqual(wholeReads)
  expect(JSON.parse(text.trimEnd().split("\n").at(-1)!)).toMatchObject({ end: true, events })
})

it("a client that goes away ends them", async () => {
  const hub = await start()
  const answer = await open(hub)
  await once(answer, "readable")
  answer.destroy()
  expect(await settledReads(hub)).toBeLessThan(wholeReads * 0.9)
})

it.each(["identity", "gzip"])("a store that fails breaks the connection off (%s)", async (encoding) => {
  const hub = await start()
  const answer = await open(hub, encoding)
  const pieces: Array<Buffer> = []
  const ended = new Promise<string>((resolve) => {
    answer.on("error", () => resolve("broken off"))
    answer.on("end", () => resolve("ended"))
  })
  answer.on("data", (piece: Buffer) => {
    pieces.push(piece)
    hub.faults.readLines = true
  })
  expect(await ended).toBe("broken off")
  expect(answer.complete).toBe(false)
  expect(Buffer.concat(pieces).toString()).not.toContain('"end":true')
})
