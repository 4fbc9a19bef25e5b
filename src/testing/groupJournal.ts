/**
 * What was seen of a consumer group at work, written down by its members, and whether it may be so: the promises of
 * a group as a check of a journal, however many members, processes and crashes it comes from.
 */

/** Something that happened to a delivery: one event, one attempt. */
export interface Seen {
  readonly what:
    | "delivered"
    /** Its handler is done with it, or refuses it; written down before that is said to the group. */
    | "acked"
    | "nacked"
    /** The group has answered the acknowledgement. */
    | "confirmed"
    /** It stands in the dead letters. */
    | "buried"
  readonly id: string
  /** Means nothing for `buried`. */
  readonly attempt: number
  /** Rises from one to the next of those that depend on each other. */
  readonly at: number
}

/** An event that was published, in the order of its topic. */
export interface Expected {
  readonly id: string
  readonly topic: string
  readonly key: string | undefined
  /** No handler ever takes it. */
  readonly isPoison: boolean
}

export interface JournalOptions {
  readonly keyOrdered: boolean
  /**
   * The journal has one author, so that an answer stands in it before what follows from the answer. With several,
   * only what a member did before it spoke is known to be before what others got after that.
   */
  readonly oneAuthor: boolean
}

/** What is known of one event. */
interface Story {
  /** By attempt. */
  readonly delivered: Map<number, number>
  readonly acked: Map<number, number>
  readonly nacked: Map<number, number>
  readonly confirmed: Map<number, number>
  readonly buried: Array<number>
}

const newStory = (): Story => ({
  delivered: new Map(),
  acked: new Map(),
  nacked: new Map(),
  confirmed: new Map(),
  buried: []
})

/** The last attempt of any that are known. */
const lastOf = ({ delivered }: Story): number => Math.max(0, ...delivered.keys())

/** So many are told; what is wrong with one event is mostly wrong with many. */
const maxProblems = 20

/** What must not be so, in words; empty when every promise was kept. */
export const problemsOf = (
  journal: Iterable<Seen>,
  events: ReadonlyArray<Expected>,
  { keyOrdered, oneAuthor }: JournalOptions
): ReadonlyArray<string> => {
  const problems: Array<string> = []
  const say = (problem: string): void => {
    if (problems.length < maxProblems) problems.push(problem)
  }
  const stories = new Map<string, Story>(events.map(({ id }) => [id, newStory()]))
  for (const { at, attempt, id, what } of journal) {
    const story = stories.get(id)
    if (story === undefined) say(`${id} was ${what}, and nobody published it`)
    else if (what === "buried") story.buried.push(at)
    else if (what === "delivered" && story.delivered.has(attempt)) say(`${id}#${attempt} came twice`)
    else story[what].set(attempt, at)
  }

  for (const { id, isPoison } of events) {
    const story = stories.get(id)!
    const last = lastOf(story)
    const deaths = story.buried.length
    if (isPoison && deaths !== 1) say(`${id} is poison, and is in the dead letters ${deaths} times`)
    if (!isPoison && deaths > 0) say(`${id} is healthy, and is in the dead letters`)
    if (!isPoison && story.acked.size === 0)
      say(`${id} was never handled; it came ${story.delivered.size} times`)
    for (const attempt of story.confirmed.keys()) {
      if (last > attempt) say(`${id}#${last} came, and #${attempt} had been acknowledged and confirmed`)
    }
  }
  if (!keyOrdered) return problems

  /** By key and topic: when the last of the events before was over, and which that was. */
  const before = new Map<string, { readonly id: string; readonly over: number }>()
  for (const { id, key, topic } of events) {
    if (key === undefined) continue
    const story = stories.get(id)!
    const last = lastOf(story)
    const line = `${topic} ${key}`
    const ahead = before.get(line)
    const came = Math.min(...story.delivered.values())
    if (ahead !== undefined && came < ahead.over) say(`${id} came before ${ahead.id} of its key was over`)
    const over = Math.max(
      story.acked.get(last) ?? 0,
      story.nacked.get(last) ?? 0,
      oneAuthor
        ? Math.max(story.delivered.get(last) ?? 0, story.confirmed.get(last) ?? 0, ...story.buried)
        : 0,
      ahead?.over ?? 0
    )
    before.set(line, { id, over })
  }
  return problems
}
