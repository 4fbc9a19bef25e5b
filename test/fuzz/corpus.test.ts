/** What the fuzzer has found once, and what looks as if it could be found: it holds from then on. */
import { readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Result } from "effect"
import * as Policy from "../../src/domain/Policy.ts"
import * as Session from "../../src/domain/Session.ts"
import { framesTarget } from "./frames.ts"
import { generate, shrink } from "./mutate.ts"
import { httpTarget } from "./http.ts"
import { must, randomOf, type Target } from "./Target.ts"
import { pureTargets } from "./targets.ts"

const corpus = fileURLToPath(new URL("corpus/", import.meta.url))

const inputsOf = (name: string): ReadonlyArray<string> =>
  JSON.parse(readFileSync(`${corpus}${name}.json`, "utf8")) as ReadonlyArray<string>

/** Too long to be written down. */
const deep = (depth: number): string => "[".repeat(depth) + "]".repeat(depth)

const deepInputs: Readonly<Record<string, (depth: number) => string>> = {
  frames: (depth) => `{"op":"PUBLISH","topic":"a","payload":${deep(depth)}}`,
  claims: (depth) => `{"sub":"a","exp":1,"x":${deep(depth)},"policy":${deep(depth)}}`,
  importLines: (depth) => `{"id":"1","topic":"a","seq":1,"storedAt":1,"ts":1,"payload":${deep(depth)}}`,
  http: (depth) =>
    JSON.stringify({
      method: "POST",
      path: "/publish",
      query: {},
      type: "application/json",
      body: `{"topic":"a","payload":${deep(depth)}}`
    })
}

const deepInputsOf = (name: string): ReadonlyArray<string> =>
  [127, 128, 129, 1_000, 9_000, 100_000].flatMap((depth) => [
    (deepInputs[name] ?? deep)(depth),
    ...(name === "importLines" ? [`{"format":"event-hub/export","version":${deep(depth)}}`] : [])
  ])

const files = readdirSync(corpus).map((file) => file.replace(/\.json$/, ""))

it("each file of the corpus belongs to a target", () => {
  expect(files.toSorted()).toEqual([...pureTargets.map(({ name }) => name), "http"].toSorted())
})

describe.each(pureTargets)("$name", (target) => {
  it("holds for what it is made of", async () => {
    for (const input of target.seeds) await target.check(input)
  })

  it("holds for the corpus", async () => {
    for (const input of [...inputsOf(target.name), ...deepInputsOf(target.name)]) await target.check(input)
  })

  it("holds for a few inputs that are always the same", async () => {
    for (let i = 0; i < 200; i++) await target.check(generate(randomOf(i), target))
  })
})

describe("http", () => {
  let target: Target

  beforeAll(async () => {
    target = await httpTarget()
  })

  afterAll(() => target.close?.())

  it("holds for what it is made of, for the corpus, and for a few inputs that are always the same", async () => {
    for (const input of [...target.seeds, ...inputsOf("http"), ...deepInputsOf("http")])
      await target.check(input)
    for (let i = 0; i < 200; i++) await target.check(generate(randomOf(i), target))
  })
})

describe("frames", () => {
  const everything = Result.getOrThrow(Policy.parsePolicy("allow * **"))
  /** Asks nobody whether events with a key may be published. */
  const careless: typeof Session.step = (session, input, context) =>
    Session.step(
      session,
      input,
      input._tag === "Received" &&
        input.messages.some((message) => message.op === "PUBLISH" && message.opts?.key !== undefined)
        ? { ...context, decide: (_claims, request) => Policy.decide(everything, request) }
        : context
    )

  it("finds that rights are not asked for, where they are not", async () => {
    const target = framesTarget({ step: careless })
    for (let i = 0; i < 20_000; i++) {
      try {
        await target.check(generate(randomOf(i), target))
      } catch (error) {
        expect(error).toMatchObject({ message: "what is stored may be" })
        return
      }
    }
    expect.unreachable("nothing was found")
  })

  it("gets to all places, and is decoded more often than not", async () => {
    const target = framesTarget()
    for (let i = 0; i < 3_000; i++) await target.check(generate(randomOf(i), target))
    expect(target.branches?.missing).toEqual([])
  })
})

describe("the fuzzer", () => {
  const planted: Target = {
    name: "planted",
    isJson: true,
    seeds: ['{"a":[1,2,3],"b":"text"}'],
    words: ["bug"],
    check: (input) => must(!/bug.*null/s.test(input), "there is no bug")
  }
  const isFound = async (input: string): Promise<boolean> => {
    try {
      await planted.check(input)
      return false
    } catch {
      return true
    }
  }

  it("finds a planted bug, and makes it as short as it can be", async () => {
    for (let i = 0; i < 100_000; i++) {
      const input = generate(randomOf(i), planted)
      if (!(await isFound(input))) continue
      expect(await shrink(input, isFound)).toBe("bugnull")
      return
    }
    expect.unreachable("nothing was found")
  })

  it("makes the same of the same seed", () => {
    for (let i = 0; i < 100; i++) expect(generate(randomOf(i), planted)).toBe(generate(randomOf(i), planted))
  })
})
