/** A real browser: `CHROMIUM_PATH`, or the `chromium` that is installed. Tests that need one skip without, and say so. */
import { execFileSync } from "node:child_process"
import { type Browser, chromium } from "playwright-core"

const find = (): string | undefined => {
  const given = process.env["CHROMIUM_PATH"]
  if (given !== undefined && given !== "") return given
  try {
    return execFileSync("which", ["chromium"], { encoding: "utf8" }).trim()
  } catch {
    return undefined
  }
}

const executablePath = find()

/** Whether there is one; says what is not tested where there is none. */
export const hasChromium = (untested: string): boolean => {
  if (executablePath !== undefined) return true
  console.warn(`There is no Chromium: ${untested} NOT tested in a browser; CHROMIUM_PATH says where one is.`)
  return false
}

export const launchChromium = (): Promise<Browser> =>
  chromium.launch({
    executablePath: executablePath ?? "",
    args: ["--headless", "--no-sandbox", "--disable-gpu"]
  })
