/** Scenarios of what only a page has: a network that it is told of, and somebody who looks. */
import { equal, holds, made, recorded, until } from "./checks.ts"
import type { Scenario } from "./Scenario.ts"

/** Nobody waits for such a back-off to be over. */
const patient = { reconnectBaseMs: 2e9, reconnectMaxMs: 2e9 }

/** Told by the page's document, which says `visible` in a browser that nobody looks at, too. */
const look = (): void => {
  const { document } = globalThis as unknown as { readonly document: EventTarget }
  document.dispatchEvent(new Event("visibilitychange"))
}

const online: Scenario = {
  name: "pages: `online` ends the back-off at once",
  hub: {},
  isForPages: true,
  run: async (setting) => {
    const { control } = setting
    await using client = made(setting, patient)
    const seqs: Array<number> = []
    await client.subscribe("online.a", ({ seq }) => void seqs.push(seq)).ready
    await client.publish("online.a", 1)
    await control.setOffline(true)
    await control.kill()
    await until("it waits", () => client.state._tag === "waiting")
    const { state } = client
    holds("it would wait for long", state._tag === "waiting" && state.retryInMs > 60_000)
    await control.start()
    equal("it waits still", client.state._tag, "waiting")
    await control.setOffline(false)
    await client.publish("online.a", 2)
    await until("it goes on", () => seqs.length >= 2)
    equal("the events", seqs, [1, 2])
  }
}

const visible: Scenario = {
  name: "pages: `visibilitychange` asks the hub at once, and ends the back-off",
  hub: {},
  isForPages: true,
  run: async (setting) => {
    const { control } = setting
    const { sent, WebSocket } = recorded()
    await using client = made(setting, { ...patient, WebSocket })
    await client.connect()
    const pings = () => sent.filter((frame) => frame.includes('"PING"')).length
    equal("nobody has asked", pings(), 0)
    look()
    await until("it asks", () => pings() === 1)
    await control.kill()
    await until("it waits", () => client.state._tag === "waiting")
    await control.start()
    look()
    await until("it is connected", () => client.state._tag === "ready")
  }
}

export const pages: ReadonlyArray<Scenario> = [online, visible]
