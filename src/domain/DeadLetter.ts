/**
 * Dead letters: what becomes of an event that a group gave up.
 *
 * It is an event of a topic of the hub's own, `$dead.<group>.<topic>`, with the payload, key and type of the
 * original, so that whatever reads the original reads it, too. Where it comes from stands in its headers.
 */
import * as Result from "effect/Result"
import * as Event from "./Event.ts"
import type { RedriveFilter } from "./Group.ts"

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
  storedAt: "dead-stored-at",
  attempts: "dead-attempts",
  reason: "dead-reason",
  /** How often it came back before. */
  redrives: "dead-redrives",
  /** Of an event that came back: the id of the letter it comes from. */
  letter: "dead-letter"
} as const

/** The hub's own events have to fit wherever the original did, however much is said about them. */
export const unlimited: Event.EventLimits = {
  maxPayloadBytes: Infinity,
  maxNameLength: Infinity,
  maxHeaders: Infinity,
  maxHeadersLength: Infinity,
  maxTags: Infinity,
  maxJsonDepth: Infinity
}

/**
 * The dead letter of an event. Its id is made of the event's, of the life of the group's position and of how often
 * it came back, so that appending it again after a crash adds nothing, and a second death is a second letter.
 */
export const deadLetter = (death: {
  readonly record: Event.StoredRecord
  readonly group: string
  readonly generation: string
  readonly attempts: number
  readonly reason: string
  /** How often it came back before. */
  readonly redrives: number
}): Event.EventRecord => {
  const { attempts, generation, group, reason, record, redrives } = death
  const { seq: _seq, storedAt: _storedAt, ...event } = Event.decode(record)
  return Result.getOrThrow(
    Event.encodeEvent(
      {
        ...event,
        id: redrives === 0 ? `${record.id}:${generation}` : `${record.id}:${generation}:${redrives}`,
        topic: deadLetterTopic(group, record.topic),
        headers: {
          ...event.headers,
          [headers.group]: group,
          [headers.topic]: record.topic,
          [headers.seq]: String(record.seq),
          [headers.id]: record.id,
          [headers.storedAt]: String(record.storedAt),
          [headers.attempts]: String(attempts),
          [headers.reason]: reason,
          [headers.redrives]: String(redrives)
        }
      },
      unlimited
    )
  )
}

/** What a dead letter says of itself. */
export interface Death {
  readonly group: string
  readonly topic: string
  readonly seq: number
  readonly id: string
  readonly storedAt: number
  readonly attempts: number
  readonly reason: string
  readonly redrives: number
}

/** Reads the headers of a letter; nothing when it is none. */
export const deathOf = (letter: Event.StoredRecord): Death | undefined => {
  const said = Event.decode(letter).headers ?? {}
  const group = said[headers.group]
  const topic = said[headers.topic]
  const id = said[headers.id]
  const seq = Number(said[headers.seq])
  if (group === undefined || topic === undefined || id === undefined || !Number.isSafeInteger(seq))
    return undefined
  const count = (name: string, otherwise: number) => {
    const n = Number(said[name] ?? otherwise)
    return Number.isFinite(n) ? n : otherwise
  }
  return {
    group,
    topic,
    seq,
    id,
    storedAt: count(headers.storedAt, letter.storedAt),
    attempts: count(headers.attempts, 0),
    reason: said[headers.reason] ?? "",
    redrives: count(headers.redrives, 0)
  }
}

/** Whether a letter is among those that a filter asks for. */
export const isAskedFor = (filter: RedriveFilter, letter: Event.StoredRecord, death: Death): boolean => {
  const { ids, key, letters, reason, since, until } = filter
  return (
    (letters === undefined || letters.includes(letter.seq)) &&
    (ids === undefined || ids.includes(death.id)) &&
    (key === undefined || letter.key === key) &&
    (reason === undefined || death.reason.includes(reason)) &&
    (since === undefined || letter.storedAt >= since) &&
    (until === undefined || letter.storedAt < until)
  )
}

/** The event of a letter as it comes back: the original, at its place, with where it has been in its headers. */
export const revived = (letter: Event.StoredRecord, death: Death): Event.StoredRecord => {
  const { id, redrives, seq, storedAt, topic } = death
  const { seq: _seq, storedAt: _storedAt, ...event } = Event.decode(letter)
  const lineage = { [headers.letter]: letter.id, [headers.redrives]: String(redrives + 1) }
  const record = Result.getOrThrow(
    Event.encodeEvent({ ...event, id, topic, headers: { ...event.headers, ...lineage } }, unlimited)
  )
  return { ...record, seq, storedAt }
}
