/**
 * A database that fails the test whose commands would ask every shard, were the log sharded on `topic`: each one on
 * the collections that docs/operations.md says to shard has to name its topics.
 */
import type { CommandStartedEvent } from "mongodb"
import { Effect, Layer } from "effect"
import { MongoDatabase } from "../../../src/layers/mongo/MongoDatabase.ts"
import { database } from "../../support/mongo.ts"

const sharded = new Set<unknown>(["events", "latest"])

type Fields = Readonly<Record<string, unknown>>

/** The filters of a command; none: it has no need of one. */
const filtersOf = ({ command, commandName }: CommandStartedEvent): ReadonlyArray<unknown> | undefined => {
  const found = command as Readonly<Record<string, unknown>>
  const each = (name: string) => (found[name] as ReadonlyArray<{ readonly q: unknown }>).map(({ q }) => q)
  switch (commandName) {
    case "find":
      return [found["filter"]]
    case "aggregate":
      return [(found["pipeline"] as ReadonlyArray<Fields>)[0]?.["$match"]]
    case "update":
      return each("updates")
    case "delete":
      return each("deletes")
    case "insert":
    case "createIndexes":
      return undefined
    case "getMore":
      return undefined
    default:
      return [found["query"] ?? found["filter"]]
  }
}

const namesTopics = (filter: unknown): boolean => {
  if (!(filter instanceof Object) || !("topic" in filter)) return false
  const { topic } = filter
  return typeof topic === "string" || (topic instanceof Object && ("$in" in topic || "$eq" in topic))
}

/** What is wrong with a command, were its collection sharded. */
export const crossing = (event: CommandStartedEvent): string | undefined => {
  if (!sharded.has(event.command[event.commandName])) return undefined
  const wrong = filtersOf(event)?.filter((filter) => !namesTopics(filter)) ?? []
  return wrong.length === 0 ? undefined : `${event.commandName} asks every shard: ${JSON.stringify(wrong[0])}`
}

export const watchedDatabase = (url: string): Layer.Layer<MongoDatabase> =>
  Layer.effect(
    MongoDatabase,
    Effect.gen(function* () {
      const made = yield* MongoDatabase
      const problems: Array<string> = []
      made.client.on("commandStarted", (event) => problems.push(...[crossing(event) ?? []].flat()))
      yield* Effect.addFinalizer(() =>
        problems.length === 0 ? Effect.void : Effect.die(new Error(problems.join("\n")))
      )
      return made
    })
  ).pipe(Layer.provide(database(url, { client: { monitorCommands: true } })))
