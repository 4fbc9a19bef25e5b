/**
 * How many retries go out beside events that come for the first time.
 *
 * A crowd of events that fail is due again all the time, a few each millisecond. A round for each few would make the
 * answers of healthy events wait for it, and what the crowd has of the hub's and the members' time the others have
 * not. So while fresh events flow, retries come in batches, and no more of them than a part of the fresh ones. Where
 * nothing else flows they come as fast as they are taken.
 */

/** How long a batch takes, in milliseconds: no retry comes later for having to share. */
const windowMs = 50

/** Retries that a window has for sure: five hundred a second, however slow the others are. */
const atLeast = 25

export class RetryPace {
  readonly #share: number
  #window = -Infinity
  #fresh = 0
  #left = Infinity

  /** Retries as a part of the fresh events of the window before. */
  constructor(share: number) {
    this.#share = share
  }

  /** How many may go out now. */
  left(now: number): number {
    const window = Math.floor(now / windowMs)
    if (window !== this.#window) {
      const before = window === this.#window + 1 ? this.#fresh : 0
      this.#left = before === 0 ? Infinity : Math.floor(atLeast + before * this.#share)
      this.#fresh = 0
      this.#window = window
    }
    return this.#left
  }

  /** These went out. */
  took({ fresh, retries }: { readonly fresh: number; readonly retries: number }): void {
    this.#left -= retries
    this.#fresh += fresh
  }

  /** When more may go out than now. */
  nextAt(now: number): number {
    return (Math.floor(now / windowMs) + 1) * windowMs
  }
}
