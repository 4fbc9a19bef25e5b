/**
 * The log of a hub as a file, over HTTP: out of it, out of it compressed, and into a new hub. How many events a second, what
 * the hub's memory grows by, and what a publisher on the same hub waits meanwhile.
 */
import { once } from "node:events"
import { copyFileSync, createReadStream, createWriteStream, mkdtempSync, rmSync } from "node:fs"
import { type IncomingMessage, request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { pipeline } from "node:stream/promises"
import { Effect } from "effect"
import { mintToken } from "../src/layers/jwt/mintToken.ts"
import { percentiles, rssBytes } from "./figures.ts"
import { bodyOf, sleep } from "./Peer.ts"
import { open, startHub } from "./peers/eventHub.ts"
import type { Row, Run, Scenario, Wanted } from "./Scenario.ts"
import { fillLog, planned, topic } from "./stores.ts"

const secret = "the secret of a benchmark, 32 bytes or more"

/** To import takes a right that the token of the other benchmarks has not. */
const adminToken = (): Promise<string> =>
  Effect.runPromise(
    mintToken({
      secret: new TextEncoder().encode(secret),
      sub: "bench",
      scopes: ["subscribe:**", "admin:**"],
      ttlMs: 3_600_000
    })
  )

let directory: string | undefined

/** In a directory that all runs share. */
const pathOf = (name: string): string => {
  if (directory === undefined) {
    const made = mkdtempSync(join(tmpdir(), "event-hub-bench-"))
    directory = made
    process.once("exit", () => rmSync(made, { recursive: true }))
  }
  return join(directory, name)
}

const fill = async (events: number): Promise<string> => {
  const path = pathOf("filled.db")
  await fillLog(path, planned(events, "event"))
  // What is in the write-ahead log goes to the file, so that the file is all there is.
  const db = new DatabaseSync(path)
  db.exec("PRAGMA wal_checkpoint(TRUNCATE)")
  db.close()
  return path
}

let filled: Promise<string> | undefined
const filledFile = (events: number): Promise<string> => (filled ??= fill(events))

type Hub = Awaited<ReturnType<typeof startHub>>

const start = (prepare?: (path: string) => Promise<void>): Promise<Hub> =>
  startHub(prepare, { JWT_SECRET: secret })

const ask = async (
  hub: Hub,
  path: string,
  options: { readonly method?: string; readonly headers?: Readonly<Record<string, string>> } = {},
  send?: (body: NodeJS.WritableStream) => Promise<void>
): Promise<IncomingMessage> => {
  const asked = request(hub.ops + path, {
    method: options.method ?? "GET",
    headers: { ...options.headers, authorization: `Bearer ${await adminToken()}` }
  })
  const answered = once(asked, "response") as Promise<[IncomingMessage]>
  if (send === undefined) asked.end()
  else await send(asked)
  const [answer] = await answered
  if (answer.statusCode !== 200) throw new Error(`${path} answered ${answer.statusCode}`)
  return answer
}

/** How the hub is doing while something runs on it. */
const watching = async (hub: Hub, run: () => Promise<void>): Promise<Row["figures"]> => {
  const { pid } = hub.broker.process
  const publishTimes: Array<number> = []
  let onOk = () => {}
  const publisher = await open(hub.url, ({ op }) => {
    if (op !== "OK") throw new Error(`a publish was answered by ${op}`)
    onOk()
  })
  const publish = async (n: number): Promise<number> => {
    const begin = performance.now()
    const answered = new Promise<void>((resolve) => (onOk = resolve))
    publisher.send(`{"op":"PUBLISH","ref":${n},"topic":"beside","payload":${bodyOf(n)}}`)
    await answered
    return performance.now() - begin
  }
  for (let n = 1; n <= 200; n++) await publish(n)
  await sleep(500)
  const before = rssBytes(pid)
  let most = before
  let isOver = false
  const beside = (async () => {
    for (let n = 1; !isOver; n++) {
      publishTimes.push(await publish(n))
      most = Math.max(most, rssBytes(pid))
      await sleep(10)
    }
  })()
  const begin = performance.now()
  await run()
  const seconds = (performance.now() - begin) / 1000
  isOver = true
  await beside
  publisher.terminate()
  return { seconds, "RSS growth MB": (most - before) / 1_000_000, ...percentiles(publishTimes, "publish ") }
}

const perSecond = (events: number, { seconds, ...figures }: Row["figures"]): Row["figures"] => ({
  "events/s": events / (seconds ?? NaN),
  ...figures
})

const out = async (events: number, headers: Readonly<Record<string, string>>): Promise<Row["figures"]> => {
  const file = await filledFile(events)
  const hub = await start((path) => Promise.resolve(copyFileSync(file, path)))
  try {
    let bytes = 0
    const figures = await watching(hub, async () => {
      const answer = await ask(hub, `/export?topic=${topic}`, { headers })
      answer.on("data", (chunk: Buffer) => (bytes += chunk.length))
      await once(answer, "end")
    })
    return { ...perSecond(events, figures), "MB/s": bytes / 1_000_000 / (figures["seconds"] ?? NaN) }
  } finally {
    await hub.broker.stop()
  }
}

const exported = async (events: number): Promise<string> => {
  const file = await filledFile(events)
  const hub = await start((path) => Promise.resolve(copyFileSync(file, path)))
  const path = pathOf("export.ndjson")
  await pipeline(await ask(hub, `/export?topic=${topic}`), createWriteStream(path))
  await hub.broker.stop()
  return path
}

let exportedFile: Promise<string> | undefined

const into = async (events: number): Promise<Row["figures"]> => {
  const file = await (exportedFile ??= exported(events))
  const hub = await start()
  try {
    const figures = await watching(hub, async () => {
      const headers = { "content-type": "application/x-ndjson" }
      const answer = await ask(hub, "/import", { method: "POST", headers }, (body) =>
        pipeline(createReadStream(file), body)
      )
      const report = JSON.parse(Buffer.concat(await answer.toArray()).toString()) as {
        readonly complete: boolean
        readonly restored: number
      }
      if (!report.complete || report.restored !== events) throw new Error(JSON.stringify(report))
    })
    return perSecond(events, figures)
  } finally {
    await hub.broker.stop()
  }
}

const names = { plain: "export", packed: "export, gzip", back: "import" } as const

export const exporting: Scenario = {
  name: "export",
  title: ({ events }) => `${events} events of 200 bytes out of a hub on SQLite and into another, over HTTP`,
  defaults: { events: 1_000_000, inFlight: 0, subscribers: 0 },
  runs: ({ events }) => {
    const run = (name: string, measure: () => Promise<Row["figures"]>): Run => ({
      name,
      missing: () => undefined,
      run: measure
    })
    return [
      run(names.plain, () => out(events, {})),
      run(names.packed, () => out(events, { "accept-encoding": "gzip" })),
      run(names.back, () => into(events))
    ]
  },
  wanted: () => [
    { run: names.plain, figure: "events/s", atLeast: 100_000 },
    { run: names.packed, figure: "events/s", atLeast: 100_000 },
    ...[names.plain, names.packed].map((run): Wanted => ({ run, figure: "RSS growth MB", atMost: 50 }))
  ]
}
