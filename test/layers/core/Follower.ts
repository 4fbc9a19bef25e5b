/** A live subscriber that writes down what it gets. */
import { Effect, Result, type Scope } from "effect"
import type { StoredRecord } from "../../../src/domain/Event.ts"
import * as Topic from "../../../src/domain/Topic.ts"
import type { From } from "../../../src/protocol/Messages.ts"
import {
  type LiveBatch,
  LiveFeed,
  type LiveGap,
  type LiveSubscription,
  type UnrecoverablePosition
} from "../../../src/services/LiveFeed.ts"
import type { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"

export interface Follow {
  readonly pattern: string
  readonly from?: From
  readonly history?: string
}

export const pattern = (name: string): Topic.Pattern => Result.getOrThrow(Topic.parsePattern(name))

export class Follower {
  readonly follow: Follow
  /** Events and gaps in the order of their coming. */
  readonly items: Array<StoredRecord | LiveGap> = []
  readonly batches: Array<LiveBatch> = []
  /** Answers whether it takes a batch. */
  takes = (_batch: LiveBatch): boolean => true
  /** Batches that should not have come: empty ones, and those after the end. */
  readonly strays: Array<LiveBatch> = []
  subscription: LiveSubscription | undefined
  isOver = false

  constructor(follow: Follow) {
    this.follow = follow
  }

  readonly subscribe: Effect.Effect<
    LiveSubscription,
    UnrecoverablePosition | StoreUnavailable,
    LiveFeed | Scope.Scope
  > = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const feed = yield* LiveFeed
      const { from = "new", history, pattern: name } = this.follow
      yield* Effect.addFinalizer(() => Effect.sync(() => (this.isOver = true)))
      this.subscription = yield* feed.subscribe({
        pattern: pattern(name),
        from,
        history,
        sink: {
          deliver: (batch) => {
            if (this.isOver || batch.records.length === 0) this.strays.push(batch)
            if (!this.takes(batch)) return false
            this.batches.push(batch)
            this.items.push(...batch.records)
            return true
          },
          gap: (gap) => this.items.push(gap)
        }
      })
      this.subscription.start()
      return this.subscription
    })
  )

  get events(): ReadonlyArray<StoredRecord> {
    return this.items.filter((item) => "seq" in item)
  }

  get gaps(): ReadonlyArray<LiveGap> {
    return this.items.filter((item) => "from" in item)
  }

  seqs(topic: string): ReadonlyArray<number> {
    return this.events.filter((event) => event.topic === topic).map(({ seq }) => seq)
  }

  /** `topic:seq` of everything that came, and `topic:from-to` of gaps. */
  get story(): ReadonlyArray<string> {
    return this.items.map((item) =>
      "seq" in item ? `${item.topic}:${item.seq}` : `${item.topic}:${item.from}-${item.to}`
    )
  }
}

/** Subscribes and starts, until the scope closes. */
export const follow = (wanted: Follow) => {
  const follower = new Follower(wanted)
  return Effect.as(follower.subscribe, follower)
}
