/**
 * `npm run bench -- <scenario>`: ours and its peers on the same work, in turns, in one run.
 *
 * Prints the median of each figure, and ratios; and writes all of it to bench/results/<scenario>.json.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import type { Row, Scenario, Sizes } from "./Scenario.ts"

const fail = (message: string): never => {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

const loadScenario = async (name: string | undefined): Promise<Scenario> => {
  try {
    if (name === "durable") return (await import("./durable.ts")).durable
    if (name === "fanout") return (await import("./fanout.ts")).fanout
    if (name === "groups") return (await import("./groups.ts")).groups
    if (name === "outbox-mongo") return (await import("./outboxMongo.ts")).outboxMongo
    if (name === "writer") return (await import("./writer.ts")).writer
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND") {
      return fail(`The peers' clients are not installed; run: npm ci --prefix bench\n(${error.message})`)
    }
    throw error
  }
  return fail(
    "usage: npm run bench -- durable|fanout|groups|outbox-mongo|writer [--events n] [--in-flight n] [--subscribers n] [--rounds n] [--only name]"
  )
}

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? NaN

/** What ratios are made of. */
const mainFigure = (figures: Row["figures"]): readonly [name: string, value: number] =>
  Object.entries(figures)[0] ?? ["", NaN]

const shown = (n: number): string => (n >= 100 ? Math.round(n).toLocaleString("en") : n.toFixed(1))

const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows
    .map((row) =>
      row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join("  ")
    )
    .join("\n")
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    events: { type: "string" },
    "in-flight": { type: "string" },
    subscribers: { type: "string" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", multiple: true }
  }
})
const scenario = await loadScenario(positionals[0])
const count = (text: string | undefined, fallback: number): number => {
  const n = Number(text ?? fallback)
  return Number.isInteger(n) && n >= 0 ? n : fail(`'${text}' is no whole number`)
}
const sizes: Sizes = {
  events: count(values.events, scenario.defaults.events),
  inFlight: count(values["in-flight"], scenario.defaults.inFlight),
  subscribers: count(values.subscribers, scenario.defaults.subscribers)
}
const rounds = count(values.rounds, 3)
const title = scenario.title(sizes)
process.stdout.write(
  `${scenario.name}: ${title}\n${cpus().length} × ${cpus()[0]?.model ?? "CPU"}, Node ${process.version}, ${rounds} rounds\n\n`
)

const taking = scenario.runs(sizes).filter(({ missing, name }) => {
  if (
    values.only !== undefined &&
    !values.only.some((part) => name.toLowerCase().includes(part.toLowerCase()))
  )
    return false
  const reason = missing()
  if (reason !== undefined) process.stdout.write(`left out: ${name}: ${reason}\n`)
  return reason === undefined
})
const measured = new Map<string, Array<Row["figures"]>>(taking.map(({ name }) => [name, []]))
for (let round = 1; round <= rounds; round++) {
  for (const { name, run } of taking) {
    const figures = await run()
    measured.get(name)!.push(figures)
    const [figure, value] = mainFigure(figures)
    process.stdout.write(`round ${round}  ${name}: ${shown(value)} ${figure}\n`)
  }
}

const rows = Array.from(measured, ([name, all]): Row => ({
  name,
  figures: Object.fromEntries(
    Object.keys(all[0] ?? {}).map((figure) => [figure, median(all.map((one) => one[figure]!))])
  )
}))
const isOneAgainstAll = taking.every(({ against }) => against === undefined)
const ours = rows[0] === undefined ? NaN : mainFigure(rows[0].figures)[1]
for (const alike of Map.groupBy(rows, ({ figures }) => Object.keys(figures).join()).values()) {
  const columns = Object.keys(alike[0]!.figures)
  process.stdout.write(
    `\n${table([
      ["median", ...columns, ...(isOneAgainstAll ? ["ours is"] : [])],
      ...alike.map(({ figures, name }) => [
        name,
        ...columns.map((column) => shown(figures[column]!)),
        ...(isOneAgainstAll ? [`${(ours / mainFigure(figures)[1]).toFixed(2)} ×`] : [])
      ])
    ])}\n`
  )
}

/** Of what was measured in the same round: what else the machine does then, it does to both. */
const ratios = taking.flatMap(({ against = [], name }) =>
  against.flatMap((other) => {
    const each = measured
      .get(name)!
      .map((figures, i) => mainFigure(figures)[1] / mainFigure(measured.get(other)?.[i] ?? {})[1])
    return each.some(Number.isNaN) ? [] : [{ name, other, each }]
  })
)
if (ratios.length > 0) {
  const twoDigits = (n: number) => n.toFixed(2)
  process.stdout.write(
    `\n${table([
      ["ratio", "median", "least", "most"],
      ...ratios.map(({ each, name, other }) => [
        `${name} : ${other}`,
        ...[median(each), Math.min(...each), Math.max(...each)].map(twoDigits)
      ])
    ])}\n`
  )
}

const directory = fileURLToPath(new URL("results/", import.meta.url))
mkdirSync(directory, { recursive: true })
const file = `${directory}${scenario.name}.json`
writeFileSync(
  file,
  `${JSON.stringify({ scenario: scenario.name, title, sizes, rounds, node: process.version, cpus: cpus().length, at: new Date().toISOString(), rows, ratios, all: Object.fromEntries(measured) }, null, 2)}\n`
)
process.stdout.write(`\nbench/results/${scenario.name}.json has every round.\n`)
process.exit(0)
