/**
 * The log, looked at page by page, written to a file, and read back from one (domain/Archive).
 *
 * Who may see or write a topic is decided by the caller, for each topic. What is looked at is committed; an export holds
 * of each topic what was there when its turn came.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Cursor, Selection } from "../domain/Archive.ts"
import type { StoredRecord } from "../domain/Event.ts"
import type { StoreUnavailable } from "./StoreUnavailable.ts"

/** What is imported does not begin as an export does, or it is of a version that is not known here. */
export class NotAnExport extends Schema.TaggedError<NotAnExport>()("NotAnExport", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

/** Whoever asked for a part of the log, or sends one, has lost the right to it on the way. */
export class RightLost extends Schema.TaggedError<RightLost>()("RightLost", {
  reason: Schema.String
}) {
  override get message() {
    return this.reason
  }
}

export interface EventPage {
  readonly records: ReadonlyArray<StoredRecord>
  /** Give it as `after` for the next page; none: this was the last. A page may hold fewer than asked for. */
  readonly next: Cursor | undefined
}

export interface BadLine {
  /** The header is line 1. */
  readonly line: number
  readonly reason: string
}

/** What an import has done, or, in a dry run, would do. */
export interface ImportReport {
  readonly dryRun: boolean
  /** The file was whole, and read to its end. */
  readonly complete: boolean
  /** What was missing otherwise. */
  readonly missing: string | null
  readonly lines: number
  readonly topics: number
  /** Events that came back with the seqs and times that they had. */
  readonly restored: number
  /** Events that were appended behind others, with new seqs. */
  readonly appended: number
  /** Events that were there already. */
  readonly duplicates: number
  /** Last events of keys whose events were trimmed, which were put down again. */
  readonly latest: number
  readonly bad: number
  /** The first of the bad lines. */
  readonly badLines: ReadonlyArray<BadLine>
}

export class Archive extends Context.Service<
  Archive,
  {
    /**
     * Events of a selection: topics in the order of their names, and the events of each in the order of their seqs, or
     * against it. Bounded in events and in bytes.
     */
    readonly page: (page: {
      readonly selection: Selection
      readonly isVisible: (topic: string) => boolean
      readonly order: "asc" | "desc"
      readonly after?: Cursor | undefined
      readonly limit: number
    }) => Effect.Effect<EventPage, StoreUnavailable>

    /**
     * An export as bytes. The store is read as the stream is, a piece ahead at most; a stream that fails has no last
     * line. Each piece is the reader's own, and may be changed. What may be seen is asked again before each look at the
     * store: who loses the right to a topic in the middle of it, or to go on at all, gets no more.
     */
    readonly export: (selected: {
      readonly selection: Selection
      readonly isVisible: (topic: string) => boolean
      /** Why it must not go on; nothing: it may. */
      readonly endedBy?: (() => string | undefined) | undefined
    }) => Effect.Effect<
      {
        readonly fileName: string
        readonly bytes: Stream.Stream<Uint8Array, StoreUnavailable | RightLost>
      },
      StoreUnavailable
    >

    /**
     * Reads an export back. Absent topics get their seqs and times again; in others, what they do not hold is appended.
     * Doing it again goes on where it ended: what is there counts as a duplicate. Bad lines are passed over and
     * reported. Bytes that end early, or fail, are imported as far as they go. What may be written is asked again when
     * it is written.
     */
    readonly import: <E>(file: {
      readonly bytes: Stream.Stream<Uint8Array, E>
      readonly mayWrite: (topic: string) => boolean
      /** Why it must not go on, asked with each piece of the file; nothing: it may. */
      readonly endedBy?: (() => string | undefined) | undefined
      /** Checks and counts, and changes nothing. */
      readonly dryRun: boolean
      /** Ends at the first bad line. */
      readonly strict: boolean
      /** Is told of what was done so far, time and again. It must not throw. */
      readonly onProgress?: (report: ImportReport) => void
    }) => Effect.Effect<ImportReport, NotAnExport | StoreUnavailable>
  }
>()("event-hub/services/Archive") {}
