/** Writes to the consumer groups. They run in the writer's transaction. */
import type { Statements } from "./statements.ts"

export interface RegistrationRow {
  readonly pattern: string
  readonly options: string
  readonly registered_at: number
  readonly history: string
}

export const groupCommands = (statements: Statements) => ({
  /** Adds a registration unless it stands, and answers all of the group as they stand then. */
  register: (args: {
    readonly group: string
    readonly pattern: string
    readonly options: string
    /** The options that the caller saw registered; none: it saw no group. */
    readonly seen: string | undefined
    readonly now: number
    readonly history: string
    readonly states: ReadonlyArray<readonly [topic: string, state: string]>
  }): ReadonlyArray<RegistrationRow> => {
    const before = statements.all<RegistrationRow>("registrationsOf", args.group)
    // Somebody registered, or removed, since the caller looked: it has to look again.
    if (before[0]?.options !== args.seen) return before
    if (before.some((row) => row.pattern === args.pattern)) return before
    statements.run("addRegistration", args.group, args.pattern, args.options, args.now, args.history)
    for (const [topic, state] of args.states) statements.run("addState", args.group, topic, state)
    return statements.all<RegistrationRow>("registrationsOf", args.group)
  },

  remove: (args: { readonly group: string }): boolean => {
    statements.run("removeStates", args.group)
    return statements.run("removeRegistrations", args.group) > 0
  },

  /** Compare and set; a revision of 0 means that there was no state. */
  save: (args: {
    readonly group: string
    readonly topic: string
    readonly revision: number
    readonly state: string
  }): "saved" | "changed" | "no_group" => {
    if (statements.get("isRegistered", args.group) === undefined) return "no_group"
    const changed =
      args.revision === 0
        ? statements.run("addState", args.group, args.topic, args.state)
        : statements.run("setState", args.state, args.group, args.topic, args.revision)
    return changed === 1 ? "saved" : "changed"
  }
})
