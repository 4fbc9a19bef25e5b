/**
 * Which view is shown: by the fragment of the address, so that back, forward and links work. The token never stands
 * in it.
 */
import { queryOf } from "./api.ts"
import { byId, h, put, type Content } from "./dom.ts"

/** A view that is being looked at. */
export interface Visit {
  /** What stands behind the view's name. */
  readonly path: ReadonlyArray<string>
  readonly query: URLSearchParams
  /** Aborted when another view is shown. */
  readonly signal: AbortSignal
  /** The heading, and what stands beside it. The page is named after it. */
  readonly head: (title: string, ...beside: ReadonlyArray<Content>) => void
  readonly add: (...content: ReadonlyArray<Content>) => void
  /** Shows it again, as it is now. */
  readonly again: () => void
}

export type View = (visit: Visit) => void | Promise<void>

export const href = (
  path: ReadonlyArray<string>,
  query: Readonly<Record<string, string | number | null | undefined>> = {}
): string => `#/${path.map(encodeURIComponent).join("/")}${queryOf(query)}`

export const go = (to: string): void => void (location.hash = to)

/** An error in words, read out at once. */
export const trouble = (error: unknown): HTMLElement =>
  h("p", { class: "trouble", role: "alert" }, error instanceof Error ? error.message : String(error))

const decode = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** The fragment in its parts: `#/groups/mailer?after=x`. */
export const parse = (hash: string) => {
  const [path = "", ...query] = hash.replace(/^#\/?/, "").split("?")
  const [name = "", ...rest] = path.split("/").map(decode)
  return { name, path: rest, query: new URLSearchParams(query.join("?")) }
}

let current = new AbortController()
let shown: string | undefined

/** Shows the view of the address; `moved`: somebody went there, and the focus goes along. */
export const show = async (views: Readonly<Record<string, View>>, moved: boolean): Promise<void> => {
  current.abort()
  const controller = (current = new AbortController())
  const { signal } = controller
  const main = byId("view")
  const { name, path, query } = parse(location.hash)
  const place = [name, ...path].join("/")
  // Focus that would go with what it stands on goes to the same place, or to the heading.
  const takesFocus = moved || main.contains(document.activeElement)
  const focused = document.activeElement?.id ?? ""
  const isSame = shown === place
  shown = place
  main.ariaBusy = "true"
  put(main)
  for (const item of document.querySelectorAll<HTMLAnchorElement>("#places a[href^='#']")) {
    const isHere = parse(item.hash).name === name
    item.ariaCurrent = isHere ? "page" : null
    // On narrow screens the navigation is a line that is longer than the screen.
    if (isHere) byId("nav").scrollLeft = item.offsetLeft - 16
  }
  const visit: Visit = {
    path,
    query,
    signal,
    head: (title, ...beside) => {
      document.title = `${title} · event-hub`
      const heading = h("h1", { tabindex: -1 }, title)
      main.append(h("div", { class: "head" }, heading, h("div", { class: "buttons" }, ...beside)))
      if (!takesFocus) return
      heading.focus()
      if (!isSame) scrollTo(0, 0)
    },
    add: (...content) => {
      if (!signal.aborted) main.append(h("div", { class: "part" }, ...content))
    },
    again: () => {
      if (!signal.aborted) void show(views, false)
    }
  }
  try {
    const view = views[name]
    if (view === undefined) {
      visit.head("Nothing here")
      visit.add(h("p", {}, "There is no such page. ", h("a", { href: "#/" }, "Go to the overview"), "."))
    } else await view(visit)
    // Hands that were on something of this page find it there again, unless they have gone elsewhere.
    const again = isSame && focused !== "" ? document.getElementById(focused) : null
    if (!signal.aborted && document.activeElement?.tagName === "H1") again?.focus()
  } catch (error) {
    if (!signal.aborted) main.append(trouble(error))
  } finally {
    if (!signal.aborted) main.ariaBusy = null
  }
}

/** The way to the next page of a list, and back to its first. */
export const pages = (
  path: ReadonlyArray<string>,
  query: Readonly<Record<string, string | undefined>>,
  next: string | number | null
): HTMLElement | undefined => {
  const isFirst = query["after"] === undefined || query["after"] === ""
  if (isFirst && next === null) return undefined
  return h(
    "nav",
    { class: "pages", "aria-label": "Pages" },
    !isFirst && h("a", { href: href(path, { ...query, after: undefined }), id: "first" }, "First page"),
    next !== null && h("a", { href: href(path, { ...query, after: next }), id: "next" }, "Next page")
  )
}
