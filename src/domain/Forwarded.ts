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

const isIpV4 = (text: string): boolean =>
  /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/.test(text)

/** RFC 4291, section 2.2: eight groups, of which one `::` may stand for some, and an IPv4 address for the last two. */
const isIpV6 = (text: string): boolean => {
  const [head = "", tail, ...more] = text.split("::")
  if (more.length > 0) return false
  const groups = [head, tail ?? ""].flatMap((part) => (part === "" ? [] : part.split(":")))
  const last = text.slice(text.lastIndexOf(":") + 1)
  if (isIpV4(last)) groups.splice(-1, 1, "0", "0")
  return (
    groups.every((group) => /^[\da-f]{1,4}$/i.test(group)) &&
    (tail === undefined ? groups.length === 8 : groups.length <= 7)
  )
}

/** The address in the last entry of `X-Forwarded-For`, without its port; nothing when that holds no address. */
export const address = (forwardedFor: Header): string | undefined => {
  const last = lastOf(forwardedFor)
  if (last === undefined || last.length > 64) return undefined
  const [, v6, v4] = /^\[([^\]]*)\](?::\d+)?$|^([\d.]+)(?::\d+)?$/.exec(last) ?? []
  if (v4 !== undefined) return isIpV4(v4) ? v4 : undefined
  const found = v6 ?? last
  return isIpV6(found) ? found : undefined
}

/** The last entry of `X-Forwarded-Host` or `X-Forwarded-Proto`. */
export const last = lastOf
