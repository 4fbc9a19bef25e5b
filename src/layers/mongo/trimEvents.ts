/**
 * Forgets the old events of a topic.
 *
 * In this order, so that a crash between any two steps costs nothing: the last event of each key is kept, the floor
 * is durable, the events are deleted, and the topic remembers how far. Whoever trims next deletes what was left.
 */
import type { Db } from "mongodb"
import { firstStoredFrom, headOf } from "./eventLog.ts"
import { catchUp } from "./latestEvents.ts"
import { deleteSeqs } from "./eventWrites.ts"
import { collection } from "./schema.ts"

/** How many events one step forgets at most. */
const trimChunk = 10_000

/** Forgets a part of what may go; `done` says whether it was the last. */
export const trimStep = async (
  db: Db,
  args: { readonly topic: string; readonly upTo: number; readonly storedBefore: number }
): Promise<{ readonly floor: number; readonly done: boolean }> => {
  const found = await headOf(db, args.topic, "majority")
  if (found === undefined) return { floor: 0, done: true }
  const { head } = found
  let { floor, trimmedTo } = found.topic
  const range = { from: floor + 1, to: Math.min(args.upTo, head.seq - 1, floor + trimChunk) }
  const target = (await firstStoredFrom(db, args.topic, range, args.storedBefore + 1)) - 1
  if (target > floor) {
    await catchUp(db, args.topic, target)
    const raised = await collection(db, "topics").findOneAndUpdate(
      { _id: args.topic },
      { $max: { floor: target, head: head.seq, storedAt: head.storedAt } },
      { returnDocument: "after" }
    )
    if (raised === null) return { floor, done: true }
    floor = raised.floor
    trimmedTo = raised.trimmedTo
  }
  if (trimmedTo < floor) {
    await deleteSeqs(db, args.topic, trimmedTo + 1, floor)
    await collection(db, "topics").updateOne({ _id: args.topic }, { $max: { trimmedTo: floor } })
  }
  return { floor, done: target < range.from + trimChunk - 1 }
}
