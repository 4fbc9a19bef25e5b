/** What is believed of JSON that somebody else wrote. */
import { describe, expect, it } from "vitest"
import * as fc from "fast-check"
import * as Json from "../../src/domain/Json.ts"

describe("JSON of others", () => {
  it("is an object, or nothing, whatever the text is", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const isObject = typeof value === "object" && value !== null && !Array.isArray(value)
        const text = JSON.stringify(value)
        expect(Json.parseObject(text)).toEqual(isObject ? JSON.parse(text) : undefined)
      })
    )
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(() => Json.parseObject(text)).not.toThrow()
      })
    )
    expect(Json.parseObject('{"a":1')).toBeUndefined()
  })

  it.each([
    [["a", ""], true, false],
    [[], true, false],
    [["a", 1], false, false],
    [{ a: "b" }, false, true],
    [{}, false, true],
    [{ a: null }, false, false],
    [null, false, false],
    ["a", false, false]
  ])("%j holds texts: %s, by name: %s", (value, texts, byName) => {
    expect(Json.isTexts(value)).toBe(texts)
    expect(Json.isTextByName(value)).toBe(byName)
  })
})

describe("how deep a text is", () => {
  const depthOf = (value: unknown): number =>
    typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(depthOf)) : 0

  it("is how deep its value is, whatever is in its strings", () => {
    const strings = fc.oneof(
      fc.string(),
      fc.constantFrom("[[[[", "]]]]", '"', "\\", '\\"[', '{"a":[', "\\\\")
    )
    const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
      tree: fc.oneof(
        { maxDepth: 8 },
        strings,
        fc.constantFrom(null, 1, true),
        fc.array(tie("tree"), { maxLength: 4 }),
        fc.dictionary(strings, tie("tree"), { maxKeys: 3 })
      )
    }))
    fc.assert(
      fc.property(tree, fc.nat(8), fc.constantFrom(0, 1, 4), (value, maxDepth, spaces) => {
        const text = JSON.stringify(value, undefined, spaces)
        expect(Json.isTextDeeper(text, maxDepth)).toBe(depthOf(value) > maxDepth)
      }),
      { numRuns: 2_000 }
    )
  })

  it.each(['"', '"\\', "[".repeat(3) + '"', "]]]]", '{"a":"\\"', ""])("%j has an answer", (text) => {
    expect(Json.isTextDeeper(text, 3)).toBe(false)
  })

  it("is found without a stack", () => {
    expect(Json.isTextDeeper("[".repeat(1_000_000), 128)).toBe(true)
    expect(Json.isTextDeeper("[".repeat(1_000_000), 999_999)).toBe(true)
    expect(Json.isTextDeeper("[]".repeat(1_000_000), 1)).toBe(false)
  })
})

it("a number that has no JSON is found wherever it is printed, and only there", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(NaN, Infinity, -Infinity), (value, number) => {
      expect(Json.isFinite(value)).toBe(true)
      expect(Json.isFinite([value, { a: [number] }])).toBe(false)
      const printsItself = { a: number, toJSON: () => 1 }
      expect(Json.isFinite([value, printsItself])).toBe(true)
      expect(Json.isFinite(Object.create({ inherited: number }))).toBe(true)
    })
  )
})
