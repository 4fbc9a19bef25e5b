/** A hub over a MongoDB, as its users run it: what it says without one, and what it does while there is none. */
import { MongoClient } from "mongodb"
import { expect, it, onTestFinished } from "vitest"
import { featuresOf } from "../../src/layers/mongo/MongoDatabase.ts"
import { runToEnd, startHub } from "../support/HubProcess.ts"
import { describeMongo, dropDatabase, urlOfNewDatabase } from "../support/mongo.ts"
import { proxyTo } from "../support/mongoProxy.ts"
import { RawClient } from "../support/RawClient.ts"

it(
  "says what is wrong when there is no MongoDB, and not with which password",
  { timeout: 15_000 },
  async () => {
    const { code, stderr, stdout } = await runToEnd({ MONGO_URL: "mongodb://anna:geheim@127.0.0.1:1/x?w=1" })
    expect(stderr).toMatch(
      /^event-hub: cannot use mongodb:\/\/127\.0\.0\.1:1\/x as the hub's store: .*ECONNREFUSED.*\n$/
    )
    expect(stdout + stderr).not.toContain("geheim")
    expect(code).toBe(1)
  }
)

it.each(["mongodb://", "mongodb://h:99999/x", "mongodb://h/x?nosuchoption=1"])(
  "says what is wrong with %s",
  async (url) => {
    const { code, stderr } = await runToEnd({ MONGO_URL: url })
    expect(stderr).toMatch(/^event-hub: .*(MONGO_URL|cannot use mongodb).*\n$/)
    expect(code).toBe(1)
  }
)

const featuresAt = async (url: string) => {
  const client = new MongoClient(url)
  try {
    return await featuresOf(client.db())
  } finally {
    await client.close()
  }
}

describeMongo("a hub whose database goes away", (mongo) => {
  it("keeps its sockets, says that it is not there, and goes on when it is back", async () => {
    const url = urlOfNewDatabase(mongo)
    onTestFinished(() => dropDatabase(url))
    const proxy = await proxyTo(url)
    const hub = await startHub({ MONGO_URL: proxy.url, MONGO_SERVER_SELECTION_TIMEOUT_MS: "500" })
    onTestFinished(async () => void (await hub.kill()))
    const said = hub.lines
      .map(({ msg }) => msg)
      .filter((msg) => msg.startsWith("the database's server has no"))
    const { changeStreams, transactions } = await featuresAt(url)
    expect(said).toHaveLength([changeStreams, transactions].filter((has) => !has).length)
    const readiness = async () => (await fetch(`${hub.ops}/readyz`)).status
    const client = await RawClient.authenticated(hub.ws)
    const publish = (id: string) =>
      client.request({ op: "PUBLISH", topic: "orders.created", payload: id, opts: { id } })
    await client.request({ op: "SUBSCRIBE", topic: "orders.*" })
    await client.request({ op: "SUBSCRIBE", topic: "orders.*", group: "g", opts: { from: "start" } })

    expect(await publish("1")).toMatchObject({ op: "OK", seq: 1 })
    expect(await readiness()).toBe(200)
    await client.events(2)

    proxy.cut()
    expect(await publish("2")).toMatchObject({ op: "ERR", code: "unavailable", retryable: true })
    expect(await readiness()).toBe(503)
    expect(client.socket.readyState).toBe(client.socket.OPEN)

    proxy.mend()
    let answer = await publish("2")
    while (answer.op === "ERR") answer = await publish("2")
    expect(answer).toMatchObject({ op: "OK", seq: 2 })
    await client.events(4)
    while ((await readiness()) !== 200);
    expect(client.messages.filter(({ op }) => op === "GAP" || op === "END")).toEqual([])
    expect((await hub.stop()).code).toBe(0)
  })
})
