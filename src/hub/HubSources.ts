/**
 * Which outboxes a hub drains besides its own: OUTBOX_SOURCES, read and checked as far as a text can be.
 *
 * What is wrong is said of entries by their number: nothing of a URL, nor of what may be a piece of one, is repeated.
 */
import { resolve } from "node:path"
import * as Redacted from "effect/Redacted"
import { ownSource } from "../services/OutboxSources.ts"

export type OutboxPlace =
  | { readonly _tag: "Sqlite"; readonly path: string }
  | { readonly _tag: "Mongo"; readonly url: Redacted.Redacted; readonly collection: string }

export interface SourceSettings {
  readonly name: string
  readonly outbox: OutboxPlace
}

export const defaultCollection = "outbox"

const isName = (text: string): boolean => /^[a-z0-9][a-z0-9_-]{0,62}$/.test(text)

const mongoUrl =
  /^(?<scheme>mongodb(?:\+srv)?):\/\/(?:[^/?#@]*@)?(?<hosts>[^/?#@]+)(?:\/(?<database>[^/?#]*))?(?:\?[^#]*)?(?:#(?<collection>.*))?$/

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** https://www.mongodb.com/docs/manual/reference/limits/#naming-restrictions */
const isDatabase = (name: string): boolean => name.length <= 63 && !/[/\\. "$\0]/.test(name)
const isCollection = (name: string): boolean =>
  name.length <= 180 && !/[$\0]|^system\.|^\.|\.$/.test(name) && name !== ""

/** The same for the same outbox, as far as it can be seen from the text. */
const identityOf = (place: OutboxPlace): string => {
  if (place._tag === "Sqlite") return resolve(place.path)
  const { database = "", hosts = "", scheme } = mongoUrl.exec(Redacted.value(place.url))?.groups ?? {}
  const servers = hosts
    .toLowerCase()
    .split(",")
    .map((host) => host.replace(/:27017$/, ""))
    .sort()
  // A URL without a database means the one that a hub takes then.
  return [scheme, servers, decode(database) || "prom", place.collection].join(" ")
}

const parseMongo = (text: string): OutboxPlace | string => {
  const { collection: fragment, database = "" } = mongoUrl.exec(text)?.groups ?? {}
  if (!mongoUrl.test(text))
    return "is no URL such as mongodb://host:27017/database#collection (in a password, write : / ? # @ as %3A %2F %3F %23 %40)"
  const name = decode(database)
  if (name === undefined || name === "" || !isDatabase(name))
    return "must name a database in its path, such as mongodb://host:27017/database#collection"
  const collection = decode(fragment ?? defaultCollection)
  return collection === undefined || !isCollection(collection)
    ? "must name a collection behind #, or leave the # out for 'outbox'"
    : { _tag: "Mongo", url: Redacted.make(text.replace(/#.*$/, "")), collection }
}

const parsePlace = (text: string): OutboxPlace | string => {
  if (/^mongodb(?:\+srv)?:/.test(text)) return parseMongo(text)
  if (!text.startsWith("sqlite:"))
    return "must be <name>=mongodb://host:27017/database#collection or <name>=sqlite:<path>"
  const path = text.slice("sqlite:".length)
  return path === "" || path === ":memory:"
    ? "names no file: write <name>=sqlite:<path>"
    : { _tag: "Sqlite", path }
}

/** The sources, and what is wrong with entries: one problem each, words to follow the name of the variable. */
export const parseSources = (
  text: string,
  /** The hub's own outbox, where another program could have it too. */
  own: OutboxPlace | undefined
): { readonly sources: ReadonlyArray<SourceSettings>; readonly problems: ReadonlyArray<string> } => {
  const sources: Array<SourceSettings> = []
  const problems: Array<string> = []
  const names = new Map<string, number>()
  const places = new Map<string, string>()
  if (own !== undefined) places.set(identityOf(own), "the hub's own outbox, which it drains anyway")
  const entries = text.split(/\s+/).filter((entry) => entry !== "")
  entries.forEach((entry, i) => {
    const number = i + 1
    const wrong = (problem: string) => void problems.push(`entry ${number} ${problem}`)
    const end = entry.indexOf("=")
    const name = entry.slice(0, Math.max(0, end))
    const outbox = parsePlace(entry.slice(end + 1))
    if (end < 0)
      return wrong("must be <name>=<url>; entries are separated by whitespace, which a URL cannot hold")
    if (!isName(name))
      return wrong("must begin with a name of a-z, 0-9, _ and -, at most 63, such as shop=mongodb://…")
    if (name === ownSource)
      return wrong(`is named '${ownSource}', which is the hub's own outbox: give it another name`)
    if (typeof outbox === "string") return wrong(outbox)
    const sameName = names.get(name)
    if (sameName !== undefined) return wrong(`has the name of entry ${sameName}, '${name}'`)
    names.set(name, number)
    const identity = identityOf(outbox)
    const samePlace = places.get(identity)
    if (samePlace !== undefined) return wrong(`is ${samePlace}`)
    places.set(identity, `the same outbox as entry ${number}`)
    sources.push({ name, outbox })
  })
  return { sources, problems }
}
