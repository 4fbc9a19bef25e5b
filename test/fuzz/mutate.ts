/** Texts from other texts: by their characters, by words that mean something, and, where they are JSON, as values. */
import { below, pick, type Random, type Target } from "./Target.ts"

/** What is often forgotten, in any text. */
const oddTexts = [
  "",
  " ",
  "\n",
  "\t",
  "\u0000",
  "\u0007",
  "\u001b[31m",
  "\u2028",
  "\u202e",
  "\ufeff",
  "\ud800",
  "\udc00x",
  "é",
  "💥",
  "__proto__",
  "constructor",
  "toString",
  "hasOwnProperty",
  "..",
  "../..",
  "%2f",
  "%00",
  "%ff",
  "$x",
  "$where",
  "${sub}",
  "*",
  "**",
  "#",
  "'",
  '"',
  "\\",
  "null",
  "true",
  "NaN",
  "-0",
  "1e999",
  "9007199254740993",
  "0x10",
  "a".repeat(300)
]

/** As JSON, since some of it no value of JavaScript says. */
const oddJson = [
  "null",
  "true",
  "0",
  "-0",
  "-1",
  "1.5",
  "1e999",
  "-1e999",
  "1e-999",
  "9007199254740993",
  "12345678901234567890",
  '""',
  '"\\ud800"',
  '"\\u0000"',
  '"__proto__"',
  "[]",
  "{}",
  "[[]]",
  '{"__proto__":{"id":"x"}}',
  '{"constructor":{"prototype":{}}}',
  '{"a":1,"a":2}',
  '{"toString":1,"valueOf":null,"toJSON":1}',
  "[null,null]"
]

const nested = (random: Random): string => {
  const depth = pick(random, [10, 127, 129, 1_001, 5_000])
  return random() < 0.5
    ? "[".repeat(depth) + "]".repeat(depth)
    : '{"a":'.repeat(depth) + "1" + "}".repeat(depth)
}

// --- as text -------------------------------------------------------------------------------------------------

const word = (random: Random, { words }: Target): string =>
  random() < 0.6 && words.length > 0 ? pick(random, words) : pick(random, oddTexts)

const changeText = (random: Random, target: Target, text: string): string => {
  const at = below(random, text.length + 1)
  const end = Math.min(text.length, at + below(random, 12))
  switch (below(random, 8)) {
    case 0:
      return text.slice(0, at) + text.slice(end)
    case 1:
      return text.slice(0, at) + word(random, target) + text.slice(at)
    case 2:
      return text.slice(0, at) + word(random, target) + text.slice(end)
    case 3:
      return text.slice(0, end) + text.slice(at)
    case 4:
      return (
        text.slice(0, at) +
        String.fromCharCode(below(random, random() < 0.8 ? 128 : 65_536)) +
        text.slice(at + 1)
      )
    case 5:
      return text.slice(0, at) + text.slice(at, end).repeat(1 + below(random, 40)) + text.slice(end)
    case 6:
      return text.slice(0, at) + pick(random, target.seeds).slice(below(random, 40))
    default:
      return text.split("").toReversed().join("").slice(at)
  }
}

// --- as a value ----------------------------------------------------------------------------------------------

/** Stands where text that is no value's is to come. */
const hole = "\u0001hole\u0001"

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The value with one part of it changed; `put` says what comes in its place. */
const changeValue = (random: Random, value: unknown, put: () => unknown): unknown => {
  if (random() < 0.25) return put()
  if (Array.isArray(value) && value.length > 0) {
    const at = below(random, value.length)
    const items: ReadonlyArray<unknown> = value
    return items.flatMap((item, i) => {
      if (i !== at) return [item]
      const kind = below(random, 6)
      return kind === 0 ? [] : kind === 1 ? [item, item] : [changeValue(random, item, put)]
    })
  }
  if (isRecord(value)) {
    const entries = Object.entries(value)
    if (entries.length === 0) return put()
    const at = below(random, entries.length)
    return Object.fromEntries(
      entries.flatMap(([key, item], i): ReadonlyArray<readonly [string, unknown]> => {
        if (i !== at) return [[key, item]]
        const kind = below(random, 8)
        if (kind === 0) return []
        if (kind === 1) return [[pick(random, oddTexts), item]]
        if (kind === 2)
          return [
            [key, item],
            [pick(random, oddTexts), put()]
          ]
        return [[key, changeValue(random, item, put)]]
      })
    )
  }
  return put()
}

const changeJson = (random: Random, target: Target, text: string): string => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return changeText(random, target, text)
  }
  let raw = "null"
  const put = (): unknown => {
    if (random() < 0.4) return word(random, target)
    raw = random() < 0.05 ? nested(random) : pick(random, oddJson)
    return hole
  }
  const changed = changeValue(random, value, put)
  try {
    return JSON.stringify(changed).replaceAll(JSON.stringify(hole), () => raw)
  } catch {
    // It is too deep to be printed: as a text it goes on.
    return changeText(random, target, text)
  }
}

const maxLength = 20_000

/** Another input for the target. */
export const generate = (random: Random, target: Target): string => {
  let text = pick(random, target.seeds)
  // What is a message no more is refused at the door: of those few changes are made, and now and then none.
  for (let n = target.isJson ? below(random, 3) : 1 + below(random, 6); n > 0; n--) {
    text =
      target.isJson && random() < 0.8 ? changeJson(random, target, text) : changeText(random, target, text)
  }
  return text.slice(0, maxLength)
}

/** A shorter input that still fails: parts are taken out for as long as that works. */
export const shrink = async (input: string, fails: (input: string) => Promise<boolean>): Promise<string> => {
  let tries = 2_000
  for (let size = Math.ceil(input.length / 2); size > 0 && tries > 0;) {
    let isShorter = false
    for (let at = 0; at < input.length && tries-- > 0;) {
      const without = input.slice(0, at) + input.slice(at + size)
      if (await fails(without)) {
        input = without
        isShorter = true
      } else {
        at += size
      }
    }
    if (!isShorter || size > input.length) size = size === 1 ? 0 : Math.floor(size / 2)
  }
  return input
}
