/** What the page asks the hub by HTTP: first loads, and changes. The token stays in memory. */

/** Why the hub did not do it, and what to do. */
export class Problem extends Error {
  readonly status: number
  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

let token = ""
let onRefused: (why: string) => void = () => {}

/** A right is asked for once. */
let known = new Map<string, Promise<boolean>>()

export const useToken = (now: string, whenRefused: (why: string) => void): void => {
  token = now
  onRefused = whenRefused
  known = new Map()
}

const advice: Readonly<Record<number, string>> = {
  403: "Ask whoever makes the tokens for this right.",
  404: "It may have been removed meanwhile.",
  409: "Look at it again, and try once more.",
  503: "Try again in a moment."
}

const problemOf = async (answer: Response): Promise<Problem> => {
  let detail = ""
  try {
    detail = String(((await answer.json()) as { readonly detail?: unknown }).detail ?? "")
  } catch {
    detail = `the hub answered ${answer.status} ${answer.statusText}`
  }
  const { status } = answer
  if (status === 401) onRefused(detail)
  const what = detail.charAt(0).toUpperCase() + detail.slice(1)
  return new Problem(status, `${what}. ${advice[status] ?? ""}`.trim())
}

type Value = string | number | boolean | null | undefined

/** Query parameters that are given; what is empty is none. */
export const queryOf = (query: Readonly<Record<string, Value>>): string => {
  const given = Object.entries(query).filter(
    ([, value]) => value !== undefined && value !== null && value !== ""
  )
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString()
  return text === "" ? "" : `?${text}`
}

const ask = async <T>(path: string, init: RequestInit): Promise<T> => {
  let answer: Response
  try {
    answer = await fetch(path, {
      ...init,
      headers: {
        authorization: `Bearer ${token}`,
        ...(init.body === undefined ? {} : { "content-type": "application/json" })
      }
    })
  } catch (error) {
    if (init.signal?.aborted) throw error
    throw new Problem(0, "The hub does not answer. See whether it runs and can be reached, and try again.")
  }
  if (!answer.ok) throw await problemOf(answer)
  // It comes from the hub that the page came from, of the same version.
  return (await answer.json()) as T
}

export const get = <T>(
  path: string,
  query: Readonly<Record<string, Value>> = {},
  signal: AbortSignal | null = null
): Promise<T> => ask<T>(path + queryOf(query), { signal })

export const post = <T>(path: string, body: object): Promise<T> =>
  ask<T>(path, { method: "POST", body: JSON.stringify(body) })

export const remove = <T>(path: string, query: Readonly<Record<string, Value>>): Promise<T> =>
  ask<T>(path + queryOf(query), { method: "DELETE" })

export interface Explained {
  readonly allowed: boolean
  readonly reason: string
  readonly rule: number | null
  readonly rules: ReadonlyArray<{
    readonly n: number
    readonly text: string
    readonly decides: boolean
    readonly why: string
  }>
}

export type Action = "publish" | "subscribe" | "admin"

/** Whether the token has a right. Where nobody can say now, the hub's answer to the thing itself will. */
export const can = (action: Action, topic: string): Promise<boolean> => {
  const key = `${action}:${topic}`
  let answer = known.get(key)
  if (answer === undefined) {
    answer = get<Explained>("/policy/explain", { action, topic }).then(
      ({ allowed }) => allowed,
      () => {
        known.delete(key)
        return true
      }
    )
    known.set(key, answer)
  }
  return answer
}

export const canAll = async (action: Action, topics: ReadonlyArray<string>): Promise<boolean> =>
  (await Promise.all(topics.map((topic) => can(action, topic)))).every(Boolean)

// --- what it answers -----------------------------------------------------------------------------------------

export interface TopicInfo {
  readonly topic: string
  readonly head: number
  readonly floor: number
  readonly storedAt: number
}

export interface GroupInfo {
  readonly group: string
  readonly patterns: ReadonlyArray<string>
  readonly options: {
    readonly ackTimeoutMs: number
    readonly maxAttempts: number
    readonly keyOrdered: boolean
  }
  readonly registeredAt: number
  readonly lastUsedAt: number
  readonly paused: boolean
  readonly sameHistory: boolean
  readonly unused: boolean
  readonly active: boolean
  /** These only in the list; `null` where the token may not see all that the group takes. */
  readonly pending?: number | null
  readonly inFlight?: number | null
  readonly topicsBehind?: number | null
  readonly members?: number
}

export interface GroupPosition {
  readonly topic: string
  readonly seq: number
  readonly head: number
  readonly pending: number
  readonly inFlight: number
}

export interface Behind extends GroupPosition {
  readonly group: string
  readonly lagMs: number
}

export interface Growing {
  readonly topic: string
  readonly eventsPerSecond: number
  readonly bytesPerSecond: number
  readonly head: number
}

export interface ConnectionInfo {
  readonly id: string
  readonly sub: string | null
  readonly openedAt: number
  readonly subscriptions: number
  readonly outboundBytes: number
  readonly behind: number
  readonly delivered: number
  /** Since when events are held back for it. */
  readonly slowSince: number | null
}
