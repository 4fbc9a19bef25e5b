/**
 * Typed topics: which payload belongs to which topic, said once, by any Standard Schema.
 *
 * `defineTopics` pairs patterns with schemas. The types below read those pairs: what may be published to a topic,
 * and what a subscription to a pattern hands over. They match segment by segment, as the hub does.
 */
import { matchesSegments } from "../protocol/Segments.ts"

type Segments = ReadonlyArray<string>

// --- schemas -------------------------------------------------------------------------------------------------

/** Why a value is refused, and where in it. */
export interface Issue {
  readonly message: string
  readonly path?: ReadonlyArray<PropertyKey | { readonly key: PropertyKey }> | undefined
}

export type StandardResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: ReadonlyArray<Issue> }

/** Standard Schema, version 1 (https://standardschema.dev), as far as it is needed here. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
  }
}

/** Schemas by the pattern of the topics whose payloads they describe. */
export type TopicSchemas = Readonly<Record<string, StandardSchema>>

export interface Topics<S extends TopicSchemas = TopicSchemas> {
  readonly schemas: S
  /** The schema of the first pattern, in the order of definition, that matches the topic. */
  readonly schemaOf: (topic: string) => StandardSchema | undefined
}

/** Where no topics are defined: each is allowed, and payloads are `unknown`. */
export type AnyTopics = Topics

/** Segments of printable ASCII without space, `.` and `*`, or wildcards. */
const form = /^(?:(?:\*\*?|[!-)+-\-/-~]{1,64})(?:\.(?!$)|$))+$/

/** Names of the hub's own topics, which begin with `$`, may be longer by what `$dead.<group>.` takes. */
const isPattern = (name: string, segments: Segments): boolean => {
  const own = name.startsWith("$")
  return form.test(name) && name.length <= (own ? 583 : 512) && segments.length <= (own ? 34 : 32)
}

/** Topics whose schema is remembered. There may be any number of topics, and few are met again and again. */
const maxRemembered = 1_000

/**
 * Says which payloads which topics have. Of several patterns that match a topic the first one counts: write
 * `orders.eu.created` above `orders.*.created`, and that above `orders.**`.
 *
 * Throws a TypeError for what is no pattern, and for a pattern whose topics one above it takes.
 */
export const defineTopics = <const S extends TopicSchemas>(schemas: S): Topics<S> => {
  const definitions: Array<readonly [pattern: Segments, schema: StandardSchema]> = []
  const first = (segments: Segments) => definitions.find(([pattern]) => matchesSegments(pattern, segments))
  for (const [name, schema] of Object.entries(schemas)) {
    const segments = name.split(".")
    if (!isPattern(name, segments)) throw new TypeError(`'${name}' is no topic and no pattern of topics`)
    const above = first(segments)
    if (above)
      throw new TypeError(`'${name}' never applies: '${above[0].join(".")}' above it takes its topics`)
    definitions.push([segments, schema])
  }
  const remembered = new Map<string, StandardSchema | undefined>()
  return {
    schemas,
    schemaOf: (topic) => {
      if (!remembered.has(topic)) {
        if (remembered.size === maxRemembered) remembered.clear()
        remembered.set(topic, first(topic.split("."))?.[1])
      }
      return remembered.get(topic)
    }
  }
}

// --- types: segments -----------------------------------------------------------------------------------------

type Split<Name extends string> = Name extends `${infer Head}.${infer Tail}` ? [Head, ...Split<Tail>] : [Name]

/** Of a plain `string` nothing is known, not even how many segments it has. */
type SegmentsOf<Name extends string> = string extends Name ? ["**"] : Split<Name>

type IsOwn<B extends Segments> = B[0] extends `$${string}` ? true : false

type IsWild<A extends Segments> = A[0] extends "*" | "**" ? true : false

/** Nothing that begins with a wildcard meets the hub's own topics. */
type Guarded<A extends Segments, B extends Segments> = [IsWild<A>, IsOwn<B>] extends [true, true]
  ? true
  : false

/** `matchesSegments`, for the compiler. A segment that is not known, as in `orders.${string}`, is like a `*`. */
type Covers<A extends Segments, B extends Segments> =
  CoversRest<A, B> extends true ? (Guarded<A, B> extends true ? false : true) : false

type CoversRest<A extends Segments, B extends Segments> = A extends readonly [
  infer A0 extends string,
  ...infer As extends Segments
]
  ? A0 extends "**"
    ? As extends readonly []
      ? true
      : CoversRest<As, B> extends true
        ? true
        : B extends readonly [string, ...infer Bs extends Segments]
          ? CoversRest<A, Bs>
          : false
    : B extends readonly [infer B0 extends string, ...infer Bs extends Segments]
      ? B0 extends "**"
        ? false
        : A0 extends "*"
          ? CoversRest<As, Bs>
          : [B0] extends [A0]
            ? CoversRest<As, Bs>
            : false
      : false
  : B extends readonly []
    ? true
    : false

/** Whether some topic may be matched by both. */
type Overlaps<A extends Segments, B extends Segments> =
  OverlapsRest<A, B> extends true ? (true extends Guarded<A, B> | Guarded<B, A> ? false : true) : false

type OverlapsRest<A extends Segments, B extends Segments> = A extends readonly [
  infer A0 extends string,
  ...infer As extends Segments
]
  ? B extends readonly [infer B0 extends string, ...infer Bs extends Segments]
    ? A0 extends "**"
      ? OverlapsRest<As, B> extends true
        ? true
        : OverlapsRest<A, Bs>
      : B0 extends "**"
        ? OverlapsRest<A, Bs> extends true
          ? true
          : OverlapsRest<As, B>
        : MayBeSame<A0, B0> extends true
          ? OverlapsRest<As, Bs>
          : false
    : IsMany<A>
  : IsMany<B>

/** Only `**` is as good as nothing. */
type IsMany<A extends Segments> = A[number] extends "**" ? true : false

type MayBeSame<A extends string, B extends string> = "*" extends A | B
  ? true
  : [A] extends [B]
    ? true
    : [B] extends [A]
      ? true
      : false

// --- types: payloads -----------------------------------------------------------------------------------------

declare const why: unique symbol

/** Stands where a topic was refused: nothing is assignable to it. */
export interface NoTopic<Name extends string, Known> {
  readonly [why]: "no definition matches this topic, or it is none that may be published to"
  readonly topic: Name
  readonly defined: Known
}

/** Stands where a pattern was refused: nothing is assignable to it. */
export interface NoPattern<Name extends string, Known> {
  readonly [why]: "no definition has a topic in common with this pattern"
  readonly pattern: Name
  readonly defined: Known
}

type Keys<T extends AnyTopics> = keyof T["schemas"] & string

/** Not known by name: no topics were given, or ones that the compiler did not see. */
type IsUntyped<T extends AnyTopics> = string extends Keys<T> ? true : false

type InputOf<Schema extends StandardSchema> = NonNullable<Schema["~standard"]["types"]>["input"]

type OutputOf<Schema extends StandardSchema> = NonNullable<Schema["~standard"]["types"]>["output"]

type LastOf<Name extends string> = Name extends `${string}.${infer Tail}` ? LastOf<Tail> : Name

/** Definitions by their last segments: with hundreds of them, only few have to be looked at for a topic. */
type ByLast<Key extends string> = { readonly [K in Key as LastOf<K>]: K }

/** Whether it is not one string but many, such as `string` and `eu-${string}`. */
type IsOpen<Name extends string> =
  Readonly<Record<never, true>> extends Readonly<Record<Name, true>> ? true : false

type Near<Key extends string, Last extends string> = true extends IsOpen<Last> | IsWild<[Last]>
  ? Key
  : AtLast<ByLast<Key>, Last | "*" | "**">

type AtLast<Index, Last extends string> = Index[Last & keyof Index]

/** What is before the first wildcard, or all. */
type PrefixOf<Name extends string> = Name extends `${infer Prefix}*${string}`
  ? Prefix extends `${infer Segments}.`
    ? Segments
    : Prefix
  : Name

/** Two patterns have no topic in common where they differ before their first wildcards. */
type MayMeet<Prefix extends string, Other extends string> = Prefix extends `${Other}${string}`
  ? true
  : Other extends `${Prefix}${string}`
    ? true
    : false

type MeetingOf<Key, B extends Segments, Prefix extends string> = Key extends string
  ? MayMeet<Prefix, PrefixOf<Key>> extends true
    ? Overlaps<Split<Key>, B> extends true
      ? Key
      : never
    : never
  : never

type CoveringOf<Key, B extends Segments> = Key extends string
  ? Covers<Split<Key>, B> extends true
    ? Key
    : never
  : never

/** The definitions that may apply to some topic of this name or pattern. */
type Meeting<Key extends string, Name extends string> = MeetingOf<
  Near<Key, LastOf<Name>>,
  SegmentsOf<Name>,
  true extends IsOpen<Name> ? "" : PrefixOf<Name>
>

/** The definitions that match every topic of this name or pattern. */
type Covering<Key extends string, Name extends string> = CoveringOf<Meeting<Key, Name>, SegmentsOf<Name>>

type IsWider<Key extends string, Other extends string> = Other extends Key
  ? never
  : Covers<Split<Key>, Split<Other>> extends true
    ? true
    : never

/** A definition is below all that it covers, so it does not apply where one of those surely does. */
type Narrowest<Key extends string, Certain extends string> = Key extends string
  ? [IsWider<Key, Certain>] extends [never]
    ? Key
    : never
  : never

/**
 * The definitions that may be the first to match a topic of this name or pattern. The compiler does not know their
 * order, but `defineTopics` refuses one that stands below what covers it, and that is enough.
 */
type Applying<Key extends string, Name extends string> = Name extends string
  ? Name extends Key
    ? Name extends `${string}*${string}`
      ? Narrowest<Meeting<Key, Name>, Covering<Key, Name>>
      : Name
    : Narrowest<Meeting<Key, Name>, Covering<Key, Name>>
  : never

type IsAnyOf<Key extends string, Name extends string> = Name extends `${string}*${string}` | `$${string}`
  ? false
  : Name extends Key
    ? true
    : [Covering<Key, Name>] extends [never]
      ? false
      : true

type IsSome<Key extends string, Name extends string> = Name extends string
  ? [Meeting<Key, Name>] extends [never]
    ? false
    : true
  : never

/** What is fine for each of the definitions that may apply. */
type AllInputs<S extends TopicSchemas, Key extends string> = [
  Key extends string ? (input: InputOf<S[Key] & StandardSchema>) => void : never
] extends [(input: infer Input) => void]
  ? Input
  : never

/** The topic itself where a definition matches it. A template like `orders.${string}` has known segments, too. */
export type TopicOf<T extends AnyTopics, Name extends string> =
  IsUntyped<T> extends true
    ? Name
    : false extends IsAnyOf<Keys<T>, Name>
      ? NoTopic<Name, { readonly [K in Keys<T>]: K }[Keys<T>]>
      : Name

/** The pattern itself where some definition has a topic in common with it. */
export type PatternOf<T extends AnyTopics, Name extends string> =
  IsUntyped<T> extends true
    ? Name
    : false extends IsSome<Keys<T>, Name>
      ? NoPattern<Name, { readonly [K in Keys<T>]: K }[Keys<T>]>
      : Name

/** What may be published to the topic: what its schema takes. */
export type PublishPayload<T extends AnyTopics, Name extends string> =
  IsUntyped<T> extends true ? unknown : AllInputs<T["schemas"], Applying<Keys<T>, Name>>

/** What events of the pattern carry: what the schemas of its topics give. */
export type ReceivedPayload<T extends AnyTopics, Name extends string> =
  IsUntyped<T> extends true ? unknown : OutputOf<T["schemas"][Applying<Keys<T>, Name>]>
