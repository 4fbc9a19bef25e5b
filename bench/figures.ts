/** What is made of many measured times, and what the machine itself takes. */
import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Row } from "./Scenario.ts"

export const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

const quantile = (sorted: ArrayLike<number>, q: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? NaN

/** `p50 ms` and `p99 ms` of these times. */
export const percentiles = (times: Iterable<number>, of = ""): Row["figures"] => {
  const sorted = Float64Array.from(times).sort()
  return { [`${of}p50 ms`]: quantile(sorted, 0.5), [`${of}p99 ms`]: quantile(sorted, 0.99) }
}

/** How long each write to the end of a file takes until it is on the disk, where everybody here has their files. */
export const fsyncTimes = (count: number): ReadonlyArray<number> => {
  const directory = mkdtempSync(join(tmpdir(), "event-hub-bench-"))
  const file = openSync(join(directory, "fsync"), "w")
  const page = Buffer.alloc(4_096)
  try {
    return Array.from({ length: count }, () => {
      const begin = performance.now()
      writeSync(file, page)
      fsyncSync(file)
      return performance.now() - begin
    })
  } finally {
    closeSync(file)
    rmSync(directory, { recursive: true })
  }
}

/** The memory of a process that is not paged out, in bytes; NaN where there is no /proc (proc(5): `status`). */
export const rssBytes = (pid: number | undefined): number => {
  try {
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? NaN) * 1024
  } catch {
    return NaN
  }
}

/** A monotonic time in milliseconds that is the same in all threads and processes of the machine. */
export const sharedNow = (): number => Number(process.hrtime.bigint()) / 1e6
