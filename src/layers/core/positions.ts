/**
 * From where a subscription wants to begin to a position in each topic that exists.
 *
 * Shared by live subscribers and by groups that are registered. Topics that are born later begin before their
 * first event, whatever was wanted.
 */
import * as Effect from "effect/Effect"
import type { Position } from "../../domain/Event.ts"
import { matches, type Pattern } from "../../domain/Topic.ts"
import type { From } from "../../protocol/Messages.ts"
import type { EventStore } from "../../services/EventStore.ts"
import { UnrecoverablePosition } from "../../services/LiveFeed.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"

export const positionsOf = (
  store: EventStore["Service"],
  heads: ReadonlyMap<string, Position>,
  from: From,
  pattern: Pattern
): Effect.Effect<ReadonlyMap<string, Position>, UnrecoverablePosition | StoreUnavailable> =>
  Effect.gen(function* () {
    /** A position that somebody had. Another hub may have given it, and this one not know of that growth yet. */
    const resume = (topic: string, position: Position) =>
      Effect.gen(function* () {
        const head = heads.get(topic)
        if (position <= (head ?? 0)) return head === undefined ? undefined : position
        const found = matches(pattern, topic) ? yield* store.head(topic) : undefined
        if (found !== undefined && position <= found.head) return position
        const reason = `'${topic}' ends at ${found?.head ?? 0}, before position ${position}`
        return yield* new UnrecoverablePosition({ reason })
      })

    if (from === "new") return heads
    if (from === "start") return new Map(Array.from(heads.keys(), (topic) => [topic, 0]))
    const positions = new Map<string, Position>()
    if ("after" in from) {
      const position = yield* resume(pattern.name, from.after)
      return position === undefined ? positions : positions.set(pattern.name, position)
    }
    if ("time" in from) {
      for (const topic of heads.keys()) {
        positions.set(topic, yield* store.readTime({ topic, time: from.time }))
      }
      return positions
    }
    for (const [topic, head] of heads) positions.set(topic, from.rest === "new" ? head : 0)
    for (const [topic, given] of Object.entries(from.topics)) {
      const position = yield* resume(topic, given)
      if (position !== undefined) positions.set(topic, position)
    }
    return positions
  })
