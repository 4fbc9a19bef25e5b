/** Turns and holds, with connections that are numbers: how much each has left to be looked at. */
import { describe, expect, it } from "vitest"
import fc from "fast-check"
import { Intake, place, type Place } from "../../../src/layers/websocket/Intake.ts"

interface Scene {
  readonly intake: Intake
  /** What was looked at in each turn, by name. */
  readonly turns: ReadonlyArray<ReadonlyArray<string>>
  readonly add: (name: string, messages: number) => Client
  /** Runs until nothing is to be done; how many turns that took. */
  readonly run: () => number
  readonly setQueued: (n: number) => void
  readonly pauses: () => number
  readonly look: () => void
}

interface Client {
  readonly place: Place
  left: number
}

const scene = (publishes = false): Scene => {
  const soon: Array<() => void> = []
  const later: Array<() => void> = []
  const turns: Array<Array<string>> = [[]]
  let queued = 0
  let pauses = 0
  const intake = new Intake({
    queued: () => queued,
    pauseAtEvents: 100,
    pauseAtBytes: 1_000,
    soon: (run) => void soon.push(run),
    later: (run) => void later.push(run),
    onPause: () => void pauses++
  })
  return {
    intake,
    turns,
    add: (name, messages) => {
      const client: Client = {
        left: messages,
        place: place(() => {
          while (client.left > 0) {
            if (publishes && intake.holds(client.place)) return
            if (!intake.may(client.place)) return
            client.left--
            turns.at(-1)!.push(name)
            if (publishes) {
              queued++
              client.place.unanswered++
            }
          }
        })
      }
      client.place.work()
      return client
    },
    run: () => {
      let count = 0
      for (let next = soon.shift(); next !== undefined; next = soon.shift()) {
        count++
        turns.push([])
        next()
      }
      return count
    },
    setQueued: (n) => void (queued = n),
    pauses: () => pauses,
    look: () => later.shift()?.()
  }
}

const of = (turn: ReadonlyArray<string>, name: string): number =>
  turn.filter((other) => other === name).length

describe("a turn", () => {
  it("gives a lone connection all of it, and the rest in the next ones", () => {
    const { add, run, turns } = scene()
    const client = add("a", 1_200)
    expect(client.left).toBe(1_200 - 512)
    run()
    expect(client.left).toBe(0)
    expect(turns.map((turn) => turn.length).filter((n) => n > 0)).toEqual([512, 512, 176])
  })

  it("lets one that comes while others have much go first in the next", () => {
    const { add, run, turns } = scene()
    for (let i = 0; i < 50; i++) add(`flood-${i}`, 1_000)
    expect(add("modest", 1).left).toBe(1)
    run()
    expect(of(turns.slice(0, 12).flat(), "modest")).toBe(1)
    // The first was alone until the second came, and so is the last that has something left.
    const crowded = turns.slice(1).filter((turn) => new Set(turn).size > 1)
    expect(crowded.length).toBeGreaterThan(100)
    expect(crowded.filter((turn) => turn.length > 128).length).toBeLessThanOrEqual(1)
  })

  it("lets one that was at it in the last turn wait for those that were not", () => {
    const { add, intake, turns } = scene()
    add("flood", 10_000)
    const next = turns.length
    expect(next).toBe(1)
    const modest = place(() => {})
    expect(intake.may(modest)).toBe(false)
    expect(modest.used).toBe(0)
  })

  it("counts a frame by its size", () => {
    const { intake } = scene()
    const big = place(() => {})
    expect(intake.may(big, 1_048_576)).toBe(true)
    expect(intake.may(place(() => {}))).toBe(false)
  })

  it("is never more than it may be, and in the end everything was looked at, each in its order", () => {
    const sizes = fc.array(fc.integer({ min: 1, max: 3_000 }), { minLength: 1, maxLength: 12 })
    fc.assert(
      fc.property(sizes, (sizes) => {
        const { add, run, turns } = scene()
        const clients = sizes.map((size, i) => add(`c${i}`, size))
        run()
        expect(clients.map(({ left }) => left)).toEqual(sizes.map(() => 0))
        for (const turn of turns) expect(turn.length).toBeLessThan(128 + 512)
        const total = sizes.reduce((sum, size) => sum + size, 0)
        expect(turns.flat()).toHaveLength(total)
      }),
      { numRuns: 50 }
    )
  })

  it("does not come to a connection that is over", () => {
    const { add, intake, run } = scene()
    const client = add("a", 2_000)
    intake.leave(client.place)
    run()
    expect(client.left).toBe(2_000 - 512)
  })
})

describe("a store that is behind", () => {
  it("holds those who publish at the mark, and lets them go on at half of it", () => {
    const { add, look, pauses, run, setQueued } = scene(true)
    const client = add("a", 300)
    expect(client.left).toBe(200)
    expect(pauses()).toBe(1)
    run()
    expect(client.left).toBe(200)
    setQueued(51)
    look()
    run()
    expect(client.left).toBe(200)
    setQueued(50)
    look()
    run()
    expect(client.left).toBe(150)
    expect(pauses()).toBe(2)
  })

  it("lets them go on when its answers say so, without waiting to look", () => {
    const { add, intake, run, setQueued } = scene(true)
    const client = add("a", 120)
    intake.offered(client.place, 10)
    setQueued(0)
    intake.answered(client.place, 10)
    run()
    expect(client.left).toBe(0)
  })

  it("is behind by bytes, too", () => {
    const { intake, pauses } = scene()
    const held = place(() => {})
    intake.offered(held, 999)
    expect(intake.holds(held)).toBe(false)
    intake.offered(held, 1)
    expect(intake.holds(held)).toBe(true)
    intake.answered(held, 400)
    expect(intake.holds(held)).toBe(true)
    intake.answered(held, 100)
    expect(intake.holds(held)).toBe(false)
    expect(pauses()).toBe(1)
  })

  it("lets those go on first that were held first, and none for ever", () => {
    const { add, look, run, setQueued } = scene(true)
    const clients = ["a", "b", "c"].map((name) => add(name, 200))
    for (let i = 0; i < 20; i++) {
      setQueued(0)
      look()
      run()
    }
    expect(clients.map(({ left }) => left)).toEqual([0, 0, 0])
  })

  it("holds nobody who has nothing there, up to twice the mark", () => {
    const { add, run, setQueued } = scene(true)
    add("flood", 1_000)
    const modest = add("modest", 1)
    expect(modest.left).toBe(0)
    setQueued(200)
    const late = add("late", 1)
    run()
    expect(late.left).toBe(1)
    setQueued(199)
    late.place.work()
    expect(late.left).toBe(0)
  })
})
