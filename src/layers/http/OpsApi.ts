/** The contract of the ops HTTP API: paths, parameters, answers, errors. Each group of endpoints has a file of its own. */
import { HttpApi, OpenApi } from "effect/http-api"
import { Groups } from "./GroupsApi.ts"
import { Health } from "./HealthApi.ts"
import { Log } from "./LogApi.ts"
import { Problems } from "./OpsContract.ts"
import { Outboxes } from "./OutboxApi.ts"
import { Policies } from "./PolicyApi.ts"
import { Reads } from "./ReadsApi.ts"
import { describeBodies } from "./requestBodies.ts"
import { RevocationList } from "./RevocationsApi.ts"
import { Standings } from "./StandingApi.ts"

export class OpsApi extends HttpApi.make("event-hub")
  .add(Reads)
  .add(Log)
  .add(Groups)
  .add(Outboxes)
  .add(Policies)
  .add(RevocationList)
  .add(Standings)
  .add(Health)
  .middleware(Problems)
  .annotateMerge(
    OpenApi.annotations({ title: "event-hub ops API", version: "1", transform: describeBodies })
  ) {}
