/** One kind of work, who takes part in it, and what is wanted of it. */
export interface Sizes {
  readonly events: number
  readonly inFlight: number
  /** Whoever listens: subscribers, members of a group, idle connections. */
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
  /** Why it cannot take part here. */
  readonly missing: () => string | undefined
  readonly run: () => Promise<Row["figures"]>
}

/** A bound on the median of a figure; with `of`, on its ratio to the same figure of another run. */
export interface Wanted {
  readonly run: string
  readonly figure: string
  readonly of?: string
  readonly atLeast?: number
  readonly atMost?: number
}

export interface Scenario {
  readonly name: string
  readonly title: (sizes: Sizes) => string
  readonly defaults: Sizes
  readonly runs: (sizes: Sizes) => ReadonlyArray<Run>
  /** Holds for the default sizes on an idle machine; what is small or in a hurry is told about it, and does not fail. */
  readonly wanted?: (sizes: Sizes) => ReadonlyArray<Wanted>
}
