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

/** What a value holds directly; nothing of what prints itself. */
const partsOf = (value: object): ReadonlyArray<unknown> => {
  if (Array.isArray(value)) return value
  return "toJSON" in value && typeof value.toJSON === "function" ? [] : Object.values(value)
}

/** Whether there are more objects and arrays within each other than that. Of values without cycles. */
export const isDeeper = (value: unknown, maxDepth: number): boolean =>
  typeof value === "object" &&
  value !== null &&
  (maxDepth === 0 || partsOf(value).some((part) => isDeeper(part, maxDepth - 1)))

/** Whether every number in it has a JSON. Of values that are not deeper than the stack. */
export const isFinite = (value: unknown): boolean =>
  typeof value === "number"
    ? Number.isFinite(value)
    : typeof value !== "object" || value === null || partsOf(value).every(isFinite)
