/**
 * Who empties an outbox collection: hubs, or the relay of another library. Never both, for each would miss what the
 * other took.
 *
 * The mark is an index. A name of an index has one key, so that of two who open a collection at the same moment one
 * is refused; and the mark goes with the collection when that is renamed, copied or dropped. It is sparse over a
 * field that no document has, so it holds nothing and costs nothing.
 */
import * as Schema from "effect/Schema"
import { whileBusy } from "./attempts.ts"

const owners = ["hub", "relay"] as const
export type OutboxOwner = (typeof owners)[number]

const reasons = {
  hub: "the outbox of a hub",
  relay: "the outbox of a relay",
  other: "in use for something else"
} as const

/** The collection has another owner already, and nothing was changed. */
export class OwnedByOther extends Schema.TaggedError<OwnedByOther>()("OwnedByOther", {
  collection: Schema.String,
  wanted: Schema.Literals(owners),
  /** `other`: what is in it was written by neither. */
  found: Schema.Literals([...owners, "other"])
}) {
  override get message() {
    const who = this.wanted === "hub" ? "a hub" : "a relay"
    return (
      `the collection '${this.collection}' is ${reasons[this.found]}, and events of it would be lost or doubled; ` +
      `give ${who} a collection of its own`
    )
  }
}

/** What is needed of a collection: of the driver, or of what a data layer wraps around it. */
export interface OwnableCollection {
  readonly collectionName: string
  findOne(filter: object, options?: object): Promise<object | null>
  createIndex(key: Readonly<Record<string, 1>>, options: object): Promise<unknown>
  indexes(): Promise<ReadonlyArray<object>>
}

const markName = "event_hub_owner"
const fieldOf = (owner: OutboxOwner): string => `event_hub_owner_${owner}`

const member = (of: unknown, name: string): unknown =>
  of instanceof Object ? Object.getOwnPropertyDescriptor(of, name)?.value : undefined

/** A relay's records name their event so; the records of hubs have no such field. */
const isOfRelay = (document: object): boolean => "eventId" in document

const markedOwner = async (collection: OwnableCollection): Promise<OutboxOwner | undefined> => {
  const mark = (await collection.indexes()).find((index) => member(index, "name") === markName)
  return owners.find((owner) => member(member(mark, "key"), fieldOf(owner)) !== undefined)
}

/**
 * Makes the collection the outbox of hubs or of a relay, or finds that it is. Any number may do it at once.
 *
 * Throws `OwnedByOther` when it is the other's: by its mark or, where it has none yet, by what is in it. Call it
 * outside of transactions, which make no indexes.
 */
export const claimOwnership = async (collection: OwnableCollection, owner: OutboxOwner): Promise<void> => {
  const refuse = (found: OwnedByOther["found"]) =>
    new OwnedByOther({ collection: collection.collectionName, wanted: owner, found })
  const some = await collection.findOne({}, { projection: { eventId: 1 } })
  if (some !== null && isOfRelay(some) !== (owner === "relay")) {
    if (owner === "hub") throw refuse("relay")
    throw refuse((await markedOwner(collection)) === "hub" ? "hub" : "other")
  }
  try {
    await whileBusy(() => collection.createIndex({ [fieldOf(owner)]: 1 }, { name: markName, sparse: true }))
  } catch (error) {
    const found = await markedOwner(collection)
    if (found === undefined) throw error
    if (found !== owner) throw refuse(found)
  }
}
