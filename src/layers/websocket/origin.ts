/**
 * Which pages may connect: browsers send cookies and nothing else that would stop a foreign page, so the
 * origin is what tells them apart (RFC 6455, section 10.2). Programs send no origin and are not concerned.
 */

const loopback = new Set(["localhost", "127.0.0.1", "[::1]"])

const urlOf = (origin: string): URL | undefined => {
  try {
    return new URL(origin)
  } catch {
    return undefined
  }
}

/**
 * With an allow-list, the origin has to be on it. Without one, it has to be the host that the request names,
 * or this machine, on whatever port: the dashboard is served on another one.
 */
export const mayConnect = (
  origin: string | undefined,
  host: string | undefined,
  allowed: ReadonlyArray<string> | undefined
): boolean => {
  if (origin === undefined) return true
  if (allowed !== undefined) return allowed.includes("*") || allowed.includes(origin)
  const url = urlOf(origin)
  if (url === undefined) return false
  const own = host === undefined ? undefined : urlOf(`http://${host}`)
  return loopback.has(url.hostname) || url.hostname === own?.hostname
}
