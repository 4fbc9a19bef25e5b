/**
 * How long a pattern that was made to be slow takes: to be matched against a topic that was made to go with it, and to be
 * compared with another pattern. Policies are asked about what strangers send.
 */
import * as Result from "effect/Result"
import * as Topic from "../src/domain/Topic.ts"
import { matchesSegments } from "../src/protocol/Segments.ts"
import type { Row, Run, Scenario } from "./Scenario.ts"

const repeat = (word: string, times: number): string => Array<string>(times).fill(word).join(".")

/** The median of what one takes, of runs that are long enough to be timed. */
const measure = (events: number, one: () => boolean): Promise<Row["figures"]> => {
  const runs = 25
  const took: Array<number> = []
  let yes = 0
  for (let run = -5; run < runs; run++) {
    const begin = performance.now()
    for (let i = 0; i < events; i++) if (one()) yes++
    if (run >= 0) took.push(((performance.now() - begin) / events) * 1_000)
  }
  const sorted = took.sort((a, b) => a - b)
  // The answers are used, so that none of them is left out.
  if (yes !== 0 && yes !== events * (runs + 5)) throw new Error("a pattern has matched now and then")
  return Promise.resolve({ "µs median": sorted[sorted.length >> 1]!, "µs worst": sorted.at(-1)! })
}

const parsed = (name: string): Topic.Pattern => Result.getOrThrow(Topic.parsePattern(name))

const matching = (pattern: string, topic: string) => {
  // As written: without what parsing makes shorter.
  const [p, t] = [pattern.split("."), topic.split(".")]
  return () => matchesSegments(p, t)
}

const relating = (relation: typeof Topic.covers, a: string, b: string) => {
  const [pa, pb] = [parsed(a), parsed(b)]
  return () => relation(pa, pb)
}

const topic = repeat("a", 32)
const manyTimes = "32 × ** against 32 segments"
const hopeless = "**.a.a.….b, which does not match"
const overlapping = "16 × **.a overlaps a.**.….b"

const cases: Readonly<Record<string, () => boolean>> = {
  [manyTimes]: matching(repeat("**", 32), topic),
  "16 × **.a against 32 segments": matching(repeat("**.a", 16), topic),
  "**.a.**.a.….b, which does not match": matching(`${repeat("**.a", 15)}.b`, topic),
  [hopeless]: matching(`**.${repeat("a", 15)}.b`, topic),
  "parsed first": () => Topic.matches(repeat("**", 32), topic),
  "16 × **.a covers itself": relating(Topic.covers, repeat("**.a", 16), repeat("**.a", 16)),
  "**.a.*.*.….** covers a.**.a.…": relating(
    Topic.covers,
    `**.a.${repeat("*", 12)}.**`,
    `${repeat("a.**", 15)}.a`
  ),
  [overlapping]: relating(Topic.overlaps, repeat("**.a", 16), `${repeat("a.**", 15)}.b`)
}

export const patterns: Scenario = {
  name: "patterns",
  title: ({ events }) => `patterns that are made to be slow, ${events} times each`,
  defaults: { events: 10_000, inFlight: 1, subscribers: 0 },
  runs: ({ events }): ReadonlyArray<Run> =>
    Object.entries(cases).map(([name, one]) => ({
      name,
      against: [],
      missing: () => undefined,
      run: () => measure(events, one)
    })),
  wanted: () => [
    { run: manyTimes, figure: "µs median", atMost: 50 },
    { run: hopeless, figure: "µs median", atMost: 50 },
    // All pairs of 33 places by 33 are looked at, at some 20 ns each; if it took the power of two, it would take hours.
    { run: overlapping, figure: "µs median", atMost: 100 }
  ]
}
