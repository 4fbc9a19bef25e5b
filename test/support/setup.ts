/** Runs around every test file. */
import { afterAll, expect } from "vitest"
import { Entries } from "../../src/domain/Entries.ts"
import { killLeftovers } from "./HubProcess.ts"
import { dropStores } from "./hubStore.ts"

afterAll(killLeftovers)
afterAll(dropStores)

const asMap = (value: unknown): unknown =>
  value instanceof Entries ? new Map<number, unknown>(value as Entries<never>) : value

/** A group's entries are what they hold: tests write them as maps. */
expect.addEqualityTesters([
  function (this: { readonly equals: (a: unknown, b: unknown) => boolean }, a, b) {
    return a instanceof Entries || b instanceof Entries ? this.equals(asMap(a), asMap(b)) : undefined
  }
])
