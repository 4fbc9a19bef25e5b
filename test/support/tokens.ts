/** Tokens for hubs under test. */
import { SignJWT } from "jose"
import { secret } from "./HubProcess.ts"

export interface TokenOptions {
  readonly sub?: string
  readonly scopes?: ReadonlyArray<string>
  /** Seconds from now. */
  readonly expiresIn?: number
  readonly secret?: string
  /** More claims, or others; `undefined` leaves one out. */
  readonly claims?: Readonly<Record<string, unknown>>
}

export const everything = ["publish:**", "subscribe:**", "subscribe:$dead.**"]

export const tokenFor = (options: TokenOptions = {}): Promise<string> => {
  const now = Math.floor(Date.now() / 1000)
  const { claims, expiresIn = 600, scopes = everything, sub = "tester" } = options
  return new SignJWT({ sub, scopes: [...scopes], iat: now, exp: now + expiresIn, ...claims })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(new TextEncoder().encode(options.secret ?? secret))
}
