/** A way to a MongoDB that a test can cut, and mend. */
import { connect, createServer, type Socket } from "node:net"
import { onTestFinished } from "vitest"

export const proxyTo = async (url: string) => {
  const { host, pathname, search } = new URL(url.replace(/^mongodb:/, "http:"))
  const [name = "", port = "27017"] = host.split(":")
  const sockets = new Set<Socket>()
  let isCut = false
  const server = createServer((incoming) => {
    if (isCut) return void incoming.destroy()
    const outgoing = connect({ host: name, port: Number(port) })
    for (const [a, b] of [
      [incoming, outgoing],
      [outgoing, incoming]
    ] as const) {
      sockets.add(a)
      a.on("error", () => b.destroy())
      a.on("close", () => {
        sockets.delete(a)
        b.destroy()
      })
      a.pipe(b)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const cut = () => {
    isCut = true
    for (const socket of sockets) socket.destroy()
  }
  onTestFinished(() => {
    cut()
    server.close()
  })
  const { port: own } = server.address() as { readonly port: number }
  return {
    url: `mongodb://127.0.0.1:${own}${pathname}${search}`,
    cut,
    mend: () => {
      isCut = false
    }
  }
}
