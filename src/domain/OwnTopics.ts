/**
 * The hub's own topics, and which topics they speak of.
 *
 * `$dead.<group>.<topic>` holds what a group gave up, and is stored like any other topic. `$hub.…` tells of the hub
 * itself while somebody listens, and is stored nowhere: `$hub.stats`, `$hub.topic.<topic>` and
 * `$hub.group.<group>.<topic>`. Whoever reads one has to have the right to the topic that it names as well.
 */
import { originalsOf } from "./DeadLetter.ts"

export const statsTopic = "$hub.stats"

export const topicTopic = (topic: string): string => `$hub.topic.${topic}`

export const groupTopic = (group: string, topic: string): string => `$hub.group.${group}.${topic}`

/** Whether a topic, or all that a pattern matches, is made while somebody listens, and stored nowhere. */
export const isLive = (pattern: string): boolean => pattern === "$hub" || pattern.startsWith("$hub.")

type Segments = ReadonlyArray<string>

/** What is left of a pattern behind a first segment: this one, or any. Several, where `**` may stand for more. */
const behind = (pattern: Segments, segment: string | undefined): ReadonlyArray<Segments> => {
  const [first, ...rest] = pattern
  if (first === undefined) return []
  if (first === "**") return [pattern, ...behind(rest, segment)]
  return first === "*" || segment === undefined || first === segment ? [rest] : []
}

/** Topics are named behind these; nothing stands for any one segment. */
const places: ReadonlyArray<ReadonlyArray<string | undefined>> = [["topic"], ["group", undefined]]

const namedLive = (pattern: string): ReadonlyArray<string> => {
  const [, ...segments] = pattern.split(".").filter((one, i, all) => one !== "**" || all[i - 1] !== "**")
  const named = new Set<string>()
  for (const place of places) {
    let open: ReadonlyArray<Segments> = [segments]
    for (const segment of place) open = open.flatMap((rest) => behind(rest, segment))
    for (const rest of open) if (rest.length > 0) named.add(rest.join("."))
  }
  // Nothing is told of what is not stored.
  return [...named].filter((one) => !isLive(one))
}

/**
 * The topics that the hub's own topics of a pattern name, as patterns; none when it matches no such topic. They may
 * be those of dead letters, which a wildcard in the first place does not match: it is decided about each of them
 * when it is about to go out.
 */
export const namedBy = (pattern: string): ReadonlyArray<string> => {
  if (isLive(pattern)) return namedLive(pattern)
  const originals = originalsOf(pattern)
  return originals === undefined ? [] : [originals]
}
