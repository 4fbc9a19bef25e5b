/** The check of a journal finds what it is there to find. */
import { describe, expect, it } from "vitest"
import { type Expected, problemsOf, type Seen } from "../../src/testing/groupJournal.ts"

const healthy = (id: string, key?: string): Expected => ({ id, topic: "a", key, isPoison: false })
const events = [
  healthy("1", "k"),
  healthy("2", "k"),
  { ...healthy("bad", "k"), isPoison: true },
  healthy("3", "k")
]

/** `d1#1`: the first delivery of event 1; a, n, c, b: acked, nacked, confirmed, buried. */
const seen = (story: string): ReadonlyArray<Seen> => {
  const words = { d: "delivered", a: "acked", n: "nacked", c: "confirmed", b: "buried" } as const
  return story.split(" ").map((word, at): Seen => {
    const [id, attempt] = word.slice(1).split("#")
    return { what: words[word[0] as keyof typeof words], id: id!, attempt: Number(attempt ?? 0), at }
  })
}

const check = (
  story: string,
  options: { readonly keyOrdered?: boolean; readonly oneAuthor?: boolean } = {}
) => problemsOf(seen(story), events, { keyOrdered: true, oneAuthor: true, ...options })

const rest = "d2#1 a2#1 c2#1 dbad#1 nbad#1 bbad d3#1 a3#1 c3#1"
const good = `d1#1 n1#1 d1#2 a1#2 c1#2 ${rest}`

describe("a journal", () => {
  it("of a group that keeps its promises has no problems", () => {
    expect(check(good)).toEqual([])
    // A hub was killed before it answered, but not before it had stored the acknowledgement.
    expect(check(`d1#1 a1#1 ${rest}`)).toEqual([])
    expect(check(`d1#1 a1#1 d1#2 a1#2 c1#2 ${rest}`)).toEqual([])
  })

  for (const [what, story, problem] of [
    [
      "an event that came after it was confirmed",
      `d1#1 a1#1 c1#1 d1#2 a1#2 ${rest}`,
      "1#2 came, and #1 had been"
    ],
    ["a delivery that came twice", `d1#1 n1#1 d1#1 a1#1 ${rest}`, "1#1 came twice"],
    ["an event that was lost", `d1#1 ${rest}`, "1 was never handled"],
    ["an event that never came", rest, "1 was never handled"],
    ["a healthy event among the dead", `${good} b1`, "1 is healthy"],
    [
      "poison that is not dead",
      good.replace("bbad ", ""),
      "bad is poison, and is in the dead letters 0 times"
    ],
    ["poison that is dead twice", `${good} bbad`, "bad is poison, and is in the dead letters 2 times"],
    ["an event of nobody", `${good} d9#1`, "9 was delivered, and nobody published it"],
    [
      "an event before the one ahead of it was over",
      `d1#1 d2#1 a1#1 c1#1 ${rest.slice(5)}`,
      "2 came before 1"
    ],
    ["an event before the poison was dead", good.replace("bbad d3#1", "d3#1 bbad"), "3 came before bad"]
  ] as const) {
    it(`finds ${what}`, () => expect(check(story)[0]).toContain(problem))
  }

  it("of several authors does not know when an answer was heard", () => {
    const late = good.replace("c1#2 d2#1", "d2#1 c1#2")
    expect(check(late)).toEqual([expect.stringContaining("2 came before 1")])
    expect(check(late, { oneAuthor: false })).toEqual([])
    expect(check(`d1#1 d2#1 a1#1 c1#1 ${rest.slice(5)}`, { oneAuthor: false })).toHaveLength(1)
  })

  it("of a group without order may have any", () => {
    expect(check(`d2#1 a2#1 d3#1 a3#1 d1#1 a1#1 dbad#1 nbad#1 bbad`, { keyOrdered: false })).toEqual([])
  })
})
