/** What comes later, or not at all: promises of others, schemas that take their time, and signals. */
import { InvalidPayload } from "./HubError.ts"
import type { StandardResult, StandardSchema } from "./topics.ts"

/** Whether there is something to wait for. What a handler returns need be no promise of this realm. */
export const isPending = (value: unknown): value is PromiseLike<unknown> =>
  typeof value === "object" && value !== null && "then" in value && typeof value.then === "function"

/** What the payload stands for by its schema; fails with `InvalidPayload`, also when the schema throws. */
export const parse = async (schema: StandardSchema, topic: string, payload: unknown): Promise<unknown> => {
  let result: StandardResult<unknown>
  try {
    result = await schema["~standard"].validate(payload)
  } catch (error) {
    result = { issues: [{ message: String(error) }] }
  }
  if (result.issues) throw new InvalidPayload(topic, result.issues)
  return result.value
}

/** Calls `run` with the reason when it is aborted, now or later; gives what stops listening. */
export const onAbort = (signal: AbortSignal | undefined, run: (reason: unknown) => void): (() => void) => {
  const listener = () => run(signal?.reason)
  if (signal?.aborted) listener()
  else signal?.addEventListener("abort", listener)
  return () => signal?.removeEventListener("abort", listener)
}

export const ignore = (): void => {}

/** Need not be awaited: who does not, does not want to know. */
export const quiet = <A>(promise: Promise<A>): Promise<A> => {
  promise.catch(ignore)
  return promise
}
