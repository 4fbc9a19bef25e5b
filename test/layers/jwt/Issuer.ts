/** An issuer of tokens: its keys, and an HTTP endpoint that shows them, or does something else. */
import { once } from "node:events"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect } from "effect"
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTPayload, SignJWT } from "jose"

export interface IssuerKey {
  readonly kid: string
  readonly alg: string
  readonly privateKey: CryptoKey
  readonly publicKey: CryptoKey
  readonly jwk: JWK
}

export const makeKey = (kid: string, alg: string): Effect.Effect<IssuerKey> =>
  Effect.promise(async () => {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
    return { kid, alg, privateKey, publicKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } }
  })

/** Signs a token of that key; claims that are `undefined` are left out. */
export const sign = (key: IssuerKey, payload: JWTPayload, header: Record<string, unknown> = {}) =>
  Effect.promise(() =>
    new SignJWT(payload).setProtectedHeader({ alg: key.alg, kid: key.kid, ...header }).sign(key.privateKey)
  )

export class Issuer {
  readonly url: URL
  /** How many times it was asked. */
  requests = 0
  #answer: (response: ServerResponse) => void = () => {}
  readonly #waiting: Array<() => void> = []

  constructor(port: number) {
    this.url = new URL(`http://127.0.0.1:${port}/.well-known/jwks.json`)
  }

  shows(...keys: ReadonlyArray<IssuerKey>): void {
    this.answers(200, JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }))
  }

  answers(status: number, body: string, headers: Record<string, string> = {}): void {
    this.does((response) => response.writeHead(status, headers).end(body))
  }

  hangs(): void {
    this.does(() => {})
  }

  does(answer: (response: ServerResponse) => void): void {
    this.#answer = answer
  }

  handle(response: ServerResponse): void {
    this.requests++
    this.#answer(response)
    for (const wake of this.#waiting.splice(0)) wake()
  }

  /** Waits until it is asked the next time. */
  get asked(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      this.#waiting.push(() => resume(Effect.void))
    })
  }
}

/** An issuer that listens until the scope closes. */
export const issuer = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = createServer()
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
    const made = new Issuer((server.address() as AddressInfo).port)
    server.on("request", (_, response) => made.handle(response))
    return { made, server }
  }),
  ({ server }) =>
    Effect.promise(async () => {
      server.closeAllConnections()
      if (!server.listening) return
      server.close()
      await once(server, "close")
    })
).pipe(
  Effect.map(({ made, server }) =>
    Object.assign(made, {
      /** Nobody listens at its address any more. */
      stops: Effect.promise(async () => {
        server.closeAllConnections()
        server.close()
        await once(server, "close")
      })
    })
  )
)
