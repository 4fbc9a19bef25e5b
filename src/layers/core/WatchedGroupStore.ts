/** The GroupStore, which also tells what this hub writes to it. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type GroupChange, GroupStore } from "../../services/GroupStore.ts"
import { GroupWrites } from "../../services/GroupWrites.ts"

type Listener = (change: GroupChange) => void

const make = Effect.gen(function* () {
  const store = yield* GroupStore
  const listeners = new Set<Listener>()

  /** Also of what failed nobody knows whether it was written. */
  const thenTell = <A, E>(
    effect: Effect.Effect<A, E>,
    change: () => GroupChange | undefined
  ): Effect.Effect<A, E> =>
    Effect.ensuring(
      effect,
      Effect.sync(() => {
        const written = change()
        if (written !== undefined) for (const listener of listeners) listener(written)
      })
    )

  const modify: GroupStore["Service"]["modify"] = (at, f) =>
    Effect.suspend(() => {
      let isChanged = false
      const change = store.modify(at, (state, now) => {
        const answer = f(state, now)
        isChanged = answer[1] !== state
        return answer
      })
      return thenTell(change, () => (isChanged ? at : undefined))
    })

  const watched = GroupStore.of({
    ...store,
    modify,
    // Who is registered is listed: whoever joins a group that there is changes nothing of it.
    remove: (group, condition) =>
      thenTell(store.remove(group, condition), () => ({ group, topic: undefined }))
  })

  return Context.make(GroupStore, watched).pipe(
    Context.add(
      GroupWrites,
      GroupWrites.of({
        onWritten: (listener) =>
          Effect.acquireRelease(
            Effect.sync(() => void listeners.add(listener)),
            () => Effect.sync(() => void listeners.delete(listener))
          )
      })
    )
  )
})

export const layer: Layer.Layer<GroupStore | GroupWrites, never, GroupStore> = Layer.effectContext(make)
