/** The endpoints of HealthApi: whether the hub lives and takes work, and its metrics. */
import * as Effect from "effect/Effect"
import { HttpApiBuilder } from "effect/http-api"
import { EventStore } from "../../services/EventStore.ts"
import { Gateway } from "../../services/Gateway.ts"
import { type OutboxSource, OutboxSources, ownSource } from "../../services/OutboxSources.ts"
import { StoreLacks } from "../../services/StoreLacks.ts"
import { makeExposition } from "./exposition.ts"
import { OpsApi } from "./OpsApi.ts"

const detailOf = (lacks: ReadonlyArray<string>) => (lacks.length === 0 ? {} : { detail: lacks.join("; ") })

/** What the server of the hub's own outbox cannot do stands with its store already. */
const outboxCheck = ({ lacks, name, problem }: OutboxSource) => {
  const detail = problem === undefined ? {} : { detail: problem }
  if (name === ownSource) return { name: "outbox", ok: problem === undefined, ...detail }
  return {
    name: `outbox:${name}`,
    ok: problem === undefined,
    required: false,
    ...detailOf(lacks),
    ...detail
  }
}

export const health = HttpApiBuilder.group(
  OpsApi,
  "health",
  Effect.fn(function* (handlers) {
    const store = yield* EventStore
    const sources = yield* OutboxSources
    const lacks = yield* StoreLacks
    const gateway = yield* Gateway

    // A look-up of any name, there or not: it is answered by the store itself.
    const storeCheck = Effect.match(store.head("readyz"), {
      onSuccess: () => ({ name: "store", ok: true, ...detailOf(lacks) }),
      onFailure: (error) => ({ name: "store", ok: false, detail: error.message })
    })

    const readiness = Effect.gen(function* () {
      const checks = [
        gateway.isDraining()
          ? { name: "gateway", ok: false, detail: "the hub is stopping" }
          : { name: "gateway", ok: true },
        yield* Effect.timeoutOrElse(storeCheck, {
          duration: "2 seconds",
          orElse: () => Effect.succeed({ name: "store", ok: false, detail: "it does not answer in time" })
        }),
        ...(yield* sources.list).map(outboxCheck)
      ]
      return checks.every((check) => check.ok || ("required" in check && !check.required))
        ? { ready: true as const, checks }
        : { ready: false as const, checks }
    })

    const exposition = yield* makeExposition({
      sources,
      isReady: Effect.map(readiness, ({ ready }) => ready),
      isDraining: gateway.isDraining
    })

    return handlers.handleAll({
      healthz: () => Effect.succeed({ status: "ok" as const }),

      readyz: () => readiness,

      metrics: () => exposition
    })
  })
)
