/** Lines out of bytes that come in any pieces. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import { makeLineSplitter } from "../../src/domain/Lines.ts"

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

const long = "too long"

/** What comes of these pieces: each line, or that it is too long; and every byte that was passed on, in order. */
const split = (pieces: ReadonlyArray<Uint8Array>, maxBytes: number) => {
  const lines: Array<string> = []
  const passed: Array<number> = []
  const splitter = makeLineSplitter(maxBytes, {
    line: (text, bytes) => {
      lines.push(decode(text))
      passed.push(...bytes)
    },
    tooLong: (bytes, isLast) => {
      if (isLast) lines.push(long)
      passed.push(...bytes)
    }
  })
  for (const piece of pieces) {
    splitter.push(piece)
    // Whoever reads a file uses its buffer again.
    piece.fill(0)
  }
  splitter.end()
  return { lines, passed }
}

const cut = (bytes: Uint8Array, at: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const places = [...new Set(at.map((n) => n % (bytes.length + 1)))].sort((a, b) => a - b)
  return [0, ...places].map((from, i) => bytes.slice(from, places[i] ?? bytes.length))
}

const text = fc.array(fc.constantFrom("a", "bc", "é", "😀", "\n", "\n\n", "x".repeat(9)), { maxLength: 40 })
const cuts = fc.array(fc.nat(500), { maxLength: 12 })

describe("lines", () => {
  it("are the same however the bytes come, and no byte is lost", () => {
    fc.assert(
      fc.property(text, cuts, fc.integer({ min: 1, max: 12 }), (parts, at, maxBytes) => {
        const whole = parts.join("")
        const expected = whole.split("\n")
        if (expected.at(-1) === "") expected.pop()
        const { lines, passed } = split(cut(encode(whole), at), maxBytes)
        expect(lines).toEqual(expected.map((line) => (encode(line).length > maxBytes ? long : line)))
        expect(decode(Uint8Array.from(passed))).toBe(whole)
      })
    )
  })

  it("that have no end are none of too many bytes in memory", () => {
    const longest = { held: 0 }
    const splitter = makeLineSplitter(10, {
      line: () => expect.unreachable(),
      tooLong: (bytes) => {
        longest.held = Math.max(longest.held, bytes.length)
      }
    })
    for (let i = 0; i < 1_000; i++) splitter.push(encode("12345"))
    expect(longest.held).toBe(5)
  })

  it("of nothing are none", () => {
    expect(split([], 5).lines).toEqual([])
    expect(split([encode("\n")], 5).lines).toEqual([""])
    expect(split([encode("a")], 5).lines).toEqual(["a"])
    expect(split([encode("a\n")], 5).lines).toEqual(["a"])
  })
})
