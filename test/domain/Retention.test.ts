/** Retention: what a rule lets go of, against a model that looks at every event, and rules as text. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Retention from "../../src/domain/Retention.ts"
import * as Topic from "../../src/domain/Topic.ts"

const pattern = (name: string): Topic.Pattern => Result.getOrThrow(Topic.parsePattern(name))

const rule = (name: string, more: Partial<Retention.RetentionRule> = {}): Retention.RetentionRule => ({
  pattern: pattern(name),
  ageMs: undefined,
  count: undefined,
  groups: "respect",
  ...more
})

const parse = (text: string) => Result.getOrThrow(Retention.parseRules(text))
const messageOf = (text: string): string =>
  Result.match(Retention.parseRules(text), { onFailure: (error) => error.message, onSuccess: () => "fine" })

const day = 86_400_000

describe("decide", () => {
  /** A topic as a list of the times its events were stored at; the first so many are trimmed. */
  const scene = fc
    .record({
      steps: fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 40 }),
      trimmed: fc.nat(39),
      ageMs: fc.option(fc.integer({ min: 1, max: 100 }), { nil: undefined }),
      count: fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined }),
      groups: fc.constantFrom("respect" as const, "ignore" as const),
      minAgeMs: fc.integer({ min: 0, max: 60 }),
      now: fc.integer({ min: 0, max: 300 }),
      floors: fc.array(fc.nat(45), { maxLength: 4 }),
      letters: fc.option(fc.integer({ min: 1, max: 45 }), { nil: undefined })
    })
    .map(({ count, steps, trimmed, ...rest }) => {
      let at = 0
      const times = steps.map((step) => (at += step))
      return { ...rest, count, times, floor: Math.min(trimmed, times.length - 1) }
    })

  /** As `EventStore.readTime`: the position before the first event at or after a time. */
  const positionOf = (times: ReadonlyArray<number>, floor: number, time: number): number => {
    const first = times.findIndex((at, i) => i >= floor && at >= time)
    return first < 0 ? times.length : first
  }

  it("is what looking at one event after the other says", () => {
    fc.assert(
      fc.property(scene, ({ ageMs, count, floor, floors, groups, letters, minAgeMs, now, times }) => {
        const needs = floors.map((position, i) => ({ group: `g${i}`, position }))
        const { heldBackBy, upTo } = Retention.decide({
          rule: rule("t", { ageMs, count, groups }),
          head: times.length,
          floor,
          byAge: ageMs === undefined ? 0 : positionOf(times, floor, now - ageMs),
          byLeastAge: positionOf(times, floor, now - minAgeMs + 1),
          leastGroup: Retention.leastOf(needs),
          letters: letters === undefined ? undefined : { group: "redrives", position: letters - 1 }
        })

        let expected = floor
        let holder: string | undefined
        for (let seq = floor + 1; seq < times.length; seq++) {
          const storedAt = times[seq - 1]!
          const tooOld = ageMs !== undefined && storedAt < now - ageMs
          const tooMany = count !== undefined && times.length - seq >= count
          if ((!tooOld && !tooMany) || storedAt > now - minAgeMs) break
          const needing =
            groups === "respect"
              ? needs.filter(({ position }) => position < seq).sort((a, b) => a.position - b.position)
              : []
          if (needing.length > 0 || (letters !== undefined && letters <= seq)) {
            // Those who were behind what is trimmed already need the next event as much as the others.
            holder = needing[0]?.group ?? "redrives"
            break
          }
          expected = seq
        }
        expect(upTo).toBe(expected)
        expect(heldBackBy === undefined).toBe(holder === undefined)
        if (groups === "respect" && letters === undefined) expect(heldBackBy).toBe(holder)
      }),
      { numRuns: 2_000 }
    )
  })

  const facts = { head: 100, floor: 10, byAge: 0, byLeastAge: 100, leastGroup: undefined, letters: undefined }

  it("never lets the last event go, and never goes back", () => {
    expect(Retention.decide({ ...facts, rule: rule("t", { ageMs: 1 }), byAge: 100 }).upTo).toBe(99)
    expect(Retention.decide({ ...facts, rule: rule("t", { count: 1 }) }).upTo).toBe(99)
    expect(Retention.decide({ ...facts, rule: rule("t", { count: 1_000 }) }).upTo).toBe(10)
    expect(Retention.decide({ ...facts, rule: rule("t") })).toEqual({ upTo: 10, heldBackBy: undefined })
  })

  it("lets go by age or by count, whichever takes more", () => {
    const both = rule("t", { ageMs: 1, count: 50 })
    expect(Retention.decide({ ...facts, rule: both, byAge: 20 }).upTo).toBe(50)
    expect(Retention.decide({ ...facts, rule: both, byAge: 70 }).upTo).toBe(70)
  })

  it("keeps what is younger than the least age, however many there are", () => {
    expect(Retention.decide({ ...facts, rule: rule("t", { count: 1 }), byLeastAge: 42 }).upTo).toBe(42)
  })

  it("stops at the group that has acknowledged least, and names it", () => {
    const held = { ...facts, leastGroup: { group: "slow", position: 30 } }
    expect(Retention.decide({ ...held, rule: rule("t", { count: 1 }) })).toEqual({
      upTo: 30,
      heldBackBy: "slow"
    })
    expect(Retention.decide({ ...held, rule: rule("t", { count: 1, groups: "ignore" }) })).toEqual({
      upTo: 99,
      heldBackBy: undefined
    })
    expect(Retention.decide({ ...held, rule: rule("t", { count: 80 }) })).toEqual({
      upTo: 20,
      heldBackBy: undefined
    })
  })

  it("keeps dead letters that come back, also where groups are ignored", () => {
    const held = { ...facts, letters: { group: "g", position: 14 } }
    expect(Retention.decide({ ...held, rule: rule("t", { count: 1, groups: "ignore" }) })).toEqual({
      upTo: 14,
      heldBackBy: "g"
    })
  })

  it("a group behind the trim holds back what is left, since it gets that next", () => {
    expect(
      Retention.decide({
        ...facts,
        rule: rule("t", { count: 1 }),
        leastGroup: { group: "late", position: 3 }
      })
    ).toEqual({ upTo: 10, heldBackBy: "late" })
  })
})

describe("ruleFor", () => {
  it("is the first that matches, and none is for ever", () => {
    const rules = parse("orders.audit: keep; orders.**: age=7d; $dead.**: age=30d")
    const of = (topic: string) => rules.findIndex((one) => one === Retention.ruleFor(rules, topic))
    expect(["orders.audit", "orders.eu", "$dead.g.orders.eu", "other", "$other"].map(of)).toEqual([
      0, 1, 2, -1, -1
    ])
  })

  it("own topics are for rules that name them", () => {
    expect(Retention.ruleFor(parse("**: age=1d"), "$dead.g.t")).toBeUndefined()
  })
})

describe("rules as text", () => {
  it("are read", () => {
    const text =
      "orders.**: age=7d count=1000000; $dead.**: age=30d; cache.*: count=1000 groups=ignore; kept: keep; **: age=90d"
    expect(parse(text)).toEqual([
      rule("orders.**", { ageMs: 7 * day, count: 1_000_000 }),
      rule("$dead.**", { ageMs: 30 * day }),
      rule("cache.*", { count: 1_000, groups: "ignore" }),
      rule("kept"),
      rule("**", { ageMs: 90 * day })
    ])
    expect(Retention.formatRules(parse(text))).toBe(text)
  })

  it("may stand on lines, with any space, and in any order of options", () => {
    expect(
      parse("\n a.b:   groups=respect\tcount=5   age=90m ;;\r\n c: age=1500ms;\n").map(Retention.formatRule)
    ).toEqual(["a.b: age=90m count=5", "c: age=1500ms"])
    expect(parse("  ;\n ")).toEqual([])
    expect(parse("")).toEqual([])
  })

  it.each([
    ["a:b: age=1d", "a:b"],
    ["a=b: age=1d", "a=b"],
    ["keep: keep", "keep"]
  ])("%s is about %s", (text, name) => {
    expect(parse(text).map((one) => one.pattern.name)).toEqual([name])
  })

  it.each([
    ["orders.** age=7d", "rule 1 (character 1): 'orders.**' ends in no ':'"],
    ["orders.**:age=7d", "rule 1 (character 1): 'orders.**:age=7d' ends in no ':'"],
    ["a..b: age=7d", "rule 1 (character 1): not a pattern: it has an empty segment"],
    [": age=7d", "rule 1 (character 1): not a pattern: it is empty"],
    ["a:", "rule 1 (character 1): it does not say what goes; add age=<duration> or count=<number>, or keep"],
    ["a: groups=ignore", "rule 1 (character 1): it does not say what goes"],
    ["b: keep; a: age=7", "rule 2 (character 17): '7' is no duration; write a number and d, h, m, s or ms"],
    ["a: age=0d", "'0d' is no duration"],
    ["a: age=1.5d", "'1.5d' is no duration"],
    ["a: age=-1d", "'-1d' is no duration"],
    ["a: age=999999999999999d", "is no duration"],
    ["a: count=0", "(character 10): '0' is no count; write a whole number from 1 on"],
    ["a: count=1e3", "'1e3' is no count"],
    ["a: count=", "'' is no count"],
    ["a: age=1d age=2d", "(character 11): 'age' stands twice"],
    ["a: age=1d keep", "'keep' stands alone"],
    ["a: keep keep", "'keep' stands alone"],
    ["a: age=1d groups=no", "'no' is not known; write groups=ignore"],
    ["a: max=1", "'max=1' is no option; those are age=<duration>, count=<number>, groups=ignore and keep"],
    ["**: age=90d; orders.**: age=7d", "rule 2 (character 14): it never applies, since rule 1"],
    ["a: keep;; a: age=7d", "rule 2 (character 11): it never applies, since rule 1"]
  ])("%s is refused, with the place and what to do", (text, message) => {
    expect(messageOf(text)).toContain(message)
  })

  it("all that is wrong is told at once, in one line", () => {
    const message = messageOf("a: age=x;\nb: keep; c: count=x; a: keep")
    expect(message).toMatch(/^rule 1 \(character 8\): .*; rule 3 \(character 29\): .*$/)
    expect(message).not.toContain("rule 4")
  })

  const segment = fc.constantFrom("a", "b", "*", "**", "x:y", "k=v", "#")
  const rules = fc
    .array(
      fc.record({
        name: fc.array(segment, { minLength: 1, maxLength: 4 }).map((segments) => segments.join(".")),
        ageMs: fc.option(
          fc.oneof(
            fc.integer({ min: 1, max: 1_000_000_000 }),
            fc.integer({ min: 1, max: 9_999 }).map((days) => days * day)
          ),
          { nil: undefined }
        ),
        count: fc.option(fc.integer({ min: 1, max: 999_999_999 }), { nil: undefined }),
        groups: fc.constantFrom("respect" as const, "ignore" as const)
      }),
      { maxLength: 6 }
    )
    .map((made) =>
      made
        .map(({ ageMs, count, groups, name }) =>
          rule(name, {
            ageMs,
            count,
            groups: ageMs === undefined && count === undefined ? "respect" : groups
          })
        )
        .filter((one, i, all) => !all.slice(0, i).some((other) => Topic.covers(other.pattern, one.pattern)))
    )

  it("that are printed are read back", () => {
    fc.assert(
      fc.property(rules, (made) => {
        expect(parse(Retention.formatRules(made))).toEqual(made)
        expect(parse(made.map(Retention.formatRule).join("\n"))).toEqual(made)
      })
    )
  })

  it("whatever the text, reading it ends; what is refused is told in one line and at a place in the text", () => {
    const word = fc.constantFrom(
      "a:",
      "**:",
      "age=1d",
      "count=3",
      "keep",
      ";",
      "\n",
      " ",
      "groups=ignore",
      "é😀"
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: "binary" }),
          fc.array(word, { maxLength: 12 }).map((words) => words.join(" "))
        ),
        (text) => {
          const parsed = Retention.parseRules(text)
          if (Result.isSuccess(parsed)) {
            expect(Result.getOrThrow(Retention.parseRules(Retention.formatRules(parsed.success)))).toEqual(
              parsed.success
            )
            return
          }
          for (const { at, rule } of parsed.failure.problems) {
            expect(at).toBeGreaterThanOrEqual(1)
            expect(at).toBeLessThanOrEqual(text.length + 1)
            expect(rule).toBeGreaterThanOrEqual(1)
          }
          expect(parsed.failure.message).not.toMatch(/[\r\n]/)
        }
      ),
      { numRuns: 1_000 }
    )
  })
})

describe("durations", () => {
  it.each([
    ["7d", 7 * day],
    ["36h", 1.5 * day],
    ["90m", 5_400_000],
    ["5s", 5_000],
    ["5ms", 5]
  ])("%s", (text, ms) => {
    expect(Retention.parseDuration(text)).toBe(ms)
    expect(Retention.formatDuration(ms)).toBe(text)
  })

  it("are printed so that they are read back", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (ms) => {
        expect(Retention.parseDuration(Retention.formatDuration(ms))).toBe(ms)
      })
    )
  })
})

describe("the least age", () => {
  it("is more than a rule that would trim before it", () => {
    const rules = parse("a: count=5; b: keep; c: age=2h; d: age=1h")
    expect(Retention.belowLeastAge(rules, 3_600_000)).toBeUndefined()
    expect(Retention.belowLeastAge(rules, 3_600_001)?.pattern.name).toBe("d")
    expect(Retention.belowLeastAge(rules, day)?.pattern.name).toBe("c")
  })
})
