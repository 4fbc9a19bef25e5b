/**
 * oxlint is the authority over who may import what; this holds oxlint to it.
 *
 * Every import that could be written, allowed and forbidden, is planted in a copy of the layout, and oxlint is asked
 * once. `rings` says it a second time, in the words of the design, so that neither can be loosened alone.
 */
import { spawnSync } from "node:child_process"
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, posix } from "node:path"
import { fileURLToPath } from "node:url"
import { beforeAll, describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../../", import.meta.url))

// --- what may import what ------------------------------------------------------------------------------------

const inner = ["src/protocol", "src/domain", "src/services"]
// By the paths of its modules: the barrel, which loads them all, is nobody's.
const pureEffect = ["effect/Effect", "effect/Function", "effect/Result", "effect/Schema"]
const effect = [...pureEffect, "effect/Clock", "effect/Layer", "effect/Random"]
const anyEffect = [...effect, "effect/http", "effect/http/HttpRouter", "effect/crypto/SecureRandom"]
const node = ["node:crypto", "node:fs/promises"]
const server = ["@effect/platform-node", "@effect/platform-node/NodeHttpServer"]
const layers = ["core", "memory", "sqlite", "mongo", "jwt", "files", "remote", "websocket", "http"].map(
  (name) => `src/layers/${name}`
)

/** A module of each folder, and what it may import besides its own folder. */
const rings: Readonly<Record<string, ReadonlyArray<string>>> = {
  "src/protocol/Planted.ts": [],
  "src/domain/Planted.ts": ["src/protocol", ...pureEffect],
  "src/services/Planted.ts": ["src/protocol", "src/domain", ...effect],
  "src/layers/core/Planted.ts": [...inner, ...anyEffect, "lru-cache"],
  "src/layers/memory/Planted.ts": [...inner, ...anyEffect],
  "src/layers/sqlite/Planted.ts": [...inner, ...anyEffect, ...node, "node:sqlite"],
  "src/layers/mongo/Planted.ts": [...inner, ...anyEffect, ...node, "lru-cache", "mongodb"],
  "src/layers/jwt/Planted.ts": [...inner, ...anyEffect, ...node, "jose"],
  "src/layers/remote/Planted.ts": [...inner, "src/layers/core", "src/client", ...anyEffect],
  "src/layers/websocket/Planted.ts": [...inner, "src/layers/core", ...anyEffect, ...node, "ws"],
  "src/layers/http/Planted.ts": [...inner, "src/layers/core", ...anyEffect, ...node, ...server],
  "src/layers/otlp/Planted.ts": [...inner, "src/layers/core", ...anyEffect, ...node],
  "src/layers/files/Planted.ts": [...inner, "src/layers/core", ...anyEffect, ...node],
  "src/layers/unheardOf/Planted.ts": [...inner, ...anyEffect],
  "src/client/Planted.ts": ["src/protocol"],
  "src/client/effect.ts": ["src/protocol", ...anyEffect],
  "src/dashboard/Planted.ts": ["src/protocol", "src/client", "src/dashboard/views"],
  "src/dashboard/views/Planted.ts": ["src/protocol", "src/client", "src/dashboard"],
  "src/testing/Planted.ts": [...inner, ...anyEffect, "vitest", "@effect/vitest", "fast-check"],
  "src/hub/Planted.ts": [...inner, ...layers, ...anyEffect, ...node, ...server],
  "src/cli/Planted.ts": [...inner, ...layers, "src/hub", "src/client", ...anyEffect, ...node, ...server],
  "src/main.ts": [...inner, ...layers, "src/hub", ...anyEffect, ...node, ...server],
  "src/index.ts": [...inner],
  "src/unheardOf/Planted.ts": []
}

const folders = [
  ...inner,
  ...layers,
  "src/client",
  "src/dashboard",
  "src/dashboard/views",
  "src/testing",
  "src/hub",
  "src/cli",
  "src/unheardOf",
  "test",
  "bench"
]
const packages = [
  "effect",
  ...anyEffect,
  ...node,
  ...server,
  "fs",
  "node:sqlite",
  "lru-cache",
  "mongodb",
  "jose",
  "ws",
  "vitest",
  "@effect/vitest",
  "fast-check",
  "event-hub",
  "event-hub/sqlite",
  "event-hub/client/effect",
  "@unheard/effect",
  "unheard-of"
]

const specifierOf = (from: string, target: string): string => {
  if (!folders.includes(target)) return target
  const path = posix.relative(posix.dirname(from), `${target}/Other.ts`)
  return path.startsWith(".") ? path : `./${path}`
}

/** Every way to write an import that oxlint tells apart. */
const forms: ReadonlyArray<(specifier: string, name: string) => string> = [
  (specifier, name) => `import { Effect as ${name} } from "${specifier}"`,
  (specifier, name) => `import * as ${name} from "${specifier}"`,
  (specifier, name) => `import type { Effect as ${name} } from "${specifier}"`,
  (specifier, name) => `import { type Effect as ${name} } from "${specifier}"`,
  (specifier) => `import "${specifier}"`,
  (specifier, name) => `export { Effect as ${name} } from "${specifier}"`,
  (specifier, name) => `export type { Effect as ${name} } from "${specifier}"`,
  (specifier, name) => `export * as ${name} from "${specifier}"`,
  (specifier) => `export * from "${specifier}"`,
  (specifier, name) => `export const ${name} = () => import("${specifier}")`
]

// --- what else oxlint must see, and must leave alone -----------------------------------------------------------

const imports = "eslint(no-restricted-imports)"
const globals = "eslint(no-restricted-globals)"
const properties = "eslint(no-restricted-properties)"

const caught: ReadonlyArray<readonly [file: string, code: string, rule: string]> = [
  // Ways round the folders.
  ["src/domain/detour.ts", `export * from "../domain/../services/Other.ts"`, imports],
  ["src/domain/detour.ts", `export * from "./../services/Other.ts"`, imports],
  ["src/domain/detour.ts", `export * from "../protocol/../services/Other.ts"`, imports],
  ["src/domain/detour.ts", `export * from "../../src/services/Other.ts"`, imports],
  ["src/domain/detour.ts", `export * from "file:///services/Other.ts"`, imports],
  ["src/layers/core/detour.ts", `export * from "../../services/../layers/sqlite/Other.ts"`, imports],
  ["src/layers/sqlite/detour.ts", `export * from "../jwt/Other.ts"`, imports],
  [
    "src/domain/required.ts",
    `export const a = require("../services/Other.ts")`,
    "typescript(no-require-imports)"
  ],
  ["src/domain/required.ts", `import b = require("../services/Other.ts")`, imports],
  [
    "src/domain/typed.ts",
    `export type A = import("../services/Other.ts").Other`,
    "typescript(consistent-type-imports)"
  ],
  [
    "src/domain/typed.ts",
    `export type B = import("effect/Clock").Clock`,
    "typescript(consistent-type-imports)"
  ],
  ["src/domain/computed.ts", `export const a = (name: string) => import(name)`, "import(no-dynamic-require)"],
  [
    "src/domain/computed.ts",
    "export const b = (name: string) => import(`../${name}`)",
    "import(no-dynamic-require)"
  ],
  [
    "src/domain/referred.ts",
    `/// <reference path="../services/Other.ts" />`,
    "typescript(triple-slash-reference)"
  ],
  // effect is pure only by path, and the barrel is not.
  ["src/domain/impure.ts", `import * as Clock from "effect/Clock"`, imports],
  ["src/domain/impure.ts", `import * as Random from "effect/Random"`, imports],
  ["src/domain/impure.ts", `import * as Duration from "effect/DateTime"`, imports],
  ["src/domain/impure.ts", `import type * as Layer from "effect/Layer"`, imports],
  ["src/domain/impure.ts", `import { type Context } from "effect/Context"`, imports],
  ["src/domain/impure.ts", `export * as Console from "effect/Console"`, imports],
  ["src/domain/impure.ts", `export const a = () => import("effect/Clock")`, imports],
  ["src/domain/impure.ts", `export * from "effect/Result/../Clock"`, imports],
  ["src/domain/barrel.ts", `import { Clock } from "effect"`, imports],
  ["src/domain/barrel.ts", `import { Effect, pipe, Result, type Schema } from "effect"`, imports],
  ["src/domain/barrel.ts", `export { Option } from "effect"`, imports],
  // Time, chance and the world.
  ...["protocol", "domain", "services", "layers/core"].flatMap((folder) =>
    [
      ["export const a = Date.now()", globals],
      ["export const b = new Date()", globals],
      [`export const c = (0, globalThis)["Date"].now()`, globals],
      ["export const d = global.process.env", globals],
      ["export const e = process.hrtime()", globals],
      ["console.log(1)", globals],
      ["export const f = performance.now()", globals],
      ["export const g = crypto.randomUUID()", globals],
      ["export const h = setTimeout(() => {}, 1)", globals],
      ["export const i = setInterval(() => {}, 1)", globals],
      ["export const j = setImmediate(() => {})", globals],
      ["queueMicrotask(() => {})", globals],
      [`export const k = fetch("http://127.0.0.1")`, globals],
      [`export const l = new WebSocket("ws://127.0.0.1")`, globals],
      ["export const m = Math.random()", properties],
      [`export const n = Math["random"]()`, properties],
      ["export const { random } = Math", properties]
    ].map(([code, rule]) => [`src/${folder}/ambient.ts`, code!, rule!] as const)
  ),
  ["src/domain/loose.ts", "export const a = (value: any) => value", "typescript(no-explicit-any)"],
  ["bench/loose.ts", "export const a = (value: any) => value", "typescript(no-explicit-any)"],
  // Circles, of types too.
  ["src/services/Hen.ts", `export { egg } from "./Egg.ts"`, "import(no-cycle)"],
  ["src/services/Egg.ts", `import type { Hen } from "./Hen.ts"`, "import(no-cycle)"]
]

const leftAlone: ReadonlyArray<readonly [file: string, code: string]> = [
  ["src/domain/Pure.ts", `import * as Effect from "effect/Effect"`],
  ["src/domain/Pure.ts", `import type * as Schema from "effect/Schema"`],
  ["src/domain/Pure.ts", `import { pipe } from "effect/Function"`],
  ["src/domain/Pure.ts", `export * as Option from "effect/Option"`],
  ["src/domain/Pure.ts", "export const largest = Math.max(1, 2)"],
  ["src/domain/Pure.ts", "export const when = (at: Date) => at.getTime()"],
  ["src/domain/Pure.ts", `export const kind = (value: { readonly _tag: "A" }) => value._tag`],
  ["src/layers/http/Page.ts", "export const now = Date.now()"],
  ["src/layers/http/Page.ts", "export const random = Math.random()"],
  ["src/hub/Log.ts", "export const write = (line: string) => process.stdout.write(line)"],
  ["src/cli/version.ts", `import packageJson from "../../package.json" with { type: "json" }`],
  ["bench/run.ts", `export { MongoClient } from "mongodb"`],
  ["bench/run.ts", `import { Effect } from "effect"`],
  ["examples/run.ts", `export { WebSocket } from "ws"`],
  ["examples/run.ts", `import { Effect } from "effect"`],
  ["test/layers/sqlite/Planted.test.ts", `export { DatabaseSync } from "node:sqlite"`],
  ["test/layers/sqlite/Planted.test.ts", `export * from "../../../src/layers/sqlite/Other.ts"`]
]

// --- planting ------------------------------------------------------------------------------------------------

interface Plant {
  readonly file: string
  readonly line: number
  readonly code: string
}

interface Report {
  readonly code?: string
  readonly filename: string
  readonly labels: ReadonlyArray<{ readonly span: { readonly line: number } }>
}

const files = new Map<string, Array<string>>()

const plant = (file: string, code: string): Plant => {
  const lines = files.get(file) ?? []
  files.set(file, lines)
  return { file, line: lines.push(code), code }
}

/** A copy of the layout that holds what was planted, and what oxlint says of it. */
const lint = (): ReadonlyArray<Report> => {
  const copy = mkdtempSync(join(tmpdir(), "event-hub-imports-"))
  try {
    copyFileSync(join(root, ".oxlintrc.json"), join(copy, ".oxlintrc.json"))
    for (const [file, lines] of files) {
      mkdirSync(dirname(join(copy, file)), { recursive: true })
      writeFileSync(join(copy, file), `${lines.join("\n")}\n`)
    }
    const oxlint = join(root, "node_modules/oxlint/bin/oxlint")
    const { stderr, stdout } = spawnSync(process.execPath, [oxlint, "--format=json"], {
      cwd: copy,
      encoding: "utf8",
      maxBuffer: 256 * 1024 * 1024
    })
    if (!stdout.startsWith("{")) throw new Error(`oxlint did not run: ${stdout}${stderr}`)
    const { diagnostics }: { diagnostics: ReadonlyArray<Report> } = JSON.parse(stdout)
    return diagnostics
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

describe("oxlint", () => {
  const matrix = Object.entries(rings).map(([file, allowed]) => {
    const targets = [...folders, ...packages]
    const plants = targets.flatMap((target) =>
      forms.map((form, i) => ({
        plant: plant(file, form(specifierOf(file, target), `_${targets.indexOf(target)}_${i}`)),
        isAllowed: allowed.includes(target) || target === posix.dirname(file)
      }))
    )
    return { file, plants }
  })
  const mustCatch = caught.map(([file, code, rule]) => ({ code, plant: plant(file, code), rule }))
  const mustLeave = leftAlone.map(([file, code]) => ({ code, plant: plant(file, code) }))

  let rulesAt = new Map<string, Array<string>>()
  const rulesOf = ({ file, line }: Plant): ReadonlyArray<string> => rulesAt.get(`${file}:${line}`) ?? []

  beforeAll(() => {
    rulesAt = new Map()
    for (const { code, filename, labels } of lint()) {
      for (const { span } of labels) {
        const place = `${filename.replaceAll("\\", "/")}:${span.line}`
        rulesAt.set(place, [...(rulesAt.get(place) ?? []), code ?? "it does not parse"])
      }
    }
  })

  it.each(matrix)("lets $file import what its ring may, and nothing else", ({ plants }) => {
    const wrong = plants.filter(({ isAllowed, plant }) => rulesOf(plant).includes(imports) === isAllowed)
    expect(
      wrong.map(({ isAllowed, plant }) => `${isAllowed ? "refused" : "not caught"}: ${plant.code}`)
    ).toEqual([])
    expect(plants.filter(({ plant }) => rulesOf(plant).includes("it does not parse"))).toEqual([])
  })

  it.each(mustCatch)("catches `$code` in $plant.file", ({ plant, rule }) => {
    expect(rulesOf(plant)).toContain(rule)
  })

  it.each(mustLeave)("leaves `$code` in $plant.file alone", ({ plant }) => {
    expect(rulesOf(plant).filter((rule) => rule !== "eslint(no-unused-vars)")).toEqual([])
  })
})

// --- the sources themselves ----------------------------------------------------------------------------------

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => ({
    module: `src/${name.replaceAll("\\", "/")}`,
    text: readFileSync(join(root, "src", name), "utf8")
  }))

describe("src", () => {
  it("has no import that oxlint cannot see", () => {
    const hidden = sources.filter(
      ({ module, text }) =>
        // The path of an import is read only from a string; and the domain loads nothing while it runs.
        /\bimport\s*\(\s*`/.test(text) || (module.startsWith("src/domain/") && /\bimport\s*\(/.test(text))
    )
    expect(hidden.map(({ module }) => module)).toEqual([])
  })

  it("makes no exception from the rule of imports", () => {
    const excepted = sources.filter(({ text }) =>
      /lint-disable.*(?:no-restricted-imports|no-cycle)/.test(text)
    )
    expect(excepted.map(({ module }) => module)).toEqual([])
    const configs = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    expect(configs.filter((name) => /oxlint(?:rc|\.config)/.test(name))).toEqual([])
  })

  it("names every service after its module", () => {
    const keys = sources.flatMap(({ module, text }) => {
      const code = text.replaceAll(/^\s*\/\*\*[\s\S]*?\*\//gm, "")
      const found = [
        ...code.matchAll(/class\s+(\w+)\s+extends\s+\w+\.Service\b[\s\S]*?\(\)\(\s*"([^"]*)"/g),
        ...code.matchAll(/const\s+(\w+)\b[^=]*=\s*\w+\.(?:Service|Reference)\b(?:<[\s\S]*?>)?\(\s*"([^"]*)"/g)
      ]
      expect(found, `the keys of ${module}`).toHaveLength(
        [...code.matchAll(/(?:extends|=)\s+\w+\.(?:Service|Reference)\b/g)].length
      )
      const path = `event-hub/${module.slice("src/".length, -".ts".length)}`
      return found.map(([, name, key]) => ({
        key,
        expected: posix.basename(path) === name ? path : `${path}/${name}`
      }))
    })
    expect(keys.map(({ key }) => key)).toContain("event-hub/services/OutboxStore")
    expect(keys.filter(({ expected, key }) => key !== expected)).toEqual([])
  })
})
