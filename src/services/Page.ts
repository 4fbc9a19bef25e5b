/** A part of a long list, and where the next one begins. */
export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Give it as `after` to get the next page; none: this was the last. */
  readonly next: string | undefined
}
