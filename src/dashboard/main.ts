/**
 * The page that an ops server shows at `/`: what is behind, why, since when, and what can be done about it.
 *
 * It lives from the gateway, like any other client; HTTP is for first loads and for changes. The token comes in the
 * fragment of the link, which no server sees, or by hand. It stays in memory.
 */
import { createClient, type Client } from "../client/Client.ts"
import { can, useToken } from "./api.ts"
import { ago, button, byId, field, form, h, input, link, put, setHubTime } from "./dom.ts"
import { begin, gatewayUrl } from "./live.ts"
import { href, parse, show, type View } from "./router.ts"
import { connections } from "./views/connections.ts"
import { deadLetters } from "./views/deadLetters.ts"
import { groups } from "./views/groups.ts"
import { latest } from "./views/latest.ts"
import { outbox } from "./views/outbox.ts"
import { overview } from "./views/overview.ts"
import { policy } from "./views/policy.ts"
import { setTailToken, tail } from "./views/tail.ts"
import { topics } from "./views/topics.ts"

const views: Readonly<Record<string, View>> = {
  "": overview,
  topics,
  groups,
  outbox,
  "dead-letters": deadLetters,
  live: tail,
  latest,
  connections,
  policy
}

/** What stands in the navigation, and the right without which it is left out. */
const places: ReadonlyArray<readonly [name: string, text: string, needsAdmin?: true]> = [
  ["", "Overview"],
  ["topics", "Topics"],
  ["groups", "Groups"],
  ["dead-letters", "Dead letters"],
  ["outbox", "Outbox", true],
  ["live", "Live tail"],
  ["latest", "Latest by key"],
  ["connections", "Connections", true],
  ["policy", "Policy"]
]

const state = byId("state")
const navigation = byId("nav")
const account = byId("account")

const names: Readonly<Record<Client["state"]["_tag"], string>> = {
  idle: "not connected",
  connecting: "connecting",
  ready: "connected",
  waiting: "connecting again",
  closed: "not connected"
}

let client: Client | undefined
let session = new AbortController()

const setState = (tag: Client["state"]["_tag"]): void => {
  state.dataset["state"] = tag
  state.textContent = names[tag]
}

const signOut = (why = ""): void => {
  const old = client
  client = undefined
  session.abort()
  useToken("", () => {})
  setTailToken("")
  setState("closed")
  navigation.hidden = true
  put(account)
  for (const dialog of document.querySelectorAll("dialog")) dialog.remove()
  void old?.close()
  const token = input({ id: "token", type: "password", required: true })
  void show(
    new Proxy(views, {
      get: (): View => (visit) => {
        visit.head("Sign in")
        visit.add(
          h("p", { id: "message", class: "trouble", role: "alert" }, why),
          form(
            { class: "bar" },
            () => signIn(token.value, true),
            field("Token", token),
            h("button", { class: "primary" }, "Sign in")
          ),
          h(
            "p",
            { class: "quiet" },
            "A hub without settings prints a link with a token when it starts. ",
            h("code", {}, "event-hub token"),
            " makes one. It is kept in the memory of this page and nowhere else."
          )
        )
      }
    }),
    false
  )
  token.focus()
}

/** The gateway may be out of reach where HTTP is not: then the page goes on without what is live. */
const patienceMs = 3_000

const signIn = async (token: string, byHand = false): Promise<void> => {
  session.abort()
  session = new AbortController()
  const { signal } = session
  void client?.close()
  const made = createClient({ url: gatewayUrl(), token })
  client = made
  const isCurrent = () => client === made
  made.on("error", () => {})
  made.on("state", (now) => {
    if (!isCurrent()) return
    setState(now._tag)
    if (now._tag === "ready") setHubTime(now.welcome.serverTime)
    if (now._tag === "closed") signOut(now.error?.message)
  })
  useToken(token, (why) => {
    if (isCurrent()) signOut(why)
  })
  setTailToken(token)
  try {
    const welcome = await Promise.race([
      made.connect(),
      new Promise<undefined>((resolve) => setTimeout(resolve, patienceMs, undefined))
    ])
    if (!isCurrent()) return
    const endsAt = welcome?.expiresAt ?? null
    put(
      account,
      endsAt !== null && h("span", { class: "quiet" }, "token ends ", ago(endsAt)),
      button("Sign out", () => signOut())
    )
  } catch {
    // The state has said why.
    return
  }
  begin(made, signal, can("subscribe", "$hub.stats"))
  void can("admin", "**").then((isAdmin) => {
    if (!isCurrent()) return
    put(
      byId("places"),
      places
        .filter(([, , needsAdmin]) => isAdmin || !needsAdmin)
        .map(([name, text]) =>
          h(
            "li",
            {},
            link(text, href([name]), parse(location.hash).name === name ? { "aria-current": "page" } : {})
          )
        ),
      h("li", {}, link("HTTP API", "/docs"))
    )
    navigation.hidden = false
  })
  await show(views, byHand)
}

// --- the way in ----------------------------------------------------------------------------------------------

byId("skip").addEventListener("click", (event) => {
  event.preventDefault()
  byId("view").focus()
})

addEventListener("hashchange", () => {
  if (!take() && client !== undefined) void show(views, true)
})

/** A token in the fragment, alone or beside a view's own parameters. Neither the address nor the history keeps it. */
const take = (): boolean => {
  const isPlace = location.hash.startsWith("#/")
  const { name, path, query } = parse(location.hash)
  const given = isPlace ? query : new URLSearchParams(location.hash.slice(1))
  const token = given.get("token")
  if (token === null) return false
  given.delete("token")
  history.replaceState(
    null,
    "",
    isPlace ? href([name, ...path], Object.fromEntries(given)) : location.pathname
  )
  void signIn(token)
  return true
}

if (!take()) signOut()
