/**
 * An outbox that its own service brings to a hub of another process, for programs without Effect: the drainer of a hub
 * over any outbox, with a remote log as its target.
 *
 * The modules beside this one give it the outbox: `drainMongoOutbox`, `drainSqliteOutbox`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as References from "effect/References"
import * as Settings from "../domain/Settings.ts"
import * as AppendingDrainer from "../layers/core/AppendingDrainer.ts"
import * as RandomIds from "../layers/core/RandomIds.ts"
import { reasonOf } from "../layers/core/reasonOf.ts"
import * as RemoteTarget from "../layers/remote/RemoteTarget.ts"
import type { Ids } from "../services/Ids.ts"
import { type DrainerStatus, OutboxDrainer } from "../services/OutboxDrainer.ts"
import type { OutboxStore } from "../services/OutboxStore.ts"

export interface DrainOptions {
  /** The hub, and a token that may publish on the topics of the outbox. */
  readonly hub: RemoteTarget.Options
  readonly settings?: Partial<Settings.DrainerSettings>
  /** What does not work at the moment, once until it works again. Without it, a warning of the process. */
  readonly onProblem?: (problem: Error) => void
}

export interface OutboxDrain {
  readonly status: () => DrainerStatus
  /** Looks into the outbox now. It looks by itself; this is for who cannot wait. */
  readonly wake: () => void
  /**
   * Finishes the batches under way, within three seconds, and disconnects. What it could not finish is taken over when
   * its lease ends, by the next one that drains this outbox.
   */
  readonly close: () => Promise<void>
}

/** A batch may wait for the hub this many times before its lease ends. */
const answersInLease = 2

const warn = (problem: Error): void => process.emitWarning(problem.message, "EventHubWarning")

/** Warnings of the drainer and its stores; what is less is nobody's business here. */
const problemsTo = (onProblem: (problem: Error) => void): Layer.Layer<never> =>
  Layer.merge(
    Logger.layer([
      Logger.make(({ message }) => {
        const parts: ReadonlyArray<unknown> = Array.isArray(message) ? message : [message]
        const cause = parts.find((part) => part instanceof Error)
        onProblem(new Error(parts.map(reasonOf).join(": "), cause === undefined ? {} : { cause }))
      })
    ]),
    Layer.succeed(References.MinimumLogLevel, "Warn")
  )

/** Rejects when the outbox cannot be opened, and with `CannotBring` when the settings do not fit each other. */
export const drainInto = async <E>(
  outbox: Layer.Layer<OutboxStore, E, Ids>,
  { hub, onProblem = warn, settings: given }: DrainOptions
): Promise<OutboxDrain> => {
  const settings = { ...Settings.drainer, ...given }
  const { answerTimeoutMs } = { ...Settings.remote, ...hub }
  if (settings.leaseMs < answersInLease * answerTimeoutMs) {
    throw new RemoteTarget.CannotBring({
      reason: `'leaseMs' must be at least ${answersInLease} times 'answerTimeoutMs', which is ${answerTimeoutMs}`
    })
  }
  const runtime = ManagedRuntime.make(
    AppendingDrainer.layerInto(settings).pipe(
      Layer.provide(Layer.merge(RemoteTarget.layer(hub), outbox)),
      Layer.provide(RandomIds.layer),
      Layer.provide(problemsTo(onProblem))
    )
  )
  try {
    const drainer = await runtime.runPromise(OutboxDrainer)
    return {
      status: () => Effect.runSync(drainer.status),
      wake: () => Effect.runSync(drainer.wake),
      close: () => runtime.dispose()
    }
  } catch (error) {
    await runtime.dispose()
    throw error
  }
}
