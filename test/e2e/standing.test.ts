/** After a burst a group is behind: seen by asking, in the ranking, and as it is pushed; and then it has caught up. */
import { expect, it, onTestFinished } from "vitest"
import { createClient } from "../../src/client/index.ts"
import { startHub } from "../support/HubProcess.ts"
import { everything, tokenFor } from "../support/tokens.ts"

const count = 2_000

interface Place {
  readonly pending: number
  readonly lagMs: number
}

it("a slow member falls behind, and everybody who looks sees how far, until it has caught up", async () => {
  const hub = await startHub({ HUB_LIVE_MS: "100", HUB_STANDING_MS: "100" })
  onTestFinished(async () => void (await hub.stop()))
  const token = await tokenFor({ scopes: [...everything, "subscribe:$hub.**"] })
  const connect = () => {
    const client = createClient({ url: hub.ws, getToken: () => token })
    onTestFinished(() => client.close())
    return client
  }
  const read = async <A>(path: string): Promise<A> => {
    const answer = await fetch(hub.ops + path, { headers: { authorization: `Bearer ${token}` } })
    expect([path, answer.status]).toEqual([path, 200])
    return (await answer.json()) as A
  }
  const lag = () => read<Place>("/lag?topic=burst&group=slow")
  const worst = async () => (await read<{ items: ReadonlyArray<object> }>("/top?by=lag&limit=1")).items[0]

  const pushed: Array<Place> = []
  const watcher = connect()
  await watcher.subscribe("$hub.group.slow.**", ({ payload }) => void pushed.push(payload as Place)).ready

  // It begins, and is not done before it is told to be.
  const member = connect()
  const gate = Promise.withResolvers<void>()
  const handled = new Set<number>()
  const group = member.consume(
    "burst",
    "slow",
    async ({ payload }) => {
      await gate.promise
      handled.add(payload as number)
    },
    { from: "start" }
  )
  await group.ready
  const publisher = connect()
  await Promise.all(Array.from({ length: count }, (_, n) => publisher.publish("burst", n)))

  expect(await lag()).toMatchObject({ pending: count })
  await expect.poll(worst).toMatchObject({ group: "slow", topic: "burst", pending: count, head: count })
  await expect.poll(() => pushed.at(-1)).toMatchObject({ pending: count, head: count, seq: 0 })
  await expect.poll(async () => (await lag()).lagMs).toBeGreaterThan(0)

  gate.resolve()
  await expect.poll(lag, { timeout: 30_000 }).toMatchObject({ pending: 0, inFlight: 0, lagMs: 0 })
  expect(handled.size).toBe(count)
  await expect.poll(worst).toBeUndefined()
  await expect.poll(() => pushed.at(-1)).toMatchObject({ pending: 0, inFlight: 0, lagMs: 0, seq: count })
})
