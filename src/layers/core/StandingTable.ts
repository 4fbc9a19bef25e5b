/**
 * All places of groups in topics, as figures in memory: what is pending where, and the sums of that.
 *
 * Only where a group has a state is anything kept of it. In all other topics of its patterns everything is pending,
 * so a thousand groups that take everything cost a pattern, and not a thousand rows for each topic. What would take
 * long is a generator that stops now and then, for whoever must not hold up others.
 */
import * as Result from "effect/Result"
import type { Registration } from "../../domain/Group.ts"
import * as Topic from "../../domain/Topic.ts"
import type { GroupStanding, Place, StandingTotals } from "../../services/Standing.ts"

/** What is kept of a state. */
export interface Figures {
  readonly floor: number
  /** Acknowledged events. */
  readonly done: number
  readonly inFlight: number
}

const unmet: Figures = { floor: 0, done: 0, inFlight: 0 }

interface GroupRow {
  readonly group: string
  /** Its registrations, as text: another life of the group has other ones. */
  readonly identity: string
  readonly patterns: ReadonlyArray<string>
  readonly met: Map<string, Figures>
  pending: number
  inFlight: number
  topicsBehind: number
  /** The last topic for which it was looked at, where several of its patterns match one. */
  seen: number
}

/** A pattern, and the groups that have it. */
interface PatternRow {
  readonly pattern: Topic.Pattern
  readonly groups: Set<GroupRow>
}

interface TopicRow {
  readonly topic: Topic.Topic
  head: number
  patterns: ReadonlyArray<PatternRow>
}

/** A place whose figures are about to be others, or just became so. */
export type Changed = (group: string, topic: string, pendingBefore: number) => void

/** Places that are looked at in one go. */
const stride = 4_000

const topicOf = (name: string): Topic.Topic => ({ _tag: "Topic", name, segments: name.split(".") })

const pendingOf = (figures: Figures | undefined, head: number): number =>
  Math.max(0, head - (figures ?? unmet).done)

const isSame = (a: Figures, b: Figures): boolean =>
  a.floor === b.floor && a.done === b.done && a.inFlight === b.inFlight

export class StandingTable {
  readonly #maxTopics: number
  readonly #changed: Changed
  readonly #groups = new Map<string, GroupRow>()
  readonly #topics = new Map<string, TopicRow>()
  #patterns = new Map<string, PatternRow>()
  #looks = 0
  /** Topics that there was no place for. */
  #left = 0

  constructor(maxTopics: number, changed: Changed) {
    this.#maxTopics = maxTopics
    this.#changed = changed
  }

  get leftOut(): number {
    return this.#left
  }

  /** The rows of the groups that take a topic, each once. */
  *#groupsOf({ patterns }: TopicRow): Generator<GroupRow> {
    const [first] = patterns
    if (first === undefined) return
    if (patterns.length === 1) return yield* first.groups
    const look = ++this.#looks
    for (const { groups } of patterns) {
      for (const row of groups) {
        if (row.seen === look) continue
        row.seen = look
        yield row
      }
    }
  }

  #add(row: GroupRow, topic: TopicRow, sign: 1 | -1): void {
    const figures = row.met.get(topic.topic.name)
    const pending = pendingOf(figures, topic.head)
    row.pending += sign * pending
    row.inFlight += sign * (figures?.inFlight ?? 0)
    if (pending > 0) row.topicsBehind += sign
  }

  /**
   * Who is registered for what. Answers the groups that are new here, whose states are not known yet, and those that
   * are to be taken as new.
   */
  *register(
    registrations: ReadonlyArray<Registration>,
    renewed: ReadonlySet<string> = new Set()
  ): Generator<void, ReadonlyArray<string>> {
    const wanted = Map.groupBy(registrations, ({ group }) => group)
    const identityOf = (own: ReadonlyArray<Registration>) =>
      own.map(({ pattern, registeredAt }) => `${pattern} ${registeredAt}`).join(" ")
    const added: Array<string> = []
    let isChanged = false
    for (const [group, row] of this.#groups) {
      if (!renewed.has(group) && row.identity === identityOf(wanted.get(group) ?? [])) continue
      this.#groups.delete(group)
      isChanged = true
    }
    for (const [group, own] of wanted) {
      if (this.#groups.has(group)) continue
      this.#groups.set(group, {
        group,
        identity: identityOf(own),
        patterns: own.map(({ pattern }) => pattern),
        met: new Map(),
        pending: 0,
        inFlight: 0,
        topicsBehind: 0,
        seen: 0
      })
      added.push(group)
      isChanged = true
    }
    if (isChanged) yield* this.#match()
    return added
  }

  *#match(): Generator<void> {
    const patterns = new Map<string, PatternRow>()
    for (const row of this.#groups.values()) {
      for (const name of row.patterns) {
        const known = patterns.get(name)
        if (known !== undefined) {
          known.groups.add(row)
          continue
        }
        const parsed = Topic.parsePattern(name)
        if (Result.isSuccess(parsed)) {
          patterns.set(name, { pattern: parsed.success, groups: new Set([row]) })
        }
      }
    }
    this.#patterns = patterns
    let done = 0
    for (const row of this.#topics.values()) {
      row.patterns = this.#patternsOf(row.topic)
      done += 1 + patterns.size
      if (done > stride) {
        done = 0
        yield
      }
    }
  }

  #patternsOf(topic: Topic.Topic): ReadonlyArray<PatternRow> {
    const found: Array<PatternRow> = []
    for (const row of this.#patterns.values()) if (Topic.matches(row.pattern, topic)) found.push(row)
    return found
  }

  /** The sums, anew, when groups were added and their states put: all of their places changed. */
  *recount(added: ReadonlyArray<string>): Generator<void> {
    const isNew = new Set(added)
    for (const row of this.#groups.values()) {
      row.pending = 0
      row.inFlight = 0
      row.topicsBehind = 0
    }
    let done = 0
    // A topic that comes while this stops now and then is added up when it comes.
    for (const topic of [...this.#topics.values()]) {
      for (const row of this.#groupsOf(topic)) {
        this.#add(row, topic, 1)
        if (isNew.has(row.group)) this.#changed(row.group, topic.topic.name, 0)
        done++
      }
      if (++done > stride) {
        done = 0
        yield
      }
    }
  }

  /** How far topics are. */
  *grow(heads: Iterable<readonly [topic: string, head: number]>): Generator<void> {
    let done = 0
    for (const [name, head] of heads) {
      done += this.#growOne(name, head)
      if (++done > stride) {
        done = 0
        yield
      }
    }
  }

  /** Answers how many places there were to look at. */
  #growOne(name: string, head: number): number {
    const known = this.#topics.get(name)
    if (known !== undefined && head <= known.head) return 0
    if (known === undefined && this.#topics.size >= this.#maxTopics) {
      this.#left++
      return 0
    }
    const topic = known ?? { topic: topicOf(name), head: 0, patterns: [] }
    if (known === undefined) {
      topic.patterns = this.#patternsOf(topic.topic)
      this.#topics.set(name, topic)
    }
    const before = topic.head
    let places = 0
    for (const row of this.#groupsOf(topic)) {
      places++
      if (known !== undefined) this.#add(row, topic, -1)
      topic.head = head
      this.#add(row, topic, 1)
      topic.head = before
      this.#changed(row.group, name, pendingOf(row.met.get(name), before))
    }
    topic.head = head
    return places
  }

  /** How far a group is in a topic. */
  move(group: string, name: string, figures: Figures): void {
    const row = this.#groups.get(group)
    const topic = this.#topics.get(name)
    if (row === undefined || topic === undefined) return
    const before = row.met.get(name) ?? unmet
    if (isSame(before, figures)) return
    const takes = topic.patterns.some(({ groups }) => groups.has(row))
    if (takes) this.#add(row, topic, -1)
    row.met.set(name, figures)
    if (!takes) return
    this.#add(row, topic, 1)
    this.#changed(group, name, pendingOf(before, topic.head))
  }

  /** As `move`, before the sums are counted for the first time. */
  put(group: string, name: string, figures: Figures): void {
    this.#groups.get(group)?.met.set(name, figures)
  }

  /** Tells what is not as it was in another table, which this one takes the place of. */
  *compare(before: StandingTable): Generator<void> {
    let done = 0
    for (const topic of this.#topics.values()) {
      const { name } = topic.topic
      const head = before.#topics.get(name)?.head ?? 0
      for (const row of this.#groupsOf(topic)) {
        done++
        const now = row.met.get(name)
        const then = before.#groups.get(row.group)?.met.get(name)
        if (head !== topic.head || !isSame(now ?? unmet, then ?? unmet)) {
          this.#changed(row.group, name, pendingOf(then, head))
        }
      }
      if (++done > stride) {
        done = 0
        yield
      }
    }
  }

  hasGroup(group: string): boolean {
    return this.#groups.has(group)
  }

  place(group: string, name: string): Place | undefined {
    const row = this.#groups.get(group)
    const topic = this.#topics.get(name)
    return row === undefined || topic === undefined ? undefined : placeOf(row, topic)
  }

  totals(): StandingTotals {
    let pending = 0
    let inFlight = 0
    for (const row of this.#groups.values()) {
      pending += row.pending
      inFlight += row.inFlight
    }
    return { topics: this.#topics.size, groups: this.#groups.size, pending, inFlight }
  }

  groups(): ReadonlyMap<string, GroupStanding> {
    return new Map(
      Array.from(this.#groups, ([group, { inFlight, pending, topicsBehind }]) => [
        group,
        { pending, inFlight, topicsBehind }
      ])
    )
  }

  /** Where most is pending. Who may see a place is asked only about those that would be among them. */
  *worst(
    limit: number,
    show: (group: string, topic: string) => boolean
  ): Generator<void, ReadonlyArray<Place>> {
    let found: Array<readonly [pending: number, row: GroupRow, topic: TopicRow]> = []
    let least = 0
    let done = 0
    const cut = () => {
      found = found.sort(([a], [b]) => b - a).slice(0, limit)
      if (found.length === limit) least = found.at(-1)![0]
    }
    for (const topic of [...this.#topics.values()]) {
      if (topic.head > least) {
        for (const row of this.#groupsOf(topic)) {
          done++
          const pending = pendingOf(row.met.get(topic.topic.name), topic.head)
          if (pending <= least) continue
          done += 10
          if (show(row.group, topic.topic.name)) found.push([pending, row, topic])
        }
        if (found.length >= 2 * limit + 1_000) cut()
      }
      if (++done > stride) {
        done = 0
        yield
      }
    }
    cut()
    return found.map(([, row, topic]) => placeOf(row, topic))
  }
}

const placeOf = (row: GroupRow, { head, topic }: TopicRow): Place => {
  const figures = row.met.get(topic.name) ?? unmet
  return {
    group: row.group,
    topic: topic.name,
    seq: figures.floor,
    head,
    pending: pendingOf(figures, head),
    inFlight: figures.inFlight
  }
}
