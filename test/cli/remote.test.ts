/** What people are told while something runs: a bar on a terminal, a line now and then elsewhere, or nothing. */
import { describe, expect, it } from "vitest"
import { type Progress, progressOn } from "../../src/cli/remote.ts"

/** What is written, by a clock that goes on by so much with each look at it. */
const scene = (isTTY: boolean, silent: boolean, step: number) => {
  let now = 0
  let written = ""
  const stream = {
    isTTY,
    write: (text: string | Uint8Array) => {
      written += String(text)
      return true
    }
  }
  const progress: Progress = progressOn(stream, silent, () => (now += step))
  return { progress, written: () => written }
}

describe("progress", () => {
  it("is a bar on a terminal, over itself, and gone in the end", () => {
    const { progress, written } = scene(true, false, 200)
    progress.set(0, 200, "none of 200")
    progress.set(50, 200, "50")
    progress.set(999, 200, "all")
    expect(written()).toBe(
      [
        `\r[${"-".repeat(30)}] 0 % none of 200`,
        `\r${`[${"#".repeat(8)}${"-".repeat(22)}] 25 % 50`.padEnd(48)}`,
        `\r[${"#".repeat(30)}] 100 % all`
      ].join("")
    )
    progress.end()
    expect(written()).toMatch(/\r +\r$/)
  })

  it("is words where the whole is not known, and no more than ten times a second", () => {
    const { progress, written } = scene(true, false, 60)
    for (let i = 1; i <= 4; i++) progress.set(i, undefined, `${i} events`)
    expect(written()).toBe("\r2 events\r4 events")
  })

  it("is a line now and then where there is no terminal", () => {
    const { progress, written } = scene(false, false, 4_000)
    for (let i = 1; i <= 6; i++) progress.set(i, 6, `${i} events`)
    progress.end()
    expect(written()).toBe("3 events\n6 events\n")
  })

  it("is nothing when it is not wanted", () => {
    const { progress, written } = scene(true, true, 60_000)
    progress.set(1, 2, "1 event")
    progress.end()
    expect(written()).toBe("")
  })
})
