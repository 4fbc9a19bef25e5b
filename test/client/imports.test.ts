/** The client has no dependency: it and the protocol import nothing but files of theirs, in any way there is. */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, normalize } from "node:path"
import { fileURLToPath } from "node:url"
import { expect, it } from "vitest"

const root = fileURLToPath(new URL("../../src/", import.meta.url))

const sources = ["client", "protocol"].flatMap((folder) =>
  readdirSync(join(root, folder))
    // The flavour for Effect is an entry of its own.
    .filter((name) => name !== "effect.ts")
    .map((name) => `${folder}/${name}`)
)

/** `import "x"`, `import … from "x"`, `export … from "x"`. */
const specifiers = (source: string): ReadonlyArray<string> =>
  Array.from(source.matchAll(/\b(?:from|import)\s*(["'])(.*?)\1/g), ([, , specifier]) => specifier ?? "")

it("finds every form of an import", () => {
  const source = `import "a"; import b from 'b'; import { c }\n from "c"; export * from "d"`
  expect(specifiers(source)).toEqual(["a", "b", "c", "d"])
})

it.each(sources)("src/%s", (file) => {
  const source = readFileSync(join(root, file), "utf8")
  for (const specifier of specifiers(source)) {
    expect(specifier).toMatch(/^\.\.?\//)
    expect(sources).toContain(normalize(join(dirname(file), specifier)))
  }
  expect(source).not.toMatch(/\b(?:import|require)\s*\(/)
  // What only one platform has is asked for under a name that may be missing, or not at all.
  expect(source).not.toMatch(/\b(?:process|Buffer|window|document|__dirname|global)\s*[.[(]/)
})

it("there is something to look at", () => {
  expect(sources.length).toBeGreaterThan(5)
})
