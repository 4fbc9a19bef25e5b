/** Who is connected to this hub, the slowest first. */
import { can, type ConnectionInfo, get } from "../api.ts"
import { ago, bytes, count, h, quiet, rows } from "../dom.ts"
import { onStats, throttled } from "../live.ts"
import { pages, type View } from "../router.ts"

const perPage = 50

export const connections: View = async ({ add, head, query, signal }) => {
  const after = query.get("after") ?? undefined
  head("Connections")
  if (!(await can("admin", "**"))) {
    return add(quiet("To see who is connected the token needs the right ", h("code", {}, "admin:**"), "."))
  }
  const table = rows<ConnectionInfo>({
    caption: "Connections of this hub, the slowest first",
    keyOf: ({ id }) => id,
    empty: quiet("Nobody else is connected."),
    columns: [
      { head: "Who", cell: ({ sub }) => sub ?? "not authenticated", kind: "cut" },
      { head: "Waits to be read", cell: ({ outboundBytes }) => bytes(outboundBytes), kind: "num" },
      { head: "Topics behind", cell: ({ behind }) => count(behind), kind: "num" },
      {
        head: "Slow since",
        cell: ({ slowSince }) => ago(slowSince),
        kind: "num"
      },
      { head: "Delivered", cell: ({ delivered }) => count(delivered), kind: "num opt" },
      { head: "Subscriptions", cell: ({ subscriptions }) => count(subscriptions), kind: "num opt" },
      { head: "Opened", cell: ({ openedAt }) => ago(openedAt), kind: "num" },
      { head: "Connection", cell: ({ id }) => h("code", {}, id), kind: "wide opt" }
    ]
  })
  const read = () =>
    get<{ readonly connections: ReadonlyArray<ConnectionInfo>; readonly next: string | null }>(
      "/connections",
      { after, limit: perPage },
      signal
    )
  const { connections, next } = await read()
  table.show(connections)
  add(
    quiet(
      "A client that does not read has bytes waiting here; beyond its limit the hub reads on from the store for it, or closes it."
    ),
    table.element,
    pages(["connections"], { after }, next)
  )
  // The hub says once a second what waits in all; who it is, is asked for when that changed.
  let last = ""
  const again = throttled(1_000, signal, () =>
    read().then(
      ({ connections }) => table.show(connections),
      () => {}
    )
  )
  onStats(signal, ({ connections, outboundBytes }) => {
    const now = `${connections} ${outboundBytes}`
    if (last !== "" && now !== last) again()
    last = now
  })
}
