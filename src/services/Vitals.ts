/**
 * What the hub's parts know of themselves, for whoever tells of the whole: connections, the process, readiness.
 *
 * The log stands below the gateway and the servers, and tells of them on its own topics all the same: so they say
 * here how they are to be asked, once they are there.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ConnectionInfo } from "./Gateway.ts"
import type { MeasuredSource } from "./OutboxSources.ts"

/** The process, as it was since the last time somebody asked. */
export interface ProcessVitals {
  /** 99th percentile of the event loop's delay. */
  readonly loopDelayMs: number
  readonly rssBytes: number
}

export interface VitalParts {
  readonly connections: () => ReadonlyArray<ConnectionInfo>
  readonly isDraining: () => boolean
  readonly outboxes: Effect.Effect<ReadonlyArray<MeasuredSource>>
  /** Measures from here on, until the scope closes. */
  readonly process: Effect.Effect<() => ProcessVitals, never, Scope.Scope>
}

export class Vitals extends Context.Service<
  Vitals,
  {
    /** Says how some parts are asked, until the scope closes. */
    readonly attach: (parts: Partial<VitalParts>) => Effect.Effect<void, never, Scope.Scope>
    /** The parts that there are. */
    readonly parts: () => Partial<VitalParts>
  }
>()("event-hub/services/Vitals") {}
