/** Writes to the consumer groups. They run in the writer's transaction. */
import type { Statements } from "./statements.ts"

export interface RegistrationRow {
  readonly pattern: string
  readonly options: string
  readonly registered_at: number
  readonly history: string
  readonly paused: number
  readonly last_used_at: number
}

/** False: there is a state, and nothing was done. */
const addState = (statements: Statements, group: string, topic: string, whole: string): boolean => {
  if (statements.run("addState", group, topic) === 0) return false
  statements.run("addPart", group, topic, 1, whole)
  return true
}

export const groupCommands = (statements: Statements) => ({
  /**
   * Adds a registration unless it stands, and answers all of the group as they stand then. `changed`: somebody
   * registered, or removed, since the caller looked, and nothing was done; it has to look again.
   */
  register: (args: {
    readonly group: string
    readonly pattern: string
    readonly options: string
    /** The options that the caller saw registered; none: it saw no group. */
    readonly seen: string | undefined
    readonly now: number
    readonly history: string
    readonly states: ReadonlyArray<readonly [topic: string, state: string]>
  }): { readonly changed: boolean; readonly rows: ReadonlyArray<RegistrationRow> } => {
    const { group, history, now, options, pattern } = args
    const before = statements.all<RegistrationRow>("registrationsOf", group)
    if (before[0]?.options !== args.seen) return { changed: true, rows: before }
    if (!before.some((row) => row.pattern === pattern)) {
      statements.run("addRegistration", group, pattern, options, now, history, before[0]?.paused ?? 0, now)
      for (const [topic, state] of args.states) addState(statements, group, topic, state)
    }
    statements.run("setUsed", now, group)
    return { changed: false, rows: statements.all<RegistrationRow>("registrationsOf", group) }
  },

  setPaused: (args: { readonly group: string; readonly paused: boolean }): boolean =>
    statements.run("setPaused", args.paused ? 1 : 0, args.group) > 0,

  touch: (args: { readonly groups: ReadonlyArray<string>; readonly now: number }): void => {
    for (const group of args.groups) statements.run("setUsed", args.now, group)
  },

  remove: (args: { readonly group: string; readonly unusedSince: number | undefined }): boolean => {
    const [first] = statements.all<RegistrationRow>("registrationsOf", args.group)
    if (first === undefined || first.last_used_at >= (args.unusedSince ?? Infinity)) return false
    statements.run("removeStates", args.group)
    statements.run("removeParts", args.group)
    statements.run("removeRegistrations", args.group)
    return true
  },

  /**
   * Compare and set; a revision of 0 means that there was no state. A part that is `whole` takes the place of all
   * that was written before; others say what changed.
   */
  save: (args: {
    readonly group: string
    readonly topic: string
    readonly revision: number
    readonly part: string
    readonly whole: boolean
  }): "saved" | "changed" | "no_group" => {
    const { group, part, revision, topic, whole } = args
    if (statements.get("isRegistered", group) === undefined) return "no_group"
    if (revision === 0) return addState(statements, group, topic, part) ? "saved" : "changed"
    if (statements.run("reviseState", group, topic, revision) === 0) return "changed"
    statements.run("addPart", group, topic, revision + 1, part)
    if (whole) statements.run("removePartsBefore", group, topic, revision + 1)
    return "saved"
  }
})
