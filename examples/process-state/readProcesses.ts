/** The processes of this machine: from `/proc` where there is one, else by `ps`. */
import { execFile } from "node:child_process"
import { readdir, readFile } from "node:fs/promises"
import { promisify } from "node:util"
import {
  parsePsLine,
  parseStat,
  psArguments,
  type Sample,
  type Stat,
  type States,
  statesOf,
  type Units
} from "./processes.ts"

/** Gives what runs now. Names only: the arguments of a command may hold what nobody else should see. */
export type ReadProcesses = () => Promise<States>

const run = promisify(execFile)

const fromPs: ReadProcesses = async () => {
  const running = run("ps", psArguments, {
    env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
    maxBuffer: 64 * 1024 * 1024
  })
  const { stdout } = await running
  const states = stdout.split("\n").flatMap((line) => parsePsLine(line) ?? [])
  // It sees itself, and is gone.
  return new Map(
    states.filter(({ pid }) => pid !== running.child.pid).map((state) => [String(state.pid), state])
  )
}

const configured = async (name: string): Promise<number> => Number((await run("getconf", [name])).stdout)

const unitsHere = async (): Promise<Units> => {
  const [stat, ticksPerSecond, bytesPerPage] = await Promise.all([
    readFile("/proc/stat", "utf8"),
    configured("CLK_TCK"),
    configured("PAGESIZE")
  ])
  const [, booted] = /^btime (\d+)$/m.exec(stat) ?? []
  if (booted === undefined) throw new Error("/proc/stat does not say when the machine started")
  return { ticksPerSecond, bytesPerPage, bootedAt: Number(booted) * 1_000 }
}

/** Nothing where the process ended while it was looked at. */
const statOf = async (pid: string): Promise<Stat | undefined> => {
  try {
    return parseStat(await readFile(`/proc/${pid}/stat`, "utf8"))
  } catch {
    return undefined
  }
}

const takeSample = async (): Promise<Sample> => {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const stats = await Promise.all(pids.map(statOf))
  return {
    at: performance.now(),
    stats: new Map(stats.flatMap((stat) => (stat ? [[String(stat.pid), stat] as const] : [])))
  }
}

const fromProc = (units: Units): ReadProcesses => {
  let before: Sample | undefined
  return async () => {
    const sample = await takeSample()
    const states = statesOf(sample, before, units)
    before = sample
    return states
  }
}

export const processReader = async (source: "any" | "ps" = "any"): Promise<ReadProcesses> => {
  const units = source === "ps" ? undefined : await unitsHere().catch(() => undefined)
  return units === undefined ? fromPs : fromProc(units)
}
