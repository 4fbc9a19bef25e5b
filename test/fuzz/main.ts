/**
 * `npm run fuzz -- [--seconds 600] [--seed n] [--only name] [--at n]`: texts of strangers for whatever reads them.
 *
 * Each input follows from the seed, the target and its number, so that `--seed` with `--only` and `--at` has it again. What
 * is found is made short and printed; put it into test/fuzz/corpus, where it stays as a test.
 */
import { parseArgs } from "node:util"
import { chance, newSeed } from "../../src/testing/chance.ts"
import { generate, shrink } from "./mutate.ts"
import { httpTarget } from "./http.ts"
import { randomOf, type Target } from "./Target.ts"
import { pureTargets } from "./targets.ts"
import { watch } from "./watchdog.ts"

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "600" },
    seed: { type: "string" },
    only: { type: "string", multiple: true },
    at: { type: "string" }
  }
})

const say = (line: string): void => void process.stdout.write(`${line}\n`)

const seed = values.seed === undefined ? newSeed() : Number(values.seed)
const seconds = Number(values.seconds)
if (!Number.isSafeInteger(seed) || !(seconds > 0)) {
  process.stderr.write("usage: npm run fuzz -- [--seconds n] [--seed n] [--only name] [--at n]\n")
  process.exit(1)
}

/** No input takes so long on a machine that does something else, too. */
const slowMs = 5_000
/** Each target has as much time as any other, however long its inputs take. */
const turnMs = 250

const only = values.only ?? []
const isWanted = (name: string): boolean => only.length === 0 || only.includes(name)
const targets: Array<Target> = pureTargets.filter(({ name }) => isWanted(name))
if (isWanted("http")) targets.push(await httpTarget())
if (targets.length === 0) {
  process.stderr.write(`there are: ${[...pureTargets.map(({ name }) => name), "http"].join(", ")}\n`)
  process.exit(1)
}

const failureOf = async (target: Target, input: string): Promise<string | undefined> => {
  const begin = performance.now()
  try {
    await target.check(input)
  } catch (error) {
    return error instanceof Error ? `${error.message.slice(0, 500)}\n${error.stack ?? ""}` : String(error)
  }
  const took = performance.now() - begin
  return took > slowMs ? `it took ${Math.round(took)} ms` : undefined
}

const at = watch(
  targets.map(({ name }) => name),
  seed,
  targets.flatMap(({ pid }) => (pid === undefined ? [] : [pid]))
)
const choose = chance(seed)
const inputOf = (target: Target, i: number): string =>
  generate(randomOf(choose(target.name, i) * 0x1_0000_0000), target)

say(`seed ${seed}, ${seconds} s: ${targets.map(({ name }) => name).join(", ")}`)
const counts = new Map<string, number>()
let found = 0

const run = async (target: Target, index: number, i: number): Promise<void> => {
  at(index, i)
  const input = inputOf(target, i)
  const failure = await failureOf(target, input)
  counts.set(target.name, (counts.get(target.name) ?? 0) + 1)
  if (failure === undefined) return
  found++
  const short = await shrink(input, async (shorter) => (await failureOf(target, shorter)) !== undefined)
  say(`\nFOUND by ${target.name}: --seed ${seed} --only ${target.name} --at ${i}\n${failure}`)
  say(
    `input: ${JSON.stringify(short)}\nit fails with: ${(await failureOf(target, short)) ?? "nothing when asked again"}`
  )
}

const until = performance.now() + seconds * 1_000
if (values.at !== undefined) {
  for (const [index, target] of targets.entries()) await run(target, index, Number(values.at))
} else {
  while (performance.now() < until && found < 10) {
    for (const [index, target] of targets.entries()) {
      const end = Math.min(until, performance.now() + turnMs)
      while (performance.now() < end && found < 10) await run(target, index, counts.get(target.name) ?? 0)
    }
  }
  for (const { branches, name } of targets) {
    if (branches === undefined) continue
    say(`${name}: ${String(branches)}`)
    for (const one of branches.missing) {
      found++
      say(`NOT REACHED by ${name}: ${one}`)
    }
  }
}
for (const { close } of targets) {
  await close?.().catch((error: unknown) => {
    found++
    say(String(error))
  })
}
say(`\n${[...counts].map(([name, n]) => `${name} ${n}`).join(", ")}`)
say(found === 0 ? "nothing was found" : `${found} found`)
process.exit(found === 0 ? 0 : 1)
