/**
 * What becomes of a group's event whose handler throws, where it is not just "it failed".
 *
 * Any error may say it, by a field `nack` of this shape: what makes handlers need not import this class.
 */
import type { NackMode } from "../protocol/Messages.ts"

export interface Refusal {
  readonly mode: NackMode
  /** Not delivered again before, in milliseconds; takes the place of the back-off. */
  readonly delayMs?: number | undefined
}

/**
 * Thrown by a handler: `fail` counts the attempt and backs off, as any other error does; `release` was not tried
 * and does not count; `poison` is hopeless and goes to the dead letters at once, where its message stands.
 */
export class Nack extends Error {
  override readonly name = "Nack"
  readonly mode: NackMode
  readonly delayMs: number | undefined

  constructor(
    mode: NackMode,
    {
      delayMs,
      reason = `its handler said '${mode}'`
    }: { readonly delayMs?: number; readonly reason?: string } = {}
  ) {
    super(reason)
    this.mode = mode
    this.delayMs = delayMs
  }

  get nack(): Refusal {
    return { mode: this.mode, delayMs: this.delayMs }
  }
}

/** The longest delay the protocol has. */
const maxDelayMs = 43_200_000

const modes: ReadonlyArray<unknown> = ["fail", "release", "poison"] satisfies ReadonlyArray<NackMode>

const isMode = (value: unknown): value is NackMode => modes.includes(value)

/**
 * What an error says about its event; nothing, when it is an error like any other. A delay is made one the hub
 * takes.
 */
export const refusalOf = (error: unknown): Refusal | undefined => {
  const { nack }: { readonly nack?: unknown } = Object(error)
  const { delayMs, mode }: { readonly delayMs?: unknown; readonly mode?: unknown } = Object(nack)
  if (!isMode(mode)) return undefined
  if (typeof delayMs !== "number" || Number.isNaN(delayMs)) return { mode }
  return { mode, delayMs: Math.min(maxDelayMs, Math.max(0, Math.ceil(delayMs))) }
}
