/** Entries do what a Map does that is copied before each change, and count keys as somebody would who looks at all. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import { Entries } from "../../src/domain/Entries.ts"

interface Keyed {
  readonly key: string | undefined
  readonly n: number
}

const value = fc.record({ key: fc.constantFrom("a", "b", undefined), n: fc.nat() })
const seq = fc.nat(12)

const step = fc.oneof(
  fc.record({ _tag: fc.constant("with" as const), more: fc.array(fc.tuple(seq, value), { maxLength: 5 }) }),
  fc.record({ _tag: fc.constant("without" as const), gone: fc.array(seq, { maxLength: 5 }) })
)

const same = (entries: Entries<Keyed>, model: ReadonlyMap<number, Keyed>): void => {
  const inOrder = [...model].sort(([a], [b]) => a - b)
  expect([...entries]).toEqual(inOrder)
  expect([...entries.keys()]).toEqual(inOrder.map(([at]) => at))
  expect([...entries.values()]).toEqual(inOrder.map(([, one]) => one))
  expect(entries.size).toBe(model.size)
  for (let at = 0; at <= 12; at++) {
    expect(entries.get(at)).toBe(model.get(at))
    expect(entries.has(at)).toBe(model.has(at))
  }
  for (const least of [-1, 5, 12]) {
    expect(entries.find((_, at) => at > least)).toEqual(inOrder.find(([at]) => at > least))
  }
  for (const key of ["a", "b"]) {
    expect(entries.countOf(key)).toBe(inOrder.filter(([, one]) => one.key === key).length)
  }
}

describe("Entries", () => {
  it("whatever is made of them, also of earlier ones", () =>
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), step, fc.boolean()), { maxLength: 12 }), (steps) => {
        const made: Array<readonly [Entries<Keyed>, ReadonlyMap<number, Keyed>]> = [
          [Entries.from<Keyed>([]), new Map()]
        ]
        for (const [which, one, counts] of steps) {
          const [entries, model] = made[which % made.length]!
          if (counts) entries.countOf("a")
          const next = new Map(model)
          if (one._tag === "with") for (const [at, what] of one.more) next.set(at, what)
          else for (const at of one.gone) next.delete(at)
          const after = one._tag === "with" ? entries.withAll(new Map(one.more)) : entries.without(one.gone)
          made.push([after, next])
          const changed: Array<number> = []
          const gone: Array<number> = []
          after.changesSince(entries, { changed: (at) => changed.push(at), gone: (at) => gone.push(at) })
          const differs = (at: number) => next.get(at) !== model.get(at)
          expect(changed).toEqual([...next.keys()].filter(differs).sort((a, b) => a - b))
          expect(gone).toEqual([...model.keys()].filter((at) => !next.has(at)).sort((a, b) => a - b))
        }
        for (const [entries, model] of made) same(entries, model)
      })
    ))
})
