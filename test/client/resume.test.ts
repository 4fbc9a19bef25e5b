/** A hub that is killed and started again: its clients come back, miss nothing and repeat nothing. */
import { describe, expect, it } from "vitest"
import type { Published, WireEvent } from "../../src/client/index.ts"
import { collector, makeClient, platforms, until } from "./clients.ts"
import { returningHub } from "../support/ReturningHub.ts"

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

const byTopic = (events: ReadonlyArray<WireEvent>): ReadonlyMap<string, ReadonlyArray<WireEvent>> =>
  Map.groupBy(events, ({ topic }) => topic)

describe.each(platforms)("with %s", (_name, platform) => {
  const lives = platform.WebSocket === undefined ? 2 : 1

  it("publishing all the while a hub is killed and started again: every publish is one event, and live subscribers get each once, in order", async () => {
    const { hub, start, url } = await returningHub()
    const options = { ...platform, requestTimeoutMs: 30_000 }
    const publisher = makeClient(url, options).client
    const live = makeClient(url, options)
    const seen = collector<number>()
    await live.client.subscribe("r.**", undefined, seen.handler)
    const group = makeClient(url, options)
    const handled = new Set<string>()
    await group.client.subscribe("r.**", "g", ({ id }) => void handled.add(id), {
      from: "start",
      // Where hubs share a store, what the killed one had handed out comes again after this.
      ackTimeoutMs: 2_000
    })

    const published: Array<Promise<Published & { readonly topic: string }>> = []
    const counts = new Map<string, number>()
    let isOver = false
    /** Always has one publish under way. */
    const publishing = async (topic: string) => {
      while (!isOver) {
        const n = (counts.get(topic) ?? 0) + 1
        counts.set(topic, n)
        const answer = publisher.publish(topic, n).then((ok) => ({ ...ok, topic }))
        published.push(answer)
        await answer
      }
    }
    const topics = upTo(12).map((n) => `r.${n % 4}`)
    const publishers = topics.map(publishing)

    for (let life = 1; life <= lives; life++) {
      await seen.first(seen.events.length + 200)
      await hub().kill()
      // What is published meanwhile waits.
      await until("the publisher knows", () => publisher.state._tag !== "ready")
      await start()
    }
    await seen.first(seen.events.length + 200)
    isOver = true
    await Promise.all(publishers)
    const answers = await Promise.all(published)
    await seen.first(answers.length)
    await until("the group has all", () => handled.size === answers.length)
    // A repeat would come now.
    await publisher.publish("r.end", 0)
    await until("the end", () => seen.events.at(-1)?.topic === "r.end")

    for (const [topic, events] of byTopic(seen.events)) {
      expect([topic, events.map(({ seq }) => seq)]).toEqual([topic, upTo(events.length)])
      if (topic === "r.end") continue
      // Exactly what was published, and each answer is about its own event.
      const payloads = events.map(({ payload }) => payload as number)
      expect(payloads.toSorted((a, b) => a - b)).toEqual(upTo(counts.get(topic) ?? 0))
      const told = answers.filter((one) => one.topic === topic)
      expect(new Map(told.map(({ id, seq }) => [seq, id]))).toEqual(
        new Map(events.map(({ id, seq }) => [seq, id]))
      )
    }
    expect(live.errors).toEqual([])
    expect(group.errors).toEqual([])
  })
})
