/** Scenarios of groups: how many at a time, how they answer, how they share, and how they leave. */
import { type Delivery, HubError, Nack } from "../../../src/client/index.ts"
import { equal, gate, holds, made, sleep, until, upTo } from "./checks.ts"
import type { Scenario } from "./Scenario.ts"

const concurrency: Scenario = {
  name: "groups: as many handlers at a time as one says, and each event once",
  run: async (setting) => {
    await using client = made(setting)
    const end = gate()
    const handled: Array<unknown> = []
    let running = 0
    let most = 0
    const handler = async ({ payload }: { readonly payload: unknown }) => {
      most = Math.max(most, ++running)
      await end.passed
      running--
      handled.push(payload)
    }
    await client.consume("concurrent.a", "concurrent", handler, { concurrency: 3 }).ready
    for (const n of upTo(9)) await client.publish("concurrent.a", n)
    await until("three run", () => running === 3)
    end.open()
    await until("all are handled", () => handled.length >= 9)
    equal("each once", handled.toSorted(), upTo(9))
    equal("at a time", most, 3)
  }
}

const answers: Scenario = {
  name: "groups: what fails comes again, what is released does not count, and poison is a dead letter",
  run: async (setting) => {
    await using client = made(setting)
    const errors: Array<unknown> = []
    client.on("error", (error) => errors.push(error))
    const dead: Array<unknown> = []
    await client.subscribe("$dead.answers.**", ({ headers, payload }) => void dead.push([payload, headers]))
      .ready
    const seen: Array<readonly [unknown, number]> = []
    const modes = new Map<unknown, Nack>([
      ["fail", new Nack("fail", { delayMs: 0 })],
      ["release", new Nack("release")],
      ["poison", new Nack("poison", { reason: "hopeless" })]
    ])
    const group = client.consume("answers.a", "answers", ({ payload }, { attempt }) => {
      const isFirst = !seen.some(([other]) => other === payload)
      seen.push([payload, attempt])
      const nack = isFirst ? modes.get(payload) : undefined
      if (nack) throw nack
    })
    await group.ready
    for (const payload of ["good", ...modes.keys()]) await client.publish("answers.a", payload)
    await until("all are answered", () => seen.length >= 6 && dead.length === 1)
    equal("the attempts", seen.toSorted(), [
      ["fail", 1],
      ["fail", 2],
      ["good", 1],
      ["poison", 1],
      ["release", 1],
      ["release", 1]
    ])
    holds("the dead letter says why", JSON.stringify(dead).includes("hopeless"))
    equal("what is told", errors.length, 3)
  }
}

const byHand: Scenario = {
  name: "groups: answered by hand, once, and refused by hand",
  run: async (setting) => {
    await using client = made(setting)
    const group = client.consume("hand.a", "hand")
    await group.ready
    for (const n of upTo(2)) await client.publish("hand.a", n)
    const seen: Array<unknown> = []
    let first: Delivery | undefined
    for await (const delivery of group) {
      const { attempt, event } = delivery
      seen.push([event.payload, attempt])
      first ??= delivery
      if (event.payload === 2 && attempt === 1) await delivery.nack({ delayMs: 0, reason: "not yet" })
      else await delivery.ack()
      if (seen.length === 3) break
    }
    equal("the attempts", seen, [
      [1, 1],
      [2, 1],
      [2, 2]
    ])
    const again = await first?.ack().then(
      () => "taken",
      (error: unknown) => error instanceof HubError && error.code
    )
    equal("a second answer", again, "stale")
  }
}

const extend: Scenario = {
  name: "groups: a handler that takes longer than the hub waits keeps its event",
  run: async (setting) => {
    await using client = made(setting)
    const seen: Array<unknown> = []
    let isLost = true
    const handler = async ({ payload }: { readonly payload: unknown }, delivery: Delivery) => {
      const { attempt, deadline } = delivery
      seen.push([payload, attempt])
      if (payload !== 1) return
      // The hub's clock is this machine's.
      await sleep(deadline - Date.now() + 500)
      holds("the deadline has moved", delivery.deadline > deadline)
      isLost = delivery.signal.aborted
      seen.push("done")
    }
    await client.consume("extend.a", "extend", handler, { ackTimeoutMs: 4_000 }).ready
    await client.publish("extend.a", 1)
    await until("it is done", () => seen.includes("done"))
    // What came again would come before this.
    await client.publish("extend.a", 2)
    await until("the next one", () => seen.length >= 3)
    equal("handled once", seen, [[1, 1], "done", [2, 1]])
    holds("it was not lost", !isLost)
  }
}

const share: Scenario = {
  name: "groups: two members share, and what one has in hand when it is aborted goes to the other",
  run: async (setting) => {
    await using one = made(setting)
    await using two = made(setting)
    await using publisher = made(setting)
    const leave = new AbortController()
    const begun: Array<readonly [member: number, payload: unknown, attempt: number]> = []
    const both = gate()
    const member = (n: number) => async (event: { readonly payload: unknown }, delivery: Delivery) => {
      begun.push([n, event.payload, delivery.attempt])
      if (new Set(begun.map(([n]) => n)).size === 2) both.open()
      await both.passed
      // The first never ends its first one.
      if (n === 1) await new Promise((resolve) => delivery.signal.addEventListener("abort", resolve))
    }
    const options = { concurrency: 1, credit: 1 }
    const left = one.consume("share.a", "share", member(1), { ...options, signal: leave.signal })
    await left.ready
    await two.consume("share.a", "share", member(2), options).ready
    for (const n of upTo(10)) await publisher.publish("share.a", n)
    await until("the second has all but one", () => begun.length === 10)
    const [, inHand] = begun.find(([n]) => n === 1) ?? []
    leave.abort(new Error("enough"))
    await left.done
    await until("it goes to the other", () => begun.length >= 11)
    equal("without a failed attempt", begun.at(-1), [2, inHand, 1])
    equal(
      "each is handled once",
      begun.flatMap(([n, payload]) => (n === 2 ? [Number(payload)] : [])).toSorted((a, b) => a - b),
      upTo(10)
    )
  }
}

export const groups: ReadonlyArray<Scenario> = [concurrency, answers, byHand, extend, share]
