/**
 * What the connections of a gateway have of the hub around them; what a session asks is a part of it.
 */
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { Claims } from "../../domain/Claims.ts"
import type * as Session from "../../domain/Session.ts"
import type { AccessControl } from "../../services/AccessControl.ts"
import type { Appender } from "../../services/Appender.ts"
import type { EventTraces } from "../../services/EventTraces.ts"
import type { GroupDelivery } from "../../services/GroupDelivery.ts"
import type { LiveFeed } from "../../services/LiveFeed.ts"
import type { TokenVerifier } from "../../services/TokenVerifier.ts"
import type * as metrics from "../core/metrics.ts"
import type { Intake } from "./Intake.ts"
import type { Strangers } from "./Strangers.ts"

export interface GatewayContext extends Session.SessionContext {
  readonly verifier: TokenVerifier["Service"]
  readonly access: AccessControl["Service"]
  readonly appender: Appender["Service"]
  readonly feed: LiveFeed["Service"]
  readonly groups: GroupDelivery["Service"]
  readonly intake: Intake
  readonly strangers: Strangers
  readonly defaultCredit: number
  readonly recorder: metrics.Recorder
  /** How long publishes take. */
  readonly published: metrics.Distribution
  readonly liveDeliveries: metrics.Count
  readonly traces: EventTraces | undefined
  /** Of a clock that nobody sets. */
  readonly seconds: () => number
  readonly now: () => number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  /** A token may be revoked between its verification and what comes of it. */
  readonly isRevoked: (claims: Claims) => boolean
  /** A message was forbidden. */
  readonly denied: (denial: Session.Denial, sub: string) => void
}
