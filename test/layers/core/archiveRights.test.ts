/** Exports and imports that go on for long: what may be seen and written is asked again on the way. */
import { describe, expect, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Selections from "../../../src/domain/Archive.ts"
import * as Sha256 from "../../../src/hub/Sha256.ts"
import * as GroupCommitAppender from "../../../src/layers/core/GroupCommitAppender.ts"
import * as RandomIds from "../../../src/layers/core/RandomIds.ts"
import * as StoreArchive from "../../../src/layers/core/StoreArchive.ts"
import * as MemoryEventStore from "../../../src/layers/memory/MemoryEventStore.ts"
import { Archive, RightLost } from "../../../src/services/Archive.ts"
import { EventStore } from "../../../src/services/EventStore.ts"
import { records } from "../../../src/testing/eventStore.ts"

const layer = StoreArchive.layer().pipe(
  Layer.provide(Sha256.layer),
  Layer.provideMerge(GroupCommitAppender.layer()),
  Layer.provideMerge(MemoryEventStore.layer()),
  Layer.provide(RandomIds.layerTest())
)

const everything = Result.getOrThrow(Selections.parseSelection({ topic: "**" }))

/** Whole lines of what came, and why it ended. */
const read = (bytes: Stream.Stream<Uint8Array, unknown>) =>
  Effect.gen(function* () {
    let text = ""
    const decoder = new TextDecoder()
    const exit = yield* Effect.exit(
      Stream.runForEach(bytes, (piece) =>
        Effect.sync(() => void (text += decoder.decode(piece, { stream: true })))
      )
    )
    const failure = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
    return { lines: text.split("\n").filter((line) => line !== ""), failure }
  })

const exporting = (selected: {
  readonly isVisible: (topic: string) => boolean
  readonly endedBy?: () => string | undefined
}) =>
  Effect.gen(function* () {
    const archive = yield* Archive
    const { bytes } = yield* archive.export({ selection: everything, ...selected })
    return yield* read(bytes)
  })

const filled = Effect.gen(function* () {
  const { append } = yield* EventStore
  for (const topic of ["a", "b"]) yield* append(records(topic, 1_000))
})

const isLast = (line: string | undefined): boolean => line?.includes('"end":true') === true

describe("an export", () => {
  it.effect("asks before each look, and not about each event", () =>
    Effect.gen(function* () {
      yield* filled
      let asked = 0
      const endedBy = () => void asked++
      const { failure, lines } = yield* exporting({ isVisible: () => true, endedBy })
      expect([failure, lines.length, isLast(lines.at(-1))]).toEqual([undefined, 2_002, true])
      expect(asked).toBeLessThan(20)
    }).pipe(Effect.provide(layer))
  )

  it.effect.each([0, 1, 2, 4, 6])(
    "ends without its last line when it must not go on (after %i looks)",
    (looks) =>
      Effect.gen(function* () {
        yield* filled
        let asked = 0
        const { failure, lines } = yield* exporting({
          isVisible: () => true,
          endedBy: () => (asked++ < looks ? undefined : "it is over")
        })
        expect(failure).toEqual(new RightLost({ reason: "it is over" }))
        expect(lines.length).toBeLessThan(2_002)
        expect(lines.some(isLast)).toBe(false)
      }).pipe(Effect.provide(layer))
  )

  it.effect("ends when the right to its topic is lost, and leaves out what was lost before its turn", () =>
    Effect.gen(function* () {
      yield* filled
      let asked = 0
      const cut = yield* exporting({ isVisible: (topic) => topic !== "a" || asked++ < 2 })
      expect(cut.failure).toMatchObject({
        _tag: "RightLost",
        reason: expect.stringContaining("'a'") as string
      })
      expect(cut.lines.some(isLast)).toBe(false)
      const whole = yield* exporting({ isVisible: (topic) => topic === "a" })
      expect([whole.failure, whole.lines.length]).toEqual([undefined, 1_002])
    }).pipe(Effect.provide(layer))
  )
})

describe("an import", () => {
  const file = Effect.gen(function* () {
    yield* filled
    const { lines } = yield* exporting({ isVisible: () => true })
    return lines.map((line) => new TextEncoder().encode(`${line}\n`))
  })

  const importing = (
    lines: ReadonlyArray<Uint8Array>,
    options: {
      readonly mayWrite?: (topic: string) => boolean
      readonly endedBy?: () => string | undefined
      readonly strict?: boolean
    }
  ) =>
    Effect.gen(function* () {
      const archive = yield* Archive
      const store = yield* EventStore
      const report = yield* archive.import({
        bytes: Stream.fromIterable(lines),
        mayWrite: () => true,
        dryRun: false,
        strict: false,
        ...options
      })
      const heads = yield* Effect.forEach(["a", "b"], (topic) =>
        Effect.map(store.head(topic), (info) => info?.head ?? 0)
      )
      return { report, heads }
    }).pipe(Effect.provide(Layer.fresh(layer)))

  it.effect.each([0, 1, 700, 1_500])(
    "takes nothing more when it must not go on (after %i pieces)",
    (pieces) =>
      Effect.gen(function* () {
        const lines = yield* file
        let asked = 0
        const { heads, report } = yield* importing(lines, {
          endedBy: () => (asked++ < pieces ? undefined : "it is over")
        })
        expect(report).toMatchObject({
          complete: false,
          missing: expect.stringMatching(/^it was stopped behind line \d+: it is over$/) as string
        })
        expect(heads[0]! + heads[1]!).toBe(report.restored)
        expect(report.restored).toBeLessThan(Math.max(1, pieces))
      }).pipe(Effect.provide(layer))
  )

  const mebibyte = 1024 * 1024

  it.effect.each([
    { what: "is over", options: { endedBy: () => "it is over" } },
    { what: "is no export", options: {} },
    { what: "is strict and met a bad line", options: { strict: true } }
  ])("reads only so much on when it $what, and answers", ({ options, what }) =>
    Effect.gen(function* () {
      const [header] = yield* file
      let pieces = 0
      const rest = Stream.fromEffectRepeat(
        Effect.sync(() => {
          pieces++
          return new TextEncoder().encode(`${"x".repeat(mebibyte - 1)}\n`)
        })
      )
      const archive = yield* Archive
      const isExport = what !== "is no export"
      const bytes = isExport ? Stream.concat(Stream.make(header!), rest) : rest
      const run = archive.import({ bytes, mayWrite: () => true, dryRun: false, strict: false, ...options })
      const ended = yield* Effect.exit(run)
      expect(ended._tag).toBe(isExport ? "Success" : "Failure")
      expect(pieces).toBeGreaterThan(15)
      expect(pieces).toBeLessThan(25)
    }).pipe(Effect.provide(layer))
  )

  it.effect("does not wait for what does not come when it is over", () =>
    Effect.gen(function* () {
      const [header] = yield* file
      const archive = yield* Archive
      const run = archive.import({
        bytes: Stream.concat(Stream.make(header!), Stream.never),
        mayWrite: () => true,
        dryRun: false,
        strict: false,
        endedBy: () => "it is over"
      })
      const fiber = yield* Effect.forkChild(run, { startImmediately: true })
      yield* TestClock.adjust("6 seconds")
      expect(yield* Fiber.join(fiber)).toMatchObject({ complete: false })
    }).pipe(Effect.provide(layer))
  )

  it.effect("asks again when a line is written: what was read before the right was lost is refused", () =>
    Effect.gen(function* () {
      const lines = yield* file
      let seen = 0
      const { heads, report } = yield* importing(lines, {
        mayWrite: (topic) => topic === "b" || ++seen < 100
      })
      expect(heads).toEqual([0, 1_000])
      expect(report).toMatchObject({ bad: 1_000, restored: 1_000 })
      expect(report.badLines[0]).toMatchObject({ reason: "no right to administrate 'a'" })
    }).pipe(Effect.provide(layer))
  )
})
