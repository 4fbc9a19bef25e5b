/**
 * Revocations in a MongoDB database: a document each, and one that says whether something changed.
 *
 * Not every server has transactions, and a hub may die between two writes. A change is therefore announced before it is
 * made: as long as its mark stands, every look answers a version that nobody has seen, and whoever looks reads all of
 * them. The mark of a hub that died is taken away after a time in which its write has happened or never will.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Entry, isEntry } from "../../domain/Revocation.ts"
import { Ids } from "../../services/Ids.ts"
import { RevocationStore } from "../../services/RevocationStore.ts"
import { isDuplicateKey, upsert } from "./attempts.ts"
import { MongoDatabase } from "./MongoDatabase.ts"
import { collection, type RevocationDocument } from "./schema.ts"

/** Entries of a page, unless the caller says otherwise. */
const defaultLimit = 1_000

/** Longer than any write is under way. */
export const markMs = 120_000

const changesId = "revocations"

const documentOf = ({ id, ...entry }: Entry): RevocationDocument => ({ _id: id, ...entry })

/** Of documents that cannot be read, those that were told of. */
const maxTold = 1_000

const make = Effect.gen(function* () {
  const { db, now, use } = yield* MongoDatabase
  const ids = yield* Ids
  const revocations = collection(db, "revocations")
  const changes = collection(db, "revocation_changes")

  const told = new Set<string>()

  /** One that somebody else wrote, or broke, must not stand in the way of the others. */
  const entriesOf = Effect.fnUntraced(function* (documents: ReadonlyArray<RevocationDocument>) {
    const entries: Array<Entry> = []
    for (const { _id, ...rest } of documents) {
      const entry: unknown = { id: _id, ...rest }
      if (isEntry(entry)) entries.push(entry)
      else if (told.size < maxTold && !told.has(String(_id))) {
        told.add(String(_id))
        yield* Effect.logError("a revocation cannot be read, and what it revoked is not refused", {
          collection: "revocations",
          id: String(_id)
        })
      }
    }
    return entries
  })

  /** A change, between its mark and a version that nobody has seen. */
  const marked = async <A>(change: () => Promise<A>): Promise<A> => {
    const mark = ids.next()
    await upsert(() =>
      changes.updateOne(
        { _id: changesId },
        { $push: { marks: { mark, at: now() } }, $set: { version: ids.next() } },
        { upsert: true }
      )
    )
    const answer = await change()
    await upsert(() =>
      changes.updateOne({ _id: changesId }, { $pull: { marks: { mark } }, $set: { version: ids.next() } })
    )
    return answer
  }

  return RevocationStore.of({
    add: (entry) =>
      use("RevocationStore.add", () =>
        marked(async () => {
          try {
            await revocations.insertOne(documentOf(entry))
          } catch (error) {
            if (!isDuplicateKey(error)) throw error
          }
        })
      ),

    remove: (id) =>
      use("RevocationStore.remove", () =>
        marked(async () => (await upsert(() => revocations.deleteOne({ _id: id }))).deletedCount > 0)
      ),

    list: ({ after, limit = defaultLimit } = {}) =>
      use("RevocationStore.list", async () => {
        const found = await revocations
          .find(after === undefined ? {} : { _id: { $gt: after } })
          .sort({ _id: 1 })
          .limit(limit + 1)
          .toArray()
        const page = found.slice(0, limit)
        return { page, next: found.length > limit ? page.at(-1)?._id : undefined }
      }).pipe(Effect.flatMap(({ next, page }) => Effect.map(entriesOf(page), (items) => ({ items, next })))),

    version: use("RevocationStore.version", async () => {
      const found = await changes.findOne({ _id: changesId })
      const { marks = [], version = "" } = found ?? {}
      if (marks.length === 0) return version
      const before = now() - markMs
      if (marks.some(({ at }) => at < before)) {
        await upsert(() =>
          changes.updateOne(
            { _id: changesId },
            { $pull: { marks: { at: { $lt: before } } }, $set: { version: ids.next() } }
          )
        )
      }
      return ids.next()
    }),

    // What is pruned refuses nothing that is not refused anyway: nobody has to hear of it at once.
    prune: (before) =>
      use("RevocationStore.prune", async () => {
        // A hub whose clock is ahead must not let tokens in again: the server's has to have passed it, too.
        const { deletedCount } = await revocations.deleteMany({ until: { $lt: Math.min(before, now()) } })
        if (deletedCount > 0) {
          await upsert(() =>
            changes.updateOne({ _id: changesId }, { $set: { version: ids.next() } }, { upsert: true })
          )
        }
        return deletedCount
      })
  })
})

export const layer: Layer.Layer<RevocationStore, never, MongoDatabase | Ids> = Layer.effect(
  RevocationStore,
  make
)
