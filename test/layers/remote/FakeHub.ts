/** A hub without a network, which does with each publish what a test says, and remembers what it stored. */
import type { WebSocketConstructor, WebSocketLike } from "../../../src/client/index.ts"
import type { PublishOptions } from "../../../src/protocol/Messages.ts"
import { welcome } from "../../client/FakeWebSocket.ts"

export interface Sent {
  readonly topic: string
  readonly payload: unknown
  readonly opts: PublishOptions & { readonly id: string }
}

/**
 * `lost`: it is stored, and the connection ends before the answer; `gone`: that ends before it is stored; `silent`: it
 * is stored, and nobody hears of it.
 */
export type Reaction =
  "store" | "lost" | "gone" | "silent" | { readonly code: string; readonly retryAfterMs?: number }

interface Request extends Sent {
  readonly op: string
  readonly ref: number
}

export class FakeHub {
  readonly sent: Array<Sent> = []
  readonly stored: Array<Sent> = []
  connections = 0
  mostUnderWay = 0
  /** Lines that had two events under way at the same moment. */
  readonly torn = new Set<string>()
  readonly WebSocket: WebSocketConstructor
  /** By line. */
  readonly underWay = new Map<Sent, string>()
  /** The connection ends. */
  end: () => void = () => {}

  constructor(react: (sent: Sent) => Reaction = () => "store", answerAfter: () => number = () => 0) {
    // oxlint-disable-next-line typescript/no-this-alias -- the class inside has a `this` of its own
    const hub = this
    this.WebSocket = class implements WebSocketLike {
      readyState = 0
      onopen: WebSocketLike["onopen"] = null
      onmessage: WebSocketLike["onmessage"] = null
      onclose: WebSocketLike["onclose"] = null
      onerror: WebSocketLike["onerror"] = null

      constructor() {
        hub.connections++
        setImmediate(() => {
          if (this.readyState !== 0) return
          this.readyState = 1
          hub.end = () => this.#end()
          this.onopen?.({})
        })
      }

      send(data: string): void {
        for (const request of [JSON.parse(data)].flat() as ReadonlyArray<Request>) {
          if (this.readyState === 1) this.#take(request)
        }
      }

      close(): void {
        this.readyState = 3
        hub.underWay.clear()
      }

      #end(): void {
        if (this.readyState !== 1) return
        this.readyState = 3
        hub.underWay.clear()
        this.onclose?.({ code: 1006, reason: "" })
      }

      #take(request: Request): void {
        const answer = (message: object) => {
          if (this.readyState === 1)
            this.onmessage?.({ data: JSON.stringify({ ...message, ref: request.ref }) })
        }
        if (request.op === "AUTH") return answer({ op: "OK", ...welcome })
        if (request.op !== "PUBLISH") return answer({ op: "OK" })
        const { opts, payload, topic } = request
        const sent = { topic, payload, opts }
        const line = `${topic} ${opts.key ?? opts.id}`
        if ([...hub.underWay.values()].includes(line)) hub.torn.add(line)
        hub.underWay.set(sent, line)
        hub.mostUnderWay = Math.max(hub.mostUnderWay, hub.underWay.size)
        hub.sent.push(sent)
        const reaction = react(sent)
        if (typeof reaction === "object") {
          return hub.after(answerAfter(), () => {
            hub.underWay.delete(sent)
            answer({ op: "ERR", msg: `it is ${reaction.code}`, retryable: true, ...reaction })
          })
        }
        if (reaction === "gone") return this.#end()
        const known = hub.stored.findIndex(({ opts }) => opts.id === sent.opts.id)
        if (known === -1) hub.stored.push(sent)
        if (reaction === "lost") return this.#end()
        if (reaction === "silent") return
        const seq = (known === -1 ? hub.stored.length : known + 1) + 100
        hub.after(answerAfter(), () => {
          hub.underWay.delete(sent)
          answer({ op: "OK", id: opts.id, seq, storedAt: 5, duplicate: known !== -1 })
        })
      }
    }
  }

  after(turns: number, f: () => void): void {
    if (turns <= 0) setImmediate(f)
    else setImmediate(() => this.after(turns - 1, f))
  }
}
