/** A group's state as text: what is read is what was written, and what was not written so is refused. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Group from "../../src/domain/Group.ts"

const entry = { attempt: 2, unanswered: 1, member: "m 1" }

const state: Group.GroupState = {
  generation: "g",
  floor: 3,
  next: 20,
  acked: [
    [5, 6],
    [9, 9]
  ],
  inFlight: new Map([[7, { ...entry, key: "k", deadline: 1234.5 }]]),
  waiting: new Map([[8, { ...entry, key: undefined, notBefore: 99 }]]),
  dying: new Map([[10, { ...entry, member: "m 2", key: "", reason: 'it\'s "bad"\u0000' }]]),
  deferred: new Map([["k", [11, 12]]])
}

/** Made of what JSON, SQL and UTF-8 find hardest, half of a surrogate pair among it. */
const anyText = fc.string({
  unit: fc.constantFrom("a", " ", '"', "'", "\\", "\n", "\u0000", "\u2028", "é", "😀", "\ud83d")
})

const encoded = (): Record<string, unknown> => JSON.parse(Group.encodeState(state)) as Record<string, unknown>

const refused = (value: unknown) =>
  Result.match(Group.decodeState(typeof value === "string" ? value : JSON.stringify(value)), {
    onSuccess: () => undefined,
    onFailure: (error) => error._tag
  })

describe("a group's state as text", () => {
  it("holds every part of it", () => {
    expect(Group.decodeState(Group.encodeState(state))).toEqual(Result.succeed(state))
  })

  it("keeps keys, members and reasons of any characters", () => {
    fc.assert(
      fc.property(anyText, anyText, (a, b) => {
        const strange: Group.GroupState = {
          ...state,
          inFlight: new Map([[7, { ...entry, member: a, key: b, deadline: 1 }]]),
          dying: new Map([[10, { ...entry, member: b, key: a, reason: b }]]),
          deferred: new Map([[b, [11]]])
        }
        expect(Group.decodeState(Group.encodeState(strange))).toEqual(Result.succeed(strange))
      })
    )
  })

  it("names each member once", () => {
    const many = Array.from(
      { length: 100 },
      (_, i) => [i, { ...entry, key: undefined, deadline: 1 }] as const
    )
    const text = Group.encodeState({ ...state, inFlight: new Map(many) })
    expect(text.split("m 1").length).toBe(2)
  })

  it("of ten thousand acknowledgements in a row is short", () => {
    expect(Group.encodeState({ ...Group.initial("g", 1), acked: [[3, 10_003]] }).length).toBeLessThan(200)
  })

  it("is refused when it is something else, and says why without a defect", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(refused(text)).toBe("InvalidGroupState")
      })
    )
    const failure = Result.getOrThrow(Result.flip(Group.decodeState("")))
    expect(failure.message).toContain("a group's stored state cannot be read")
  })

  it("is refused when it is cut off", () => {
    const text = Group.encodeState(state)
    for (let length = 0; length < text.length; length++) {
      expect(refused(text.slice(0, length))).toBe("InvalidGroupState")
    }
  })

  it("is refused when it was written by another version", () => {
    expect(refused({ ...encoded(), v: 2 })).toBe("InvalidGroupState")
  })

  it.each(Object.keys(encoded()))("is refused without '%s', or with something else in its place", (field) => {
    const { [field]: _, ...rest } = encoded()
    expect(refused(rest)).toBe("InvalidGroupState")
    for (const other of [null, true, "x", 1.5, [1], [["a"]], {}]) {
      if (typeof other === "string" && field === "generation") continue
      expect(refused({ ...rest, [field]: other })).toBe("InvalidGroupState")
    }
  })

  it("is refused when a delivery has no member, or no time", () => {
    const [row] = encoded()["inFlight"] as [Array<unknown>]
    expect(refused({ ...encoded(), members: [] })).toBe("InvalidGroupState")
    expect(refused({ ...encoded(), inFlight: [row.with(3, 7)] })).toBe("InvalidGroupState")
    expect(refused({ ...encoded(), inFlight: [row.with(5, "soon")] })).toBe("InvalidGroupState")
    expect(refused({ ...encoded(), waiting: [row.with(5, null)] })).toBe("InvalidGroupState")
    expect(refused({ ...encoded(), dying: [row.with(5, 7)] })).toBe("InvalidGroupState")
  })
})
