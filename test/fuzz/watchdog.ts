/** Ends a process that has been busy with one input for too long, with what it started, and says with which. */
import { Worker } from "node:worker_threads"

const code = `
  const { workerData: { shared, names, seed, patienceMs, pids } } = require("node:worker_threads")
  const at = new Int32Array(shared)
  let before = "", since = Date.now()
  setInterval(() => {
    const now = at[0] + " " + at[1]
    if (now !== before) { before = now; since = Date.now(); return }
    if (Date.now() - since < patienceMs) return
    require("node:fs").writeSync(2, "HANGS: " + names[at[0]] + " at " + at[1] + ", seed " + seed + "\\n")
    for (const pid of [...pids, process.pid]) try { process.kill(pid, "SIGKILL") } catch {}
  }, 1_000)
`

/** Tell it which target works on which input. */
export const watch = (
  names: ReadonlyArray<string>,
  seed: number,
  pids: ReadonlyArray<number>,
  patienceMs = 30_000
): ((target: number, input: number) => void) => {
  const shared = new SharedArrayBuffer(8)
  const at = new Int32Array(shared)
  new Worker(code, { eval: true, workerData: { shared, names, seed, patienceMs, pids } }).unref()
  return (target, input) => {
    at[0] = target
    at[1] = input
  }
}
