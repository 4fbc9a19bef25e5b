/**
 * A policy file as everybody would write it: a role begins a line, its rules stand under it, and comments stay where they
 * are. What it means stays the same.
 */
import { type WrittenLine, readLines } from "./PolicyFile.ts"
import type { Word } from "./Policy.ts"

const indent = "  "

const textOf = (words: ReadonlyArray<Word>): string => words.map(({ text }) => text).join(" ")

const withComment = (text: string, comment: Word | undefined): string =>
  comment === undefined ? text : `${text}  ${comment.text}`

const isRule = ({ header, line }: WrittenLine): boolean => header === undefined && line.words.length > 0

/** Of each line whether the next one that says something is a rule. */
const beforeRules = (lines: ReadonlyArray<WrittenLine>): ReadonlyArray<boolean> => {
  let isNext = false
  return lines
    .toReversed()
    .map((written) => {
      const found = isNext
      if (written.line.words.length > 0) isNext = isRule(written)
      return found
    })
    .toReversed()
}

/** An empty line goes before a role and what is said right above it. */
const separate = (out: Array<string>): void => {
  let at = out.length
  while (at > 0 && out[at - 1]!.startsWith("#")) at--
  if (at > 0 && out[at - 1] !== "") out.splice(at, 0, "")
}

/** Of a text without problems. Formatted again, it stays as it is. */
export const formatPolicyFile = (text: string): string => {
  const out: Array<string> = []
  const lines = readLines(text)
  const isBeforeRule = beforeRules(lines)
  let inRole = false
  lines.forEach(({ header, line: { comment, words } }, i) => {
    inRole ||= header !== undefined
    if (header !== undefined) {
      separate(out)
      const { rest } = header
      const hasRule = rest.words.length > 0
      out.push(withComment(`role ${header.name}:`, hasRule ? undefined : comment))
      if (hasRule) out.push(withComment(indent + textOf(rest.words), comment))
    } else if (words.length > 0) out.push(withComment(indent + textOf(words), comment))
    else if (comment !== undefined) {
      // A comment of its own belongs to the rules when rules follow; before a role it stands as it was meant.
      const isIndented = inRole && (isBeforeRule[i] === true || comment.column > 1)
      out.push(isIndented ? indent + comment.text : comment.text)
    } else if (out.length > 0 && out.at(-1) !== "") out.push("")
  })
  while (out.at(-1) === "") out.pop()
  return out.map((line) => `${line}\n`).join("")
}
