/**
 * What a proxy says of the request that it passes on: of a list, the last entry, which is the proxy's own. What stands
 * before it was there when the request came, and may be anybody's.
 */

type Header = string | ReadonlyArray<string> | undefined

const lastOf = (header: Header): string | undefined => {
  const text = typeof header === "string" ? header : header?.at(-1)
  const last = text?.split(",").at(-1)?.trim()
  return last === undefined || last === "" ? undefined : last
}

/** The address in the last entry of `X-Forwarded-For`, without its port; nothing when that holds no address. */
export const address = (forwardedFor: Header): string | undefined => {
  const last = lastOf(forwardedFor)
  if (last === undefined || last.length > 64) return undefined
  const found = /^\[([\da-f:.]+)\](?::\d+)?$/i.exec(last) ?? /^(\d+\.\d+\.\d+\.\d+)(?::\d+)?$/.exec(last)
  if (found !== null) return found[1]
  return /^[\da-f.]*:[\da-f:.]+$/i.test(last) ? last : undefined
}

/** The last entry of `X-Forwarded-Host` or `X-Forwarded-Proto`. */
export const last = lastOf
