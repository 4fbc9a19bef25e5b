/**
 * How long the answer to a refused AUTH waits, so that nobody tries tokens as fast as the hub can look at them.
 *
 * Each address has a level: one more with each refusal, and nothing again after a minute without one. The first few are
 * answered at once, since people make mistakes; each further one waits longer than the one before. Tokens that are
 * accepted are no part of this: they are never late, and whoever has one does not clear what others did.
 */

export interface AuthDelaySettings {
  /** How much longer the answer to each further refused AUTH from an address takes, and at most. */
  readonly authDelayMs: number
  readonly maxAuthDelayMs: number
}

/** The refusals of an address. */
export interface Refusals {
  readonly level: number
  readonly at: number
}

/** Refusals that are answered at once. */
export const atOnce = 3

/** A level is gone after this time without a refusal. */
export const decayMs = 60_000

/** What is left of a level. A clock that was set back decays nothing. */
export const levelAt = ({ at, level }: Refusals, now: number): number =>
  level * Math.max(0, 1 - Math.max(0, now - at) / decayMs)

/** One more refusal. */
export const refuse = (before: Refusals | undefined, now: number): Refusals => ({
  level: (before === undefined ? 0 : levelAt(before, now)) + 1,
  at: now
})

/** How long the answer to the last of them waits. */
export const delayMs = ({ level }: Refusals, { authDelayMs, maxAuthDelayMs }: AuthDelaySettings): number =>
  Math.min(maxAuthDelayMs, Math.max(0, Math.ceil(level - atOnce)) * authDelayMs)

/**
 * Who counts as one: an IPv4 address, or the first 64 bits of an IPv6 address, which is what one subscriber is given
 * (RFC 6177), and could try a token from each address of.
 */
export const originOf = (address: string): string => {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)
  if (mapped !== null) return mapped[1]!
  const [plain = ""] = address.split("%")
  if (!plain.includes(":")) return address
  const [head = "", tail] = plain.split("::")
  const groups = head === "" ? [] : head.split(":")
  if (tail !== undefined) {
    const after = tail === "" ? 0 : tail.split(":").length
    while (groups.length + after < 8) groups.push("0")
  }
  const network = groups.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, "").toLowerCase())
  return `${network.join(":")}::/64`
}
