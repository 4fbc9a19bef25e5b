/**
 * Fills an absent topic with events that have their seqs and times already.
 *
 * The topic's document is claimed first, and says from then on that nothing of the topic is there; one write at the
 * end makes all of it visible. A claim is a lease by the server's clock: of a hub that dies while it restores, the next
 * one who meets the topic clears away what is left.
 *
 * Appends never wait inside a restore. One that was under way sees the claim after its insert and takes its events
 * back; when it holds a seq that is to be restored, then the topic is not absent, and it is the restore that yields.
 */
import { type Db, MongoError } from "mongodb"
import type { Restoration } from "../../services/EventStore.ts"
import { isDuplicateKey } from "./attempts.ts"
import { headOf, topicOf } from "./eventLog.ts"
import { arrive, deleteSeqs, fitting, inOrder } from "./eventWrites.ts"
import { collection, type EventDocument, type TopicDocument } from "./schema.ts"

type Restoring = NonNullable<TopicDocument["restoring"]>

/** The topic is absent again. */
const giveUp = (db: Db, topic: string, token: string) =>
  collection(db, "topics").updateOne({ _id: topic, "restoring.token": token }, { $unset: { restoring: "" } })

/** Clears away what an abandoned restore left. False: whoever restores it is alive. */
export const rescue = async (
  db: Db,
  topic: string,
  { leaseMs, token }: { readonly leaseMs: number; readonly token: string }
): Promise<boolean> => {
  const found = await collection(db, "topics").findOneAndUpdate(
    { _id: topic, restoring: { $exists: true } },
    [
      {
        $set: {
          restoring: {
            $cond: [
              { $lt: ["$restoring.until", "$$NOW"] },
              {
                token: { $literal: token },
                until: { $add: ["$$NOW", leaseMs] },
                from: "$restoring.from",
                to: "$restoring.to"
              },
              "$restoring"
            ]
          }
        }
      }
    ],
    { returnDocument: "after" }
  )
  if (found?.restoring === undefined) return true
  if (found.restoring.token !== token) return false
  await deleteSeqs(db, topic, found.restoring.from, found.restoring.to)
  await giveUp(db, topic, token)
  return true
}

/** Claims the document of a topic that has no event. False: it has one, or somebody else has the claim. */
const claim = async (db: Db, topic: string, token: string, leaseMs: number): Promise<boolean> => {
  await arrive(db, topic)
  const restoring = { token: { $literal: token }, until: { $add: ["$$NOW", leaseMs] }, from: 1, to: 0 }
  const { matchedCount } = await collection(db, "topics").updateOne(
    { _id: topic, head: 0, restoring: { $exists: false } },
    [{ $set: { restoring } }]
  )
  if (matchedCount === 0) return false
  // Whoever inserted before the claim may have been answered; whoever does it from now on sees the claim.
  const first = await collection(db, "events").findOne({ topic, _id: { topic, seq: 1 } })
  if (first === null) return true
  await giveUp(db, topic, token)
  return false
}

class ClaimLost extends MongoError {}

/** Prolongs the claim, and writes down what will have to be cleared away. */
const hold = async (
  db: Db,
  topic: string,
  { from, to, token }: Pick<Restoring, "token" | "from" | "to">,
  leaseMs: number
): Promise<void> => {
  const { matchedCount } = await collection(db, "topics").updateOne(
    { _id: topic, "restoring.token": token },
    [{ $set: { restoring: { token: { $literal: token }, until: { $add: ["$$NOW", leaseMs] }, from, to } } }]
  )
  if (matchedCount === 0)
    throw new ClaimLost("the restore took longer than its lease, and another took it over")
}

/**
 * False: the topic exists. Fails when somebody else is restoring it.
 *
 * Between a prolongation of the lease and the insert behind it stands one command, which the server gives up long
 * before the lease ends: whoever takes over meets nothing of it.
 */
export const restoreTopic = async (
  db: Db,
  args: Restoration,
  { leaseMs, now, token }: { readonly leaseMs: number; readonly now: number; readonly token: string }
): Promise<boolean> => {
  const { firstSeq, topic } = args
  if (!(await rescue(db, topic, { leaseMs, token }))) {
    throw new MongoError(`topic '${topic}' is being restored by somebody else`)
  }
  const seen = new Set<string>()
  const events = args.events.filter(({ id }) => !seen.has(id) && seen.add(id))
  if (events.length === 0) return (await headOf(db, topic, "majority")) === undefined
  if (!(await claim(db, topic, token, leaseMs))) return false
  const last = firstSeq + events.length - 1
  const undo = async (): Promise<void> => {
    await deleteSeqs(db, topic, firstSeq, last)
    await giveUp(db, topic, token)
  }
  const returning = events.map(({ storedAt, ...event }) => ({ ...event, firstStoredAt: storedAt }))
  let open: ReadonlyArray<EventDocument> = inOrder(returning, { seq: firstSeq - 1, storedAt: 0 }, now)
  const { storedAt } = open.at(-1)!
  while (open.length > 0) {
    const part = fitting(open)
    await hold(db, topic, { token, from: firstSeq, to: last }, leaseMs)
    try {
      await collection(db, "events").insertMany([...part], {
        ordered: true,
        maxTimeMS: Math.ceil(leaseMs / 2)
      })
    } catch (error) {
      if (!isDuplicateKey(error)) throw error
      await undo()
      return false
    }
    open = open.slice(part.length)
  }
  const { matchedCount } = await collection(db, "topics").updateOne(
    { _id: topic, "restoring.token": token },
    [
      {
        $set: {
          head: last,
          storedAt,
          floor: firstSeq - 1,
          latestTo: firstSeq - 1,
          trimmedTo: firstSeq - 1,
          grownAt: "$$NOW"
        }
      },
      { $unset: "restoring" }
    ]
  )
  if (matchedCount > 0) return true
  // A repetition by the driver of what had worked finds no claim any more.
  if ((await topicOf(db, topic))?.head === last) return true
  throw new ClaimLost("the restore took longer than its lease, and another took it over")
}
