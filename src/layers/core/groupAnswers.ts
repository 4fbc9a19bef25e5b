/**
 * The answers of members around a round: the deliveries that they are about are found before it, and members hear
 * what became of each, and have their credit back, when what they said is stored.
 */
import * as Effect from "effect/Effect"
import type { Outcome } from "../../domain/Group.ts"
import type { EventStore } from "../../services/EventStore.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import type { GroupCredit } from "./GroupCredit.ts"
import { isCurrent } from "./groupMember.ts"
import type { AnswerCommand, Round } from "./groupRound.ts"
import * as metrics from "./metrics.ts"
import type { RecordCache } from "./RecordCache.ts"

/** Finds the events of deliveries that a member does not have. What cannot be found out now is answered so. */
export const locate = (
  store: Pick<EventStore["Service"], "find">,
  topic: string,
  answers: ReadonlyArray<AnswerCommand>
): Effect.Effect<ReadonlyArray<AnswerCommand>> => {
  const unknown = answers.filter(({ deliveries }) => deliveries.includes(undefined))
  if (unknown.length === 0) return Effect.succeed(answers)
  const ids = new Set(
    unknown.flatMap(({ answer, deliveries }) => answer.ids.filter((_, i) => deliveries[i] === undefined))
  )
  return Effect.match(store.find({ topic, ids: [...ids] }), {
    onFailure: (error) => {
      for (const { done } of unknown) done(error)
      return answers.filter((command) => !unknown.includes(command))
    },
    onSuccess: (seqs) => {
      for (const { answer, deliveries } of unknown) {
        answer.ids.forEach((id, i) => {
          const seq = seqs.get(id)
          if (seq !== undefined) deliveries[i] ??= { seq, generation: undefined }
        })
      }
      return answers
    }
  })
}

const stale: Outcome = "stale"

/** No round took them: the group is no more, or its store failed. */
export const refuse = (answers: ReadonlyArray<AnswerCommand>, why: "stale" | StoreUnavailable): void => {
  for (const { answer, done } of answers) done(why === "stale" ? answer.ids.map(() => stale) : why)
}

/** The round that took them is stored. */
export const settle = (
  answers: ReadonlyArray<AnswerCommand>,
  round: Round,
  topic: string,
  {
    cache,
    credit,
    now,
    recorder
  }: {
    readonly cache: Pick<RecordCache, "drop">
    readonly credit: Pick<GroupCredit, "release" | "wakeOthers">
    readonly recorder: metrics.Recorder
    /** By this hub's clock. */
    readonly now: number
  }
): void => {
  let freed = false
  const acked = recorder.histogram(metrics.sentToAcked)
  for (const command of answers) {
    const { answer, member } = command
    const outcomes = round.outcomes.get(command) ?? []
    if (answer._tag !== "Extend") {
      const done = outcomes.filter((outcome) => outcome === "done").length
      recorder.add(answer._tag === "Ack" ? metrics.groupAcks : metrics.groupNacks, done)
      answer.ids.forEach((id, i) => {
        // An answer about another attempt says nothing of the one that runs.
        const delivery = member.held.get(topic)?.get(id)
        if (outcomes[i] === "stale" && delivery !== undefined && isCurrent(round.state, member, delivery))
          return
        if (answer._tag === "Ack" && delivery !== undefined) {
          cache.drop(topic, delivery.seq)
          if (outcomes[i] === "done") acked.observe((now - delivery.sentAt) / 1000)
        }
        freed = credit.release(member, id) || freed
      })
    }
    command.done(outcomes)
  }
  if (freed) credit.wakeOthers()
}
