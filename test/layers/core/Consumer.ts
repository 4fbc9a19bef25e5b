/** A member of a group that writes down what it gets, and answers when a test says so. */
import { Effect, type Scope } from "effect"
import type { GroupConflict, GroupOptions, Outcome } from "../../../src/domain/Group.ts"
import type { EndReason, From } from "../../../src/protocol/Messages.ts"
import {
  type Answer,
  GroupDelivery,
  type GroupEvent,
  type Member
} from "../../../src/services/GroupDelivery.ts"
import type { UnrecoverablePosition } from "../../../src/services/LiveFeed.ts"
import type { StoreUnavailable } from "../../../src/services/StoreUnavailable.ts"
import { pattern } from "./Follower.ts"

export interface Wanted {
  readonly pattern?: string
  readonly group?: string
  readonly from?: From
  readonly history?: string
  readonly credit?: number
  readonly options?: Partial<GroupOptions>
}

export class Consumer {
  readonly wanted: Wanted
  readonly deliveries: Array<GroupEvent> = []
  readonly gaps: Array<{ readonly topic: string; readonly from: number; readonly to: number }> = []
  readonly ends: Array<EndReason> = []
  /** What it does with an event at once. */
  handle = (_event: GroupEvent): void => {}
  #member: Member | undefined

  constructor(wanted: Wanted = {}) {
    this.wanted = wanted
  }

  readonly join: Effect.Effect<
    Member,
    GroupConflict | UnrecoverablePosition | StoreUnavailable,
    GroupDelivery | Scope.Scope
  > = Effect.suspend(() =>
    Effect.gen({ self: this }, function* () {
      const {
        credit = 100,
        from = "start",
        group = "g",
        history,
        options = {},
        pattern: name = "a"
      } = this.wanted
      this.#member = yield* GroupDelivery.use((delivery) =>
        delivery.join({
          pattern: pattern(name),
          group,
          wanted: options,
          from,
          history,
          credit,
          sink: {
            deliver: (events) => {
              this.deliveries.push(...events)
              for (const event of events) this.handle(event)
            },
            gap: (gap) => this.gaps.push(gap),
            end: (reason) => this.ends.push(reason)
          }
        })
      )
      return this.#member
    })
  )

  get member(): Member {
    if (this.#member === undefined) throw new Error("it has not joined")
    return this.#member
  }

  /** `id#attempt` of everything that came, in its order. */
  get story(): ReadonlyArray<string> {
    return this.deliveries.map(({ attempt, record }) => `${record.id}#${attempt}`)
  }

  get ids(): ReadonlyArray<string> {
    return this.deliveries.map(({ record }) => record.id)
  }

  answer(answer: Answer): Effect.Effect<ReadonlyArray<Outcome>, StoreUnavailable> {
    return Effect.callback((resume) => {
      this.member.answer(answer, (outcomes) =>
        resume("_tag" in outcomes ? Effect.fail(outcomes) : Effect.succeed(outcomes))
      )
    })
  }

  ack(...ids: ReadonlyArray<string>) {
    return this.answer({ _tag: "Ack", topic: this.wanted.pattern ?? "a", ids })
  }

  nack(id: string, more: Partial<Extract<Answer, { readonly _tag: "Nack" }>> = {}) {
    const topic = this.wanted.pattern ?? "a"
    return this.answer({ _tag: "Nack", topic, ids: [id], mode: "fail", reason: "no luck", ...more })
  }
}

/** Joins and starts, until the scope closes. */
export const join = (wanted: Wanted = {}) => {
  const consumer = new Consumer(wanted)
  return Effect.map(consumer.join, (member) => {
    member.start()
    return consumer
  })
}
