/** Memory that is used again: what is read in order is what was sent, and what was sent is given back. */
import { describe, expect, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import fc from "fast-check"
import { reusing } from "../../../src/layers/http/reusing.ts"

const KiB = 1024

const pieceOf = (size: number, fill: number): Uint8Array => new Uint8Array(size).fill(fill)

/** Reads a piece while a few that came after it are already there, as a socket does that is a little behind. */
const read = (
  pieces: ReadonlyArray<Uint8Array>,
  behind: number
): ReadonlyArray<readonly [number, number]> => {
  const waiting: Array<Uint8Array> = []
  const seen: Array<readonly [number, number]> = []
  const look = (piece: Uint8Array): void => {
    const fill = piece[0] ?? -1
    expect(piece.every((byte) => byte === fill)).toBe(true)
    seen.push([piece.length, fill])
  }
  Effect.runSync(
    Stream.runForEach(reusing(Stream.fromIterable(pieces)), (piece) =>
      Effect.sync(() => {
        waiting.push(piece)
        if (waiting.length > behind) look(waiting.shift()!)
      })
    )
  )
  waiting.forEach(look)
  return seen
}

describe("reusing", () => {
  it("hands on what it gets, also to a reader that is some pieces behind", () => {
    const size = fc.constantFrom(1, 500, 31 * KiB, 33 * KiB, 64 * KiB, 130 * KiB, 192 * KiB, 200 * KiB)
    fc.assert(
      fc.property(fc.array(size, { maxLength: 24 }), fc.integer({ min: 0, max: 4 }), (sizes, behind) => {
        const pieces = sizes.map((bytes, i) => pieceOf(bytes, i + 1))
        expect(read(pieces, behind)).toEqual(sizes.map((bytes, i) => [bytes, i + 1]))
      }),
      { numRuns: 30 }
    )
  })

  it("gives back the memory of what it copied, and leaves alone what is small, large, or a part of something", () => {
    const whole = pieceOf(100 * KiB, 4)
    const pieces = [pieceOf(64 * KiB, 1), pieceOf(10, 2), pieceOf(300 * KiB, 3), whole.subarray(0, 50 * KiB)]
    read(pieces, 0)
    expect(pieces.map(({ byteLength }) => byteLength)).toEqual([0, 10, 300 * KiB, 50 * KiB])
    expect(whole.byteLength).toBe(100 * KiB)
  })
})
