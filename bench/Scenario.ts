/** One kind of work, and who takes part in it. */
export interface Sizes {
  readonly events: number
  readonly inFlight: number
  readonly subscribers: number
}

export interface Row {
  readonly name: string
  /** The first of them is the one that ratios are made of. */
  readonly figures: Readonly<Record<string, number>>
}

export interface Run {
  readonly name: string
  /** The runs that this one is measured against; none in a whole scenario: the first run is, against all others. */
  readonly against?: ReadonlyArray<string>
  readonly missing: () => string | undefined
  readonly run: () => Promise<Row["figures"]>
}

export interface Scenario {
  readonly name: string
  readonly title: (sizes: Sizes) => string
  readonly defaults: Sizes
  readonly runs: (sizes: Sizes) => ReadonlyArray<Run>
}
