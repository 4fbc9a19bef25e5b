/**
 * How a pattern meets a topic, segment by segment: one matcher for the hub and for clients.
 *
 * Greedy: only the last `**` is ever widened, so the steps are at most the product of the two lengths, whatever
 * the pattern.
 */
type Segments = ReadonlyArray<string>

/**
 * Whether the pattern matches the topic; both are valid and split at their dots.
 *
 * In place of the topic may stand a pattern. Then the answer is yes only if every topic of it is matched, too:
 * its wildcards are taken as segments, and `**` is one that nothing but `**` takes. Patterns that are the same in
 * other words (`**.*` and `*.**`) are not found out.
 */
export const matchesSegments = (pattern: Segments, topic: Segments): boolean => {
  if (pattern[0]!.startsWith("*") && topic[0]!.startsWith("$")) return false
  let i = 0
  let j = 0
  let widen = -1
  let from = 0
  while (j < topic.length) {
    if (pattern[i] === "**") {
      widen = i++
      from = j
    } else if (pattern[i] === topic[j] || (pattern[i] === "*" && topic[j] !== "**")) {
      i++
      j++
    } else if (widen >= 0) {
      i = widen + 1
      j = ++from
    } else {
      return false
    }
  }
  while (pattern[i] === "**") i++
  return i === pattern.length
}
