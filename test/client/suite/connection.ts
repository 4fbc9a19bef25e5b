/** Scenarios of the connection: its states, its tokens, and the hub's goodbye. */
import { made, equal, codeOf, holds, recorded, sleep, statesOf, tagsOf, until, upTo } from "./checks.ts"
import type { Scenario } from "./Scenario.ts"

/** The hub looks at the clock ten times a second, and takes no token that is over. */
const strict = { HUB_HEARTBEAT_MS: "1000", JWT_CLOCK_TOLERANCE_MS: "0" }

const connect: Scenario = {
  name: "connect: a connection, its states, its end, and a token that is refused",
  run: async (setting) => {
    await using client = made(setting)
    const states = statesOf(client)
    const { connection, history } = await client.connect()
    holds("the hub names the connection and its store", connection !== "" && history !== "")
    equal("who asks again gets the same", (await client.connect()).connection, connection)
    await client.close()
    equal("its states", tagsOf(states), ["connecting", "ready", "closed"])
    equal("connecting after the end", await codeOf(client.connect()), "closed")
    equal("publishing after the end", await codeOf(client.publish("connect.a", 1)), "closed")

    await using refused = made(setting, { getToken: () => "nonsense" })
    equal("a token that is none", await codeOf(refused.connect()), "jwt_invalid")
    equal("it is over", refused.state._tag, "closed")
  }
}

const refresh: Scenario = {
  name: "token refresh: on the connection that there is, and subscriptions stay",
  hub: strict,
  run: async (setting) => {
    const lifetimes = [4, 600]
    let asked = 0
    await using client = made(setting, {
      getToken: () => setting.token({ expiresIn: lifetimes[asked++] ?? 600 }),
      refreshBeforeMs: 3_000
    })
    const states = statesOf(client)
    const payloads: Array<unknown> = []
    await client.subscribe("refresh.a", ({ payload }) => void payloads.push(payload)).ready
    const { connection, expiresAt } = await client.connect()
    await client.publish("refresh.a", 1)
    // The first one is over, and the hub has looked.
    await sleep((expiresAt ?? 0) - Date.now() + 500)
    await client.publish("refresh.a", 2)
    await until("the second event", () => payloads.length === 2)
    equal("the events", payloads, [1, 2])
    equal("the connection", (await client.connect()).connection, connection)
    equal("its states", tagsOf(states), ["connecting", "ready"])
    equal("tokens asked for", asked, 2)
  }
}

const late: Scenario = {
  name: "token refresh: too late, 4101, and a new connection with another token",
  hub: strict,
  run: async (setting) => {
    const { codes, WebSocket } = recorded()
    const asked: Array<number> = []
    await using client = made(setting, {
      WebSocket,
      refreshBeforeMs: 2_000,
      getToken: async () => {
        const nth = asked.push(Date.now())
        // The second is not there before the hub has closed.
        if (nth === 2) await until("the hub closes", () => codes.length > 0)
        return setting.token({ expiresIn: nth === 1 ? 3 : 600 })
      }
    })
    const states = statesOf(client)
    const payloads: Array<unknown> = []
    await client.subscribe("late.a", ({ payload }) => void payloads.push(payload)).ready
    const { connection } = await client.connect()
    await client.publish("late.a", 1)
    await until("another connection", () => tagsOf(states).filter((tag) => tag === "ready").length === 2)
    await client.publish("late.a", 2)
    await until("the second event", () => payloads.length === 2)
    equal("the events", payloads, [1, 2])
    equal("the hub's close", codes, [4101])
    equal("its states", tagsOf(states), ["connecting", "ready", "connecting", "ready"])
    holds("the connection is another", (await client.connect()).connection !== connection)
    equal("tokens asked for", asked.length, 3)
  }
}

const revocation: Scenario = {
  name: "revocation: 4102, another token is asked for, and nothing is missed",
  hub: "revocable",
  run: async (setting) => {
    const { codes, WebSocket } = recorded()
    const ids = ["first", "second"]
    const given: Array<string> = []
    const tokenOf = (jti: string) => setting.token({ claims: { jti } })
    await using client = made(setting, {
      WebSocket,
      getToken: () => {
        given.push(ids[given.length] ?? "none")
        return tokenOf(given.at(-1)!)
      }
    })
    await using other = made(setting)
    const seqs: Array<number> = []
    const handled: Array<unknown> = []
    await client.subscribe("revoked.a", ({ seq }) => void seqs.push(seq)).ready
    const group = client.consume("revoked.a", "revoked", async ({ payload }, delivery) => {
      // What was not acknowledged comes again, as it should.
      await delivery.ack()
      handled.push(payload)
    })
    await group.ready
    const { connection } = await client.connect()
    await other.publish("revoked.a", 1)
    await until("the first event", () => seqs.length === 1 && handled.length === 1)
    await setting.control.revoke("first")
    for (const n of [2, 3]) await other.publish("revoked.a", n)
    await until("the others", () => seqs.length >= 3 && handled.length >= 3)
    equal("live events", seqs, [1, 2, 3])
    equal("the group's", handled.toSorted(), [1, 2, 3])
    equal("tokens asked for", given, ids)
    equal("the hub's close", codes, [4102])
    holds("the connection is another", (await client.connect()).connection !== connection)

    const only = await tokenOf("only")
    await using stuck = made(setting, { getToken: () => only })
    const live = stuck.subscribe("revoked.a")
    await live.ready
    await setting.control.revoke("only")
    equal("without another token", await codeOf(live.done), "token_expired")
    equal("it is over", stuck.state._tag, "closed")
  }
}

const rights: Scenario = {
  name: "revocation: a refreshed token with less rights ends what it does not cover, and nothing else",
  run: async (setting) => {
    const scopes = [["subscribe:rights.**"], ["subscribe:rights.b"]]
    let asked = 0
    await using client = made(setting, {
      getToken: () => setting.token({ expiresIn: 60, scopes: scopes[Math.min(asked++, 1)]! }),
      refreshBeforeMs: 59_000
    })
    await using other = made(setting)
    const payloads: Array<unknown> = []
    const lost = client.subscribe("rights.a")
    const kept = client.subscribe("rights.b", ({ payload }) => void payloads.push(payload))
    await Promise.all([lost.ready, kept.ready])
    equal("the end of one", await codeOf(lost.done), "forbidden")
    await other.publish("rights.b", 1)
    await until("the other goes on", () => payloads.length === 1)
    equal("the connection", client.state._tag, "ready")
  }
}

const drain: Scenario = {
  name: "DRAIN: each client comes back in the slot that the hub gave it",
  hub: { HUB_RECONNECT_SPREAD_MS: "900" },
  run: async (setting) => {
    const clients = upTo(3).map(() => {
      const client = made(setting)
      /**
       * What it was told to wait, and whether that time was over when it came. A timer of the test says so that was set
       * in the same turn: timers count from the beginning of their turn, which on a busy machine is a while ago.
       */
      const waits: Array<{ readonly told: number; isOver: boolean; wasOver?: boolean }> = []
      const seen: Array<unknown> = []
      client.on("state", (state) => {
        const last = waits.at(-1)
        if (state._tag === "waiting") {
          // Clocks of browsers are coarse.
          const least = state.retryInMs - 5
          const wait = { told: state.retryInMs, isOver: least <= 0 }
          waits.push(wait)
          setTimeout(() => (wait.isOver = true), least)
        } else if (state._tag === "connecting" && last) last.wasOver ??= last.isOver
      })
      return { client, waits, seen }
    })
    try {
      for (const { client, seen } of clients) {
        await client.connect()
        await client.subscribe("drain.a", ({ payload }) => void seen.push(payload)).ready
      }
      await clients[0]!.client.publish("drain.a", 1)
      await setting.control.stop()
      await until("all have come back", () =>
        clients.every(({ waits: [first] }) => first?.wasOver !== undefined)
      )
      const first = clients.map(({ waits }) => waits[0]!)
      equal(
        "the slots",
        first.map(({ told }) => told),
        [0, 300, 600]
      )
      for (const { told, wasOver } of first) holds(`nobody comes before ${told}`, wasOver === true)
      await setting.control.start()
      await clients[2]!.client.publish("drain.a", 2)
      await until("all go on", () => clients.every(({ seen }) => seen.length >= 2))
      for (const { seen } of clients) equal("the events", seen, [1, 2])
    } finally {
      await Promise.all(clients.map(({ client }) => client.close()))
    }
  }
}

export const connection: ReadonlyArray<Scenario> = [connect, refresh, late, revocation, rights, drain]
