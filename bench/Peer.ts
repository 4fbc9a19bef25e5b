/** What a benchmark does, in terms that every system can do: the same work for ours and for its peers. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer, type AddressInfo, connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** Durable work: a publisher that is answered when the event is durable, a consumer that acknowledges each. */
export interface DurableSession {
  readonly publish: () => Promise<unknown>
  /** Calls back when an acknowledgement was sent (ours: answered) for an event. */
  readonly consume: (onAcked: () => void) => Promise<void>
  readonly close: () => Promise<void>
}

/** Fan-out: one publisher, many subscribers of one topic, each on a connection of its own. */
export interface FanoutSession {
  /** Events for every subscriber, with these numbers; not answered. */
  readonly publish: (from: number, count: number) => void
  /** Calls back with the number of each event, taken out of its parsed payload. */
  readonly subscribe: (onEvent: (n: number) => void) => Promise<void>
  /** Calls back with how many events came; all clients do the same work for that (peers/counters.ts). */
  readonly count: (onEvents: (count: number) => void) => Promise<void>
  readonly close: () => Promise<void>
}

/** Connections that are let in, each with one subscription, on a topic of its own; there it may publish, too. */
export interface ConnectionsSession {
  /** The process of the server. */
  readonly pid: number | undefined
  readonly connect: (
    topic: string,
    onEvent: (n: number) => void
  ) => Promise<{ readonly publish: (n: number) => void }>
  readonly close: () => Promise<void>
}

export interface Peer<Session> {
  readonly name: string
  /** Why it cannot take part here. */
  readonly missing: () => string | undefined
  readonly start: () => Promise<Session>
}

/** 200 bytes of JSON, parsed by consumers as they would. */
export const payload = { type: "order.created", payload: { n: 1, note: "x".repeat(148) } }
export type Payload = typeof payload
export const body = JSON.stringify(payload)

/** The same with another number. */
export const bodyOf = (n: number): string => body.replace('"n":1', `"n":${n}`)

export const has = (command: string): boolean => spawnSync("which", [command]).status === 0

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

export interface Broker {
  readonly directory: string
  readonly process: ChildProcess
  readonly stop: () => Promise<void>
}

/** A server in a process and a directory of its own, which both go away with it; `prepare` comes before it. */
export const startBroker = async (
  command: string,
  args: (directory: string) => ReadonlyArray<string>,
  env: (directory: string) => Readonly<Record<string, string>> = () => ({}),
  prepare: (directory: string) => Promise<void> = () => Promise.resolve()
): Promise<Broker> => {
  const directory = await mkdtemp(join(tmpdir(), "event-hub-bench-"))
  await prepare(directory)
  const child = spawn(command, args(directory), {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env(directory) }
  })
  const exited = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  const kill = () => child.kill("SIGKILL")
  process.once("exit", kill)
  return {
    directory,
    process: child,
    stop: async () => {
      child.kill("SIGTERM")
      const timer = setTimeout(kill, 6_000)
      await exited
      clearTimeout(timer)
      process.off("exit", kill)
      await rm(directory, { recursive: true, force: true })
    }
  }
}

/**
 * The processor time that a process has had, in milliseconds; NaN where there is no /proc (proc(5): `stat`, in ticks
 * of 10 ms). It says more than the clock where other work shares the machine.
 */
export const cpuMs = (pid: number | undefined): number => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    return (Number(fields[11]) + Number(fields[12])) * 10
  } catch {
    return NaN
  }
}

/** Waits until something listens on the port. */
export const listening = async (port: number): Promise<void> => {
  for (let i = 0; i < 200; i++) {
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1")
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false))
      socket.once("connect", () => socket.destroy())
    })
    if (open) return
    await sleep(25)
  }
  throw new Error(`nothing listens on port ${port}`)
}
