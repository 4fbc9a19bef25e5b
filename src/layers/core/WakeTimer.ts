/**
 * Wakes somebody at a time that may come nearer, or be called off. Of any number of times it is told, it waits for the
 * first alone, with one fiber: whoever is woken says when to wake it next.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"

export class WakeTimer {
  readonly #fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly #wake: () => void
  #set: { readonly at: number; readonly fiber: Fiber.Fiber<void> } | undefined

  constructor(fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>, wake: () => void) {
    this.#fork = fork
    this.#wake = wake
  }

  /** Wakes then, or as soon as it can; one that is set and wakes no later stays. `Infinity` calls it off. */
  wakeAt(at: number, now: number): void {
    if (at === Infinity) return this.clear()
    const due = Math.max(at, now + 1)
    if (this.#set !== undefined && this.#set.at <= due && this.#set.at > now) return
    this.clear()
    const fiber = this.#fork(
      Effect.andThen(
        Effect.sleep(due - now),
        Effect.sync(() => {
          this.#set = undefined
          this.#wake()
        })
      )
    )
    this.#set = { at: due, fiber }
  }

  clear(): void {
    this.#set?.fiber.interruptUnsafe()
    this.#set = undefined
  }
}
