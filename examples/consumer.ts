/**
 * A member of a consumer group: gets every event of `orders.**` until it has handled it, over restarts of the hub and
 * of itself. Start it twice, and the two share the work.
 *
 *     HUB_TOKEN=… npm run example examples/consumer.ts
 *
 * HUB_URL is `ws://127.0.0.1:8090` unless set. Ctrl-C ends it after the handlers that run.
 */
import { type HubError, PromClient } from "event-hub/client"

interface Order {
  readonly id: number
  readonly item: string
}

const { HUB_TOKEN, HUB_URL = "ws://127.0.0.1:8090" } = process.env
if (!HUB_TOKEN)
  throw new Error("HUB_TOKEN is not set: take the token that the hub printed, or `npm run token`")

const client = new PromClient(HUB_URL, HUB_TOKEN, {
  onState: (state) => console.log(`connection: ${state._tag}`),
  onError: (error) => console.error(error)
})

/** What is thrown here refuses the event: it comes again after a while. */
const send = async (order: Order, attempt: number): Promise<void> => {
  console.log(`mail about order ${order.id}: ${order.item} (attempt ${attempt})`)
}

try {
  await client.connect()
  await client.subscribe<Order>(
    "orders.**",
    "mailer",
    (event, context) => send(event.payload, context?.attempt ?? 1),
    { from: "start" }
  )
} catch (error) {
  console.error(`the hub refused: ${(error as HubError).code}`)
  process.exit(1)
}

process.once("SIGINT", () => void client.close())
