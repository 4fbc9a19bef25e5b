/**
 * Three hubs over one MongoDB in a world that falls apart: two of them are killed by SIGKILL at random, again and again,
 * under load, and once the database is, where the machine can do that (TEST_MONGO_CRASH and TEST_MONGO_START, two shell
 * commands). Publishers and members go from hub to hub. Nothing that was acknowledged is lost, nothing is skipped, and
 * nothing is there twice.
 */
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { expect, it, onTestFinished } from "vitest"
import type { WebSocket } from "ws"
import { chance, newSeed } from "../../src/testing/chance.ts"
import { eventsOf, type Plan } from "../../src/testing/fate.ts"
import { type Expected, problemsOf, type Seen } from "../../src/testing/groupJournal.ts"
import { GroupMember } from "../support/GroupMember.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../support/mongo.ts"
import { type Message, RawClient } from "../support/RawClient.ts"
import { returningHub, type ReturningHub } from "../support/ReturningHub.ts"
import { everything, tokenFor } from "../support/tokens.ts"

const plan: Plan = {
  events: 15_000,
  topics: ["jobs.a", "jobs.b"],
  keys: 200,
  failures: 0.05,
  crashes: 0.002,
  poisonEach: 500
}
const group = "workers"
const hubs = 3
const kills = 5
const publishedAtOnce = 100
const ahead = 500
/** Of a test; on an idle machine it takes a minute. */
const limitMs = 500_000

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const shell = (command: string) => promisify(execFile)("/bin/sh", ["-c", command])

/** What happened, in its order: a test that fails says it. */
class History {
  readonly lines: Array<string> = []
  readonly #began = Date.now()
  note(line: string): void {
    this.lines.push(`${((Date.now() - this.#began) / 1000).toFixed(1)} s: ${line}`)
  }
}

interface Crew {
  readonly journal: Array<Seen>
  readonly handled: Set<string>
  readonly problems: Array<string>
  readonly stop: () => void
}

/** Two members at each hub, which come back as long as nobody stops them. */
const gather = async (urls: ReadonlyArray<string>, seed: number, keyOrdered: boolean): Promise<Crew> => {
  const token = await tokenFor({ scopes: everything, expiresIn: 3_600 })
  const crew = { journal: [] as Array<Seen>, handled: new Set<string>(), problems: [] as Array<string> }
  const members: Array<GroupMember> = []
  const stop = () => {
    for (const member of members) member.stop()
  }
  onTestFinished(stop)
  const write = (seen: ReadonlyArray<Seen>): void => {
    crew.journal.push(...seen)
    for (const { id, what } of seen) if (what === "acked") crew.handled.add(id)
  }
  const joins = [...urls, ...urls].map(
    (url) =>
      new Promise<void>((joined) => {
        const opts = { from: "start", credit: 20, keyOrdered, maxAttempts: 20, ackTimeoutMs: 5_000 }
        members.push(
          new GroupMember(
            { url, token, pattern: "jobs.*", group, seed, plan, opts, handlerMs: 2 },
            {
              write,
              crash: (socket: WebSocket) => socket.terminate(),
              joined,
              failed: (problem) => crew.problems.push(problem)
            }
          )
        )
      })
  )
  await Promise.all(joins)
  return { ...crew, stop }
}

/** Publishes in order, to whichever hub: what one did not answer is published again, with the same ids, to another. */
const publishAll = async (
  urls: ReadonlyArray<string>,
  events: ReadonlyArray<Expected>,
  crew: Crew,
  pick: (n: number) => number
): Promise<void> => {
  let published = 0
  for (let turn = 0; published < events.length; turn++) {
    const client = await RawClient.authenticated(urls[pick(turn)]!).catch(() => undefined)
    try {
      for (let batches = 0; client !== undefined && batches < 5 && published < events.length; batches++) {
        while (published - crew.handled.size > ahead) await sleep(10)
        const some = events.slice(published, published + publishedAtOnce)
        client.send(
          some.map(({ id, key, topic }, i) => {
            return { op: "PUBLISH", ref: published + i, topic, payload: null, opts: { id, key } }
          })
        )
        const isAnswer = ({ ref }: Message) => typeof ref === "number"
        const answers = await client.waitForAll("all answers", isAnswer, some.length)
        // What is refused for now is asked again, in its order.
        if (answers.some(({ op }) => op !== "OK")) break
        client.messages.length = 0
        client.frames.length = 0
        published += some.length
      }
    } catch {
      // The hub is gone, or too slow.
    }
    client?.socket.terminate()
    await sleep(20)
  }
}

const pending = async (one: ReturningHub): Promise<number> => {
  const token = await tokenFor({ scopes: everything, expiresIn: 3_600 })
  const lags = plan.topics.map(async (topic) => {
    const answer = await fetch(`${one.hub().ops}/lag?topic=${topic}&group=${group}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    return answer.ok ? ((await answer.json()) as { readonly pending: number }).pending : Infinity
  })
  return (await Promise.all(lags)).reduce((sum, one) => sum + one, 0)
}

/** All events of a pattern, as a client gets them from the first one on. */
const readAll = async (url: string, pattern: string, count: number) => {
  const reader = await RawClient.authenticated(url)
  const isEvent = ({ op }: Message) => op === "EVENT"
  reader.send({ op: "SUBSCRIBE", topic: pattern, opts: { from: "start" } })
  await reader.waitForAll(`${count} events of ${pattern}`, isEvent, count)
  // A repeat or a stray one would come now.
  await reader.settled()
  const events = reader.messages.filter(isEvent).map(
    (message) =>
      message["event"] as {
        readonly id: string
        readonly topic: string
        readonly seq: number
        readonly headers?: Readonly<Record<string, string>>
      }
  )
  await reader.close()
  return events
}

const seed = newSeed()

describeMongo("three hubs over one database", (mongo) => {
  for (const keyOrdered of [false, true]) {
    const title = `${plan.events} events come to their end${keyOrdered ? ", those of a key in their order" : ""}`
    it(`${title} (TEST_SEED=${seed})`, { timeout: limitMs }, async () => {
      const roll = chance(seed)
      const history = new History()
      const url = urlOfNewDatabase(mongo)
      onTestFinished(() => dropDatabase(url))
      const events = eventsOf(plan, roll)
      const settings = { MONGO_URL: url, GROUP_RETRY_BASE_MS: "10", GROUP_RETRY_MAX_MS: "100" }
      const all = await Promise.all(Array.from({ length: hubs }, () => returningHub(settings)))
      const urls = all.map((one) => one.url)
      const crew = await gather(urls, seed, keyOrdered)
      const publishing = publishAll(urls, events, crew, (n) => Math.floor(roll("hub", n) * hubs))

      const { TEST_MONGO_CRASH: crash, TEST_MONGO_START: start } = process.env
      try {
        for (let n = 1; n <= kills; n++) {
          while (crew.handled.size < (events.length * n) / (kills + 1)) {
            expect(crew.problems).toEqual([])
            await sleep(20)
          }
          const spared = Math.floor(roll("spared", n) * hubs)
          const killed = all.filter((_, i) => i !== spared)
          history.note(`all hubs but ${spared} are killed, ${crew.handled.size} events are handled`)
          for (const one of killed) await one.hub().kill()
          if (n === 2 && crash !== undefined && start !== undefined) {
            history.note("the database is killed")
            await shell(crash)
            await sleep(1_000)
            await shell(start)
            history.note("the database is back")
          } else await sleep(roll("away", n) * 1_000)
          await Promise.all(killed.map((one) => one.start()))
          history.note("all hubs are back")
        }
        await publishing
        history.note("everything is published")
        while ((await pending(all[0]!)) > 0) await sleep(100)
        history.note("everything is done")
        crew.stop()

        const poison = events.filter(({ isPoison }) => isPoison).map(({ id }) => id)
        for (const topic of plan.topics) {
          const expected = events.filter((event) => event.topic === topic).map(({ id }) => id)
          const found = await readAll(urls[1]!, topic, expected.length)
          expect(found.map(({ seq }) => seq)).toEqual(expected.map((_, i) => i + 1))
          expect(found.map(({ id }) => id)).toEqual(expected)
        }
        const letters = await readAll(urls[2]!, `$dead.${group}.**`, poison.length)
        const dead = letters.map(({ headers }) => headers!["dead-id"]!)
        expect(dead.toSorted()).toEqual(poison.toSorted())
        expect(crew.problems).toEqual([])
        const buried = dead.map((id): Seen => ({ what: "buried", id, attempt: 0, at: 0 }))
        const journal = [...crew.journal.toSorted((a, b) => a.at - b.at), ...buried]
        expect(problemsOf(journal, events, { keyOrdered, oneAuthor: false })).toEqual([])
        for (const one of all) expect((await one.hub().stop()).code).toBe(0)
      } finally {
        console.log(`seed ${seed}\n${history.lines.join("\n")}`)
      }
    })
  }
})
