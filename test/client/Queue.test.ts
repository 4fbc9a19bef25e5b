/** The queue does what an array does, and only shift is faster. */
import fc from "fast-check"
import { expect, it } from "vitest"
import { Queue } from "../../src/client/Queue.ts"

it("is an array with push, shift and clear", () => {
  const operation = fc.oneof(
    { weight: 5, arbitrary: fc.integer().map((n) => ({ _tag: "push", n }) as const) },
    { weight: 4, arbitrary: fc.constant({ _tag: "shift" } as const) },
    { weight: 1, arbitrary: fc.constant({ _tag: "clear" } as const) }
  )
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 200 }), (operations) => {
      const queue = new Queue<number>()
      const array: Array<number> = []
      for (const step of operations) {
        if (step._tag === "push") {
          queue.push(step.n)
          array.push(step.n)
        } else if (step._tag === "shift") expect(queue.shift()).toBe(array.shift())
        else {
          queue.clear()
          array.length = 0
        }
      }
      expect(queue.size).toBe(array.length)
      for (const item of array) expect(queue.shift()).toBe(item)
      expect(queue.shift()).toBeUndefined()
    })
  )
})

it("takes and gives a hundred thousand at a time", () => {
  const queue = new Queue<number>()
  for (let i = 0; i < 100_000; i++) queue.push(i)
  const taken = Array.from({ length: 100_000 }, () => queue.shift())
  expect(taken.every((item, i) => item === i)).toBe(true)
})
