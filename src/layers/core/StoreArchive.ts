/** The Archive over any stores. What is imported goes through the appender, so that whoever follows the log hears of it. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Settings from "../../domain/Settings.ts"
import { Appender } from "../../services/Appender.ts"
import { Archive } from "../../services/Archive.ts"
import { Checksum } from "../../services/Checksum.ts"
import { EventStore } from "../../services/EventStore.ts"
import { makeExport } from "./archiveExport.ts"
import { makeImport } from "./archiveImport.ts"
import { readPage } from "./archivePage.ts"

export interface Options {
  readonly limits: Settings.Limits
  readonly archive: Settings.ArchiveSettings
  /** Of the appender that it is given. */
  readonly appender: Pick<Settings.AppenderSettings, "maxQueuedEvents">
}

const make = Effect.fnUntraced(function* (options: Options) {
  const { archive, limits } = options
  const store = yield* EventStore
  const appender = yield* Appender
  const checksum = yield* Checksum
  return Archive.of({
    page: (page) => readPage(store, page),
    export: makeExport(store, checksum),
    import: makeImport({ store, appender, checksum }, limits, archive, options.appender)
  })
})

export const layer = ({
  appender = Settings.appender,
  archive = Settings.archive,
  limits = Settings.limits
}: Partial<Options> = {}): Layer.Layer<Archive, never, Appender | Checksum | EventStore> =>
  Layer.effect(Archive, make({ appender, archive, limits }))
