/** What the watch over sharded collections takes for a command that asks every shard. */
import { expect, it } from "vitest"
import type { CommandStartedEvent } from "mongodb"
import { crossing } from "./shards.ts"

const event = (commandName: string, collection: string, command: object): CommandStartedEvent =>
  ({ commandName, command: { [commandName]: collection, ...command } }) as unknown as CommandStartedEvent

it.each([
  ["find", { filter: { id: "1" } }],
  ["find", { filter: { topic: { $gt: "a" } } }],
  ["find", { filter: { _id: { topic: "a", seq: 1 } } }],
  ["update", { updates: [{ q: { topic: "a" } }, { q: { id: "1" } }] }],
  ["delete", { deletes: [{ q: {} }] }],
  ["aggregate", { pipeline: [{ $group: {} }, { $match: { topic: "a" } }] }],
  ["findAndModify", { query: { id: "1" } }],
  ["count", {}]
])("%s without a topic: %j", (name, command) => {
  expect(crossing(event(name, "events", command))).toContain("asks every shard")
  expect(crossing(event(name, "topics", command))).toBe(undefined)
})

it.each([
  ["find", { filter: { topic: "a", id: { $in: ["1"] } } }],
  ["find", { filter: { topic: { $in: ["a", "b"] } } }],
  ["update", { updates: [{ q: { topic: "a" } }] }],
  ["aggregate", { pipeline: [{ $match: { topic: "a" } }] }],
  ["insert", { documents: [] }]
])("%s goes to the topic's shard: %j", (name, command) => {
  expect(crossing(event(name, "latest", command))).toBe(undefined)
})
