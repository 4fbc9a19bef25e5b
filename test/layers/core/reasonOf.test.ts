/** What people read of an error, and of what caused it. */
import { expect, it } from "vitest"
import fc from "fast-check"
import { reasonOf } from "../../../src/layers/core/reasonOf.ts"

it("names what caused an error behind it, and so on", () => {
  const first = new Error("no route")
  const second = new Error("no connection", { cause: first })
  expect(reasonOf(new Error("cannot open", { cause: second }))).toBe("cannot open: no connection: no route")
})

it("leaves out a cause that is no error", () => {
  expect(reasonOf(new Error("cannot open", { cause: "unknown" }))).toBe("cannot open")
})

it("says what is no error as it is", () => {
  expect([reasonOf("gone"), reasonOf(undefined)]).toEqual(["gone", "undefined"])
})

it("is one line, with all words of all errors", () => {
  const word = fc.stringMatching(/^[a-z]{1,8}$/)
  const message = fc.array(word, { minLength: 1 }).map((words) => words.join("\n  "))
  fc.assert(
    fc.property(fc.array(message, { minLength: 1 }), (messages) => {
      const error = messages.reduceRight<Error | undefined>(
        (cause, text) => new Error(text, cause === undefined ? {} : { cause }),
        undefined
      )
      expect(reasonOf(error)).toBe(messages.map((text) => text.replaceAll(/\n {2}/g, " ")).join(": "))
    })
  )
})
