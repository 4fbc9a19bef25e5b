/** Who collects the traces of a hub, and how it is told of them. */
import type * as Redacted from "effect/Redacted"
import type { TraceSettings } from "../../domain/Settings.ts"

export interface Receiver extends TraceSettings {
  /** Where spans are posted to. */
  readonly endpoint: string
  /** They may hold what nobody else should see. */
  readonly headers: Redacted.Redacted<Readonly<Record<string, string>>>
  /** What else is said of the service that the spans are of. */
  readonly resource: Readonly<Record<string, string>>
}
