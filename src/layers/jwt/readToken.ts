/**
 * A token in the compact form of RFC 7515, taken apart: header, claims, signature. Nothing is verified here.
 *
 * Each part has one way to be written. What only a tolerant reader would take for base64url (padding, line breaks, bits
 * that are left over) is no token, so that no character of a good one can be changed without it becoming another.
 */
import * as Result from "effect/Result"
import { isObject, type JsonObject } from "../../domain/Json.ts"

export interface ReadToken {
  readonly header: JsonObject
  /** Whoever wants to believe it verifies the signature first. */
  readonly payload: () => Result.Result<JsonObject, string>
}

/** With its mark in front, a text is not what its bytes say. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const bytesOf = (part: string): Uint8Array | undefined => {
  const bytes = Buffer.from(part, "base64url")
  return bytes.toString("base64url") === part ? bytes : undefined
}

const objectOf = (part: string, what: string): Result.Result<JsonObject, string> => {
  const fail = Result.fail(`its ${what} is no JSON object in base64url`)
  const bytes = bytesOf(part)
  if (bytes === undefined) return fail
  try {
    const value: unknown = JSON.parse(utf8.decode(bytes))
    return isObject(value) ? Result.succeed(value) : fail
  } catch {
    return fail
  }
}

export const readToken = (token: string): Result.Result<ReadToken, string> => {
  const [header = "", payload = "", signature = "", ...more] = token.split(".", 4)
  if (signature === "" || more.length > 0)
    return Result.fail("it is no signed token: three parts with dots between")
  if (bytesOf(signature) === undefined) return Result.fail("its signature is no base64url")
  return Result.map(objectOf(header, "header"), (header) => ({
    header,
    payload: () => objectOf(payload, "payload")
  }))
}
