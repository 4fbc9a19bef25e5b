/**
 * What the hub says to whoever runs it: lines for people, or one JSON object a line for machines.
 *
 * Strings of a log call are its message; plain objects among its arguments are fields beside it.
 */
import { inspect } from "node:util"
import * as Cause from "effect/Cause"
import type * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import type { LogFormat } from "./HubConfig.ts"

type Fields = Readonly<Record<string, unknown>>

const isFields = (part: unknown): part is Fields =>
  typeof part === "object" &&
  part !== null &&
  !(part instanceof Error) &&
  Object.getPrototypeOf(part) === Object.prototype

const printable = (_key: string, value: unknown): unknown =>
  typeof value === "bigint" ? String(value) : value

/**
 * What ends a line for somebody, drives a terminal, or turns the order of what is shown: control characters, the line and
 * paragraph separators, and the marks of bidirectional text (https://www.unicode.org/reports/tr36/).
 */
const unsafe = /[\p{Cc}\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu

const escaped = (text: string): string =>
  text.replace(unsafe, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)

/** A line must never be lost over what is in it: what is no JSON is shown as Node would show it. */
const jsonOf = (value: unknown): string => {
  try {
    return JSON.stringify(value, printable) ?? String(value)
  } catch {
    return JSON.stringify(inspect(value))
  }
}

/** An error with what caused it: that a store does not answer is no news without the why. */
const textOf = (part: unknown): string => {
  if (typeof part === "string") return part
  if (!(part instanceof Error)) return jsonOf(part)
  return part.cause instanceof Error ? `${part.message}: ${textOf(part.cause)}` : part.message
}

interface Line {
  readonly msg: string
  readonly fields: Fields
  readonly level: string
  readonly time: string
  readonly cause: string | undefined
}

const lineOf = (options: Logger.Options<unknown>): Line => {
  const parts = Array.isArray(options.message)
    ? (options.message as ReadonlyArray<unknown>)
    : [options.message]
  return {
    msg: parts
      .filter((part) => !isFields(part))
      .map(textOf)
      .join(": "),
    fields: Object.assign(
      {},
      ...parts.filter(isFields),
      options.fiber.getRef(References.CurrentLogAnnotations)
    ) as Fields,
    level: options.logLevel.toLowerCase(),
    time: options.date.toISOString(),
    cause: options.cause.reasons.length === 0 ? undefined : Cause.pretty(options.cause)
  }
}

/** `{"msg":…,<fields>,"level":…,"time":…}` without spaces; a field never replaces one of the line's own. */
export const formatJson = (options: Logger.Options<unknown>): string => {
  const { cause, fields, level, msg, time } = lineOf(options)
  const own = { level, time, ...(cause === undefined ? {} : { cause }) }
  try {
    return escaped(JSON.stringify(Object.assign({ msg }, fields, { msg }, own), printable))
  } catch {
    return escaped(JSON.stringify({ msg, fields: inspect(fields), ...own }))
  }
}

/** A field's text may come from anywhere: what would break the line, or hide it on a screen, is shown as in JSON. */
const shownOf = (value: unknown): string =>
  escaped(
    typeof value === "string" && (value.search(unsafe) !== -1 || value.includes("  "))
      ? JSON.stringify(value)
      : textOf(value)
  )

/** What a stack says stands apart, so that no line of it looks like one of the log's own. */
const indented = (cause: string): string =>
  cause
    .split("\n")
    .map((line) => `    ${escaped(line)}`)
    .join("\n")

const formatPretty = (options: Logger.Options<unknown>): string => {
  const { cause, fields, level, msg, time } = lineOf(options)
  const shown = Object.entries(fields).map(([name, value]) => `${escaped(name)}=${shownOf(value)}`)
  const label = level === "info" ? "" : `${level.toUpperCase()} `
  const head = [`${time.slice(11, 23)} ${label}${escaped(msg)}`, ...shown].join("  ")
  return cause === undefined ? head : `${head}\n${indented(cause)}`
}

/** Loggers of the given form in place of all others; `write` takes one line. */
export const layer = (format: LogFormat, write: (line: string) => void): Layer.Layer<never> =>
  Logger.layer([
    Logger.make((options) => write(format === "json" ? formatJson(options) : formatPretty(options)))
  ])
