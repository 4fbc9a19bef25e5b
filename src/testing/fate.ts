/**
 * A crowd of events and what becomes of each delivery of them: which handler refuses it, which dies of it. All of it
 * follows from a seed, so that members that know nothing of each other, in whatever process, agree about it.
 */
import type { Chance } from "./chance.ts"
import type { Expected } from "./groupJournal.ts"

export interface Plan {
  readonly events: number
  readonly topics: ReadonlyArray<string>
  readonly keys: number
  /** The part of all deliveries that are refused, and that crash their member. */
  readonly failures: number
  readonly crashes: number
  /** One event in so many is poison: it is refused whenever it comes. */
  readonly poisonEach: number
}

const isPoison = ({ poisonEach }: Plan, roll: Chance, id: string): boolean =>
  roll("poison", id) * poisonEach < 1

/** In the order in which they are published. An event in five has no key. */
export const eventsOf = (plan: Plan, roll: Chance): ReadonlyArray<Expected> =>
  Array.from({ length: plan.events }, (_, i) => {
    const id = `e${i}`
    return {
      id,
      topic: plan.topics[Math.floor(roll("topic", id) * plan.topics.length)]!,
      key: roll("keyed", id) < 0.2 ? undefined : `k${Math.floor(roll("key", id) * plan.keys)}`,
      isPoison: isPoison(plan, roll, id)
    }
  })

export type Fate = "ack" | "fail" | "poison" | "crash"

/** What a handler does with a delivery, whoever has it. */
export const fateOf = (plan: Plan, roll: Chance, id: string, attempt: number): Fate => {
  const luck = roll("fate", id, attempt)
  if (luck < plan.crashes) return "crash"
  // Half of the poison is known for what it is, the other half is tried until nobody tries it any more.
  if (isPoison(plan, roll, id)) return roll("known", id) < 0.5 ? "poison" : "fail"
  return luck < plan.crashes + plan.failures ? "fail" : "ack"
}
