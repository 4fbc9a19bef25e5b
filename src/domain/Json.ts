/** JSON that somebody else wrote: what it is, before anything is believed of it. */

export type JsonObject = Readonly<Record<string, unknown>>

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Nothing: it is no JSON, or no object. */
export const parseObject = (text: string): JsonObject | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

export const isTexts = (value: unknown): value is ReadonlyArray<string> =>
  Array.isArray(value) && value.every((item) => typeof item === "string")

export const isTextByName = (value: unknown): value is Readonly<Record<string, string>> =>
  isObject(value) && Object.values(value).every((item) => typeof item === "string")

const quote = 0x22
const backslash = 0x5c
const [openArray, closeArray, openObject, closeObject] = [0x5b, 0x5d, 0x7b, 0x7d]

/** Whether there are more brackets in a text than that, wherever they stand. */
const hasMoreBrackets = (text: string, max: number): boolean => {
  let left = max
  for (const bracket of ["[", "{"]) {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1))
      if (left-- === 0) return true
  }
  return false
}

/**
 * Whether a text of JSON has more objects and arrays within each other than that. It is one pass over its characters,
 * however deep it is, and most texts have too few brackets to need it. Of what is no JSON, the answer is whether a parser
 * might get so deep.
 */
export const isTextDeeper = (text: string, maxDepth: number): boolean => {
  if (text.length <= maxDepth || !hasMoreBrackets(text, maxDepth)) return false
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    if (unit === quote) {
      for (i++; i < text.length; i++) {
        const within = text.charCodeAt(i)
        if (within === backslash) i++
        else if (within === quote) break
      }
    } else if (unit === openArray || unit === openObject) {
      if (++depth > maxDepth) return true
    } else if (unit === closeArray || unit === closeObject) depth--
  }
  return false
}

/** Whether every number in it has a JSON. Of values without cycles that are not deeper than the stack. */
export const isFinite = (value: unknown): boolean => {
  if (typeof value === "number") return Number.isFinite(value)
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (!isFinite(value[i])) return false
    return true
  }
  if (!isObject(value)) return true
  // What prints itself is not what it holds.
  if (typeof value["toJSON"] === "function") return true
  // No list of its parts is made: this is asked of large values. What is inherited is not printed.
  for (const name in value) if (!isFinite(value[name]) && Object.hasOwn(value, name)) return false
  return true
}
