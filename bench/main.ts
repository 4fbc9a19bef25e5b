/**
 * `npm run bench -- <scenario> …`: ours and its peers on the same work, in turns, in one run.
 *
 * Prints the median of each figure, ratios, and what is wanted of them; and writes all of it to
 * bench/results/<scenario>.json. `all` is every scenario, `--quick` is sizes that take seconds: it shows that they work.
 */
import { cpus } from "node:os"
import { parseArgs } from "node:util"
import { mainFigure, report, say, shown } from "./report.ts"
import type { Row, Scenario, Sizes } from "./Scenario.ts"

interface Entry {
  readonly load: () => Promise<Scenario>
  readonly quick: Partial<Sizes>
}

/** Loaded when they are asked for: who wants one of them needs only the clients of its peers. */
const scenarios: Readonly<Record<string, Entry>> = {
  fanout: {
    load: async () => (await import("./fanout.ts")).fanout,
    quick: { events: 100, subscribers: 20 }
  },
  "fanout-parsed": {
    load: async () => (await import("./fanout.ts")).fanoutParsed,
    quick: { events: 100, subscribers: 20 }
  },
  durable: { load: async () => (await import("./durable.ts")).durable, quick: { events: 1_000 } },
  "publish-latency": {
    load: async () => (await import("./publishLatency.ts")).publishLatency,
    quick: { events: 100 }
  },
  "outbox-sqlite": {
    load: async () => (await import("./outboxSqlite.ts")).outboxSqlite,
    quick: { events: 1_000 }
  },
  "outbox-mongo": {
    load: async () => (await import("./outboxMongo.ts")).outboxMongo,
    quick: { events: 300 }
  },
  connections: {
    load: async () => (await import("./connections.ts")).connections,
    quick: { events: 500, inFlight: 20, subscribers: 200 }
  },
  queries: {
    load: async () => (await import("./queries.ts")).queries,
    quick: { events: 5_000, inFlight: 50 }
  },
  "slow-reader": {
    load: async () => (await import("./slowReader.ts")).slowReader,
    quick: { events: 25, subscribers: 20 }
  },
  flood: { load: async () => (await import("./flood.ts")).flood, quick: { events: 10_000, subscribers: 5 } },
  start: { load: async () => (await import("./start.ts")).start, quick: { events: 1 } },
  groups: { load: async () => (await import("./groups.ts")).groups, quick: { events: 1_000 } },
  export: { load: async () => (await import("./export.ts")).exporting, quick: { events: 5_000 } },
  writer: { load: async () => (await import("./writer.ts")).writer, quick: { events: 2_000 } },
  dashboard: {
    load: async () => (await import("./dashboard.ts")).dashboard,
    quick: { events: 10_000, subscribers: 10 }
  },
  patterns: { load: async () => (await import("./patterns.ts")).patterns, quick: { events: 500 } },
  costs: { load: async () => (await import("./costs.ts")).costs, quick: { events: 500, subscribers: 20 } }
}

const fail = (message: string): never => {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    events: { type: "string" },
    "in-flight": { type: "string" },
    subscribers: { type: "string" },
    rounds: { type: "string" },
    only: { type: "string", multiple: true },
    quick: { type: "boolean", default: false }
  }
})

const load = async ({ load }: Entry): Promise<Scenario> => {
  try {
    return await load()
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ERR_MODULE_NOT_FOUND") {
      return fail(`The peers' clients are not installed; run: npm ci --prefix bench\n(${error.message})`)
    }
    throw error
  }
}

const count = (text: string | undefined, fallback: number): number => {
  const n = Number(text ?? fallback)
  return Number.isInteger(n) && n >= 0 ? n : fail(`'${text}' is no whole number`)
}

const isWanted = (name: string): boolean =>
  values.only === undefined || values.only.some((part) => name.toLowerCase().includes(part.toLowerCase()))

const runAll = async (entry: Entry): Promise<void> => {
  const scenario = await load(entry)
  const defaults = { ...scenario.defaults, ...(values.quick ? entry.quick : {}) }
  const sizes: Sizes = {
    events: count(values.events, defaults.events),
    inFlight: count(values["in-flight"], defaults.inFlight),
    subscribers: count(values.subscribers, defaults.subscribers)
  }
  const rounds = count(values.rounds, values.quick ? 1 : 3)
  const title = scenario.title(sizes)
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? "CPU"}, Node ${process.version}`
  say(`${scenario.name}: ${title}\n${machine}, ${rounds} rounds\n`)

  const asked = scenario.runs(sizes).filter(({ name }) => isWanted(name))
  const leftOut = asked.flatMap(({ missing, name }) => {
    const reason = missing()
    return reason === undefined ? [] : [{ name, reason }]
  })
  for (const { name, reason } of leftOut) say(`left out: ${name}: ${reason}`)
  const runs = asked.filter(({ name }) => leftOut.every((other) => other.name !== name))
  const all = new Map<string, Array<Row["figures"]>>(runs.map(({ name }) => [name, []]))
  for (let round = 1; round <= rounds; round++) {
    for (const { name, run } of runs) {
      const figures = await run()
      all.get(name)!.push(figures)
      const [figure, value] = mainFigure(figures)
      say(`round ${round}  ${name}: ${shown(value)} ${figure}`)
    }
  }
  report({ scenario, title, sizes, rounds, runs, all, leftOut })
}

const names = positionals.includes("all") ? Object.keys(scenarios) : positionals
const chosen = names.map((name) => scenarios[name])
if (chosen.length === 0 || chosen.includes(undefined)) {
  fail(
    `usage: npm run bench -- all|${Object.keys(scenarios).join("|")} … [--quick] [--events n] [--in-flight n] [--subscribers n] [--rounds n] [--only name]`
  )
}
for (const entry of chosen) if (entry !== undefined) await runAll(entry)
process.exit(0)
