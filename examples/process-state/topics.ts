/**
 * What the publisher and the page agree on: one topic, with one value per process. Both sides get their types from
 * here, and what does not fit is refused on both.
 */
import { defineTopics } from "event-hub/client"
import * as v from "valibot"

export const topic = "process.state"

const count = v.pipe(v.number(), v.integer(), v.minValue(0))

export const ProcessState = v.object({
  pid: count,
  name: v.string(),
  state: v.picklist(["running", "sleeping", "waiting", "idle", "stopped", "zombie", "unknown"]),
  /** Of one core, since it was looked at before; 0 at first sight. */
  cpuPercent: v.pipe(v.number(), v.minValue(0)),
  rssBytes: count,
  /** Milliseconds since 1970. */
  startedAt: v.number()
})

export type ProcessState = v.InferOutput<typeof ProcessState>

/** The key of each event is the pid. `null`: the process is gone, and its key with it. */
export const topics = defineTopics({ [topic]: v.nullable(ProcessState) })
