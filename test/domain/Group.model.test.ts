/**
 * What holds for a consumer group whatever happens to it, in random lives of one: against a naive model, and
 * as promises of their own.
 */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Group from "../../src/domain/Group.ts"
import { backoff, candidates, history, type History, play, type Step } from "./groupHistory.ts"
import { NaiveGroup, placeIn } from "./NaiveGroup.ts"

const always = (title: string, holds: (steps: ReadonlyArray<Step>, lived: History) => void, numRuns = 150) =>
  it(title, () => {
    fc.assert(
      fc.property(history, (lived) => holds(play(lived), lived)),
      { numRuns }
    )
  })

const seqsOf = (deliveries: ReadonlyArray<Group.Delivery>) => deliveries.map(({ seq }) => seq)

const lastOf = (steps: ReadonlyArray<Step>) => {
  const last = steps.at(-1)
  const published = last?.operation._tag === "Publish" ? last.operation.keys : []
  return {
    state: last?.after ?? Group.initial("g", 0),
    keys: [...(last?.keys ?? []), ...published],
    now: last?.now ?? 0
  }
}

const isDone = (state: Group.GroupState, seq: number) => placeIn(state, seq).at === "done"

describe("a consumer group and its naive model", () => {
  always(
    "do the same, operation for operation",
    (steps, { setup }) => {
      const model = new NaiveGroup(setup)
      for (const step of steps) {
        const { after, before, deliveries, operation, outcomes } = step
        if (operation._tag === "Claim") {
          const { deferred, fresh, retries } = model.choose(operation.request, before.next)
          const fromDeferred = seqsOf(deliveries).filter((seq) => deferred.of.includes(seq))
          expect(fromDeferred.length).toBe(deferred.count)
          expect(seqsOf(deliveries).toSorted((a, b) => a - b)).toEqual(
            [...retries, ...fromDeferred, ...fresh].toSorted((a, b) => a - b)
          )
        }
        expect(model.follow(step)).toEqual(outcomes)
        expect(model.places.map((_, i) => placeIn(after, i + 1))).toEqual(model.places)
        expect(after.floor).toBe(model.floor)
      }
    },
    500
  )

  always("say the same of a delivery to its member", (steps, { setup }) => {
    const model = new NaiveGroup(setup)
    for (const step of steps) {
      const before = [...model.places]
      model.follow(step)
      for (const { attempt, deadline, redelivered, seq } of step.deliveries) {
        expect(model.places[seq - 1]).toMatchObject({ at: "inFlight", attempt, deadline })
        expect(redelivered).toBe(before[seq - 1]!.at === "waiting")
      }
    }
  })

  always("count the same", (steps, { setup }) => {
    const model = new NaiveGroup(setup)
    for (const step of steps) {
      model.follow(step)
      const { after } = step
      const at = (name: string) => model.places.filter((place) => place.at === name).length
      const head = model.places.length
      const skipped = model.places.filter((place, i) => place.at === "new" && i + 1 < after.next).length
      expect(Group.counts(after)).toMatchObject({
        inFlight: at("inFlight"),
        waiting: at("waiting"),
        dying: at("dying"),
        deferred: skipped
      })
      expect(Group.pending(after, head)).toBe(head - at("done"))
      expect(Group.oldestUnacked(after, head)).toBe(model.floor < head ? model.floor + 1 : undefined)
      const times = model.places.flatMap((place) =>
        place.at === "inFlight" ? [place.deadline] : place.at === "waiting" ? [place.notBefore] : []
      )
      expect(Group.wakeAt(after)).toBe(Math.min(Infinity, ...times))
    }
  })
})

describe("a consumer group", () => {
  always("has every event it has looked at in exactly one place", (steps, { setup }) => {
    for (const { after: state, keys } of steps) {
      const acked = state.acked.flatMap(([from, to]) =>
        Array.from({ length: to - from + 1 }, (_, i) => from + i)
      )
      const deferred = [...state.deferred.values()].flat()
      const places = [
        acked,
        [...state.inFlight.keys()],
        [...state.waiting.keys()],
        [...state.dying.keys()],
        deferred
      ]
      const expected = Array.from({ length: state.next - 1 - state.floor }, (_, i) => state.floor + 1 + i)
      expect(places.flat().toSorted((a, b) => a - b)).toEqual(expected)
      for (const [key, seqs] of state.deferred) {
        expect(seqs.length).toBeGreaterThan(0)
        expect(seqs).toEqual(seqs.toSorted((a, b) => a - b))
        expect(seqs.map((seq) => keys[seq - 1])).toEqual(seqs.map(() => key))
      }
      if (!setup.options.keyOrdered) expect(deferred).toEqual([])
    }
  })

  always(
    "keeps what is acknowledged above the floor as few ranges, none of which touches another",
    (steps) => {
      for (const { after } of steps) {
        let end = after.floor
        for (const [from, to] of after.acked) {
          expect(from).toBeGreaterThan(end + 1)
          expect(to).toBeGreaterThanOrEqual(from)
          end = to
        }
      }
    }
  )

  always("never delivers what is done, nor what somebody has, nor one event twice in a claim", (steps) => {
    for (const { before, deliveries } of steps) {
      const seqs = seqsOf(deliveries)
      expect(new Set(seqs).size).toBe(seqs.length)
      for (const seq of seqs) expect(["new", "waiting"]).toContain(placeIn(before, seq).at)
    }
  })

  always("is done with an event only by its acknowledgement, its burial, a trim or a seek", (steps) => {
    for (const { after, before, keys, operation, outcomes } of steps) {
      const done = keys.map((_, i) => i + 1).filter((seq) => isDone(after, seq) && !isDone(before, seq))
      const may = new Set<number>()
      if (operation._tag === "Ack") {
        operation.answers.forEach(({ seq }, i) => outcomes[i] === "done" && may.add(seq))
      } else if (operation._tag === "Bury") {
        for (const seq of operation.seqs) if (before.dying.has(seq)) may.add(seq)
      } else if (operation._tag === "Trim" || operation._tag === "Seek") {
        for (let seq = 1; seq <= operation.floor; seq++) may.add(seq)
      }
      expect(done.filter((seq) => !may.has(seq))).toEqual([])
      if (operation._tag !== "Seek") {
        expect(after.floor).toBeGreaterThanOrEqual(before.floor)
        expect(keys.some((_, i) => isDone(before, i + 1) && !isDone(after, i + 1))).toBe(false)
      }
    }
  })

  always(
    "takes nothing beyond its window, and says that it is stalled exactly when that is why",
    (steps, { setup }) => {
      const { options, window } = setup
      for (const { after, before, deliveries, keys, now } of steps) {
        for (const { redelivered, seq } of deliveries) {
          if (!redelivered) expect(seq - before.floor).toBeLessThanOrEqual(window)
        }
        if (after.next > before.next && after.floor === before.floor) {
          expect(after.next - 1 - after.floor).toBeLessThanOrEqual(window)
        }
        const request = { now, member: "dan", limit: 100, mode: "shared", options, window } as const
        const more = Group.claim(after, { ...request, candidates: candidates(after, keys) })
        const moves = more.state.next > after.next
        expect(Group.isStalled(after, keys.length, window)).toBe(!moves && after.next <= keys.length)
      }
    }
  )

  always("delivers events of one key one at a time, each when all before it are done", (steps, { setup }) => {
    if (!setup.options.keyOrdered) return
    for (const { after, before, deliveries, keys } of steps) {
      const inFlight = [...after.inFlight.values()].flatMap(({ key }) => key ?? [])
      expect(new Set(inFlight).size).toBe(inFlight.length)
      for (const { seq } of deliveries) {
        const key = keys[seq - 1]
        const earlier = keys.flatMap((other, i) =>
          key !== undefined && other === key && i + 1 < seq ? [i + 1] : []
        )
        expect(earlier.filter((other) => !isDone(before, other))).toEqual([])
      }
    }
  })

  always("delivers a suspect alone", (steps) => {
    for (const { after, before, deliveries, operation } of steps) {
      const suspects = deliveries.filter(({ seq }) => (before.waiting.get(seq)?.unanswered ?? 0) >= 2)
      if (operation._tag !== "Claim") continue
      const { limit, member, mode, now } = operation.request
      if (mode === "shared") expect(suspects).toEqual([])
      else expect(deliveries.length).toBe(limit > 0 && Group.suspectDue(before, now) ? 1 : 0)
      expect(suspects.length).toBe(mode === "shared" ? 0 : deliveries.length)
      const own = [...after.inFlight.values()].filter((entry) => entry.member === member)
      if (Group.holdsSuspect(after, member)) expect(own.length).toBe(1)
    }
  })

  always("takes no second answer to what was refused or handed back", (steps) => {
    for (const { after, before, now, operation, outcomes } of steps) {
      const given: Array<Group.Answer> = []
      if (operation._tag === "Nack") {
        given.push(...operation.refusals.filter((_, i) => outcomes[i] === "done"))
      } else if (operation._tag === "Leave") {
        const { member } = operation
        for (const [seq, entry] of before.inFlight) if (entry.member === member) given.push({ seq, member })
      }
      for (const { member, seq } of given) {
        for (const attempt of [undefined, 0, 1, 2]) {
          const again = { seq, member, attempt, mode: "release", reason: "", random: 0 } as const
          const stale = { state: after, outcomes: ["stale"] }
          expect(Group.nack(after, [again], { now, maxAttempts: 4, backoff })).toEqual(stale)
          expect(Group.ack(after, [again])).toEqual(stale)
        }
      }
    }
  })

  always("knows nothing of the deliveries of before a seek", (steps) => {
    for (const { after, before, operation } of steps) {
      if (operation._tag !== "Seek") continue
      expect(after.generation).not.toBe(before.generation)
      expect(after).toEqual(Group.initial(operation.generation, operation.floor))
      for (const [seq, { attempt, member }] of before.inFlight) {
        const late = Group.ack(after, [{ seq, member, attempt }])
        expect(late).toEqual({ state: after, outcomes: [seq <= operation.floor ? "already" : "stale"] })
      }
    }
  })

  always(
    "loses nothing: when all members are gone and one drains it, every event is delivered and done",
    (steps, { setup }) => {
      const { options, window } = setup
      const last = lastOf(steps)
      const { keys } = last
      const head = keys.length
      const delivered = new Set<number>()
      let now = last.now
      let state = Group.removeMembers(last.state, () => true, { now, maxAttempts: options.maxAttempts })
      const left = new Set(
        keys.map((_, i) => i + 1).filter((seq) => !isDone(state, seq) && !state.dying.has(seq))
      )
      for (let round = 0; round <= 2 * head && state.floor < head; round++) {
        now += 1_000
        state = Group.bury(state, state.dying.keys())
        for (const mode of ["shared", "alone"] as const) {
          const request = { now, member: "dan", limit: 3, mode, options, window }
          const claimed = Group.claim(state, { ...request, candidates: candidates(state, keys, 5) })
          for (const { seq } of claimed.deliveries) delivered.add(seq)
          const answers = claimed.deliveries.map(({ attempt, seq }) => ({ seq, member: "dan", attempt }))
          state = Group.ack(claimed.state, answers).state
        }
      }
      expect(state).toEqual(Group.initial(state.generation, head))
      expect(delivered).toEqual(left)
    }
  )

  always("is read back as it was written", (steps) => {
    for (const { after } of steps) {
      const text = Group.encodeState(after)
      const read = Group.decodeState(text)
      expect(read).toEqual(Result.succeed(after))
      expect(Group.encodeState(Result.getOrThrow(read))).toBe(text)
    }
  })
})
