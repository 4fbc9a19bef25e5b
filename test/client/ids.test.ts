/** The ids that publishes get by themselves. */
import { afterEach, beforeEach, expect, it, vi } from "vitest"
import { made, requests, settle } from "./playing.ts"

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it("are UUIDs of version 7: random where they may be, and in the order of time", async () => {
  const { client, network } = made({ maxPending: 5_000 })
  const begin = Date.UTC(2026, 0, 2)
  vi.setSystemTime(begin)
  const count = 2_000
  for (let i = 0; i < count; i++) {
    client.publish("a", i).catch(() => {})
    vi.setSystemTime(begin + i + 1)
  }
  await settle()
  network.last.accept()
  await settle()
  const ids = requests(network.last, "PUBLISH").map(({ opts }) => String(opts?.["id"]))
  expect(ids).toHaveLength(count)
  for (const [i, id] of ids.entries()) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    // RFC 9562, section 5.7: the first 48 bits are the time.
    expect(Number.parseInt(id.replace("-", "").slice(0, 12), 16)).toBe(begin + i)
  }
  expect(ids.toSorted()).toEqual(ids)
  // Every digit takes every value it may, which 2,000 of them miss with a chance of less than 1e-50.
  const values = (at: number): string => [...new Set(ids.map((id) => id[at]!))].toSorted().join("")
  const isRandom = (at: number) => values(at) === "0123456789abcdef"
  expect([15, 16, 17, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35].every(isRandom)).toBe(true)
  expect(values(19)).toBe("89ab")
  const closed = client.close()
  // Nobody answers the publishes.
  await vi.advanceTimersByTimeAsync(5_000)
  await closed
})
