/** After a burst, the lag of a group counts down and ends at 0. */
import { expect, it } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { everything, tokenFor } from "../support/tokens.ts"

interface Lag {
  readonly lagMs: number
  readonly pending: number
  readonly inFlight: number
}

it("/lag after a burst of 5,000 counts down to 0", async () => {
  const hub = await startHub()
  const token = await tokenFor({ scopes: everything })
  const lag = async (): Promise<Lag> => {
    const answer = await fetch(`${hub.ops}/lag?topic=burst&group=g`, {
      headers: { authorization: `Bearer ${token}` }
    })
    expect(answer.status).toBe(200)
    return (await answer.json()) as Lag
  }
  const consumer = await RawClient.authenticated(hub.ws)
  await consumer.request({ op: "SUBSCRIBE", topic: "burst", group: "g", opts: { credit: 100 } })
  const publisher = await RawClient.authenticated(hub.ws)
  for (let i = 1; i <= 5_000; i++) publisher.send({ op: "PUBLISH", ref: i, topic: "burst", payload: i })
  await publisher.waitForAll("all answers", ({ op, ref }) => op === "OK" && typeof ref === "number", 5_000)
  expect(await lag()).toMatchObject({ pending: 5_000, inFlight: 100 })

  const seen: Array<number> = []
  for (let acked = 0; acked < 5_000; acked += 100) {
    const events = (await consumer.events(acked + 100)).slice(acked)
    const ids = events.map((message) => (message["event"] as { readonly id: string }).id)
    expect(await consumer.request({ op: "ACK", topic: "burst", group: "g", ids })).toMatchObject({ op: "OK" })
    if (acked % 1_000 === 0) seen.push((await lag()).pending)
  }
  expect(seen).toEqual([4_900, 3_900, 2_900, 1_900, 900])
  expect(await lag()).toMatchObject({ pending: 0, inFlight: 0, lagMs: 0 })
  await hub.stop()
})
