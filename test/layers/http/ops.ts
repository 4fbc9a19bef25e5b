/** Asks an ops server. */
import { request as rawRequest } from "node:http"
import { expect } from "vitest"
import type { HubProcess } from "../../support/HubProcess.ts"
import { tokenFor, type TokenOptions } from "../../support/tokens.ts"

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly type: string | null
  readonly text: string
  /** What the text is as JSON. */
  readonly json: unknown
}

const answerOf = async (response: Response): Promise<Answer> => {
  const text = await response.text()
  const type = response.headers.get("content-type")
  const json: unknown = /[/+]json\b/.test(type ?? "") && text !== "" ? JSON.parse(text) : undefined
  return { status: response.status, headers: response.headers, type, text, json }
}

/** Without a token, or with the headers that are given. */
export const ask = async (hub: Pick<HubProcess, "ops">, path: string, init?: RequestInit): Promise<Answer> =>
  answerOf(await fetch(hub.ops + path, init))

/** With a token; one for everything, unless it is said otherwise. */
export const askAs = async (
  hub: Pick<HubProcess, "ops">,
  token: string | TokenOptions,
  path: string,
  init: RequestInit = {}
): Promise<Answer> => {
  const bearer = typeof token === "string" ? token : await tokenFor(token)
  return ask(hub, path, { ...init, headers: { ...init.headers, authorization: `Bearer ${bearer}` } })
}

/** A body of JSON. */
export const json = (body: unknown): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body)
})

/** What a 200 with JSON says. */
export const read = async (
  hub: Pick<HubProcess, "ops">,
  path: string,
  token: TokenOptions = {}
): Promise<unknown> => {
  const answer = await askAs(hub, token, path)
  expect([path, answer.status, answer.type]).toEqual([path, 200, "application/json"])
  return answer.json
}

/** A path, headers and a method as they are, which `fetch` would tidy or refuse. */
export const askRaw = (
  hub: Pick<HubProcess, "ops">,
  path: string,
  headers: Readonly<Record<string, string>> = {},
  method = "GET"
): Promise<{ readonly status: number | undefined; readonly headers: NodeJS.Dict<string | string[]> }> =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(hub.ops)
    rawRequest({ hostname, port, path, headers, method }, (response) => {
      response.resume()
      response.on("end", () => resolve({ status: response.statusCode, headers: response.headers }))
    })
      .on("error", reject)
      .end()
  })

/** RFC 9457: a problem document says its status, its title, and what was wrong. */
export const expectProblem = (answer: Answer, status: number, detail: RegExp): void => {
  expect({ status: answer.status, type: answer.type }).toEqual({ status, type: "application/problem+json" })
  expect(answer.json).toEqual({
    type: "about:blank",
    status,
    title: expect.stringMatching(/^[A-Z]/) as string,
    detail: expect.stringMatching(detail) as string
  })
}
