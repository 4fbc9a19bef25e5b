/** Credit is divided, used and given back, and never more of it than there is. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import {
  creditFreedBy,
  type CreditPool,
  GroupCredit,
  wantedBy
} from "../../../src/layers/core/GroupCredit.ts"
import { freeCredit, type GroupMember, type SuspectHolder } from "../../../src/layers/core/groupMember.ts"
import type { Answer } from "../../../src/services/GroupDelivery.ts"

const topic = "orders"

const member = (id: string, credit: number, more: Partial<GroupMember> = {}): GroupMember => ({
  id,
  credit,
  sink: { deliver: () => {}, gap: () => {}, end: () => {} },
  matches: () => true,
  isStarted: true,
  isPaused: false,
  isClosed: false,
  inFlight: 0,
  reserved: 0,
  holdFor: undefined,
  held: new Map(),
  ...more
})

const retries = { takeDue: () => 0 }

/** A topic of a group with these members, and whether it was told to go on. */
const scene = (members: ReadonlyArray<GroupMember>, starved: ReadonlyArray<SuspectHolder> = []) => {
  const pool: CreditPool = { isPaused: false, members: new Set(members), starved: new Set(starved) }
  let goesOn = 0
  const user = { topic, hasSuspectDue: false, wake: () => {}, goOn: () => void goesOn++ }
  const credit = new GroupCredit(pool, user, () => false)
  const allot = (work: number, hasSuspect = false) => credit.allot({ work, hasSuspect, answers: [], retries })
  return { pool, user, credit, allot, goesOn: () => goesOn }
}

/** Another topic of the group, and how often it was woken. */
const other = () => {
  let woken = 0
  return { hasSuspectDue: false, wake: () => void woken++, woken: () => woken }
}

const limits = (allotments: ReturnType<GroupCredit["allot"]>) =>
  allotments.map(({ limit, member, mode }) => [member.id, limit, mode])

const holding = (one: GroupMember, ...ids: ReadonlyArray<string>): GroupMember => {
  one.held.set(
    topic,
    new Map(ids.map((id, i) => [id, { seq: i + 1, attempt: 1, generation: "g", sentAt: 0, isOpen: true }]))
  )
  one.inFlight += ids.length
  return one
}

const ack = (...ids: ReadonlyArray<string>): Answer => ({ _tag: "Ack", topic, ids })

describe("GroupCredit: shares", () => {
  it("gives each member a part of the work, each time beginning with another", () => {
    const { allot, credit } = scene([member("ann", 10), member("bob", 10)])
    const first = allot(7)
    expect(limits(first)).toEqual([
      ["ann", 4, "shared"],
      ["bob", 4, "shared"]
    ])
    credit.giveBack(first)
    expect(allot(7).map((one) => one.member.id)).toEqual(["bob", "ann"])
  })

  it("leaves something to the topics that found none", () => {
    const { allot } = scene([member("ann", 12)], [other(), other()])
    expect(limits(allot(100))).toEqual([["ann", 4, "shared"]])
  })

  it("gives nothing to members that are not there for it", () => {
    const { allot, pool } = scene([
      member("early", 5, { isStarted: false }),
      member("paused", 5, { isPaused: true }),
      member("gone", 5, { isClosed: true }),
      member("elsewhere", 5, { matches: () => false }),
      member("kept", 5, { holdFor: other() })
    ])
    expect(allot(1)).toEqual([])
    expect(pool.starved.size).toBe(1)
  })

  it("gives nothing while the group is paused, or the hub drains", () => {
    const { allot, pool, user } = scene([member("ann", 5)])
    pool.isPaused = true
    expect(allot(1)).toEqual([])
    pool.isPaused = false
    const draining = new GroupCredit(pool, user, () => true)
    expect(draining.allot({ work: 1, hasSuspect: false, answers: [], retries })).toEqual([])
    expect(allot(1)).toHaveLength(1)
  })

  it("hands out what answers are about to free, unless another topic waits for it", () => {
    const ann = holding(member("ann", 2), "a", "b")
    const { credit, pool } = scene([ann])
    const answers = [{ member: ann, answer: ack("a", "b", "unknown") }]
    const given = { work: 5, hasSuspect: false, answers, retries }
    const [only] = credit.allot(given)
    expect(only).toMatchObject({ limit: 2, toBeFreed: 2 })
    credit.giveBack([only!])
    pool.starved.add(other())
    expect(credit.allot(given)).toEqual([])
  })

  it("never sets more aside than is free, takes all that was given back, and starves only without credit", () => {
    const given = fc.array(fc.record({ credit: fc.integer({ min: 1, max: 300 }), used: fc.nat(300) }), {
      maxLength: 6
    })
    fc.assert(
      fc.property(given, fc.nat(3_000), fc.nat(3), (given, work, waiting) => {
        const members = given.map(({ credit, used }, i) =>
          member(`m${i}`, credit, { inFlight: Math.min(credit, used) })
        )
        const free = members.map(freeCredit)
        const all = free.reduce((sum, n) => sum + n, 0)
        const { allot, credit, pool, user } = scene(members, Array.from({ length: waiting }, other))
        const allotments = allot(work)
        expect(pool.starved.has(user)).toBe(work > 0 && all === 0)
        expect(allotments.length > 0).toBe(work > 0 && all > 0)
        for (const one of members) expect(freeCredit(one)).toBeGreaterThanOrEqual(0)
        for (const { limit } of allotments) expect(limit).toBeGreaterThan(0)
        // Rounded up for each member.
        expect(wantedBy(allotments)).toBeLessThan(Math.min(work, 512) + Math.max(1, allotments.length))
        if (waiting === 0 && work > 0) {
          const takers = free.filter((n) => n > 0)
          const each = Math.ceil(Math.min(work, 512) / takers.length)
          expect(wantedBy(allotments)).toBe(takers.reduce((sum, n) => sum + Math.min(n, each), 0))
        }
        credit.giveBack(allotments)
        expect(members.map(freeCredit)).toEqual(free)
      })
    )
  })
})

describe("GroupCredit: suspects", () => {
  it("sets all credit of an idle member aside, and the others get the rest of the work", () => {
    const { allot } = scene([member("ann", 3), member("bob", 5)])
    expect(limits(allot(2, true))).toEqual([
      ["ann", 3, "alone"],
      ["bob", 2, "shared"]
    ])
  })

  it("holds the member that has least, until it is idle", () => {
    const ann = holding(member("ann", 3), "a", "b")
    const bob = holding(member("bob", 3), "c")
    const { allot, credit, user } = scene([ann, bob])
    expect(allot(0, true)).toEqual([])
    expect(bob.holdFor).toBe(user)
    user.hasSuspectDue = true
    expect(credit.release(bob, "c")).toBe(true)
    expect(bob.holdFor).toBe(user)
    expect(limits(allot(0, true))).toEqual([["bob", 3, "alone"]])
  })

  it("gives the others a turn when the only member has had one", () => {
    const { allot, credit, goesOn } = scene([member("ann", 3)])
    credit.giveBack(allot(1, true))
    expect(limits(allot(1, true))).toEqual([["ann", 1, "shared"]])
    expect(goesOn()).toBe(1)
  })

  it("lets the member go when there is none any more, and wakes who is starved", () => {
    const waiting = other()
    const ann = member("ann", 3)
    const { allot, goesOn, user } = scene([ann], [waiting])
    ann.holdFor = user
    allot(0)
    expect(ann.holdFor).toBeUndefined()
    expect(waiting.woken()).toBe(1)
    expect(goesOn()).toBe(1)
  })
})

describe("GroupCredit: what is over", () => {
  it("frees credit once for each delivery that counts against it", () => {
    const ann = holding(member("ann", 3), "a", "b")
    ann.held.get(topic)!.get("b")!.isOpen = false
    ann.inFlight = 1
    const { credit } = scene([ann])
    expect(credit.release(ann, "a")).toBe(true)
    expect(credit.release(ann, "a")).toBe(false)
    expect(credit.release(ann, "b")).toBe(false)
    expect(ann.inFlight).toBe(0)
  })

  it("wakes who is starved as long as there is credit, and whoever a member is held for", () => {
    const holder = other()
    const waiting = other()
    const ann = member("ann", 3)
    const { allot, credit } = scene([ann])
    const allotments = allot(3)
    ann.holdFor = holder
    credit.giveBack(allotments)
    expect(holder.woken()).toBe(1)
    const { credit: full, pool } = scene([member("bob", 1, { inFlight: 1 })], [waiting])
    full.wakeOthers()
    expect(waiting.woken()).toBe(0)
    for (const bob of pool.members) bob.inFlight = 0
    full.wakeOthers()
    expect(waiting.woken()).toBe(1)
  })
})

describe("creditFreedBy", () => {
  it("counts each open delivery once, and no extension", () => {
    const ann = holding(member("ann", 5), "a", "b", "c")
    ann.held.get(topic)!.get("c")!.isOpen = false
    const bob = holding(member("bob", 5), "a")
    const freed = creditFreedBy(topic, [
      { member: ann, answer: ack("a", "c") },
      { member: ann, answer: ack("a", "b", "unknown") },
      { member: bob, answer: { _tag: "Extend", topic, ids: ["a"] } }
    ])
    expect([...freed]).toEqual([[ann, 2]])
    expect(creditFreedBy("another", [{ member: ann, answer: ack("a") }]).size).toBe(0)
  })
})
