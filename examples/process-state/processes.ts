/** What is pure about a list of processes: reading the lines of `/proc` and `ps`, and what changed between two lists. */
import type { ProcessState } from "./topics.ts"

/** By key, which is the pid. */
export type States = ReadonlyMap<string, ProcessState>

const words: Readonly<Record<string, ProcessState["state"]>> = {
  R: "running",
  S: "sleeping",
  D: "waiting",
  U: "waiting",
  I: "idle",
  T: "stopped",
  t: "stopped",
  Z: "zombie"
}

const wordOf = (letter: string): ProcessState["state"] => words[letter] ?? "unknown"

const round = (percent: number): number => Math.max(0, Math.round(percent * 10) / 10)

// --- /proc ---------------------------------------------------------------------------------------------------

/** A process in the kernel's own units. */
export interface Stat {
  readonly pid: number
  readonly name: string
  readonly state: ProcessState["state"]
  /** CPU time it has used. */
  readonly ticks: number
  /** Since the machine started. */
  readonly startTicks: number
  readonly rssPages: number
}

/** `/proc/<pid>/stat`, see proc_pid_stat(5). A name may hold spaces, brackets and line breaks; nothing behind it does. */
export const parseStat = (text: string): Stat | undefined => {
  const begin = text.indexOf(" (")
  const end = text.lastIndexOf(") ")
  if (begin < 1 || end < begin + 2) return undefined
  const [letter = "", ...rest] = text.slice(end + 2).split(" ")
  // The first of them is the fourth field of the line.
  const numbers = rest.map(Number)
  const field = (n: number): number => numbers[n - 4] ?? Number.NaN
  const stat: Stat = {
    pid: Number(text.slice(0, begin)),
    name: text.slice(begin + 2, end),
    state: wordOf(letter),
    ticks: field(14) + field(15),
    startTicks: field(22),
    rssPages: field(24)
  }
  const { pid, rssPages, startTicks, ticks } = stat
  return [pid, rssPages, startTicks, ticks].every(Number.isFinite) ? stat : undefined
}

/** What the kernel's units are worth here. */
export interface Units {
  readonly ticksPerSecond: number
  readonly bytesPerPage: number
  /** When the machine started, in milliseconds since 1970. */
  readonly bootedAt: number
}

export interface Sample {
  /** In milliseconds, by a clock that does not jump. */
  readonly at: number
  readonly stats: ReadonlyMap<string, Stat>
}

const cpuOf = (stat: Stat, elapsedMs: number, before: Stat | undefined, units: Units): number => {
  // A pid may be another process by now.
  if (before?.startTicks !== stat.startTicks || elapsedMs <= 0) return 0
  return round(((stat.ticks - before.ticks) / units.ticksPerSecond / elapsedMs) * 100_000)
}

/** A sample as states; how busy a process is shows only against the sample before. */
export const statesOf = (sample: Sample, before: Sample | undefined, units: Units): States =>
  new Map(
    Array.from(sample.stats, ([key, stat]) => [
      key,
      {
        pid: stat.pid,
        name: stat.name,
        state: stat.state,
        cpuPercent: cpuOf(stat, sample.at - (before?.at ?? sample.at), before?.stats.get(key), units),
        rssBytes: stat.rssPages * units.bytesPerPage,
        startedAt: Math.round(units.bootedAt + (stat.startTicks / units.ticksPerSecond) * 1_000)
      }
    ])
  )

// --- ps ------------------------------------------------------------------------------------------------------

/** What `parsePsLine` reads, with `LC_ALL=C` and `TZ=UTC`. The name comes last, as it may hold spaces. */
export const psArguments = ["-A", "-o", "pid=,stat=,pcpu=,rss=,lstart=,comm="] as const

const psLine = /^\s*(\d+)\s+(\S)\S*\s+([\d.]+)\s+(\d+)\s+\w+\s+(\w+\s+\d+\s+[\d:]+\s+\d+)\s+(.*\S)\s*$/

export const parsePsLine = (line: string): ProcessState | undefined => {
  const [, pid, letter = "", cpu, kibibytes, started, command = ""] = psLine.exec(line) ?? []
  const startedAt = Date.parse(`${started} UTC`)
  if (Number.isNaN(startedAt)) return undefined
  const name = command.replace(/ <defunct>$/, "")
  return {
    pid: Number(pid),
    // Some have the whole path here.
    name: name.startsWith("/") ? name.slice(name.lastIndexOf("/") + 1) : name,
    state: wordOf(letter),
    cpuPercent: round(Number(cpu)),
    rssBytes: Number(kibibytes) * 1024,
    startedAt
  }
}

// --- changes -------------------------------------------------------------------------------------------------

export interface Change {
  readonly key: string
  /** `null`: it is gone. */
  readonly state: ProcessState | null
}

const isSame = (a: ProcessState, b: ProcessState | undefined): boolean =>
  a.pid === b?.pid &&
  a.name === b.name &&
  a.state === b.state &&
  a.cpuPercent === b.cpuPercent &&
  a.rssBytes === b.rssBytes &&
  a.startedAt === b.startedAt

/** What makes `known` into `current`, and nothing more. */
export const changesBetween = (known: States, current: States): ReadonlyArray<Change> => {
  const gone = [...known.keys()].filter((key) => !current.has(key))
  const changed = [...current].filter(([key, state]) => !isSame(state, known.get(key)))
  return [...gone.map((key) => ({ key, state: null })), ...changed.map(([key, state]) => ({ key, state }))]
}
