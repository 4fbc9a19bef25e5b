/** What a hostile client sends: messages and frames that were valid once, changed by chance. */
import { frame } from "../support/RawSocket.ts"

/** The next number in [0, 1). */
export type Random = () => number

/** Mulberry32 (https://gist.github.com/tommyettinger/46a874533244883189143505d203312c): fast, and good enough here. */
export const randomOf = (seed: number): Random => {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
}

const pick = <A>(random: Random, from: ReadonlyArray<A>): A => from[Math.floor(random() * from.length)]!

/** Text that stands in the JSON as it is. */
class Raw {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

type Node = unknown

const isParent = (value: Node): value is Record<string, Node> | Array<Node> =>
  typeof value === "object" && value !== null && !(value instanceof Raw)

/** As JSON.stringify, but that names come as often as they are given, and texts as they are. */
const print = (value: Node): string => {
  if (value instanceof Raw) return value.text
  if (Array.isArray(value)) return `[${value.map(print).join(",")}]`
  if (isParent(value)) {
    return `{${Object.entries(value)
      .map(([name, part]) => `${JSON.stringify(name)}:${print(part)}`)
      .join(",")}}`
  }
  return JSON.stringify(value)
}

const nested = (depth: number, open: string, close: string) =>
  new Raw(`${open.repeat(depth)}1${close.repeat(depth)}`)

/** Values that somebody may have forgotten. */
const hostile: ReadonlyArray<Node> = [
  null,
  true,
  "",
  0,
  -1,
  1.5,
  new Raw("-0"),
  new Raw("1e999"),
  new Raw("-1e400"),
  new Raw("5e-400"),
  new Raw("12345678901234567890"),
  2 ** 53,
  new Raw("9".repeat(400)),
  "\ud800",
  "\udfff\ud800",
  "\u0000",
  "\u2028\u202e\u001b[2J",
  "__proto__",
  "constructor",
  "toString",
  "*",
  "**",
  "a.**",
  "$hub.stats",
  "$dead.g.a",
  "a..b",
  "a.".repeat(40),
  "x".repeat(300),
  "${sub}",
  "%s%n",
  new Raw("[]"),
  new Raw("{}"),
  new Raw("[[[]]]"),
  new Raw('{"__proto__":{"op":"PING","id":"x","group":"g","isAdmin":true}}'),
  new Raw('{"constructor":{"prototype":{"op":"AUTH"}}}'),
  new Raw('{"a":1,"a":2}'),
  new Raw('{"length":4294967295}'),
  new Raw('{"toJSON":1,"then":2,"valueOf":3}'),
  new Raw(" \n\t1"),
  nested(120, "[", "]"),
  nested(600, '{"a":', "}"),
  nested(5_000, "[", "]")
]

const names = [
  ...["op", "ref", "topic", "group", "payload", "opts", "id", "ids", "from", "headers", "credit", "attempt"],
  ...["__proto__", "constructor", "hasOwnProperty", "toString", "valueOf", "", "0", "length"]
]

/** One of each kind, as honest clients send them; `n` makes names that repeat from run to run. */
export const honest = (random: Random, n: number): Record<string, Node> => {
  const topic = pick(random, ["a", "a.b", "a.c.d", "b"])
  const pattern = pick(random, ["a", "a.*", "a.**", "**", "b", "*.b"])
  const group = pick(random, ["g", "h"])
  const ref = pick(random, [n, `r${n}`])
  switch (Math.floor(random() * 9)) {
    case 0:
      return { op: "PING", ref }
    case 1:
      return { op: "SUBSCRIBE", ref, topic: pattern, opts: { from: pick(random, ["new", { after: 1 }]) } }
    case 2:
      return { op: "SUBSCRIBE", ref, topic: pattern, group, opts: { credit: 10, ackTimeoutMs: 60_000 } }
    case 3:
      return { op: "UNSUBSCRIBE", ref, topic: pattern, group: pick(random, [group, null]) }
    case 4:
      return { op: "ACK", ref, topic, group, ids: [`e${n % 50}`, "none"], attempt: 1 }
    case 5:
      return { op: "NACK", ref, topic, group, id: `e${n % 50}`, mode: "release", delayMs: 1 }
    case 6:
      return { op: "EXTEND", ref, topic, group, id: `e${n % 50}`, byMs: 60_000 }
    case 7:
      return {
        op: "SUBSCRIBE",
        ref,
        topic: pattern,
        opts: { from: { topics: { a: 0, "a.b": 0 }, rest: "new" }, history: "h", overflow: "catchup" }
      }
    default:
      return {
        op: "PUBLISH",
        ref,
        topic,
        payload: { n: n % 50, text: "ö€😀", list: [1, 2, { deep: null }] },
        opts: {
          id: `e${n % 50}`,
          key: "k",
          type: "t",
          headers: { a: "b" },
          tags: ["x"],
          ts: 1,
          sid: "s",
          caused_by: "c"
        }
      }
  }
}

/** Some place in it, and how to put something else there. */
const placesOf = (value: Node): ReadonlyArray<readonly [parent: Record<string, Node>, name: string]> => {
  if (!isParent(value)) return []
  const parent = value as Record<string, Node>
  return Object.keys(parent).flatMap((name) => [[parent, name] as const, ...placesOf(parent[name])])
}

const mutateTree = (message: Record<string, Node>, random: Random): Node => {
  const [parent, name] = pick(random, placesOf(message))
  switch (Math.floor(random() * 7)) {
    case 0:
    case 1:
    case 2:
      parent[name] = pick(random, hostile)
      return message
    case 3:
      delete parent[name]
      return message
    case 4:
      if (Array.isArray(parent)) parent.push(pick(random, hostile))
      else
        Object.defineProperty(parent, pick(random, names), {
          value: pick(random, hostile),
          enumerable: true,
          configurable: true,
          writable: true
        })
      return message
    case 5:
      parent[name] = pick(random, [
        [parent[name]],
        { [name]: parent[name] },
        new Raw(`${print(parent[name])} `)
      ])
      return message
    default:
      return pick(random, [[message], [message, pick(random, hostile)], [[message]], pick(random, hostile)])
  }
}

const scraps = [
  "{",
  "}",
  "[",
  "]",
  ",",
  ":",
  '"',
  "\\u",
  "\\ud800",
  "\u0000",
  "1e999",
  "null",
  "[[",
  "\ufeff",
  "//",
  "NaN"
]

const mutateText = (text: string, random: Random): string => {
  const at = Math.floor(random() * (text.length + 1))
  switch (Math.floor(random() * 4)) {
    case 0:
      return text.slice(0, at)
    case 1:
      return text.slice(0, at) + pick(random, scraps) + text.slice(at)
    case 2:
      return text.slice(0, at) + text.slice(at + 1 + Math.floor(random() * 4))
    default:
      return text.slice(0, at) + text.slice(Math.floor(random() * at))
  }
}

/** The text of a message that is wrong in a place or two, or in none. */
export const hostileText = (random: Random, n: number): string => {
  let value: Node = honest(random, n)
  for (let changes = Math.floor(random() * 3); changes > 0; changes--) {
    if (isParent(value) && !Array.isArray(value) && Object.keys(value).length > 0)
      value = mutateTree(value, random)
  }
  const text = print(value)
  return random() < 0.15 ? mutateText(text, random) : text
}

/** A frame of it that a WebSocket library would not send, more often than not. */
export const hostileFrame = (random: Random, n: number): Buffer => {
  const text = hostileText(random, n)
  switch (Math.floor(random() * 14)) {
    case 0:
      return frame(text, { opcode: Math.floor(random() * 16) })
    case 1:
      return frame(text, { rsv: Math.floor(random() * 8) })
    case 2:
      return frame(text, { fin: false })
    case 3:
      return frame(text, { masked: random() < 0.5 })
    case 4:
      return frame(text, {
        length: pick(random, [0n, 1n, 125n, 126n, 65_535n, 65_536n, 2n ** 31n, 2n ** 63n - 1n])
      })
    case 5:
      return frame(text.slice(0, 100), { opcode: pick(random, [8, 9, 10]), fin: random() < 0.8 })
    case 6: {
      const bytes = frame(text)
      bytes[Math.floor(random() * Math.min(bytes.length, 16))] = Math.floor(random() * 256)
      return bytes
    }
    case 7: {
      const at = Math.floor(random() * text.length)
      const parts = [text.slice(0, at), text.slice(at)]
      return Buffer.concat([
        frame(parts[0]!, { fin: false }),
        ...(random() < 0.5 ? [frame("ping", { opcode: 9 })] : []),
        frame(parts[1]!, { opcode: random() < 0.8 ? 0 : 1 })
      ])
    }
    case 8:
      return frame(Buffer.from(text, "latin1"))
    case 9:
      return frame("x".repeat(Math.floor(random() * 125)), { opcode: 9 })
    default:
      return frame(text)
  }
}
