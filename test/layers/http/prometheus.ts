/**
 * Reads the Prometheus text format, and refuses what a scraper would
 * (https://github.com/prometheus/docs/blob/main/docs/instrumenting/exposition_formats.md).
 */

export interface Family {
  readonly name: string
  readonly type: string
  readonly help: string
}

export interface Exposition {
  readonly families: ReadonlyMap<string, Family>
  /** Names with labels, as they stand there. */
  readonly series: ReadonlyArray<string>
  /** NaN when there is none. */
  readonly valueOf: (series: string) => number
}

const name = "[a-zA-Z_:][a-zA-Z0-9_:]*"
const label = `[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"`
const sample = new RegExp(`^(${name})(\\{(?:${label}(?:,${label})*,?)?\\})? (\\S+)(?: -?\\d+)?$`)

const wrong = (line: string, why: string): Error => new Error(`${why}: ${line}`)

const numberOf = (line: string, text: string): number => {
  const value = text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text)
  if (Number.isNaN(value) && text !== "NaN") throw wrong(line, "no number")
  return value
}

export const parsePrometheus = (text: string): Exposition => {
  const families = new Map<string, Family>()
  const values = new Map<string, number>()
  const helps = new Map<string, string>()
  const finished = new Set<string>()
  let current: Family | undefined
  if (!text.endsWith("\n")) throw new Error("the last line has no end")
  for (const line of text.split("\n")) {
    if (line === "") continue
    const help = new RegExp(`^# HELP (${name}) (.*)$`).exec(line)
    const type = new RegExp(`^# TYPE (${name}) (counter|gauge|histogram|summary|untyped)$`).exec(line)
    if (help !== null) {
      if (helps.has(help[1]!)) throw wrong(line, "a second HELP")
      helps.set(help[1]!, help[2]!)
    } else if (type !== null) {
      if (families.has(type[1]!)) throw wrong(line, "a second TYPE")
      if (current !== undefined) finished.add(current.name)
      current = { name: type[1]!, type: type[2]!, help: helps.get(type[1]!) ?? "" }
      families.set(current.name, current)
    } else {
      const found = sample.exec(line)
      if (found === null) throw wrong(line, "no sample")
      const [, base = "", labels = "", value = ""] = found
      const suffix = current?.type === "histogram" ? "(?:_bucket|_sum|_count)" : ""
      if (current === undefined || !new RegExp(`^${current.name}${suffix}$`).test(base)) {
        throw wrong(line, `not of the family before it, ${current?.name}`)
      }
      const key = base + labels
      if (values.has(key)) throw wrong(line, "a second sample of the series")
      values.set(key, numberOf(line, value))
    }
  }
  checkHistograms(values)
  return {
    families,
    series: [...values.keys()],
    valueOf: (series) => values.get(series) ?? NaN
  }
}

/** Buckets are cumulative and end with the count. */
const checkHistograms = (values: ReadonlyMap<string, number>): void => {
  const last = new Map<string, { readonly bound: number; readonly count: number }>()
  for (const [key, count] of values) {
    const bucket = /^(.*)_bucket\{(?:(.*),)?le="([^"]*)"\}$/.exec(key)
    if (bucket === null) continue
    const [, base = "", labels = "", le = ""] = bucket
    const histogram = `${base}_count${labels === "" ? "" : `{${labels}}`}`
    const bound = numberOf(key, le)
    const before = last.get(histogram)
    if (before !== undefined && (bound <= before.bound || count < before.count))
      throw wrong(key, "not rising")
    last.set(histogram, { bound, count })
  }
  for (const [histogram, { bound, count }] of last) {
    if (bound !== Infinity || values.get(histogram) !== count) throw wrong(histogram, "not its last bucket")
  }
}
