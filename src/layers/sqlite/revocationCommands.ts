/** Writes to the revocations. They run in the writer's transaction, and with each the version grows. */
import type { Statements } from "./statements.ts"

/** The name of the version in `hub_meta`. */
export const versionName = "revocations_version"

export const revocationCommands = (statements: Statements) => {
  const changed = (): void => {
    const row = statements.get<{ readonly value: string }>("meta", versionName)
    statements.run("setMeta", versionName, String(Number(row?.value ?? 0) + 1))
  }
  const counted = (changes: number): number => {
    if (changes > 0) changed()
    return changes
  }

  return {
    add: (args: {
      readonly id: string
      readonly entry: string
      readonly until: number | undefined
    }): void => {
      counted(statements.run("addRevocation", args.id, args.entry, args.until ?? null))
    },
    remove: (args: { readonly id: string }): boolean =>
      counted(statements.run("removeRevocation", args.id)) > 0,
    prune: (args: { readonly before: number }): number =>
      counted(statements.run("pruneRevocations", args.before))
  }
}
