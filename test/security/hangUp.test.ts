/** SIGHUP makes a hub look at its files; it never ends one, not while it starts and not while it stops. */
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { createServer, type Socket } from "node:net"
import { join } from "node:path"
import { expect, it, onTestFinished } from "vitest"
import { secret, spawnHub, startHub } from "../support/HubProcess.ts"
import { temporaryDirectory } from "../support/temporary.ts"

/** A database that takes connections and never says anything: whoever starts with it starts for long. */
const silentDatabase = async () => {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { port } = server.address() as { readonly port: number }
  return { asked: once(server, "connection"), url: `mongodb://127.0.0.1:${port}/hub` }
}

it("ends no hub that is about to start", async () => {
  const { asked, url } = await silentDatabase()
  const hub = spawnHub({ JWT_SECRET: secret, HUB_LOG: "json", MONGO_URL: url })
  hub.stdout?.resume()
  const exit = once(hub, "exit")
  await asked
  hub.kill("SIGHUP")
  hub.kill("SIGTERM")
  expect(await exit).toEqual([0, null])
})

it("ends no hub that stops", async () => {
  const policy = join(temporaryDirectory(), "policies.txt")
  writeFileSync(policy, "role dev:\n")
  const hub = await startHub({ HUB_POLICY: policy, HUB_FILES_INTERVAL_MS: "3600000" })
  const hangUps = setInterval(() => hub.process.kill("SIGHUP"), 1)
  const exit = hub.stop()
  await hub.lineWhere(({ msg }) => msg === "stopped")
  expect(await exit).toEqual({ code: 0, signal: null })
  clearInterval(hangUps)
})
