/**
 * Consumer groups that nobody uses: they hold back what would be forgotten, for somebody who may never come back.
 *
 * Groups with members here are marked as used in each look, whether or not something is delivered to them. The others
 * are told to whoever runs the hub, and removed only when that is asked for.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { RetentionSettings } from "../../domain/Settings.ts"
import type { GroupDelivery } from "../../services/GroupDelivery.ts"
import type { GroupStore } from "../../services/GroupStore.ts"
import type { UnusedGroup } from "../../services/Retention.ts"
import type { StoreUnavailable } from "../../services/StoreUnavailable.ts"

export interface GroupUse {
  readonly unused: ReadonlyArray<UnusedGroup>
  readonly expired: ReadonlyArray<UnusedGroup>
}

/** The most names in one line of the log, and entries in each list of a report. */
export const maxListed = 1_000

/** Who was told about a group is not told again for so long. */
const toldForMs = 24 * 60 * 60 * 1_000

const namesOf = (groups: ReadonlyArray<UnusedGroup>) => ({
  groups: groups.slice(0, maxListed).map(({ group }) => group),
  count: groups.length
})

export const lookAtGroups = (
  store: GroupStore["Service"],
  delivery: GroupDelivery["Service"],
  settings: RetentionSettings,
  clock: Clock.Clock
): Effect.Effect<GroupUse, StoreUnavailable> => {
  const { expireGraceMs, expireGroupMs, unusedGroupMs } = settings
  const startedAt = clock.currentTimeMillisUnsafe()
  const toldAt = new Map<string, number>()

  /** Those that are not told about yet, or not for a day. */
  const tell = (unused: ReadonlyArray<UnusedGroup>, now: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (const group of toldAt.keys()) {
        if (!unused.some((one) => one.group === group)) toldAt.delete(group)
      }
      const news = unused.filter(({ group }) => now - (toldAt.get(group) ?? -Infinity) >= toldForMs)
      for (const { group } of news) toldAt.set(group, now)
      return news.length === 0
        ? Effect.void
        : Effect.logWarning(
            "consumer groups have had no member for long; what they did not acknowledge is kept for them until they are removed",
            namesOf(news)
          )
    })

  return Effect.gen(function* () {
    const active = delivery.activeGroups()
    if (active.length > 0) yield* store.touch(active)
    const registrations = yield* store.list
    const now = clock.currentTimeMillisUnsafe()
    // Who joined meanwhile is not in the list as it was read.
    const here = new Set([...active, ...delivery.activeGroups()])
    const lastUses = new Map(registrations.map(({ group, lastUsedAt }) => [group, lastUsedAt]))
    const idle = Array.from(lastUses, ([group, lastUsedAt]) => ({ group, lastUsedAt })).filter(
      ({ group }) => !here.has(group)
    )
    const expired: Array<UnusedGroup> = []
    if (expireGroupMs !== undefined && now - startedAt >= Math.min(expireGroupMs, expireGraceMs)) {
      const unusedSince = now - expireGroupMs
      for (const one of idle) {
        if (one.lastUsedAt >= unusedSince) continue
        if (yield* store.remove(one.group, { unusedSince })) expired.push(one)
      }
      if (expired.length > 0) {
        yield* Effect.logWarning(
          "consumer groups were removed: they had no member for so long that they expired",
          namesOf(expired)
        )
      }
    }
    const unused = idle.filter((one) => one.lastUsedAt < now - unusedGroupMs && !expired.includes(one))
    yield* tell(unused, now)
    return { unused, expired }
  })
}
