/**
 * The OutboxSources: the hub's own outbox with its drainer, and one more drainer for each other outbox, all of them
 * feeding the one Appender.
 *
 * Another outbox is opened in the background, and tried again for as long as the hub lives: a hub takes publishes
 * although some business database is down. At the end all drainers finish their batches at the same time, each before
 * its own store is closed.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Settings from "../../domain/Settings.ts"
import type { Appender } from "../../services/Appender.ts"
import type { Ids } from "../../services/Ids.ts"
import { OutboxDrainer } from "../../services/OutboxDrainer.ts"
import {
  type MeasuredSource,
  type OutboxSource,
  OutboxSources,
  ownSource,
  SourceNotFound,
  SourceNotOpen
} from "../../services/OutboxSources.ts"
import { OutboxStore } from "../../services/OutboxStore.ts"
import { StoreLacks } from "../../services/StoreLacks.ts"
import * as AppendingDrainer from "./AppendingDrainer.ts"
import { reasonOf } from "./reasonOf.ts"

/** An outbox besides the hub's own. */
export interface Source {
  readonly name: string
  /** Where it is, as people may see it. */
  readonly at: string
  /**
   * Its store. A failure is tried again, and its message shown. Whoever calls `onLost` says that the store cannot be
   * used any more: it is closed, and opened anew.
   */
  readonly open: (onLost: (problem: string) => void) => Layer.Layer<OutboxStore, unknown, Ids>
}

export interface Options {
  /** Where the hub's own outbox is, as people may see it. */
  readonly at: string
  readonly others?: ReadonlyArray<Source> | undefined
}

/** The wait before the next attempt to open an outbox, in milliseconds: twice as long each time. */
const retry = { firstMs: 500, longestMs: 10_000 }

/** How long a store may take to say what is in it. */
const statsTimeout = "1500 millis"

interface Opened {
  readonly store: OutboxStore["Service"]
  readonly drainer: OutboxDrainer["Service"]
  readonly lacks: ReadonlyArray<string>
}

interface Watched {
  readonly name: string
  readonly at: string
  readonly opened: () => Opened | undefined
  /** Why it is not open. */
  readonly problem: () => string | undefined
}

class Others extends Context.Service<Others, ReadonlyArray<Watched>>()(
  "event-hub/layers/core/DrainedSources/Others"
) {}

/** A drainer whose counters carry the name of its outbox: there are as many as the configuration names. */
const drainerOf = (name: string, settings: Settings.DrainerSettings) =>
  AppendingDrainer.layer(settings).pipe(
    Layer.provide(Layer.succeed(Metric.CurrentMetricAttributes, { source: name }))
  )

/** What can be known of an outbox from now on, and the program that opens and drains it for ever. */
const watch = (
  { at, name, open }: Source,
  settings: Settings.DrainerSettings
): readonly [Watched, Effect.Effect<never, never, Appender | Ids>] => {
  let opened: Opened | undefined
  let problem: string | undefined = "it is being opened for the first time"
  let waitMs = retry.firstMs

  /** Ends, with a failure, when it could not be opened, or was lost. */
  const once = Effect.gen(function* () {
    const lost = yield* Deferred.make<never, Error>()
    const layer = drainerOf(name, settings).pipe(
      Layer.provideMerge(open((reason) => Deferred.doneUnsafe(lost, Effect.fail(new Error(reason)))))
    )
    const context = yield* Layer.build(Layer.fresh(layer))
    opened = {
      store: Context.get(context, OutboxStore),
      drainer: Context.get(context, OutboxDrainer),
      lacks: Context.get(context, StoreLacks)
    }
    problem = undefined
    waitMs = retry.firstMs
    yield* Effect.logInfo("an outbox is being drained", { at })
    return yield* Deferred.await(lost)
  }).pipe(Effect.scoped)

  const program = once.pipe(
    Effect.catchCause((cause) =>
      Effect.gen(function* () {
        const reason = reasonOf(Cause.squash(cause))
        const isNew = problem !== reason
        opened = undefined
        problem = reason
        if (isNew) yield* Effect.logWarning("an outbox cannot be drained; it is tried again", { at, reason })
        yield* Effect.sleep(waitMs)
        waitMs = Math.min(2 * waitMs, retry.longestMs)
      })
    ),
    Effect.forever,
    Effect.annotateLogs({ source: name })
  )
  return [{ name, at, opened: () => opened, problem: () => problem }, program]
}

const others = (sources: ReadonlyArray<Source>, settings: Settings.DrainerSettings) =>
  Layer.effect(
    Others,
    Effect.gen(function* () {
      const watched = sources.map((source) => watch(source, settings))
      // One fiber over all of them: told to stop, they stop side by side.
      yield* Effect.forEach(watched, ([, program]) => program, {
        concurrency: "unbounded",
        discard: true
      }).pipe(Effect.forkScoped)
      return watched.map(([one]) => one)
    })
  )

const look = ({ at, name, opened, problem }: Watched): Effect.Effect<OutboxSource> =>
  Effect.gen(function* () {
    const now = opened()
    if (now === undefined) return { name, at, problem: problem(), drainer: undefined, lacks: [] }
    const drainer = yield* now.drainer.status
    return { name, at, problem: drainer.problem, drainer, lacks: now.lacks }
  })

const measure = (one: Watched): Effect.Effect<MeasuredSource> =>
  Effect.gen(function* () {
    const source = yield* look(one)
    const store = one.opened()?.store
    if (store === undefined) return { ...source, stats: undefined }
    const unknown = (problem: string): MeasuredSource => ({
      ...source,
      problem: source.problem ?? problem,
      stats: undefined
    })
    return yield* Effect.match(store.stats, {
      onSuccess: (stats): MeasuredSource => ({ ...source, stats }),
      onFailure: (error) => unknown(reasonOf(error))
    }).pipe(
      Effect.timeoutOrElse({
        duration: statsTimeout,
        orElse: () => Effect.succeed(unknown("its store does not answer in time"))
      })
    )
  })

const make = (at: string) =>
  Effect.gen(function* () {
    const own: Opened = {
      store: yield* OutboxStore,
      drainer: yield* OutboxDrainer,
      lacks: yield* StoreLacks
    }
    const all: ReadonlyArray<Watched> = [
      { name: ownSource, at, opened: () => own, problem: () => undefined },
      ...(yield* Others)
    ]
    return OutboxSources.of({
      list: Effect.forEach(all, look),
      storeOf: Effect.fnUntraced(function* (name) {
        const one = all.find((source) => source.name === name)
        if (one === undefined) return yield* new SourceNotFound({ name })
        const opened = one.opened()
        if (opened !== undefined) return opened.store
        return yield* new SourceNotOpen({ name, problem: one.problem() ?? "it is being opened" })
      }),
      measure: Effect.forEach(all, measure, { concurrency: "unbounded" })
    })
  })

export const layer = (
  settings: Settings.DrainerSettings = Settings.drainer,
  options: Options
): Layer.Layer<OutboxDrainer | OutboxSources, never, OutboxStore | Appender | Ids> =>
  Layer.effect(OutboxSources, make(options.at)).pipe(
    Layer.provideMerge(Layer.mergeAll(drainerOf(ownSource, settings), others(options.others ?? [], settings)))
  )
