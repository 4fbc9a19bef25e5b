/**
 * Preloaded into a process (`node --import`): adds the URL of every module that it loads, in its workers too, to the file
 * that LIST_LOADED names, a line each.
 */
import { appendFileSync } from "node:fs"
import { registerHooks } from "node:module"

const list = process.env["LIST_LOADED"]
if (list === undefined) throw new Error("LIST_LOADED must name the file for the list")

registerHooks({
  load: (url, context, next) => {
    appendFileSync(list, `${url}\n`)
    return next(url, context)
  }
})
