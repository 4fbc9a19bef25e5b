/** A hub that goes and comes back: on the same file or database, behind the same address. */
import { createServer } from "node:net"
import { onTestFinished } from "vitest"
import { type HubProcess, startHub } from "./HubProcess.ts"
import { durableStore } from "./hubStore.ts"

/**
 * A free port that nobody gets by chance while the hub is away: below those that the system hands out
 * (from 32,768 on Linux, 49,152 elsewhere).
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false))
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}

export interface ReturningHub {
  readonly url: string
  /** The process that is, or was last. */
  readonly hub: () => HubProcess
  readonly start: (env?: Readonly<Record<string, string>>) => Promise<HubProcess>
}

export const returningHub = async (
  settings: Readonly<Record<string, string>> = {}
): Promise<ReturningHub> => {
  const port = await freePort()
  let hub: HubProcess | undefined
  onTestFinished(async () => void (await hub?.kill()))
  const isTold = settings["MONGO_URL"] !== undefined || settings["HUB_STORE"] !== undefined
  const store = isTold ? {} : durableStore()
  const start = async (env: Readonly<Record<string, string>> = {}) => {
    hub = await startHub({ ...store, WS_PORT: String(port), ...settings, ...env })
    return hub
  }
  await start()
  return { url: `ws://127.0.0.1:${port}`, hub: () => hub!, start }
}
