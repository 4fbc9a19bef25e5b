/** A page of what the caller may see, out of a list that holds more: full where there is enough. */
import * as Effect from "effect/Effect"
import type { Page } from "../../services/Page.ts"

/** Items of a look into the list that follows one which was not enough. */
const scanSize = 1_000

export const visiblePage = <A, B, E, R>(list: {
  readonly read: (page: { readonly after?: string; readonly limit: number }) => Effect.Effect<Page<A>, E, R>
  readonly nameOf: (item: A) => string
  /** What is shown of an item; nothing hides it. */
  readonly show: (item: A) => B | undefined
  readonly after: string | undefined
  readonly limit: number
}): Effect.Effect<{ readonly found: ReadonlyArray<B>; readonly next: string | null }, E, R> =>
  Effect.gen(function* () {
    const found: Array<B> = []
    let last: string | undefined
    let next = list.after
    // Mostly one look is enough. Where much is hidden, the next ones are long.
    let size = list.limit + 1
    do {
      const page = yield* list.read({ limit: size, ...(next === undefined ? {} : { after: next }) })
      for (const item of page.items) {
        const shown = list.show(item)
        if (shown === undefined) continue
        if (found.length === list.limit) return { found, next: last ?? null }
        found.push(shown)
        last = list.nameOf(item)
      }
      next = page.next
      size = scanSize
    } while (next !== undefined)
    return { found, next: null }
  })
