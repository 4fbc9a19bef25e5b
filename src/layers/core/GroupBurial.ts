/**
 * Puts what a group gave up into its dead letters, beside its rounds. Only when the letters stand in the log does a
 * round let go of their events; until then it is tried again, however long that takes.
 */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { deadLetter } from "../../domain/DeadLetter.ts"
import type { Dying, GroupState } from "../../domain/Group.ts"
import type { Appender } from "../../services/Appender.ts"
import { type GroupRecords, patience } from "./GroupRecords.ts"
import * as metrics from "./metrics.ts"

/** Events that are put into the dead letters at once. */
const buriedAtOnce = 256

export interface Graveyard {
  readonly appender: Appender["Service"]
  readonly recorder: metrics.Recorder
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly at: { readonly group: string; readonly topic: string }
  readonly records: Pick<GroupRecords, "fetch" | "isTrimmed">
  /** A burial is over: a round has to let go of what was buried. */
  readonly onBuried: () => void
}

export class GroupBurial {
  readonly #graveyard: Graveyard
  #isUnderWay = false
  #buried: Array<number> = []

  constructor(graveyard: Graveyard) {
    this.#graveyard = graveyard
  }

  get isUnderWay(): boolean {
    return this.#isUnderWay
  }

  /** Some stand in the dead letters, and no round has let go of them. */
  get hasBuried(): boolean {
    return this.#buried.length > 0
  }

  /** Those that stand in the dead letters; who takes them sees to them. */
  take(): ReadonlyArray<number> {
    const buried = this.#buried
    this.#buried = []
    return buried
  }

  /** The round that took these came to nothing. */
  putBack(seqs: ReadonlyArray<number>): void {
    this.#buried = [...seqs, ...this.#buried]
  }

  /** Begins with what is out of attempts, unless it is at it. */
  bury(state: GroupState): void {
    if (this.#isUnderWay) return
    // A round that was under way meanwhile does not know of the letters that stand already.
    const buried = new Set(this.#buried)
    const dying = [...state.dying].filter(([seq]) => !buried.has(seq)).slice(0, buriedAtOnce)
    if (dying.length === 0) return
    this.#isUnderWay = true
    const { at, fork, onBuried } = this.#graveyard
    fork(
      this.#write(state.generation, dying).pipe(
        Effect.tapError((error) =>
          Effect.logWarning("events could not be put into the dead letters yet", error).pipe(
            Effect.annotateLogs(at)
          )
        ),
        Effect.retry(patience),
        Effect.orDie,
        Effect.ensuring(
          Effect.sync(() => {
            this.#isUnderWay = false
            onBuried()
          })
        )
      )
    )
  }

  #write(generation: string, dying: ReadonlyArray<readonly [number, Dying]>) {
    return Effect.gen({ self: this }, function* () {
      const { appender, at, recorder, records } = this.#graveyard
      const wanted = dying.map(([seq, { letter }]) => ({ seq, letter }))
      const found = yield* records.fetch(wanted, [])
      const unread = wanted.filter((one) => !found.has(one.seq) && !records.isTrimmed(one))
      if (unread.length > 0) return yield* Effect.fail({ unread: unread.map(({ seq }) => seq) })
      const letters = dying.flatMap(([seq, { attempt, reason }]) => {
        const event = found.get(seq)
        if (event === undefined) return []
        const { record, redrives } = event
        return [deadLetter({ record, group: at.group, generation, attempts: attempt, reason, redrives })]
      })
      const results = yield* appender.append(letters)
      const refused = results.filter((result) => result._tag === "NotAppended")
      if (refused.length > 0) return yield* Effect.fail({ refused })
      recorder.add(metrics.deadLetters, letters.length)
      this.#buried.push(...found.keys())
    })
  }
}
