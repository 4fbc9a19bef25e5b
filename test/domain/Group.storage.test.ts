/**
 * A group's state as text, as a whole and as what changed: what is read is what was written, and what was not
 * written so is refused.
 */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Group from "../../src/domain/Group.ts"
import { decodeChanges, decodeState, encodeChange, encodeState } from "../../src/domain/GroupEncoding.ts"
import { ack, claim, entry, from, holding, inOrder, keyless, ordered, refuse } from "./groupScene.ts"

const begun: Group.Entry = {
  attempt: 2,
  unanswered: 1,
  member: "m 1",
  key: "k",
  since: 5,
  reason: "bad",
  letter: undefined
}

const state: Group.GroupState = {
  generation: "g",
  floor: 3,
  next: 20,
  inFlight: new Map([[7, { ...begun, deadline: 1234.5 }]]),
  waiting: new Map([[8, { ...begun, key: undefined, letter: 4, notBefore: 99 }]]),
  dying: new Map([[10, { ...begun, member: "m 2", key: "", reason: 'it\'s "bad"\u0000' }]]),
  deferred: new Map([
    ["k", { seqs: [11, 12], from: undefined, unlisted: 0 }],
    ["l", { seqs: [], from: 13, unlisted: 6 }]
  ]),
  redrive: {
    plans: [
      { next: 1, upTo: 9, filter: {} },
      {
        next: 2,
        upTo: 3,
        filter: { letters: [2, 3], ids: ["a", ""], key: "", reason: "b", since: 0, until: 7.5 }
      }
    ],
    letters: [
      [1, 4],
      [6, 6]
    ]
  },
  pace: [
    { at: 1.5, done: 3 },
    { at: 9, done: 4 }
  ]
}

/** Made of what JSON, SQL and UTF-8 find hardest, half of a surrogate pair among it. */
const anyText = fc.string({
  unit: fc.constantFrom("a", " ", '"', "'", "\\", "\n", "\u0000", "\u2028", "é", "😀", "\ud83d")
})

const encoded = (): Record<string, unknown> => JSON.parse(encodeState(state)) as Record<string, unknown>

const outcome = <A>(result: Result.Result<A, { readonly _tag: string }>): string | undefined =>
  Result.match(result, { onSuccess: () => undefined, onFailure: (error) => error._tag })

const refused = (value: unknown) =>
  outcome(decodeState(typeof value === "string" ? value : JSON.stringify(value)))

describe("a group's state as text", () => {
  it("holds every part of it", () => {
    expect(decodeState(encodeState(state))).toEqual(Result.succeed(state))
    expect(decodeState(encodeState(Group.initial("", 0)))).toEqual(Result.succeed(Group.initial("", 0)))
  })

  it("keeps keys, members, reasons and filters of any characters", () => {
    fc.assert(
      fc.property(anyText, anyText, (a, b) => {
        const strange: Group.GroupState = {
          ...state,
          generation: b,
          inFlight: new Map([[7, { ...begun, member: a, key: b, reason: a, deadline: 1 }]]),
          dying: new Map([[10, { ...begun, member: b, key: a, reason: b }]]),
          deferred: new Map([[b, { seqs: [11], from: undefined, unlisted: 0 }]]),
          redrive: { plans: [{ next: 1, upTo: 2, filter: { key: a, reason: b, ids: [a, b] } }], letters: [] }
        }
        expect(decodeState(encodeState(strange))).toEqual(Result.succeed(strange))
      })
    )
  })

  it("names each member and each reason once", () => {
    const many = Array.from({ length: 100 }, (_, i) => [i, { ...begun, deadline: 1 }] as const)
    const text = encodeState({ ...state, inFlight: new Map(many) })
    expect(text.split("m 1").length).toBe(2)
    expect(text.split('"bad"').length).toBe(2)
  })

  it("of ten thousand acknowledgements is short", () => {
    const count = 10_001
    const acked = ack(holding(count), ...Array.from({ length: count - 1 }, (_, i) => i + 2))
    expect(encodeState(acked).length).toBeLessThan(250)
  })

  it("is refused when it is something else, and says why without a defect", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        expect(refused(text)).toBe("InvalidGroupState")
      })
    )
    const failure = Result.getOrThrow(Result.flip(decodeState("")))
    expect(failure.message).toContain("a group's stored state cannot be read")
  })

  it("is refused when it is cut off", () => {
    const text = encodeState(state)
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

  it.each(["inFlight", "waiting", "dying"])("is refused when an entry of %s lacks something", (place) => {
    const [row] = encoded()[place] as [Array<unknown>]
    expect(row.length).toBe(9)
    const noNumber = [0, 1, 2, 3, 5, 6, 8]
    for (const i of row.keys()) {
      const others = noNumber.includes(i) ? [null, "x", undefined] : [true, undefined, 1.5]
      for (const other of others) {
        expect(refused({ ...encoded(), [place]: [row.with(i, other)] })).toBe(
          other === undefined && !noNumber.includes(i) ? undefined : "InvalidGroupState"
        )
      }
      expect(refused({ ...encoded(), [place]: [row.toSpliced(i, 1)] })).toBe("InvalidGroupState")
    }
    expect(refused({ ...encoded(), [place]: [[...row, 1]] })).toBe("InvalidGroupState")
  })

  it("is refused when a member or a reason has no name", () => {
    for (const place of ["inFlight", "waiting", "dying"]) {
      const [row] = encoded()[place] as [Array<unknown>]
      expect(refused({ ...encoded(), [place]: [row.with(3, 99)] })).toBe("InvalidGroupState")
      expect(refused({ ...encoded(), [place]: [row.with(6, 99)] })).toBe("InvalidGroupState")
      expect(refused({ ...encoded(), [place]: [row.with(6, -1)] })).toBe("InvalidGroupState")
    }
    expect(refused({ ...encoded(), names: [] })).toBe("InvalidGroupState")
    const error = Result.getOrThrow(Result.flip(decodeState(JSON.stringify({ ...encoded(), names: [] }))))
    expect(error.message).toContain("a row's member or reason has no name")
  })
})

describe("what changed, as text", () => {
  const written = (before: Group.GroupState, after: Group.GroupState) => {
    const text = encodeChange(before, after)
    expect(decodeChanges(before, [text])).toEqual(Result.succeed(after))
    return text
  }

  const crowd = holding(1_000)

  it("makes the state out of the one before, whatever happened", () => {
    const nothing = Group.initial("", 0)
    const gone: Group.GroupState = {
      ...state,
      inFlight: new Map([[10, { ...begun, deadline: 5 }]]),
      waiting: new Map(),
      dying: new Map([[7, begun]]),
      deferred: new Map([["l", { seqs: [14], from: undefined, unlisted: 0 }]])
    }
    const states = [nothing, state, gone, Group.seek(state, { generation: "g2", floor: 30 }), crowd]
    for (const before of states) for (const after of states) written(before, after)
  })

  it("is what happened, and not what waits", () => {
    expect(written(crowd, ack(crowd, 7)).length).toBeLessThan(200)
    expect(written(crowd, refuse(crowd, { seq: 7 })).length).toBeLessThan(250)
    expect(encodeState(crowd).length).toBeGreaterThan(20_000)
  })

  it("takes what came to another place from where it was", () => {
    const waiting = refuse(crowd, { seq: 7, delayMs: 0 })
    expect(JSON.parse(written(crowd, waiting))).toMatchObject({ inFlight: [], gone: [] })
    const again = claim(waiting, { limit: 1 }).state
    expect(JSON.parse(written(waiting, again))).toMatchObject({ waiting: [], gone: [] })
    const dying = refuse(again, { seq: 7, mode: "poison" })
    expect(JSON.parse(written(again, dying))).toMatchObject({ inFlight: [], gone: [] })
    expect(JSON.parse(written(dying, Group.bury(dying, [7])))).toMatchObject({ dying: [], gone: [7] })
  })

  it("names keys of which nothing is passed over any more, and no others", () => {
    const before = ack(inOrder(["k", "k", "l", "l"]).state, 1)
    const after = claim(before, { options: ordered }).state
    expect(JSON.parse(written(before, after))).toMatchObject({ goneKeys: ["k"], deferred: [] })
    const more = claim(before, { options: ordered, limit: 0, candidates: from(5, ["l"]) })
    expect(more.state).toBe(before)
    const deferred = claim(after, { options: ordered, candidates: from(5, ["l"]) }).state
    expect(JSON.parse(written(after, deferred))).toMatchObject({
      goneKeys: [],
      deferred: [["l", [4, 5], null, 0]]
    })
  })

  it("holds what comes back from the dead letters where that changed, and nothing of it otherwise", () => {
    expect(JSON.parse(written(crowd, ack(crowd, 7)))).not.toHaveProperty("redrive")
    const asked = { ...crowd, redrive: { plans: [], letters: [[1, 2] as const] } }
    expect(JSON.parse(written(crowd, asked))).toHaveProperty("redrive")
  })

  it("of nothing changes nothing", () => {
    expect(JSON.parse(written(state, state))).toMatchObject({
      inFlight: [],
      waiting: [],
      dying: [],
      deferred: [],
      gone: [],
      goneKeys: []
    })
  })

  it("is read one after the other", () => {
    const steps = [state]
    const add = (step: (last: Group.GroupState) => Group.GroupState) => steps.push(step(steps.at(-1)!))
    add((last) => claim(last, { candidates: from(20, keyless(3)) }).state)
    add((last) => refuse(last, { seq: 21, delayMs: 0 }))
    add((last) => claim(last, { limit: 1, now: 2_000 }).state)
    add((last) => ack(last, 20, 21))
    add((last) => ({ ...last, inFlight: new Map([[21, { ...entry, deadline: 1 }]]), waiting: new Map() }))
    const changes = steps.slice(1).map((after, i) => encodeChange(steps[i]!, after))
    expect(decodeChanges(state, changes)).toEqual(Result.succeed(steps.at(-1)))
    expect(decodeChanges(state, [])).toEqual(Result.succeed(state))
  })

  it("leaves the state it was made from as it was", () => {
    const before = decodeState(encodeState(crowd))
    Result.getOrThrow(decodeChanges(crowd, [encodeChange(crowd, ack(crowd, 1, 2, 3))]))
    expect(before).toEqual(Result.succeed(crowd))
  })

  it("is refused when it is something else, however many of them are right", () => {
    const right = encodeChange(crowd, ack(crowd, 7))
    for (const wrong of ["", "{}", encodeState(crowd), right.slice(0, -1)]) {
      expect(outcome(decodeChanges(crowd, [right, wrong]))).toBe("InvalidGroupState")
    }
    const change = JSON.parse(encodeChange(Group.initial("g", 0), crowd)) as Record<string, unknown>
    for (const field of Object.keys(change)) {
      const { [field]: _, ...rest } = change
      const isOptional = field === "redrive"
      expect([field, outcome(decodeChanges(crowd, [JSON.stringify(rest)]))]).toEqual([
        field,
        isOptional ? undefined : "InvalidGroupState"
      ])
      expect(outcome(decodeChanges(crowd, [JSON.stringify({ ...rest, [field]: 1.5 })]))).toBe(
        "InvalidGroupState"
      )
    }
    const unnamed = JSON.stringify({ ...change, names: [] })
    expect(outcome(decodeChanges(crowd, [unnamed]))).toBe("InvalidGroupState")
  })
})
