/**
 * The files of the dashboard, as a browser takes them.
 *
 * From a clone, browsers get the TypeScript sources with their types stripped, as Node does it for itself; from
 * a built package, the JavaScript beside this file.
 */
import { readFile } from "node:fs/promises"
import * as nodeModule from "node:module"
import * as Effect from "effect/Effect"

export interface Asset {
  readonly contentType: string
  readonly body: string
}

const here = import.meta.url
const isSource = here.endsWith(".ts")

/** What may be asked for: the page, the client it is built on, and the protocol both share. */
const servable = /^(?:dashboard(?:\/views)?|client|protocol)\/[A-Za-z]+\.(?:ts|js|css|html)$/

const contentTypes: Readonly<Record<string, string>> = {
  ts: "text/javascript; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  html: "text/html; charset=utf-8"
}

/**
 * Comments and types go, so that a browser loads what runs and no more. It is announced as experimental each time a
 * process first does it; what it does here is settled.
 */
const stripTypes = (source: string): string => {
  const emitWarning = process.emitWarning
  process.emitWarning = () => {}
  try {
    return nodeModule.stripTypeScriptTypes(source, { mode: "transform" })
  } finally {
    process.emitWarning = emitWarning
  }
}

/** Read once, and kept: they are few and small. What does not exist is looked for again, so that no list of it grows. */
export const makeAssets = (): ((path: string) => Effect.Effect<Asset | undefined>) => {
  const loaded = new Map<string, Promise<Asset | undefined>>()

  const load = async (path: string): Promise<Asset | undefined> => {
    const extension = path.split(".").at(-1) ?? ""
    const file = isSource || extension !== "ts" ? path : path.replace(/ts$/, "js")
    try {
      const text = await readFile(new URL(`../../${file}`, here), "utf8")
      const body = isSource && extension === "ts" ? stripTypes(text) : text
      return { contentType: contentTypes[extension] ?? "application/octet-stream", body }
    } catch {
      return undefined
    }
  }

  return (path) => {
    if (!servable.test(path)) return Effect.succeed(undefined)
    let asset = loaded.get(path)
    if (asset === undefined) {
      asset = load(path).then((found) => {
        if (found === undefined) loaded.delete(path)
        return found
      })
      loaded.set(path, asset)
    }
    return Effect.promise(() => asset)
  }
}
