/** Run in a project that has installed the package: the command runs a hub with its page. */
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"

const hub = spawn("node_modules/.bin/event-hub", ["serve"], {
  env: { ...process.env, HUB_STORE: "sqlite:./data/hub.db", HUB_LOG: "json", WS_PORT: "0", OPS_PORT: "0" },
  stdio: ["ignore", "pipe", "inherit"]
})
const exited = new Promise((resolve) => hub.once("exit", resolve))
const ready = await new Promise((resolve, reject) => {
  createInterface({ input: hub.stdout }).on(
    "line",
    (line) => line.startsWith('{"msg":"ready"') && resolve(JSON.parse(line))
  )
  void exited.then((code) => reject(new Error(`the hub ended with ${code}`)))
})
for (const path of [
  "/",
  "/assets/dashboard/main.ts",
  "/assets/dashboard/style.css",
  "/docs",
  "/assets/dashboard/apiDocs.ts",
  "/assets/dashboard/apiDocs.css",
  "/assets/client/index.ts",
  "/readyz"
]) {
  const { status } = await fetch(ready.ops + path)
  if (status !== 200) throw new Error(`${path} is answered by ${status}`)
}
hub.kill("SIGTERM")
const code = await exited
if (code !== 0) throw new Error(`the hub ended with ${code}`)
process.stdout.write("event-hub serve works\n")
