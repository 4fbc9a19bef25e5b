/**
 * A thousand connections that are cut while events come and go: each live subscriber sees every event once, in order;
 * each publish is one event; and a group handles each at least once.
 *
 * All clients reach the hub through a proxy that cuts each connection somewhere: after so many bytes, which may be in
 * the middle of a frame or of the handshake, or after so long, whichever is first.
 */
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { expect, it, onTestFinished } from "vitest"
import { type ClientOptions, createClient, type LiveItem, type Published } from "../../src/client/index.ts"
import { startHub } from "../support/HubProcess.ts"
import { tokenFor } from "../support/tokens.ts"
import { until } from "./clients.ts"

const cuts = 1_000

/** Bytes that go through a connection before it is cut, both ways together, and milliseconds, at most. */
const maxBytes = 40_000
const maxMs = 300

const topics = ["cut.a", "cut.b", "cut.c"]

/** Numbers from 0 to 1 that a seed gives again (xorshift32). */
const randomOf = (seed: number) => {
  let state = seed | 0 || 1
  return (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

interface CuttingProxy {
  readonly url: string
  readonly cut: () => number
}

/** Cuts every connection until it has cut enough of them; those that come then stay. */
const cuttingProxy = async (hubUrl: string, random: () => number): Promise<CuttingProxy> => {
  const { hostname, port } = new URL(hubUrl)
  const open = new Set<Socket>()
  let cut = 0
  const server = createServer((near) => {
    const far = connect(Number(port), hostname)
    let budget = random() * maxBytes
    let isOver = false
    const end = (how: "destroy" | "resetAndDestroy") => {
      isOver = true
      clearTimeout(timer)
      for (const socket of [near, far]) {
        socket[how]()
        open.delete(socket)
      }
    }
    const cutIt = () => {
      if (isOver || cut >= cuts) return
      cut++
      // By an end of the stream, or by a reset that takes what is on its way with it.
      end(random() < 0.5 ? "destroy" : "resetAndDestroy")
    }
    const timer = setTimeout(cutIt, random() * maxMs)
    const forward = (from: Socket, to: Socket) => {
      open.add(from)
      from.on("data", (chunk: Buffer) => {
        if (isOver) return
        budget -= chunk.length
        const isEnough = budget < 0 && cut < cuts
        const part = isEnough ? chunk.subarray(0, Math.max(0, chunk.length + budget)) : chunk
        if (!to.write(part)) {
          from.pause()
          to.once("drain", () => from.resume())
        }
        // When what was written has gone.
        if (isEnough) setImmediate(cutIt)
      })
      from.on("error", () => {})
      from.on("close", () => isOver || end("destroy"))
    }
    forward(near, far)
    forward(far, near)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  onTestFinished(() => {
    for (const socket of open) socket.destroy()
    server.close()
  })
  return { url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`, cut: () => cut }
}

const upTo = (n: number): ReadonlyArray<number> => Array.from({ length: n }, (_, i) => i + 1)

it(`${cuts} cut connections: live subscribers see each event once, in order, and each publish is one event`, async () => {
  const seed = Math.floor(Math.random() * 2 ** 31)
  console.log(`disconnects: seed ${seed}`)
  const random = randomOf(seed)
  const hub = await startHub()
  onTestFinished(async () => void (await hub.kill()))
  const token = await tokenFor()
  const proxy = await cuttingProxy(hub.ws, random)
  const errors: Array<unknown> = []
  const made = (more: Partial<ClientOptions> = {}) => {
    const client = createClient({
      url: proxy.url,
      token,
      reconnectBaseMs: 5,
      reconnectMaxMs: 20,
      requestTimeoutMs: 60_000,
      closeTimeoutMs: 100,
      ...more
    } as ClientOptions)
    client.on("error", (error) => errors.push(error))
    onTestFinished(() => client.close())
    return client
  }

  // Each has one connection, and what it saw of each topic.
  const seen: Array<ReadonlyMap<string, Array<number>>> = []
  const others: Array<LiveItem> = []
  const record = () => {
    const byTopic = new Map<string, Array<number>>(topics.map((topic) => [topic, []]))
    seen.push(byTopic)
    return ({ seq, topic }: { readonly seq: number; readonly topic: string }) => byTopic.get(topic)?.push(seq)
  }
  const iterate = async (live: AsyncIterable<LiveItem, undefined>, pause: () => Promise<unknown>) => {
    const take = record()
    for await (const item of live) {
      if (item._tag === "event") take(item)
      else others.push(item)
      await pause()
    }
  }
  const soon = () => new Promise((resolve) => setImmediate(resolve))
  const lives = [
    { client: made(), how: "iterator" },
    // Leaves the hub and comes back all the while.
    { client: made(), how: "slow iterator" },
    { client: made(), how: "callback" },
    { client: made(), how: "slow callback" },
    { client: made(), how: "from new" }
  ].map(({ client, how }) => {
    const from = "start"
    if (how === "iterator" || how === "slow iterator") {
      const isSlow = how === "slow iterator"
      const live = client.subscribe("cut.*", { from, ...(isSlow ? { maxBuffered: 50 } : {}) })
      void iterate(live, isSlow ? soon : () => Promise.resolve())
      return live
    }
    const take = record()
    if (how === "slow callback") {
      return client.subscribe("cut.**", async (event) => void (await soon(), take(event)), { from })
    }
    return client.subscribe("cut.*", (event) => void take(event), how === "callback" ? { from } : {})
  })
  const handled = new Map<string, number>()
  const group = made().consume("cut.*", "g", ({ id }) => handled.set(id, (handled.get(id) ?? 0) + 1), {
    from: "start",
    ackTimeoutMs: 5_000
  })
  await Promise.all([...lives, group].map(({ ready }) => ready))

  const published: Array<Published & { readonly topic: string }> = []
  const publishers = [made(), made()]
  /** Always has one publish under way, and some that wait for a connection. */
  const publishing = async (nth: number) => {
    for (let n = nth; proxy.cut() < cuts; n++) {
      const topic = topics[n % topics.length]!
      const answer = await publishers[nth % 2]!.publish(topic, { nth, n })
      published.push({ ...answer, topic })
      await soon()
    }
  }
  await Promise.all(upTo(12).map(publishing))
  expect(proxy.cut()).toBe(cuts)

  // A publish is an event of its own.
  const byTopic = Map.groupBy(published, ({ topic }) => topic)
  for (const [topic, answers] of byTopic) {
    const seqs = answers.map(({ seq }) => seq).toSorted((a, b) => a - b)
    expect([topic, seqs]).toEqual([topic, upTo(answers.length)])
  }
  const wanted = new Map(topics.map((topic) => [topic, upTo(byTopic.get(topic)?.length ?? 0)]))
  await until("all have seen all", () =>
    seen.every((one) => topics.every((topic) => one.get(topic)?.at(-1) === wanted.get(topic)?.at(-1)))
  )
  await until("the group has handled all", () => handled.size === published.length)
  for (const one of seen) expect(one).toEqual(wanted)
  expect(new Set(handled.keys())).toEqual(new Set(published.map(({ id }) => id)))
  expect(others).toEqual([])
  expect(errors).toEqual([])
})
