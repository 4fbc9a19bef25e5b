/**
 * Events of a topic as lines, ready to be sent.
 *
 * The text is put together by SQLite and comes as bytes: of an event that is only passed on, nothing is made here that
 * would have to be collected. How many fit is found by their sizes, which are known without reading them.
 *
 * These are several looks, and a trim may be committed between two of them: what is gone then lies before the floor.
 */
import type { EventLines } from "../../domain/Event.ts"
import type { Statements } from "./statements.ts"

interface TopicRow {
  readonly id: number
  readonly head: number
  readonly floor: number
}

interface LinesRow {
  readonly count: number
  readonly first: number | null
  readonly last: number | null
  readonly bytes: Uint8Array | null
}

export const linesAfter = (
  statements: Statements,
  range: {
    readonly topic: string
    readonly after: number
    readonly limit: number
    readonly maxBytes: number
  }
): EventLines | undefined => {
  let floor = -1
  for (;;) {
    const topic = statements.get<TopicRow>("topic", range.topic)
    // While the floor does not rise nothing is taken away, and nothing is there.
    if (topic === undefined || topic.floor <= floor) return undefined
    floor = topic.floor
    const after = Math.max(range.after, floor)
    let limit = Math.min(range.limit, topic.head - after)
    while (limit > 1) {
      const sizes = statements.get<{ readonly bytes: number | null }>(
        "bodySizes",
        topic.id,
        after,
        after + limit
      )
      const bytes = sizes?.bytes ?? 0
      if (bytes <= range.maxBytes) break
      // Events differ in size: what is cut by their mean may be too much still.
      limit = Math.max(1, Math.min(limit - 1, Math.floor((limit * range.maxBytes) / bytes)))
    }
    if (limit < 1) return undefined
    const row = statements.get<LinesRow>("linesAfter", topic.id, after, after + limit)
    if (row !== undefined && row.bytes !== null && row.first !== null && row.last !== null) {
      return { bytes: row.bytes, count: row.count, first: row.first, last: row.last }
    }
  }
}
