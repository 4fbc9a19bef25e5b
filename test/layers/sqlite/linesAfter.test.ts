/** Lines are read in several looks: what a trim takes away between two of them. */
import { DatabaseSync } from "node:sqlite"
import { describe, expect, it } from "vitest"
import { eventCommands } from "../../../src/layers/sqlite/eventCommands.ts"
import { linesAfter } from "../../../src/layers/sqlite/linesAfter.ts"
import { packRecords } from "../../../src/layers/sqlite/packedAppend.ts"
import { migrate } from "../../../src/layers/sqlite/schema.ts"
import { prepare, type StatementName, type Statements } from "../../../src/layers/sqlite/statements.ts"
import { records } from "../../../src/testing/eventStore.ts"

describe("lines that are read while a topic is trimmed", () => {
  const scene = () => {
    const db = new DatabaseSync(":memory:")
    migrate(db, "a life")
    const statements = prepare(db)
    const { commands } = eventCommands(statements)
    commands.append({ records: packRecords(records("a", 20)), maxLength: 10_000, now: 1 })
    return { commands, statements }
  }

  it.each<[trimmedBefore: StatementName, upTo: number, first: number]>([
    ["linesAfter", 12, 13],
    ["bodySizes", 12, 13],
    ["linesAfter", 4, 5],
    ["topic", 12, 13]
  ])("begin behind what went before %s (up to %i)", (trimmedBefore, upTo, first) => {
    const { commands, statements } = scene()
    let isTrimmed = false
    const meanwhile: Statements = {
      ...statements,
      get: (name, ...args) => {
        if (name === trimmedBefore && !isTrimmed) {
          isTrimmed = true
          commands.trim({ topic: "a", upTo, storedBefore: 1 })
        }
        return statements.get(name, ...args)
      }
    }
    const range = { topic: "a", after: 0, limit: 10, maxBytes: 100_000 }
    const lines = linesAfter(meanwhile, range)
    expect(lines).toMatchObject({ first })
    expect(lines?.count).toBe(lines!.last - first + 1)
  })

  it("are nothing where there is nothing, whatever the topic says", () => {
    const { statements } = scene()
    const range = { topic: "a", after: 20, limit: 10, maxBytes: 100_000 }
    expect(linesAfter(statements, range)).toBeUndefined()
    expect(linesAfter(statements, { ...range, topic: "b" })).toBeUndefined()
    // A topic that claims more than its events: it is looked at once more, and then it ends.
    statements.run("growTopic", 30, 1, 1)
    expect(linesAfter(statements, range)).toBeUndefined()
  })
})
