/**
 * Dead letters: what becomes of an event that a group gave up.
 *
 * It is an event of a topic of the hub's own, `$dead.<group>.<topic>`, with the payload, key and type of the
 * original, so that whatever reads the original reads it, too. Where it comes from stands in its headers.
 */
import { Result } from "effect"
import * as Event from "./Event.ts"

const prefix = "$dead."

export const deadLetterTopic = (group: string, topic: string): string => `${prefix}${group}.${topic}`

/** Dead letters are never given up a second time: a group on them tries for ever. */
export const isDeadLetterTopic = (topic: string): boolean => topic.startsWith(prefix)

/**
 * The originals of the dead letters that a pattern matches, as a pattern; none when it matches no dead letter.
 * A dead letter holds its original's payload, so it takes the right to that as well.
 */
export const originalsOf = (pattern: string): string | undefined => {
  const segments = pattern.split(".").filter((segment, i, all) => segment !== "**" || all[i - 1] !== "**")
  const [first, group, ...original] = segments
  if (first !== "$dead" || group === undefined) return undefined
  if (group !== "**") return original.length === 0 ? undefined : original.join(".")
  // The group is the first of what `**` stands for, or, where that is nothing, the segment behind it: no
  // pattern is both, so it is the one that matches more.
  return ["**", ...(original.length > 1 ? original.slice(1) : original)].join(".")
}

/** Where a dead letter comes from, as its headers say. All values are strings. */
export const headers = {
  group: "dead-group",
  topic: "dead-topic",
  seq: "dead-seq",
  id: "dead-id",
  attempts: "dead-attempts",
  reason: "dead-reason"
} as const

/** The hub's own events have to fit wherever the original did, however much is said about them. */
const unlimited: Event.EventLimits = {
  maxPayloadBytes: Infinity,
  maxNameLength: Infinity,
  maxHeaders: Infinity,
  maxHeadersLength: Infinity,
  maxTags: Infinity
}

/**
 * The dead letter of an event. Its id is made of the event's and of the life of the group's position, so that
 * appending it again after a crash adds nothing, and a second death is a second letter.
 */
export const deadLetter = (death: {
  readonly record: Event.StoredRecord
  readonly group: string
  readonly generation: string
  readonly attempts: number
  readonly reason: string
}): Event.EventRecord => {
  const { attempts, generation, group, reason, record } = death
  const { seq: _seq, storedAt: _storedAt, ...event } = Event.decode(record)
  return Result.getOrThrow(
    Event.encodeEvent(
      {
        ...event,
        id: `${record.id}:${generation}`,
        topic: deadLetterTopic(group, record.topic),
        headers: {
          ...event.headers,
          [headers.group]: group,
          [headers.topic]: record.topic,
          [headers.seq]: String(record.seq),
          [headers.id]: record.id,
          [headers.attempts]: String(attempts),
          [headers.reason]: reason
        }
      },
      unlimited
    )
  )
}
