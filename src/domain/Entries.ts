/**
 * Entries of a group's state by their seqs, in the order of the log: a map that never changes.
 *
 * A state is made anew in each round, out of thousands of entries of which few change. Copying a Map costs as much as
 * filling one, some 0.1 µs an entry and more; here two arrays are copied, which is next to nothing.
 */

interface Keyed {
  readonly key: string | undefined
}

export class Entries<A extends Keyed> implements ReadonlyMap<number, A> {
  readonly #seqs: ReadonlyArray<number>
  readonly #values: ReadonlyArray<A>
  /** How many there are of each key. The newest of the maps made from each other has it, once it was asked for. */
  #counts: Map<string, number> | undefined

  /** Both in the order of the seqs. */
  private constructor(seqs: ReadonlyArray<number>, values: ReadonlyArray<A>) {
    this.#seqs = seqs
    this.#values = values
  }

  static from<A extends Keyed>(entries: Iterable<readonly [number, A]>): Entries<A> {
    if (entries instanceof Entries) return entries
    const sorted = [...entries].sort(([a], [b]) => a - b)
    return new Entries(
      sorted.map(([seq]) => seq),
      sorted.map(([, value]) => value)
    )
  }

  get size(): number {
    return this.#seqs.length
  }

  /** Where the seq is, or would be. */
  #indexOf(seq: number): number {
    const seqs = this.#seqs
    let low = 0
    let high = seqs.length
    while (low < high) {
      const mid = (low + high) >>> 1
      if (seqs[mid]! < seq) low = mid + 1
      else high = mid
    }
    return low
  }

  has(seq: number): boolean {
    return this.#seqs[this.#indexOf(seq)] === seq
  }

  get(seq: number): A | undefined {
    const i = this.#indexOf(seq)
    return this.#seqs[i] === seq ? this.#values[i] : undefined
  }

  keys(): ArrayIterator<number> {
    return this.#seqs.values()
  }

  values(): ArrayIterator<A> {
    return this.#values.values()
  }

  *entries(): Generator<[number, A], undefined> {
    for (let i = 0; i < this.#seqs.length; i++) yield [this.#seqs[i]!, this.#values[i]!]
    return undefined
  }

  [Symbol.iterator](): Generator<[number, A], undefined> {
    return this.entries()
  }

  forEach(f: (value: A, seq: number, entries: ReadonlyMap<number, A>) => void): void {
    this.#seqs.forEach((seq, i) => f(this.#values[i]!, seq, this))
  }

  /** The first that a test holds for. */
  find(test: (value: A, seq: number) => boolean): readonly [number, A] | undefined {
    for (let i = 0; i < this.#seqs.length; i++) {
      const value = this.#values[i]!
      const seq = this.#seqs[i]!
      if (test(value, seq)) return [seq, value]
    }
    return undefined
  }

  /** How many there are of a key. */
  countOf(key: string): number {
    if (this.#counts === undefined) {
      this.#counts = new Map()
      for (const value of this.#values) this.#count(value, 1)
    }
    return this.#counts.get(key) ?? 0
  }

  #count({ key }: A, by: 1 | -1): void {
    if (key === undefined || this.#counts === undefined) return
    const count = (this.#counts.get(key) ?? 0) + by
    if (count === 0) this.#counts.delete(key)
    else this.#counts.set(key, count)
  }

  /** The map that takes the place of this one, which then has to count anew. */
  #next(seqs: ReadonlyArray<number>, values: ReadonlyArray<A>): Entries<A> {
    const next = new Entries(seqs, values)
    next.#counts = this.#counts
    this.#counts = undefined
    return next
  }

  withAll(more: ReadonlyMap<number, A>): Entries<A> {
    if (more.size === 0) return this
    const added = Entries.from(more)
    const seqs: Array<number> = []
    const values: Array<A> = []
    const replaced: Array<A> = []
    let from = 0
    for (let i = 0; i < added.#seqs.length; i++) {
      const seq = added.#seqs[i]!
      for (; from < this.#seqs.length && this.#seqs[from]! < seq; from++) {
        seqs.push(this.#seqs[from]!)
        values.push(this.#values[from]!)
      }
      if (this.#seqs[from] === seq) replaced.push(this.#values[from++]!)
      seqs.push(seq)
      values.push(added.#values[i]!)
    }
    for (; from < this.#seqs.length; from++) {
      seqs.push(this.#seqs[from]!)
      values.push(this.#values[from]!)
    }
    const next = this.#next(seqs, values)
    for (const value of replaced) next.#count(value, -1)
    for (const value of added.#values) next.#count(value, 1)
    return next
  }

  without(gone: Iterable<number>): Entries<A> {
    const indexes = new Set<number>()
    for (const seq of gone) {
      const i = this.#indexOf(seq)
      if (this.#seqs[i] === seq) indexes.add(i)
    }
    if (indexes.size === 0) return this
    const found = [...indexes].sort((a, b) => a - b)
    const seqs: Array<number> = []
    const values: Array<A> = []
    let n = 0
    for (let i = 0; i < this.#seqs.length; i++) {
      if (i === found[n]) {
        n++
        continue
      }
      seqs.push(this.#seqs[i]!)
      values.push(this.#values[i]!)
    }
    const next = this.#next(seqs, values)
    for (const i of found) next.#count(this.#values[i]!, -1)
    return next
  }

  /** Calls back with what is not the same in this map as it was in that one. */
  changesSince(
    before: Entries<A>,
    on: { readonly changed: (seq: number, value: A) => void; readonly gone: (seq: number) => void }
  ): void {
    let b = 0
    for (let i = 0; i < this.#seqs.length; i++) {
      const seq = this.#seqs[i]!
      for (; b < before.#seqs.length && before.#seqs[b]! < seq; b++) on.gone(before.#seqs[b]!)
      const isThere = before.#seqs[b] === seq
      if (!isThere || before.#values[b] !== this.#values[i]) on.changed(seq, this.#values[i]!)
      if (isThere) b++
    }
    for (; b < before.#seqs.length; b++) on.gone(before.#seqs[b]!)
  }
}
