/**
 * A hub's program as a process: SIGTERM and SIGINT end it in good order with exit code 0, whatever hangs; a
 * start that fails says why in one line and ends it with another code.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"

/** Everything that is acknowledged is on disk by then, so ending it here loses nothing. */
const hardLimitMs = 4_500

const interrupted = 130

const endInTime = (): void => {
  const limit = setTimeout(() => {
    process.stderr.write("event-hub: stopping took too long, so it ends here\n")
    process.exit(0)
  }, hardLimitMs)
  limit.unref()
}

/** What is expected is said in one line; a bug with all there is to find it by. */
const describe = (cause: Cause.Cause<{ readonly message: string }>): string =>
  Option.match(Cause.findErrorOption(cause), {
    onSome: (error) => error.message.replaceAll(/\s*\n\s*/g, " "),
    onNone: () => Cause.pretty(cause)
  })

export const runProcess = <E extends { readonly message: string }>(
  program: Effect.Effect<unknown, E>
): void => {
  process.once("SIGTERM", endInTime)
  process.once("SIGINT", endInTime)
  NodeRuntime.runMain(
    Effect.tapCause(program, (cause) =>
      Effect.sync(() => {
        if (!Cause.hasInterruptsOnly(cause)) process.stderr.write(`event-hub: ${describe(cause)}\n`)
      })
    ),
    {
      disableErrorReporting: true,
      teardown: (exit, onExit) =>
        Runtime.defaultTeardown(exit, (code) => onExit(code === interrupted ? 0 : code))
    }
  )
}
