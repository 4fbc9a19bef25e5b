/** What is trimmed by rules, as the readers of a real hub see it: gaps for those behind, everything for groups. */
import { expect, it } from "vitest"
import { startHub } from "../support/HubProcess.ts"
import { anyStore, durableStore } from "../support/hubStore.ts"
import { type Message, RawClient } from "../support/RawClient.ts"

/** Events may go after a second, which no retry takes with these. */
const hasty = {
  RETENTION_MIN_AGE_MS: "1000",
  RETENTION_INTERVAL_MS: "50",
  OUTBOX_MAX_ATTEMPTS: "1",
  OUTBOX_LEASE_MS: "1000",
  GROUP_MAX_ATTEMPTS: "1",
  GROUP_ACK_TIMEOUT_MS: "1000"
}

const seqOf = (message: Message): number => (message["event"] as { readonly seq: number }).seq
const idOf = (message: Message): string => (message["event"] as { readonly id: string }).id

const publish = async (client: RawClient, topic: string, count: number): Promise<void> => {
  const refs = Array.from({ length: count }, (_, i) => `${topic} ${i}`)
  for (const ref of refs) client.send({ op: "PUBLISH", ref, topic, payload: ref })
  const wanted = new Set<unknown>(refs)
  await client.waitForAll("all answers", ({ op, ref }) => op === "OK" && wanted.has(ref), count)
}

/** A group that is registered before there is anything, and has no member while things happen. */
const registerGroup = async (url: string, topic: string, group: string): Promise<void> => {
  const client = await RawClient.authenticated(url)
  expect(await client.request({ op: "SUBSCRIBE", topic, group })).toMatchObject({ op: "OK" })
  expect(await client.request({ op: "UNSUBSCRIBE", topic, group })).toMatchObject({ op: "OK" })
  await client.close()
}

/** Reads from the beginning, again and again, until that much is gone; answers what such a reader gets. */
const trimmedTo = async (url: string, topic: string, floor: number): Promise<ReadonlyArray<Message>> => {
  for (;;) {
    const client = await RawClient.authenticated(url)
    await client.request({ op: "SUBSCRIBE", topic, opts: { from: { after: 0 } } })
    await client.waitFor("the last event", (message) => message.op === "EVENT" && seqOf(message) === 20)
    const seen = client.messages.filter(({ op }) => op === "GAP" || op === "EVENT")
    await client.close()
    if (seen[0]?.op === "GAP" && seen[0]["to"] === floor) return seen
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

it.each(["forgets", "keeps"])(
  "those behind the trim get a GAP, and a group that is respected gets everything (a store that %s)",
  async (kind) => {
    const hub = await startHub({
      ...hasty,
      ...(kind === "keeps" ? durableStore() : anyStore()),
      RETENTION: "ignored.*: count=5 groups=ignore; respected.*: count=5; zz: count=5"
    })
    await registerGroup(hub.ws, "ignored.a", "behind")
    await registerGroup(hub.ws, "respected.**", "slow")
    const publisher = await RawClient.authenticated(hub.ws)
    // In this order: when `zz` is trimmed, a pass has gone through the others, all old enough, before.
    for (const topic of ["ignored.a", "respected.a", "zz"]) await publish(publisher, topic, 20)

    const live = await trimmedTo(hub.ws, "zz", 15)
    expect(live[0]).toEqual({ op: "GAP", sub: "zz", topic: "zz", from: 1, to: 15, reason: "trimmed" })
    expect(live.slice(1).map(seqOf)).toEqual([16, 17, 18, 19, 20])
    await trimmedTo(hub.ws, "ignored.a", 15)

    const behind = await RawClient.authenticated(hub.ws)
    await behind.request({ op: "SUBSCRIBE", topic: "ignored.a", group: "behind" })
    expect((await behind.events(5)).map(seqOf)).toEqual([16, 17, 18, 19, 20])
    expect(behind.messages.filter(({ op }) => op === "GAP")).toMatchObject([
      { sub: "ignored.a", topic: "ignored.a", group: "behind", from: 1, to: 15, reason: "trimmed" }
    ])

    const slow = await RawClient.authenticated(hub.ws)
    await slow.request({ op: "SUBSCRIBE", topic: "respected.**", group: "slow" })
    const events = await slow.events(20)
    expect(events.map(seqOf)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1))
    expect(slow.messages.some(({ op }) => op === "GAP")).toBe(false)

    // What it has acknowledged goes, too.
    const ids = events.map(idOf)
    const acknowledged = await slow.request({ op: "ACK", topic: "respected.a", group: "slow", ids })
    expect(acknowledged).toMatchObject({ op: "OK" })
    expect((await trimmedTo(hub.ws, "respected.a", 15)).slice(1).map(seqOf)).toEqual([16, 17, 18, 19, 20])
    expect(await hub.stop()).toEqual({ code: 0, signal: null })
  }
)

it("groups that nobody uses are named in the log, and removed where that is asked for", async () => {
  const hub = await startHub({ ...hasty, GROUP_UNUSED_MS: "500", GROUP_EXPIRE_MS: "2000" })
  await registerGroup(hub.ws, "orders", "gone")
  const member = await RawClient.authenticated(hub.ws)
  await member.request({ op: "SUBSCRIBE", topic: "orders", group: "used" })
  const about = (start: string) =>
    hub.lineWhere(({ groups, msg }) => msg.startsWith(start) && String(groups).includes("gone"))
  expect(await about("consumer groups have had no member")).toMatchObject({ level: "warn", groups: ["gone"] })
  expect(await about("consumer groups were removed")).toMatchObject({ level: "warn", groups: ["gone"] })
  const publisher = await RawClient.authenticated(hub.ws)
  await publish(publisher, "orders", 1)
  expect((await member.events(1)).map(seqOf)).toEqual([1])
  await hub.stop()
})
