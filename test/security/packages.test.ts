/** What is installed with the hub: from where, checked by what, and that none of it runs anything while it is installed. */
import { spawnSync } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "vitest"
import { temporaryDirectory } from "../support/temporary.ts"

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

describe("the check of what is known of packages", () => {
  /** Runs it with an `npm` that is none. */
  const audited = (npm: string) => {
    const directory = temporaryDirectory()
    writeFileSync(join(directory, "npm"), `#!/usr/bin/env bash\n${npm}\n`, { mode: 0o755 })
    const audit = fileURLToPath(new URL("../../.ci/audit.sh", import.meta.url))
    const { status, stdout } = spawnSync("bash", [audit], {
      env: { ...process.env, PATH: `${directory}:${process.env["PATH"]}` },
      encoding: "utf8"
    })
    return { status, stdout }
  }
  const report = "echo '{ \"auditReportVersion\": 2 }'"

  it("holds when nothing is", () => {
    const { status, stdout } = audited(report)
    expect({ status, clean: stdout.match(/nothing is known/g)?.length }).toEqual({ status: 0, clean: 3 })
  })

  it.each([
    ["of what comes with the hub", '[[ "$*" == *--omit=dev* ]]'],
    ["of what is for its development", '[[ "$*" == *"--prefix . --audit-level=high"* ]]'],
    ["of the benchmarks", '[[ "$*" == *"--prefix bench"* ]]']
  ])("fails when something is: %s", (_what, isThis) => {
    // As npm does it: the report is there, and the end is not a good one.
    const { status, stdout } = audited(`${report}\nif ${isThis}; then exit 1; fi`)
    expect(status).toBe(1)
    expect(stdout.match(/something is known/g)).toHaveLength(1)
  })

  it.each([
    ["says so", "echo '{ \"error\": {} }'; exit 1"],
    ["says nothing", "exit 1"],
    ["is not there", "exit 127"]
  ])("says that it has not looked when the registry answers no audits: npm %s", (_what, npm) => {
    const { status, stdout } = audited(npm)
    expect(status).toBe(0)
    expect(stdout.match(/NOT CHECKED/g)).toHaveLength(3)
  })
})
