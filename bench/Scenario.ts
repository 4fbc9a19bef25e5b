/** One kind of work, and who takes part in it. */
export interface Sizes {
  readonly events: number
  readonly inFlight: number
  readonly subscribers: number
}

export interface Row {
  readonly name: string
  readonly figures: Readonly<Record<string, number>>
}

export interface Scenario {
  readonly name: string
  readonly title: (sizes: Sizes) => string
  readonly defaults: Sizes
  /** The figure that ratios are made of. */
  readonly unit: string
  /** Ours first. */
  readonly runs: (sizes: Sizes) => ReadonlyArray<{
    readonly name: string
    readonly missing: () => string | undefined
    readonly run: () => Promise<Row["figures"]>
  }>
}
