/**
 * How a consumer group is registered: its options, which stay as they are for as long as it is, and what becomes of
 * a member that wants others.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

export interface GroupOptions {
  /** How long a member has to answer, in milliseconds. */
  readonly ackTimeoutMs: number
  /** Deliveries of one event before it goes to the dead letters. */
  readonly maxAttempts: number
  /** Events of one key strictly in their order, one at a time. */
  readonly keyOrdered: boolean
}

/** A durable consumer group. Its options are fixed for as long as it is registered. */
export interface Registration {
  readonly group: string
  readonly pattern: string
  readonly options: GroupOptions
  readonly registeredAt: number
  /** The life of the event store that its positions belong to. */
  readonly history: string
  /** Nothing is delivered to its members; what they have can be answered. Of the group, with all its patterns. */
  readonly paused: boolean
  /** When a member was last known to be there, by the store's clock. Of the group, with all its patterns. */
  readonly lastUsedAt: number
}

/** The group exists with another pattern or other options. */
export class GroupConflict extends Schema.TaggedError<GroupConflict>()("GroupConflict", {
  group: Schema.String,
  differs: Schema.Array(Schema.String)
}) {
  override get message() {
    return `group '${this.group}' is registered with another ${this.differs.join(" and another ")}`
  }
}

/**
 * Which of the wanted values differ from the registered ones. A group is known by its name and pattern, so
 * the pattern is not among them; what is not given does not differ.
 */
export const conflicts = (
  registered: Registration,
  wanted: Partial<GroupOptions>
): Result.Result<Registration, GroupConflict> => {
  const names = ["ackTimeoutMs", "maxAttempts", "keyOrdered"] as const
  const differs = names.filter(
    (name) => wanted[name] !== undefined && wanted[name] !== registered.options[name]
  )
  return differs.length === 0
    ? Result.succeed(registered)
    : Result.fail(new GroupConflict({ group: registered.group, differs }))
}

/** `conflicts` as an Effect. */
export const agree = (
  registered: Registration,
  wanted: Partial<GroupOptions>
): Effect.Effect<Registration, GroupConflict> => Effect.fromResult(conflicts(registered, wanted))
