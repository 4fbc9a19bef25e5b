/**
 * Consumer groups in MongoDB, for any number of hubs: a document per group, and one per group and topic.
 *
 * No transaction of several documents is needed. A registration is one update of the group's document, with the
 * positions that stand with it; they become documents of their own at once (groupStates.ts). Each registration of a
 * name begins a life of its own, and states of another life are none: what an interrupted removal leaves behind is
 * seen by nobody. Whoever comes by finishes it.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import { conflicts, type GroupState, type Registration } from "../../domain/Group.ts"
import { GroupNotFound, GroupStore } from "../../services/GroupStore.ts"
import { Ids } from "../../services/Ids.ts"
import { StoreUnavailable } from "../../services/StoreUnavailable.ts"
import { upsert } from "./attempts.ts"
import { groupChanges, type GroupChangesOptions } from "./groupChanges.ts"
import { type At, DocumentTooLarge, groupStates, present } from "./groupStates.ts"
import { isUnavailable, MongoDatabase } from "./MongoDatabase.ts"
import { collection, type GroupDocument } from "./schema.ts"
import { StateCache } from "./StateCache.ts"

export interface Options extends GroupChangesOptions {
  /** Bytes of written states that are kept in memory, so that a change is one round trip; about. */
  readonly cacheBytes: number
}

export const defaults: Options = { cacheBytes: 32 * 1024 * 1024, busyPollMs: 25, idlePollMs: 250 }

/** What a registration may bring in positions; the document takes 16 MiB, and some may be waiting there. */
const maxPositionsBytes = 12 * 1024 * 1024

/** About what a position takes beside its topic. */
const perPosition = 128

type Standing = Omit<GroupDocument, "positions"> & { readonly waiting: number }

/** What is read of a document here: not the positions, but how many there are. */
const standing = {
  life: 1,
  patterns: 1,
  options: 1,
  paused: 1,
  lastUsedAt: 1,
  removedAt: 1,
  waiting: { $size: "$positions" }
} as const

const registrationsOf = ({ _id, lastUsedAt, options, patterns, paused }: Standing) =>
  patterns.map(({ history, pattern, registeredAt }): Registration => ({
    group: _id,
    pattern,
    options,
    registeredAt: registeredAt.getTime(),
    history,
    paused,
    lastUsedAt: lastUsedAt.getTime()
  }))

const byName = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** The first whole millisecond at or after a time, as far as there are dates. */
const dateAt = (millis: number): Date => new Date(Math.max(-8.64e15, Math.min(8.64e15, Math.ceil(millis))))

/** A group is used at this moment, by the server's clock; servers that take over may be a little behind. */
const used = { $max: ["$lastUsedAt", "$$NOW"] }

const make = Effect.fnUntraced(function* (given: Partial<Options> = {}) {
  const options = { ...defaults, ...given }
  const database = yield* MongoDatabase
  const ids = yield* Ids
  const self = ids.next()
  const groups = collection(database.db, "groups")
  const standings = database.db.collection<Standing>("groups")
  const states = groupStates(database.db, { newRevision: ids.next, now: database.now, self })

  const use = <A>(method: string, f: () => Promise<A>): Effect.Effect<A, StoreUnavailable> =>
    Effect.tryPromise({ try: f, catch: (cause) => cause }).pipe(
      Effect.catch((cause) =>
        isUnavailable(cause) || cause instanceof DocumentTooLarge
          ? Effect.fail(new StoreUnavailable({ operation: `GroupStore.${method}`, cause }))
          : Effect.die(cause)
      )
    )

  const cache = new StateCache(options.cacheBytes)

  /** Changes that this process makes to one state do not race each other. */
  const turns = new Map<string, { readonly turn: Semaphore.Semaphore; users: number }>()
  const inTurn = <A, E>(key: string, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      const place = turns.get(key) ?? { turn: Semaphore.makeUnsafe(1), users: 0 }
      turns.set(key, place)
      place.users++
      return Effect.ensuring(
        place.turn.withPermits(1)(effect),
        Effect.sync(() => {
          if (--place.users === 0) turns.delete(key)
        })
      )
    })

  /**
   * One step of a registration: adds the group, or the pattern, or says that the group is used. Nothing when the
   * group is not what it was when it was looked at.
   */
  const write = async (
    {
      group,
      history,
      pattern
    }: { readonly group: string; readonly history: string; readonly pattern: string },
    begun: GroupDocument["positions"],
    found: Standing | null,
    fresh: Pick<GroupDocument, "life" | "options">
  ): Promise<Standing | undefined> => {
    const added = [{ pattern: { $literal: pattern }, registeredAt: "$$NOW", history: { $literal: history } }]
    const answer = { returnDocument: "after", projection: standing } as const
    if (found !== null) {
      const stands = found.patterns.some((one) => one.pattern === pattern)
      const updated = await standings.findOneAndUpdate(
        {
          _id: group,
          life: found.life,
          ...present,
          ...(stands ? {} : { "patterns.pattern": { $ne: pattern } })
        },
        [
          {
            $set: stands
              ? { lastUsedAt: used }
              : {
                  lastUsedAt: used,
                  patterns: { $concatArrays: ["$patterns", added] },
                  positions: { $concatArrays: ["$positions", { $literal: begun }] }
                }
          }
        ],
        answer
      )
      return updated ?? undefined
    }
    const made = {
      life: { $literal: fresh.life },
      patterns: added,
      options: { $literal: fresh.options },
      paused: false,
      lastUsedAt: "$$NOW",
      positions: { $literal: begun }
    }
    const unlessThere = Object.fromEntries(
      Object.entries(made).map(([name, value]) => [name, { $ifNull: [`$${name}`, value] }])
    )
    // Of those who make it at once one does; the others change nothing.
    const updated = await upsert(() =>
      standings.findOneAndUpdate({ _id: group }, [{ $set: unlessThere }], { ...answer, upsert: true })
    )
    return updated?.life === fresh.life ? updated : undefined
  }

  return GroupStore.of({
    exclusive: false,
    changes: groupChanges(database, options, self),

    register: ({ defaults, generation, group, history, pattern, positions, wanted }) =>
      Effect.gen(function* () {
        const begun = Array.from(positions, ([topic, floor]) => ({ topic, floor, generation }))
        const bytes = begun.reduce((sum, { topic }) => sum + Buffer.byteLength(topic) + perPosition, 0)
        if (bytes > maxPositionsBytes) {
          const cause = new DocumentTooLarge({
            what: `where group '${group}' is to begin on ${begun.length} topics`,
            bytes,
            maxBytes: maxPositionsBytes,
            hint: "give it patterns that match fewer topics each"
          })
          return yield* new StoreUnavailable({ operation: "GroupStore.register", cause })
        }
        for (;;) {
          const found = yield* use("register", () =>
            standings.findOne({ _id: group }, { projection: standing })
          )
          if (found?.removedAt !== undefined) {
            yield* use("register", () => states.forget(group, found.life))
            continue
          }
          const first = found === null ? undefined : registrationsOf(found)[0]
          if (first !== undefined) yield* Effect.fromResult(conflicts(first, wanted))
          const life = ids.next()
          const options = { ...defaults, ...wanted }
          const written = yield* use("register", () =>
            write({ group, history, pattern }, begun, found, { life, options })
          )
          const registration = written && registrationsOf(written).find((one) => one.pattern === pattern)
          if (written === undefined || registration === undefined) continue
          // It stands already, with its positions: that they are many documents is for those who come later.
          if (written.waiting > 0) {
            yield* Effect.ignore(use("register", () => states.settle(group, written.life)))
          }
          return registration
        }
      }),

    list: Effect.gen(function* () {
      const found = yield* use("list", () => standings.find({}, { projection: standing }).toArray())
      for (const { _id, life, removedAt } of found) {
        if (removedAt !== undefined) yield* use("list", () => states.forget(_id, life))
      }
      return found
        .filter(({ removedAt }) => removedAt === undefined)
        .flatMap(registrationsOf)
        .sort((a, b) => byName(a.group, b.group) || byName(a.pattern, b.pattern))
    }),

    setPaused: (group, paused) =>
      use("setPaused", async () => {
        const { matchedCount } = await groups.updateOne(
          { _id: group, ...present },
          {
            $set: { paused },
            $currentDate: { changedAt: true }
          }
        )
        return matchedCount === 1
      }),

    touch: (names) =>
      names.length === 0
        ? Effect.void
        : use("touch", async () => {
            await groups.updateMany({ _id: { $in: [...names] }, ...present }, [
              { $set: { lastUsedAt: used } }
            ])
          }),

    remove: (group, condition) =>
      use("remove", async () => {
        const unused = condition === undefined ? {} : { lastUsedAt: { $lt: dateAt(condition.unusedSince) } }
        const marked = await groups.findOneAndUpdate(
          { _id: group, ...present, ...unused },
          [{ $set: { removedAt: "$$NOW", changedAt: "$$NOW" } }],
          { projection: { life: 1 } }
        )
        // What somebody else began to remove is gone, too, when this answers.
        const removed =
          marked ??
          (await groups.findOne({ _id: group, removedAt: { $exists: true } }, { projection: { life: 1 } }))
        if (removed !== null) await states.forget(group, removed.life)
        return marked !== null
      }).pipe(Effect.tap((removed) => Effect.sync(() => (removed ? cache.drop(group) : undefined)))),

    modify: <A>(
      at: At,
      f: (state: GroupState | undefined, now: number) => readonly [answer: A, state: GroupState]
    ) => {
      const key = StateCache.keyOf(at)
      const attempt = Effect.gen(function* () {
        for (;;) {
          // Whether it is written is not known before it is answered, and perhaps nobody waits for that.
          const known = cache.take(key)
          const found =
            known === undefined
              ? yield* use("modify", () => states.find(at))
              : { life: known.life, state: known.state, stored: known, orphan: undefined }
          if (found === undefined) return yield* new GroupNotFound({ group: at.group })
          const [answer, state] = f(found.state, database.now())
          if (state === found.state) {
            if (known !== undefined && !(yield* use("modify", () => states.isStill(at, known)))) continue
            if (found.stored !== undefined) cache.keep(key, found.stored)
            return answer
          }
          const stored = yield* use("modify", () => states.save(at, found, state))
          if (stored === undefined) continue
          cache.keep(key, stored)
          return answer
        }
      })
      return inTurn(key, attempt)
    },

    read: (at) =>
      Effect.map(
        use("read", () => states.find(at)),
        (found) => found?.state
      ),

    cursors: (topic) =>
      Effect.map(
        use("cursors", () => states.ofTopic(topic)),
        (cursors) => cursors.toSorted((a, b) => byName(a.group, b.group))
      ),

    topicsOf: (group, page) => use("topicsOf", () => states.ofGroup(group, page))
  })
})

export const layer = (options?: Partial<Options>): Layer.Layer<GroupStore, never, MongoDatabase | Ids> =>
  Layer.effect(GroupStore, make(options))
