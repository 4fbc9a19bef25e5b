/**
 * From where a subscription wants to begin to a position in each topic that exists.
 *
 * Shared by live subscribers and by groups that are registered. Topics that are born later begin before their
 * first event, whatever was wanted.
 */
import { Effect } from "effect"
import type { Position } from "../../domain/Event.ts"
import type { Pattern } from "../../domain/Topic.ts"
import type { From } from "../../protocol/Messages.ts"
import type { EventStore } from "../../services/EventStore.ts"
import { UnrecoverablePosition } from "../../services/LiveFeed.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"

const known = (
  topic: string,
  position: Position,
  head: Position
): Effect.Effect<Position, UnrecoverablePosition> =>
  position <= head
    ? Effect.succeed(position)
    : Effect.fail(
        new UnrecoverablePosition({ reason: `'${topic}' ends at ${head}, before position ${position}` })
      )

export const positionsOf = (
  store: EventStore["Service"],
  heads: ReadonlyMap<string, Position>,
  from: From,
  pattern: Pattern
): Effect.Effect<ReadonlyMap<string, Position>, UnrecoverablePosition | StoreUnavailable> =>
  Effect.gen(function* () {
    if (from === "new") return heads
    if (from === "start") return new Map(Array.from(heads.keys(), (topic) => [topic, 0]))
    const positions = new Map<string, Position>()
    if ("after" in from) {
      const head = heads.get(pattern.name) ?? 0
      const position = yield* known(pattern.name, from.after, head)
      return head === 0 ? positions : positions.set(pattern.name, position)
    }
    if ("time" in from) {
      for (const topic of heads.keys()) {
        positions.set(topic, yield* store.readTime({ topic, time: from.time }))
      }
      return positions
    }
    for (const [topic, position] of Object.entries(from.topics)) {
      yield* known(topic, position, heads.get(topic) ?? 0)
    }
    for (const [topic, head] of heads) {
      // A topic may be called `constructor`: only what was given counts.
      const given = Object.hasOwn(from.topics, topic) ? from.topics[topic] : undefined
      positions.set(topic, given ?? (from.rest === "new" ? head : 0))
    }
    return positions
  })
