/** What was measured, for people on standard output and for programs in bench/results. */
import { mkdirSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { fileURLToPath } from "node:url"
import { median } from "./figures.ts"
import type { Row, Run, Scenario, Sizes, Wanted } from "./Scenario.ts"

export interface Measured {
  readonly scenario: Scenario
  readonly title: string
  readonly sizes: Sizes
  readonly rounds: number
  readonly runs: ReadonlyArray<Run>
  /** Of every run, in the order of the rounds. */
  readonly all: ReadonlyMap<string, ReadonlyArray<Row["figures"]>>
  readonly leftOut: ReadonlyArray<{ readonly name: string; readonly reason: string }>
}

export const say = (text: string): void => void process.stdout.write(`${text}\n`)

/** What ratios are made of. */
export const mainFigure = (figures: Row["figures"]): readonly [name: string, value: number] =>
  Object.entries(figures)[0] ?? ["", NaN]

export const shown = (n: number): string =>
  n >= 100 ? Math.round(n).toLocaleString("en") : n >= 10 ? n.toFixed(1) : n.toFixed(2)

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows
    .map((row) =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
    )
    .join("\n")
}

const medians = ({ all }: Measured): ReadonlyArray<Row> =>
  Array.from(all, ([name, each]) => ({
    name,
    figures: Object.fromEntries(
      Object.keys(each[0] ?? {}).map((figure) => [figure, median(each.map((one) => one[figure]!))])
    )
  }))

/** Of what was measured in the same round: what else the machine does then, it does to both. */
const ratio = (
  { all }: Measured,
  name: string,
  other: string,
  valueOf: (figures: Row["figures"]) => number
): ReadonlyArray<number> => {
  const others = all.get(other) ?? []
  const each = (all.get(name) ?? []).map((figures, i) => valueOf(figures) / valueOf(others[i] ?? {}))
  return each.some(Number.isNaN) ? [] : each
}

const sayMedians = (rows: ReadonlyArray<Row>, isOneAgainstAll: boolean): void => {
  const ours = rows[0] === undefined ? NaN : mainFigure(rows[0].figures)[1]
  for (const alike of Map.groupBy(rows, ({ figures }) => Object.keys(figures).join()).values()) {
    const columns = Object.keys(alike[0]!.figures)
    const cells = alike.map(({ figures, name }) => [
      name,
      ...columns.map((column) => shown(figures[column]!)),
      ...(isOneAgainstAll ? [`${(ours / mainFigure(figures)[1]).toFixed(2)} ×`] : [])
    ])
    say(`\n${table([["median", ...columns, ...(isOneAgainstAll ? ["ours is"] : [])], ...cells])}`)
  }
}

const ratiosOf = (measured: Measured) =>
  measured.runs.flatMap(({ against = [], name }) =>
    against
      .map((other) => ({ name, other, each: ratio(measured, name, other, (one) => mainFigure(one)[1]) }))
      .filter(({ each }) => each.length > 0)
  )

const sayRatios = (ratios: ReturnType<typeof ratiosOf>): void => {
  if (ratios.length === 0) return
  const cells = ratios.map(({ each, name, other }) => [
    `${name} : ${other}`,
    ...[median(each), Math.min(...each), Math.max(...each)].map((n) => n.toFixed(2))
  ])
  say(`\n${table([["ratio", "median", "least", "most"], ...cells])}`)
}

const judge = (measured: Measured, wanted: Wanted) => {
  const { atLeast, atMost, figure, of, run } = wanted
  const valueOf = (figures: Row["figures"]) => figures[figure] ?? NaN
  const got = median(
    of === undefined ? (measured.all.get(run) ?? []).map(valueOf) : ratio(measured, run, of, valueOf)
  )
  const what = `${figure} of ${run}${of === undefined ? "" : ` : ${of}`}`
  const bound = [
    ...(atLeast === undefined ? [] : [`≥ ${atLeast}`]),
    ...(atMost === undefined ? [] : [`≤ ${atMost}`])
  ]
  return {
    what,
    wanted: bound.join(", "),
    got,
    isReached: got >= (atLeast ?? -Infinity) && got <= (atMost ?? Infinity)
  }
}

const sayWanted = (judged: ReadonlyArray<ReturnType<typeof judge>>): void => {
  if (judged.length === 0) return
  const cells = judged.map(({ got, isReached, wanted, what }) => [
    what,
    wanted,
    shown(got),
    isReached ? "yes" : "NO"
  ])
  say(`\n${table([["wanted", "", "got", ""], ...cells])}`)
}

/** Prints medians, ratios and what is wanted of them; and writes it, with every round, to a file. */
export const report = (measured: Measured): void => {
  const { all, leftOut, rounds, runs, scenario, sizes, title } = measured
  const rows = medians(measured)
  const ratios = ratiosOf(measured)
  const judged = (scenario.wanted?.(sizes) ?? [])
    .map((wanted) => judge(measured, wanted))
    .filter(({ got }) => !Number.isNaN(got))
  sayMedians(
    rows,
    runs.every(({ against }) => against === undefined)
  )
  sayRatios(ratios)
  sayWanted(judged)

  const directory = fileURLToPath(new URL("results/", import.meta.url))
  mkdirSync(directory, { recursive: true })
  const machine = { node: process.version, cpus: cpus().length, cpu: cpus()[0]?.model }
  const content = {
    scenario: scenario.name,
    title,
    sizes,
    rounds,
    ...machine,
    at: new Date().toISOString(),
    rows,
    ratios,
    wanted: judged,
    leftOut,
    all: Object.fromEntries(all)
  }
  writeFileSync(`${directory}${scenario.name}.json`, `${JSON.stringify(content, null, 2)}\n`)
  say(`\nbench/results/${scenario.name}.json has every round.\n`)
}
