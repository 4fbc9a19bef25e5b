/** What the verbs that ask a running hub have in common: where it is, who asks, and what people are told meanwhile. */
import { once } from "node:events"
import { type IncomingMessage, request as httpRequest } from "node:http"
import { request as httpsRequest } from "node:https"
import type { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Flag } from "effect/cli"

/** It was not done; the message says why, and what to do. */
export class CannotDo extends Schema.TaggedError<CannotDo>()("CannotDo", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

export const remoteFlags = {
  url: Flag.String("url").pipe(
    Flag.withMetavar("url"),
    Flag.withDescription("The hub's ops server (default: HUB_OPS_URL, or http://127.0.0.1:8082)"),
    Flag.optional
  ),
  token: Flag.String("token").pipe(
    Flag.withMetavar("token"),
    Flag.withDescription("A bearer token (default: HUB_TOKEN, which other users of the machine do not see)"),
    Flag.optional
  ),
  silent: Flag.Boolean("silent").pipe(
    Flag.withAlias("s"),
    Flag.withDescription("Say nothing about the progress"),
    Flag.withDefault(false)
  )
}

export interface Remote {
  readonly url: string
  readonly token: string
}

const defaultUrl = "http://127.0.0.1:8082"

export const remoteOf = (
  flags: { readonly url: Option.Option<string>; readonly token: Option.Option<string> },
  env: Readonly<Record<string, string | undefined>>
): Effect.Effect<Remote, CannotDo> =>
  Effect.suspend(() => {
    const given = (name: string): string | undefined => env[name]?.trim() || undefined
    const url = Option.getOrUndefined(flags.url) ?? given("HUB_OPS_URL") ?? defaultUrl
    const token = Option.getOrUndefined(flags.token) ?? given("HUB_TOKEN")
    if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
      return Effect.fail(
        new CannotDo({ reason: `'${url}' is no URL of an ops server, such as ${defaultUrl}` })
      )
    }
    if (token === undefined) {
      return Effect.fail(new CannotDo({ reason: "HUB_TOKEN is not set: a hub answers to a token only" }))
    }
    return Effect.succeed({ url: url.replace(/\/+$/, ""), token })
  })

export interface Asked {
  readonly method?: "GET" | "POST"
  readonly path: string
  readonly query?: Readonly<Record<string, string | undefined>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Readable
}

const textOf = async (answer: IncomingMessage): Promise<string> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of answer) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

/** What an error says for people: the detail of a problem document (RFC 9457), or what there is. */
const problemOf = async (answer: IncomingMessage): Promise<string> => {
  const text = await textOf(answer)
  try {
    const { detail } = JSON.parse(text) as { readonly detail?: unknown }
    if (typeof detail === "string") return detail
  } catch {
    // It is no problem document.
  }
  return text.slice(0, 200)
}

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? String(error.code) : String(error)

/** The answer of a hub, whose body is still to come. Anything but a success says why. */
export const ask = async (
  { token, url }: Remote,
  asked: Asked,
  signal: AbortSignal
): Promise<IncomingMessage> => {
  const at = new URL(url + asked.path)
  for (const [name, value] of Object.entries(asked.query ?? {})) {
    if (value !== undefined) at.searchParams.set(name, value)
  }
  const request = at.protocol === "https:" ? httpsRequest : httpRequest
  const sent = request(at, {
    method: asked.method ?? "GET",
    headers: { ...asked.headers, authorization: `Bearer ${token}` },
    signal
  })
  try {
    const answered = once(sent, "response") as Promise<[IncomingMessage]>
    // A hub may answer before it has heard everything; what it says counts then.
    const sending = asked.body === undefined ? sent.end() : pipeline(asked.body, sent)
    const [answer] = await Promise.race([
      answered,
      Promise.resolve(sending).then(
        () => answered,
        (error: unknown) => (asked.body?.errored ? Promise.reject(error as Error) : answered)
      )
    ])
    if (answer.statusCode === 200) return answer
    throw new CannotDo({ reason: `the hub refuses it (${answer.statusCode}): ${await problemOf(answer)}` })
  } catch (error) {
    if (error instanceof CannotDo) throw error
    throw new CannotDo({ reason: `no answer from ${at.origin}: ${codeOf(error)}` })
  }
}

/** Runs a promise that ends with `CannotDo`, or as a bug. */
export const attempt = <A>(run: (signal: AbortSignal) => Promise<A>): Effect.Effect<A, CannotDo> =>
  Effect.tryPromise({
    try: run,
    catch: (error) => (error instanceof CannotDo ? error : new CannotDo({ reason: codeOf(error) }))
  })

export const bodyOf = textOf

// --- progress ------------------------------------------------------------------------------------------------

const grouped = (n: number): string => Math.round(n).toLocaleString("en-US")

const width = 30

/** The time between two lines where there is no terminal, and between two looks of a bar. */
const every = { line: 10_000, bar: 100 }

export interface Progress {
  /** So much is done, of so much if that is known; in words beside the bar. */
  readonly set: (done: number, total: number | undefined, words: string) => void
  /** The bar goes away; what follows stands on a line of its own. */
  readonly end: () => void
}

const silence: Progress = { set: () => {}, end: () => {} }

const barOf = (done: number, total: number): string => {
  const part = total === 0 ? 1 : Math.min(1, done / total)
  const full = Math.round(part * width)
  return `[${"#".repeat(full)}${"-".repeat(width - full)}] ${Math.floor(part * 100)} % `
}

/** On standard error, so that standard output stays what it is for: a bar on a terminal, else a line now and then. */
export const progressOn = (
  stream: Pick<NodeJS.WriteStream, "isTTY" | "write">,
  silent: boolean,
  clock: () => number = () => performance.now()
): Progress => {
  if (silent) return silence
  let shown = 0
  let isOpen = false
  let last = clock()
  return {
    set: (done, total, words) => {
      const now = clock()
      if (now - last < (stream.isTTY ? every.bar : every.line)) return
      last = now
      if (!stream.isTTY) return void stream.write(`${words}\n`)
      const line = `${total === undefined ? "" : barOf(done, total)}${words}`
      stream.write(`\r${line.padEnd(shown)}`)
      shown = line.length
      isOpen = true
    },
    end: () => {
      if (isOpen) stream.write(`\r${" ".repeat(shown)}\r`)
      isOpen = false
    }
  }
}

/** `1,200 events, 0.4 MB, 600 events/s`. */
export const amount = (events: number, bytes: number, since: number): string => {
  const seconds = Math.max(0.001, (performance.now() - since) / 1_000)
  return `${grouped(events)} events, ${(bytes / 1e6).toFixed(1)} MB, ${grouped(events / seconds)} events/s`
}

export { grouped }
