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
