/**
 * Events from the hooks of repositories: what a data layer creates, updates and deletes is put into the outbox within
 * the session of the write, so that both are kept or neither.
 *
 * For any data layer whose repositories emit `before:create`, `before:update` and `before:delete`, and wait for their
 * listeners: a listener that fails then fails the write, and nothing is lost without a word. What a data layer writes
 * past these hooks (most have others for many documents at once) makes no event.
 */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import * as Topic from "../../domain/Topic.ts"
import type { OutboxEvent } from "../../services/OutboxStore.ts"

/** What a repository hands to its listeners. Data layers put more into it, and `enrichMeta` may read that. */
export interface HookContext {
  readonly data?: unknown
  readonly id?: unknown
  readonly session?: unknown
  readonly user?: unknown
  readonly organizationId?: unknown
  readonly correlationId?: unknown
  readonly [name: string]: unknown
}

export type HookListener = (context: HookContext) => Promise<void>

export interface HookedRepository {
  on(event: string, listener: HookListener): unknown
  off?(event: string, listener: HookListener): unknown
}

/** A repository that knows its resource: by the first of these that is a text. */
export interface NamedRepository extends HookedRepository {
  readonly resource?: unknown
  readonly modelName?: unknown
  readonly model?: unknown
  readonly name?: unknown
}

/** By name, or (as in an array) such as know theirs. The name of a resource is the beginning of its topics. */
export type Repositories = Readonly<Record<string, HookedRepository>> | Iterable<NamedRepository>

/** What `createOutbox` gives. */
export interface EventSink {
  add(event: OutboxEvent, options?: { readonly session?: object }): Promise<string>
}

export type Operation = "create" | "update" | "delete"

/** A write that is about to happen. */
export interface Change {
  readonly resource: string
  readonly operation: Operation
  readonly context: HookContext
}

/**
 * What is known about an event beside its payload. It goes into the event's headers, which are texts: a time is
 * written in ISO 8601, and what is unknown is left out.
 */
export interface EventMeta {
  /** The id of the event. */
  readonly id: string
  readonly timestamp: string
  readonly resource: string
  readonly resourceId?: string
  readonly userId?: string
  readonly organizationId?: string
  readonly correlationId?: string
}

type MetaValue = string | number | boolean | Date | null | undefined

export interface WireOptions {
  readonly repos: Repositories
  readonly outbox: EventSink
  /** Whether this change makes an event. All do unless told otherwise. */
  readonly shouldEnqueue?: (change: Change) => boolean
  /** More for the event's headers, or other values for those that are there; all but `id`, which is the event's. */
  readonly enrichMeta?: (context: HookContext, change: Change) => Readonly<Record<string, MetaValue>>
  /**
   * The id of the event. Random unless told otherwise, which is enough where the session is in a transaction: one that
   * is tried again has left nothing. One made from the change is the same event however often it is tried.
   */
  readonly eventId?: (change: Change) => string
  /**
   * The id for a document that is created without one, put into the context's `data` as `_id`. For data layers that
   * create what the listeners leave there, and where the id is not made later by a schema. Without this the event of
   * a document whose `data` has no id yet has neither `resourceId` nor key.
   */
  readonly documentId?: (change: Change) => unknown
  /** Refuse writes without a session, whose event could not be part of them. True unless told otherwise. */
  readonly requireSession?: boolean
}

/** These repositories cannot be wired, and none was. */
export class CannotWire extends Schema.TaggedError<CannotWire>()("CannotWire", {
  resource: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `the repository '${this.resource}' cannot be wired: ${this.reason}`
  }
}

/** A write without a session. Neither it nor its event was written. */
export class SessionRequired extends Schema.TaggedError<SessionRequired>()("SessionRequired", {
  resource: Schema.String,
  operation: Schema.Literals(["create", "update", "delete"])
}) {
  override get message() {
    return (
      `${this.operation} of '${this.resource}' has no session, so its event could not be part of it; run it in a ` +
      "transaction and hand over that session, leave it out with shouldEnqueue, or set requireSession to false to " +
      "have the event written apart from it"
    )
  }
}

const verbs = { create: "created", update: "updated", delete: "deleted" } as const
const operations = ["create", "update", "delete"] as const

const member = (of: unknown, name: string): unknown =>
  typeof of === "object" && of !== null ? Reflect.get(of, name) : undefined

/** An id as a text: an ObjectId or UUID as its digits, an id of several fields as JSON. */
const idText = (id: unknown): string | undefined => {
  if (id === undefined || id === null) return undefined
  if (typeof id !== "object") return String(id)
  const json = JSON.stringify(id)
  const value: unknown = JSON.parse(json)
  return typeof value === "string" ? value : json
}

/** The id of a user or an organization, given as itself or as an object that has it; never all of that object. */
const refText = (ref: unknown): string | undefined => {
  if (typeof ref !== "object" || typeof member(ref, "toHexString") === "function") return idText(ref)
  return idText(member(ref, "_id") ?? member(ref, "id"))
}

const isIterable = (repos: Repositories): repos is Iterable<NamedRepository> => Symbol.iterator in repos

const nameOf = ({ model, modelName, name, resource }: NamedRepository): string | undefined =>
  [resource, modelName, model, name].find((given) => typeof given === "string" && given !== "")?.toString()

const named = (repos: Repositories): ReadonlyArray<readonly [string, HookedRepository]> =>
  isIterable(repos)
    ? Array.from(repos, (repository, i): readonly [string, HookedRepository] => {
        const name = nameOf(repository)
        if (name !== undefined) return [name, repository]
        const reason = "it does not say its name; give the repositories as an object, by name"
        throw new CannotWire({ resource: `#${i}`, reason })
      })
    : Object.entries(repos)

const check = (repositories: ReadonlyArray<readonly [string, HookedRepository]>): void => {
  const names = new Set<string>()
  for (const [resource, repository] of repositories) {
    const refuse = (reason: string) => new CannotWire({ resource, reason })
    if (names.has(resource)) throw refuse("another one has the same name; give them as an object, by name")
    names.add(resource)
    if (typeof repository.on !== "function") throw refuse("it has no on(event, listener)")
    for (const operation of operations) {
      const topic = `${resource}.${verbs[operation]}`
      const parsed = Topic.parseTopic(topic)
      if (Result.isFailure(parsed)) {
        throw refuse(
          `its events would have the topic '${parsed.failure.topic}', and ${parsed.failure.reason}`
        )
      }
      if (Topic.isOwn(topic))
        throw refuse("topics that begin with '$' are the hub's own; give it another name")
    }
  }
}

const payloadOf = ({ context, operation }: Change): unknown => {
  switch (operation) {
    case "create":
      return context.data ?? null
    case "update":
      return { id: context.id, changes: context.data ?? {} }
    case "delete":
      return { id: context.id }
  }
}

const headerText = (value: MetaValue): string | undefined => {
  if (value === undefined || value === null) return undefined
  return value instanceof Date ? value.toISOString() : String(value)
}

const headersOf = (
  meta: EventMeta,
  more: Readonly<Record<string, MetaValue>>
): Readonly<Record<string, string>> => {
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries({ ...meta, ...more, id: meta.id })) {
    const text = headerText(value)
    if (text !== undefined) headers[name] = text
  }
  return headers
}

/** The id that a document will have, made and put there when it has none and that is wanted. */
const idOf = (change: Change, documentId: WireOptions["documentId"]): unknown => {
  const { context, operation } = change
  if (operation !== "create") return context.id
  const { data } = context
  const given = member(data, "_id") ?? member(data, "id") ?? context.id
  if (given !== undefined || documentId === undefined || typeof data !== "object" || data === null)
    return given
  const made = documentId(change)
  Reflect.set(data, "_id", made)
  return made
}

/**
 * Listens to repositories, and puts `<resource>.created | updated | deleted` into the outbox, in the session of the
 * write. The payload is `data` (or null), `{ id, changes }`, and `{ id }`; `EventMeta` goes into the headers; the
 * document's id is the key, so that events of one document keep their order within each topic.
 *
 * Answers a function that ends it; calling that again is harmless. Throws `CannotWire` before it listens to any.
 *
 * Gotchas. The hooks come before the write, so an update or a deletion that finds no document makes an event as well,
 * unless its transaction is aborted. A session that is in no transaction binds nothing together. A session belongs to
 * the client that began it, so the outbox is made over that client's database. Wire after the data layer's own plugins:
 * what changes `data` later is not in the event.
 */
export const wireOutbox = (options: WireOptions): (() => void) => {
  const { documentId, enrichMeta, eventId, outbox, requireSession = true, shouldEnqueue } = options
  const repositories = named(options.repos)
  check(repositories)

  const enqueue = async (change: Change): Promise<void> => {
    if (shouldEnqueue?.(change) === false) return
    const { context, operation, resource } = change
    const { session } = context
    const inSession = typeof session === "object" && session !== null
    if (requireSession && !inSession) throw new SessionRequired({ resource, operation })
    const resourceId = idText(idOf(change, documentId))
    const userId = refText(context.user)
    const organizationId = refText(context.organizationId)
    const correlationId = idText(context.correlationId)
    const id = eventId?.(change) ?? uuidV7Unsafe()
    const ts = Date.now()
    const meta: EventMeta = {
      id,
      timestamp: new Date(ts).toISOString(),
      resource,
      ...(resourceId === undefined ? {} : { resourceId }),
      ...(userId === undefined ? {} : { userId }),
      ...(organizationId === undefined ? {} : { organizationId }),
      ...(correlationId === undefined ? {} : { correlationId })
    }
    const payload = payloadOf(change)
    await outbox.add(
      {
        id,
        topic: `${resource}.${verbs[operation]}`,
        ts,
        payload,
        headers: headersOf(meta, enrichMeta?.(context, change) ?? {}),
        // A null with a key would remove that key from latest-by-key.
        ...(resourceId === undefined || payload === null ? {} : { key: resourceId })
      },
      inSession ? { session } : {}
    )
  }

  let wired = true
  const listening: Array<() => void> = []
  const unwire = (): void => {
    // Not every repository can forget a listener; then it hears, and does nothing.
    wired = false
    for (const forget of listening.splice(0)) forget()
  }
  try {
    for (const [resource, repository] of repositories) {
      for (const operation of operations) {
        const event = `before:${operation}`
        const listener: HookListener = async (context) => {
          if (wired) await enqueue({ resource, operation, context })
        }
        repository.on(event, listener)
        listening.push(() => void repository.off?.(event, listener))
      }
    }
  } catch (error) {
    unwire()
    throw error
  }
  return unwire
}
