/** Small consumer groups for examples: ann takes events, and what becomes of them is told in few words. */
import * as Group from "../../src/domain/Group.ts"

export const options: Group.GroupOptions = { ackTimeoutMs: 100, maxAttempts: 3, keyOrdered: false }

export const ordered: Group.GroupOptions = { ...options, keyOrdered: true }

export const limits: Group.Limits = { now: 1_000, maxAttempts: 3, backoff: { baseMs: 40, maxMs: 100 } }

export type Keys = ReadonlyArray<string | undefined>

/** Candidates from a seq on, one for each key. */
export const from = (first: number, keys: Keys): ReadonlyArray<Group.Candidate> =>
  keys.map((key, i) => ({ seq: first + i, key }))

export const keyless = (count: number): Keys => Array.from({ length: count }, () => undefined)

export const claim = (state: Group.GroupState, more: Partial<Group.Claim> = {}): Group.Claimed =>
  Group.claim(state, {
    now: 1_000,
    member: "ann",
    limit: 10,
    retriesFirst: 0,
    mode: "shared",
    candidates: [],
    options,
    window: 100,
    ...more
  })

export const seqs = ({ deliveries }: Group.Claimed): ReadonlyArray<number> => deliveries.map(({ seq }) => seq)

export const ack = (state: Group.GroupState, ...seqs: ReadonlyArray<number>): Group.GroupState =>
  Group.ack(
    state,
    seqs.map((seq) => ({ seq, member: "ann" }))
  ).state

export const refusal = (more: Partial<Group.Refusal> = {}): Group.Refusal => ({
  seq: 1,
  member: "ann",
  mode: "fail",
  reason: "bad",
  random: 0.5,
  ...more
})

export const refuse = (state: Group.GroupState, more: Partial<Group.Refusal> = {}): Group.GroupState =>
  Group.nack(state, [refusal(more)], limits).state

/** A group in which ann has the first events. */
export const holding = (count: number): Group.GroupState =>
  claim(Group.initial("g", 0), { limit: count, candidates: from(1, keyless(count)), window: count + 1 }).state

/** A group in key order to which ann belongs, and which has seen these. */
export const inOrder = (keys: Keys, more: Partial<Group.Claim> = {}): Group.Claimed =>
  claim(Group.initial("g", 0), { options: ordered, candidates: from(1, keys), ...more })

/** What an entry has of all that an example does not care for. */
export const entry: Group.Entry = {
  attempt: 1,
  unanswered: 0,
  member: "ann",
  key: undefined,
  since: 1_000,
  reason: "",
  letter: undefined
}
