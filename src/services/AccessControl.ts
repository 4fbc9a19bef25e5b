/**
 * Who may do what, decided from claims alone and asked again for every event on its way out.
 *
 * Plain functions: a decision has no effect, and there is one for every delivery.
 */
import * as Context from "effect/Context"
import type * as Stream from "effect/Stream"
import type { Claims } from "../domain/Claims.ts"
import type { Decision, Policy, Request, SubscriptionRequest } from "../domain/Policy.ts"

export class AccessControl extends Context.Service<
  AccessControl,
  {
    /** What holds for these claims now: the rules that they carry, and those of the roles that they name. */
    readonly policyOf: (claims: Claims) => Policy
    /** Its decisions may be others from now on: whoever holds a subscription asks again. */
    readonly changes: Stream.Stream<void>
    /** About one concrete topic: a publish, an event to deliver, a change to make. */
    readonly decide: (claims: Claims, request: Request) => Decision
    /** About a pattern that somebody wants to subscribe. */
    readonly decideSubscription: (claims: Claims, request: SubscriptionRequest) => Decision
    /** About a change to all topics of a pattern, such as one to a group that takes them. */
    readonly decideAdministration: (claims: Claims, pattern: string) => Decision
  }
>()("event-hub/services/AccessControl") {}
