/**
 * What consumer groups promise, proven end to end over a backend: run it against your own stores.
 *
 *     groupDeliverySuite("MyStores", MyStores.layerTest, { … })
 *
 * Each test gets stores of its own: the layer is built anew and must then be empty.
 */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { newSeed } from "./chance.ts"
import { answersTests } from "./groupAnswers.ts"
import { chaosTests } from "./groupChaos.ts"
import { flowTests } from "./groupFlow.ts"
import { type GroupDeliveryCapabilities, makeLab, type Run, type Stores, type Suite } from "./groupLab.ts"
import { operatorsTests } from "./groupOperators.ts"
import { redriveTests } from "./groupRedrive.ts"
import { topicsTests } from "./groupTopics.ts"

export type { GroupDeliveryCapabilities, Stores } from "./groupLab.ts"

/** Nothing is timed by it: it ends a test that would never end. */
const timeoutMs = 300_000

export const groupDeliverySuite = <E>(
  name: string,
  stores: Layer.Layer<Stores, E>,
  capabilities: GroupDeliveryCapabilities
): void => {
  const within = (live: boolean, run: Run) => () =>
    Effect.flatMap(makeLab(capabilities, live), run).pipe(Effect.scoped, Effect.provide(stores))

  const suite: Suite = {
    test: (title, run) => it.effect(title, within(false, run), timeoutMs),
    live: (title, run) => it.live(title, within(true, run), timeoutMs),
    pace: capabilities.pace ?? 1
  }

  const group = capabilities.concurrent === true ? describe.concurrent : describe
  group(`${name}: group delivery`, () => {
    const seed = newSeed()
    answersTests(suite)
    topicsTests(suite)
    operatorsTests(suite)
    redriveTests(suite)
    flowTests(suite, seed)
    chaosTests(suite, seed)
  })
}
