/**
 * Files that a hub is configured by, taken anew while it runs: policies, keys, certificates.
 *
 * What a file says is taken whole or not at all: while one cannot be read, or says something that cannot be used, what
 * it said before holds on, and the log says why.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"

/** At the start there is nothing before it that could hold on. */
export class CannotUseFile extends Schema.TaggedError<CannotUseFile>()("CannotUseFile", {
  what: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.what}: ${this.reason}`
  }
}

export interface FileOptions<A> {
  /** The setting that names them, for people. */
  readonly what: string
  /** They are taken together: a certificate is of no use without its key. */
  readonly paths: ReadonlyArray<string>
  /** Of each. A larger one cannot be used; none: 16 MiB. */
  readonly maxBytes?: number | undefined
  /** Given the text of each; or why it cannot be used, without what is secret in it. */
  readonly parse: (texts: ReadonlyArray<string>) => Result.Result<A, string>
}

export interface FileValue<A> {
  readonly current: () => A
  /** Each value after the first. */
  readonly changes: Stream.Stream<A>
}

export class ConfigFiles extends Context.Service<
  ConfigFiles,
  {
    /** Until its scope closes. */
    readonly follow: <A>(options: FileOptions<A>) => Effect.Effect<FileValue<A>, CannotUseFile, Scope.Scope>
    /** Looks at all of them now, whether they seem to have changed or not. */
    readonly reload: Effect.Effect<void>
  }
>()("event-hub/services/ConfigFiles") {}
