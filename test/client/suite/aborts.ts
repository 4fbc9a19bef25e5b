/** Scenarios of `AbortSignal`: whatever waits ends with the signal's own reason. */
import { equal, failure, gate, holds, made, until } from "./checks.ts"
import type { Scenario } from "./Scenario.ts"

const waiting: Scenario = {
  name: "abort: connecting and publishing end with the reason, and nothing was sent",
  run: async (setting) => {
    const go = gate()
    await using client = made(setting, {
      getToken: async () => {
        await go.passed
        return setting.token()
      }
    })
    const reason = new Error("enough")
    const abort = new AbortController()
    const { signal } = abort
    const connecting = failure(client.connect({ signal }))
    const publishing = failure(client.publish("abort.a", "taken back", { signal }))
    const staying = client.publish("abort.a", "stays")
    abort.abort(reason)
    holds("connect", (await connecting) === reason)
    holds("publish", (await publishing) === reason)
    holds("connect, aborted before", (await failure(client.connect({ signal }))) === reason)
    holds("publish, aborted before", (await failure(client.publish("abort.a", 0, { signal }))) === reason)
    go.open()
    equal("the only event", (await staying).seq, 1)
    equal("it connects for all that", client.state._tag, "ready")
  }
}

const subscriptions: Scenario = {
  name: "abort: subscriptions and groups end without an error, before they stand with the reason",
  run: async (setting) => {
    await using client = made(setting)
    const reason = new Error("enough")
    const aborted = AbortSignal.abort(reason)
    const ready = [
      client.subscribe("abort.b", { signal: aborted }),
      client.consume("abort.b", "abort", { signal: aborted })
    ]
    for (const one of ready) {
      holds("ready", (await failure(one.ready)) === reason)
      await one.done
    }

    const abort = new AbortController()
    const { signal } = abort
    const seen: Array<unknown> = []
    const live = client.subscribe("abort.b", { signal })
    const calls = client.subscribe("abort.*", ({ payload }) => void seen.push(payload), { signal })
    const group = client.consume("abort.b", "abort", { signal })
    const iterated: Array<unknown> = []
    const iterating = (async () => {
      for await (const item of live) iterated.push(item)
    })()
    const answered: Array<unknown> = []
    const answering = (async () => {
      for await (const delivery of group) {
        answered.push(delivery.event.payload)
        await delivery.ack()
      }
    })()
    await Promise.all([live.ready, calls.ready, group.ready])
    await client.publish("abort.b", 1)
    await until("all have it", () => seen.length + iterated.length + answered.length === 3)
    abort.abort(reason)
    await Promise.all([iterating, answering, live.done, calls.done, group.done])
    await client.publish("abort.b", 2)
    // Their places are free, and what comes now comes to these only.
    const again = client.subscribe("abort.b", { from: "start" })
    for await (const item of again) if (item._tag === "event" && item.payload === 2) break
    equal("what the aborted had", [seen.length, iterated.length, answered.length], [1, 1, 1])
  }
}

export const aborts: ReadonlyArray<Scenario> = [waiting, subscriptions]
