/** What is installed with the hub: from where, checked by what, and that none of it runs anything while it is installed. */
import { readFileSync } from "node:fs"
import { expect, it } from "vitest"

interface Package {
  readonly resolved?: string
  readonly integrity?: string
  readonly dev?: boolean
  readonly hasInstallScript?: boolean
}

const read = (path: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8"))

const packagesOf = (path: string): ReadonlyArray<readonly [path: string, one: Package]> =>
  Object.entries((read(path) as { readonly packages: Readonly<Record<string, Package>> }).packages).filter(
    ([name]) => name !== ""
  )

it.each(["package-lock.json", "bench/package-lock.json"])("%s names each package with its hash", (lock) => {
  const packages = packagesOf(lock)
  expect(packages.length).toBeGreaterThan(10)
  // None says where it is from: whatever registry is asked, what comes is what was locked.
  const bad = packages.filter(
    ([, { integrity = "", resolved }]) => resolved !== undefined || !/^sha512-[\w+/]{86}==$/.test(integrity)
  )
  expect(bad.map(([name]) => name)).toEqual([])
})

it("no package that comes with the hub runs a script while it is installed, and of the others one may", () => {
  const scripts = packagesOf("package-lock.json").filter(
    ([, { hasInstallScript }]) => hasInstallScript === true
  )
  expect(scripts.filter(([, { dev }]) => dev !== true)).toEqual([])
  expect((read("package.json") as { readonly allowScripts: unknown }).allowScripts).toEqual({ node: true })
})
