/** OUTBOX_SOURCES as settings: what is taken, what is refused with one problem an entry, and that nothing secret is repeated. */
import { Redacted, Result } from "effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as HubConfig from "../../src/hub/HubConfig.ts"
import { type OutboxPlace, parseSources } from "../../src/hub/HubSources.ts"

const parse = (text: string, own?: OutboxPlace) => parseSources(text, own)

/** As a test can compare it. */
const plain = (place: OutboxPlace) =>
  place._tag === "Mongo" ? [Redacted.value(place.url), place.collection] : [place.path]

const placesOf = (text: string) => {
  const { problems, sources } = parse(text)
  expect(problems).toEqual([])
  return sources.map(({ name, outbox }) => [name, ...plain(outbox)])
}

const problemsOf = (text: string, own?: OutboxPlace) => parse(text, own).problems

describe("an entry", () => {
  it.each([
    ["shop=mongodb://db1:27017/shop", ["shop", "mongodb://db1:27017/shop", "outbox"]],
    ["shop=mongodb://db1/shop#events", ["shop", "mongodb://db1/shop", "events"]],
    ["s-1_b=mongodb+srv://u:p%40@h/d?w=1#a.b", ["s-1_b", "mongodb+srv://u:p%40@h/d?w=1", "a.b"]],
    ["x=mongodb://a:1,b:2/d?replicaSet=r#my%20box", ["x", "mongodb://a:1,b:2/d?replicaSet=r", "my box"]],
    ["billing=sqlite:/var/lib/billing.db", ["billing", "/var/lib/billing.db"]],
    ["b=sqlite:./a=b.db", ["b", "./a=b.db"]]
  ])("%s is taken", (text, place) => {
    expect(placesOf(text)).toEqual([place])
  })

  it.each([
    ["mongodb://h/geheim", /^entry 1 must be <name>=<url>/],
    ["geheim", /^entry 1 must be <name>=<url>/],
    ["=mongodb://h/d", /^entry 1 must begin with a name/],
    ["Shop=mongodb://h/d", /^entry 1 must begin with a name/],
    [`${"a".repeat(64)}=mongodb://h/d`, /^entry 1 must begin with a name/],
    ["hub=mongodb://h/d", /^entry 1 is named 'hub'/],
    ["a=", /^entry 1 must be <name>=mongodb/],
    ["a=postgres://u:geheim@h/d", /^entry 1 must be <name>=mongodb/],
    ["a=mongodb://u:geheim@h", /^entry 1 must name a database/],
    ["a=mongodb://u:geheim@h/", /^entry 1 must name a database/],
    ["a=mongodb://u:geheim@h/d.e", /^entry 1 must name a database/],
    ["a=mongodb://u:geh@eim@h/d", /^entry 1 is no URL/],
    ["a=mongodb://u:geh#eim@h/d", /^entry 1 (is no URL|must name)/],
    ["a=mongodb:///d", /^entry 1 is no URL/],
    ["a=mongodb://u:geheim@h/d#", /^entry 1 must name a collection/],
    ["a=mongodb://u:geheim@h/d#$x", /^entry 1 must name a collection/],
    ["a=mongodb://u:geheim@h/d#system.users", /^entry 1 must name a collection/],
    ["a=mongodb://u:geheim@h/d#%zz", /^entry 1 must name a collection/],
    ["a=sqlite:", /^entry 1 names no file/],
    ["a=sqlite::memory:", /^entry 1 names no file/]
  ])("%s is refused", (text, problem) => {
    expect(problemsOf(text)).toEqual([expect.stringMatching(problem)])
    expect(problemsOf(text).join()).not.toMatch(/geh/)
  })
})

describe("two entries", () => {
  it.each([
    ["a=mongodb://h/d a=mongodb://h/e", "entry 2 has the name of entry 1, 'a'"],
    ["a=mongodb://h/d b=mongodb://u:p@H:27017/d?w=1#outbox", "entry 2 is the same outbox as entry 1"],
    ["a=mongodb://x,y:27018/d b=mongodb://y:27018,x:27017/d", "entry 2 is the same outbox as entry 1"],
    ["a=sqlite:./x.db\n\tb=sqlite:y/../x.db", "entry 2 is the same outbox as entry 1"]
  ])("%s are refused", (text, problem) => {
    expect(problemsOf(text)).toEqual([problem])
  })

  it("of one database with collections of their own are fine", () => {
    expect(placesOf(" a=mongodb://h/d#a  b=mongodb://h/d#b\n")).toHaveLength(2)
  })
})

describe("the hub's own outbox", () => {
  const problems = (env: Readonly<Record<string, string>>) =>
    Result.match(HubConfig.read(env), { onFailure: (found) => found, onSuccess: () => [] })
  const own = [
    {
      name: "OUTBOX_SOURCES",
      problem: "entry 1 is the hub's own outbox, which it drains anyway"
    }
  ]

  it.each([
    [{ MONGO_URL: "mongodb://u:p@h/shop?w=1", OUTBOX_SOURCES: "a=mongodb://h:27017/shop" }],
    [{ MONGO_URL: "mongodb://h", OUTBOX_SOURCES: "a=mongodb://h/prom#outbox" }],
    [{ HUB_STORE: "sqlite:x.db", OUTBOX_SOURCES: "a=sqlite:./x.db" }],
    [{ OUTBOX_SOURCES: "a=sqlite:data/hub.db" }]
  ])("is none of the sources: %o", (env) => {
    expect(problems(env)).toEqual(own)
  })

  it("another collection of the hub's database is one", () => {
    expect(problems({ MONGO_URL: "mongodb://h/d", OUTBOX_SOURCES: "a=mongodb://h/d#other" })).toEqual([])
  })

  it("every entry that is wrong is said", () => {
    expect(problems({ HUB_STORE: "memory:", OUTBOX_SOURCES: "a b=x c=sqlite:y" })).toMatchObject([
      { name: "OUTBOX_SOURCES", problem: expect.stringMatching(/^entry 1 /) as string },
      { name: "OUTBOX_SOURCES", problem: expect.stringMatching(/^entry 2 /) as string }
    ])
  })
})

const name = fc.stringMatching(/^[a-z0-9][a-z0-9_-]{0,20}$/).filter((text) => text !== "hub")
const word = fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9]{0,9}$/)

/** Places, none of which is another one. */
const places = fc.uniqueArray(
  fc.oneof(
    fc
      .record({ host: word, database: word, collection: word, user: fc.option(word) })
      .map(({ collection, database, host, user }) => ({
        id: `${host.toLowerCase()} ${database} ${collection}`,
        text: `mongodb://${user === null ? "" : `${user}:pw@`}${host}/${database}#${collection}`,
        place: [`mongodb://${user === null ? "" : `${user}:pw@`}${host}/${database}`, collection]
      })),
    word.map((file) => ({ id: file, text: `sqlite:${file}`, place: [file] }))
  ),
  { selector: ({ id }) => id, maxLength: 6 }
)

describe("in general", () => {
  it("what was written is what is read, in its order", () => {
    fc.assert(
      fc.property(
        places.chain((all) =>
          fc.tuple(
            fc.constant(all),
            fc.uniqueArray(name, { minLength: all.length, maxLength: all.length }),
            fc.constantFrom(" ", "\n", " \t ")
          )
        ),
        ([all, names, gap]) => {
          const text = all.map((one, i) => `${names[i]}=${one.text}`).join(gap)
          expect(placesOf(text)).toEqual(all.map(({ place }, i) => [names[i], ...place]))
        }
      )
    )
  })

  it("any text gives a source or one problem for each entry, and repeats nothing of a URL", () => {
    const text = fc.oneof(
      fc.string(),
      fc
        .array(fc.oneof(fc.constantFrom("a=", "b=", "mongodb://", "sqlite:", "@", "/", "#", "?", " "), word))
        .map((parts) => parts.join(""))
    )
    fc.assert(
      fc.property(text, (text) => {
        const entries = text.split(/\s+/).filter((entry) => entry !== "")
        const { problems, sources } = parse(text)
        expect(problems.length + sources.length).toBe(entries.length)
      })
    )
    fc.assert(
      fc.property(text, (text) => {
        const secret = "S3CR3T"
        const { problems } = parse(`${text.replaceAll(/\s/g, "")}${secret} a=mongodb://u:${secret}`)
        expect(problems.join()).not.toContain(secret)
      })
    )
  })

  it("settings that are printed hold no password", () => {
    const { settings } = Result.getOrThrow(HubConfig.read({ OUTBOX_SOURCES: "a=mongodb://anna:geheim@h/d" }))
    expect(JSON.stringify(settings)).not.toContain("geheim")
  })
})
