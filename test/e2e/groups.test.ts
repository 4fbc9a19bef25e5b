/**
 * A consumer group in a world that falls apart: its hub is killed by SIGKILL under load, again and again, and so are
 * its members; handlers fail, and some events never succeed. Every event comes to its end nevertheless.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { closeSync, fstatSync, openSync, readSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it, onTestFinished } from "vitest"
import type { WebSocket } from "ws"
import { chance, newSeed } from "../../src/testing/chance.ts"
import { eventsOf, type Plan } from "../../src/testing/fate.ts"
import { type Expected, problemsOf, type Seen } from "../../src/testing/groupJournal.ts"
import { GroupMember, type GroupMemberOptions } from "../support/GroupMember.ts"
import type { HubProcess } from "../support/HubProcess.ts"
import { type Message, RawClient } from "../support/RawClient.ts"
import { returningHub } from "../support/ReturningHub.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { everything, tokenFor } from "../support/tokens.ts"

/** Where each change of a group's state goes to a server, a tenth of the events takes as long. */
const isOnServer = process.env["TEST_HUB_STORE"] === "mongo"
/**
 * A hub alone on its file gives out again at once what its predecessor had in flight. One of many cannot know that a hub
 * is dead, and waits for the time-out.
 */
const ackTimeoutMs = isOnServer ? 5_000 : 600_000

const plan: Plan = {
  events: isOnServer ? 5_000 : 50_000,
  topics: ["jobs.a", "jobs.b"],
  keys: 1_000,
  failures: 0.1,
  crashes: 0.01,
  poisonEach: 500
}
const group = "workers"
const restarts = 3
/** Of the five members, those that live in the test's process, and those that have one each. */
const guests = 3
const processes = 2
const credit = 40
const handlerMs = 2
/** Of a test; on an idle machine it takes a quarter of a minute. */
const limitMs = 400_000

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

// --- members -----------------------------------------------------------------------------------------------------

interface Crew {
  /** How many events were handled by now, once at least. */
  readonly handled: () => number
  readonly journal: () => ReadonlyArray<Seen>
  readonly problems: ReadonlyArray<string>
  readonly stop: () => void
}

const program = fileURLToPath(new URL("../support/groupMemberProcess.ts", import.meta.url))

/** What a process writes down, as far as it was read. */
class Notes {
  readonly #path: string
  #read = 0

  constructor(path: string) {
    this.#path = path
  }

  /** What is new. */
  next(): ReadonlyArray<Seen> {
    const file = openSync(this.#path, "r")
    try {
      const bytes = Buffer.alloc(fstatSync(file).size - this.#read)
      readSync(file, bytes, 0, bytes.length, this.#read)
      const end = bytes.lastIndexOf("\n") + 1
      this.#read += end
      const lines = bytes.toString("utf8", 0, end).split("\n").slice(0, -1)
      return lines.map((line): Seen => {
        const [what, id, attempt, at] = line.split(" ")
        return { what: what as Seen["what"], id: id!, attempt: Number(attempt), at: Number(at) }
      })
    } finally {
      closeSync(file)
    }
  }
}

/** Five members; whoever is lost comes back. */
const gather = async (options: GroupMemberOptions): Promise<Crew> => {
  const directory = temporaryDirectory()
  const journal: Array<Seen> = []
  const handled = new Set<string>()
  const notes: Array<Notes> = []
  const problems: Array<string> = []
  const children = new Set<ChildProcess>()
  const members: Array<GroupMember> = []
  let isOver = false

  const write = (seen: ReadonlyArray<Seen>): void => {
    journal.push(...seen)
    for (const { id, what } of seen) if (what === "acked") handled.add(id)
  }

  const spawnMember = (path: string): Promise<void> => {
    const child = spawn(process.execPath, [program, JSON.stringify(options), path], {
      stdio: ["pipe", "pipe", "pipe"]
    })
    children.add(child)
    child.stderr.on("data", (data: Buffer) => problems.push(data.toString()))
    const ended = once(child, "exit").then(([code, signal]) => {
      children.delete(child)
      if (isOver) return
      if (signal === "SIGKILL") void spawnMember(path)
      else problems.push(`a member ended with ${code} by ${signal}`)
    })
    return Promise.race([once(child.stdout, "data"), ended]).then(() => {})
  }

  const joinHere = (): Promise<void> =>
    new Promise((joined) => {
      const crash = (socket: WebSocket) => socket.terminate()
      const failed = (problem: string) => problems.push(problem)
      members.push(new GroupMember(options, { write, crash, joined, failed }))
    })

  const stop = () => {
    isOver = true
    for (const member of members) member.stop()
    for (const child of children) child.kill("SIGKILL")
  }
  onTestFinished(stop)

  const joined: Array<Promise<void>> = []
  for (let n = 0; n < processes; n++) {
    const path = join(directory, `member-${n}`)
    writeFileSync(path, "")
    notes.push(new Notes(path))
    joined.push(spawnMember(path))
  }
  for (let n = 0; n < guests; n++) joined.push(joinHere())
  await Promise.all(joined)

  const read = () => {
    for (const one of notes) write(one.next())
  }
  return {
    handled: () => {
      read()
      return handled.size
    },
    journal: () => {
      read()
      return journal.toSorted((a, b) => a.at - b.at)
    },
    problems,
    stop
  }
}

// --- the publisher -------------------------------------------------------------------------------------------------

const publishedAtOnce = 500

/** How many events are published and not handled at any time. */
const ahead = 5_000

/** Publishes in order; what a hub did not answer is published again, with the same ids, to the next. */
const publishAll = async (url: string, events: ReadonlyArray<Expected>, crew: Crew): Promise<void> => {
  let published = 0
  while (published < events.length) {
    const client = await RawClient.authenticated(url).catch(() => undefined)
    try {
      while (client !== undefined && published < events.length) {
        while (published - crew.handled() > ahead) await sleep(10)
        const some = events.slice(published, published + publishedAtOnce)
        const messages = some.map(({ id, key, topic }, i) => {
          return { op: "PUBLISH", ref: published + i, topic, payload: null, opts: { id, key } }
        })
        client.send(messages)
        const isAnswer = ({ op, ref }: Message) => op === "OK" && typeof ref === "number"
        await client.waitForAll("all answers", isAnswer, some.length)
        client.messages.length = 0
        client.frames.length = 0
        published += some.length
      }
    } catch {
      // The hub is gone, or too slow.
    }
    client?.socket.terminate()
    if (published < events.length) await sleep(50)
  }
}

// --- what the hub says -----------------------------------------------------------------------------------------------

/** Events that are not done. */
const pending = async (hub: HubProcess, token: string): Promise<number> => {
  const lags = plan.topics.map(async (topic) => {
    const answer = await fetch(`${hub.ops}/lag?topic=${topic}&group=${group}`, {
      headers: { authorization: `Bearer ${token}` }
    })
    expect(answer.status).toBe(200)
    return ((await answer.json()) as { readonly pending: number }).pending
  })
  return (await Promise.all(lags)).reduce((sum, one) => sum + one, 0)
}

/** The ids of the events that are dead letters. */
const deadLetters = async (url: string, expected: number): Promise<ReadonlyArray<string>> => {
  const reader = await RawClient.authenticated(url)
  const isLetter = ({ op }: Message) => op === "EVENT"
  reader.send({ op: "SUBSCRIBE", topic: `$dead.${group}.**`, opts: { from: "start" } })
  await reader.waitForAll("the dead letters", isLetter, expected)
  // A repeat or a stray one would come now.
  await reader.settled()
  const letters = reader.messages.filter(isLetter)
  await reader.close()
  return letters.map((message) => {
    const { headers } = message["event"] as { readonly headers: Readonly<Record<string, string>> }
    return headers["dead-id"]!
  })
}

const seed = newSeed()

for (const keyOrdered of [false, true]) {
  const title = `${plan.events} events come to their end${keyOrdered ? ", those of a key in their order" : ""}`
  it(`${title} (TEST_SEED=${seed})`, { timeout: limitMs }, async () => {
    const events = eventsOf(plan, chance(seed))
    const hub = await returningHub({ GROUP_RETRY_BASE_MS: "10", GROUP_RETRY_MAX_MS: "100" })
    const token = await tokenFor({ scopes: everything, expiresIn: 3_600 })
    const crew = await gather({
      url: hub.url,
      token,
      pattern: "jobs.*",
      group,
      seed,
      plan,
      opts: { from: "start", credit, keyOrdered, maxAttempts: 20, ackTimeoutMs },
      handlerMs
    })
    const publishing = publishAll(hub.url, events, crew)
    for (let n = 1; n <= restarts; n++) {
      while (crew.handled() < (events.length * n) / (restarts + 1)) {
        expect(crew.problems).toEqual([])
        await sleep(50)
      }
      await hub.hub().kill()
      await hub.start()
    }
    await publishing
    while ((await pending(hub.hub(), token)) > 0) await sleep(200)
    crew.stop()

    const poison = events.filter(({ isPoison }) => isPoison).map(({ id }) => id)
    const dead = await deadLetters(hub.url, poison.length)
    expect(crew.problems).toEqual([])
    expect(dead.toSorted()).toEqual(poison.toSorted())
    const buried = dead.map((id): Seen => ({ what: "buried", id, attempt: 0, at: 0 }))
    const journal = [...crew.journal(), ...buried]
    expect(problemsOf(journal, events, { keyOrdered, oneAuthor: false })).toEqual([])
    expect((await hub.hub().stop()).code).toBe(0)
  })
}
