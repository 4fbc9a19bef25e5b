#!/usr/bin/env node
/** The `event-hub` command. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { CliError, Command } from "effect/cli"
import { runProcess } from "../hub/process.ts"
import { serve } from "../hub/serve.ts"
import packageJson from "../../package.json" with { type: "json" }
import { exportCommand } from "./export.ts"
import { importCommand } from "./import.ts"
import { policy } from "./policy.ts"
import { token } from "./token.ts"

const serveCommand = Command.make("serve", {}, () => serve(process.env)).pipe(
  Command.withDescription("Run a hub, configured by the environment (docs/configuration.md)"),
  Command.withExamples([
    { command: "event-hub serve", description: "A hub on ./data/hub.db" },
    {
      command: "HUB_STORE=memory: event-hub serve",
      description: "A hub that forgets everything when it ends"
    }
  ])
)

const eventHub = Command.make("event-hub").pipe(
  Command.withDescription("A transactional outbox, a durable event log and a WebSocket gateway"),
  Command.withSubcommands([serveCommand, token, policy, exportCommand, importCommand])
)

runProcess(
  eventHub.pipe(
    Command.run({ version: packageJson.version }),
    // What was wrong with the command line is on the screen already.
    Effect.catchIf(CliError.isCliError, () => Effect.sync(() => void (process.exitCode = 1))),
    Effect.provide(NodeServices.layer)
  )
)
