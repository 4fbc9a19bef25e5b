/**
 * All keys of the topic with their latest value, page by page, from `GET /latest-by-key`.
 *
 * While pages are read, events go on. So the seq to go on from is that of the first page, and what a later page
 * holds may be newer than that: each value comes with its own seq, which tells whether an event is news for its key.
 */
import * as v from "valibot"
import { ProcessState, topic } from "./topics.ts"

const Page = v.object({
  seq: v.number(),
  items: v.array(v.object({ key: v.string(), seq: v.number(), payload: v.unknown() })),
  next: v.nullable(v.string())
})

const Problem = v.object({ detail: v.string() })

export interface Latest {
  /** A live subscription goes on behind it, without a hole. */
  readonly seq: number
  readonly items: ReadonlyArray<{ readonly key: string; readonly seq: number; readonly state: ProcessState }>
  /** Values of others, which are no process states. */
  readonly refused: number
}

/** The ops server refused. */
export class Refused extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }

  /** The same may succeed later. */
  get isRetryable(): boolean {
    return this.status >= 500 || this.status === 429
  }
}

export interface Source {
  /** Where `/latest-by-key` is. */
  readonly base: string
  readonly token: string
  readonly limit?: number
}

export const readLatest = async ({ base, limit = 500, token }: Source): Promise<Latest> => {
  const items: Array<Latest["items"][number]> = []
  let seq: number | undefined
  let refused = 0
  let after: string | null = null
  do {
    const url = new URL("/latest-by-key", base)
    url.searchParams.set("topic", topic)
    url.searchParams.set("limit", String(limit))
    if (after !== null) url.searchParams.set("after", after)
    const response = await fetch(url, {
      headers: { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(10_000)
    })
    // Nobody has published anything yet.
    if (response.status === 404) break
    if (!response.ok) {
      const problem = v.safeParse(Problem, await response.json().catch(() => undefined))
      throw new Refused(response.status, problem.success ? problem.output.detail : `HTTP ${response.status}`)
    }
    const page = v.parse(Page, await response.json())
    seq ??= page.seq
    for (const { key, payload, seq } of page.items) {
      const { output: state, success } = v.safeParse(ProcessState, payload)
      if (success) items.push({ key, seq, state })
      else refused++
    }
    after = page.next
  } while (after !== null)
  return { seq: seq ?? 0, items, refused }
}
