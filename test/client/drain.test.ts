/** A thousand clients of a hub that restarts, without a clock: when each of them comes back. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import type { FakeNetwork } from "./FakeWebSocket.ts"
import { connected, settle } from "./playing.ts"

const count = 1_000
const spreadMs = 5_000
const slotMs = spreadMs / count
const windowMs = 100
const mean = (count * windowMs) / spreadMs

beforeEach(() => {
  vi.useFakeTimers()
  // The same back-off in every run (xorshift32).
  let state = 8
  vi.spyOn(Math, "random").mockImplementation(() => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  })
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

/** The most of these times that are in one window, wherever it begins. */
const mostAtOnce = (times: ReadonlyArray<number>): number =>
  Math.max(...times.map((begin) => times.filter((time) => time >= begin && time < begin + windowMs).length))

/** The hub says goodbye, and is away for so long; gives when clients came, and when they were let in. */
const restart = async (networks: ReadonlyArray<FakeNetwork>, awayMs: number) => {
  networks.forEach(({ last }, i) => last.receive({ op: "DRAIN", retryAfterMs: i * slotMs }))
  networks.forEach(({ last }) => last.end(1012))
  const known = networks.map(({ sockets }) => sockets.length)
  const came = networks.map((): Array<number> => [])
  const letIn: Array<number> = []
  for (let time = 0; letIn.length < count; time += slotMs) {
    if (time > 60_000) throw new Error(`${letIn.length} have come back`)
    await vi.advanceTimersByTimeAsync(time === 0 ? 0 : slotMs)
    networks.forEach(({ last, sockets }, i) => {
      if (sockets.length === known[i]) return
      known[i] = sockets.length
      came[i]!.push(time)
      if (time < awayMs) last.end(1006)
      else {
        last.accept()
        letIn.push(time)
      }
    })
    await settle()
  }
  return { came, letIn }
}

describe.each([0, 700])("1,000 clients of a hub that is away for %i ms", (awayMs) => {
  it("come in their slots, and at no time more than twice the mean", async () => {
    const all: Array<Awaited<ReturnType<typeof connected>>> = []
    for (let i = 0; i < count; i++) all.push(await connected())
    const { came, letIn } = await restart(
      all.map(({ network }) => network),
      awayMs
    )
    expect(came.map(([first]) => first)).toEqual(came.map((_, i) => i * slotMs))
    // Who found no hub comes again, but not at once with the others.
    expect(mostAtOnce(came.flat())).toBeLessThanOrEqual(2 * mean)
    expect(mostAtOnce(letIn)).toBeLessThanOrEqual(2 * mean)
    await Promise.all(all.map(({ client }) => client.close()))
  })
})
