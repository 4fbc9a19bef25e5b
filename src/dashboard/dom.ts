/**
 * Makes what the page shows: elements, times, and a list of rows that are changed in place.
 *
 * Whatever is in an event is text: nothing here takes markup.
 */

export type Content = Node | string | number | false | null | undefined | ReadonlyArray<Content>

type Prop = string | number | boolean | undefined | ((event: Event) => void)

const nodesOf = (content: ReadonlyArray<Content>): ReadonlyArray<Node | string> =>
  content.flatMap((one): ReadonlyArray<Node | string> => {
    if (one === false || one === null || one === undefined) return []
    if (typeof one === "number") return [String(one)]
    return typeof one === "string" || one instanceof Node ? [one] : nodesOf(one)
  })

/** An element. `on…` is a listener, `true` an attribute without a value, `false` and `undefined` none. */
export const h = <K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Readonly<Record<string, Prop>> = {},
  ...content: ReadonlyArray<Content>
): HTMLElementTagNameMap[K] => {
  const made = document.createElement(tag)
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value)
    else if (value !== false && value !== undefined)
      made.setAttribute(name, value === true ? "" : String(value))
  }
  made.append(...nodesOf(content))
  return made
}

export const put = (parent: Element, ...content: ReadonlyArray<Content>): void =>
  parent.replaceChildren(...nodesOf(content))

export const byId = (id: string): HTMLElement => {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`the page has no '${id}'`)
  return found
}

export const button = (text: string, onclick: () => unknown, props: Readonly<Record<string, Prop>> = {}) =>
  h("button", { type: "button", onclick: () => void onclick(), ...props }, text)

export const link = (text: string, href: string, props: Readonly<Record<string, Prop>> = {}) =>
  h("a", { href, ...props }, text)

export const quiet = (...content: ReadonlyArray<Content>) => h("p", { class: "quiet" }, ...content)

/** One thing of a closed set, by a word and a colour. */
export const badge = (text: string, kind: "good" | "busy" | "bad" | "" = "") =>
  h("span", { class: `badge ${kind}` }, text)

/** A labelled control. */
export const field = (label: string, control: HTMLElement, kind = "") =>
  h("label", { class: kind }, kind === "check" ? [control, label] : [h("span", {}, label), control])

export const input = (props: Readonly<Record<string, Prop>>): HTMLInputElement =>
  h("input", { autocomplete: "off", autocapitalize: "none", spellcheck: "false", ...props })

export const select = (options: Readonly<Record<string, string>>, value: string, props = {}) =>
  h(
    "select",
    props,
    Object.entries(options).map(([name, text]) =>
      h("option", { value: name, selected: name === value }, text)
    )
  )

/** A form that the page handles itself. */
export const form = (
  props: Readonly<Record<string, Prop>>,
  onsubmit: () => unknown,
  ...content: ReadonlyArray<Content>
) =>
  h(
    "form",
    {
      ...props,
      onsubmit: (event) => {
        event.preventDefault()
        void onsubmit()
      }
    },
    ...content
  )

/** Name and value, one under the other. */
export const facts = (pairs: ReadonlyArray<readonly [string, Content]>) =>
  h(
    "dl",
    { class: "facts" },
    pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))
  )

export const section = (title: string, ...content: ReadonlyArray<Content>) => {
  const id = `s-${title.toLowerCase().replace(/\W+/g, "-")}`
  return h("section", { "aria-labelledby": id }, h("h2", { id }, title), ...content)
}

export const json = (value: unknown): string => JSON.stringify(value, null, 2) ?? ""

// --- figures -------------------------------------------------------------------------------------------------

const numbers = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 })

export const count = (n: number): string => numbers.format(n)
export const short = (n: number): string => (n < 10_000 ? count(n) : compact.format(n))

/** `1 event`, `2 events`. */
export const many = (n: number, one: string, more = `${one}s`): string =>
  `${count(n)} ${n === 1 ? one : more}`

export const bytes = (n: number): string => {
  const at = n < 1_000 ? 0 : Math.min(3, Math.floor(Math.log10(n) / 3))
  return `${count(n / 1_000 ** at)} ${["B", "kB", "MB", "GB"][at]}`
}

const units = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1_000, "s"]
] as const

/** In the largest unit that fits, and the one below it. */
export const duration = (ms: number, parts = 2): string => {
  const at = units.findIndex(([size]) => ms >= size)
  if (at === -1) return `${count(ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms))} ms`
  let rest = ms
  return units
    .slice(at, at + parts)
    .flatMap(([size, name]) => {
      const n = Math.floor(rest / size)
      rest -= n * size
      return n === 0 ? [] : [`${n} ${name}`]
    })
    .join(" ")
}

/** How far the hub's clock is ahead of this one. */
let skew = 0
export const setHubTime = (now: number): void => void (skew = now - Date.now())
export const hubNow = (): number => Date.now() + skew

const sayAgo = (at: number): string => {
  const ms = hubNow() - at
  return ms < -1_000 ? `in ${duration(-ms, 1)}` : ms < 1_000 ? "now" : `${duration(ms, 1)} ago`
}

/** A time, by how long ago it is; it is kept up to date while it is shown. */
export const ago = (at: number | null | undefined): Content =>
  at === null || at === undefined
    ? "–"
    : h(
        "time",
        { datetime: new Date(at).toISOString(), title: new Date(at).toISOString(), "data-at": at },
        sayAgo(at)
      )

setInterval(() => {
  for (const time of document.querySelectorAll<HTMLElement>("time[data-at]")) {
    const text = sayAgo(Number(time.dataset["at"]))
    if (time.textContent !== text) time.textContent = text
  }
}, 1_000)

const clockFormat = new Intl.DateTimeFormat("en", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23"
})

export const clock = (at: number): string => clockFormat.format(new Date(at))

// --- rows ----------------------------------------------------------------------------------------------------

export interface Column<T> {
  readonly head: string
  readonly cell: (item: T) => Content
  /** `num`: to the right; `mono`: as code; `wide`: takes what is left; `opt`: not on narrow screens. */
  readonly kind?: string
}

export interface Rows<T> {
  readonly element: HTMLElement
  readonly items: ReadonlyMap<string, T>
  /** These, in this order. Rows that are there already stay, and their cells change where they differ. */
  readonly show: (items: ReadonlyArray<T>) => void
  /** Changes a row that is there. */
  readonly update: (key: string, change: (item: T) => T) => void
}

export const rows = <T>(options: {
  readonly caption: string
  readonly columns: ReadonlyArray<Column<T>>
  readonly keyOf: (item: T) => string
  /** What it means that there are none, and what to do. */
  readonly empty: Content
}): Rows<T> => {
  const { caption, columns, empty, keyOf } = options
  const made = new Map<string, HTMLTableRowElement>()
  let items = new Map<string, T>()
  const body = h("tbody")
  const table = h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 },
    h(
      "table",
      {},
      h("caption", {}, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map(({ head, kind }) => h("th", { scope: "col", class: kind }, head))
        )
      ),
      body
    )
  )
  const none = h("div", { class: "empty" }, quiet("Counting …"))
  const element = h("div", {}, table, none)
  table.hidden = true

  const fill = (row: HTMLTableRowElement, item: T): void =>
    columns.forEach(({ cell, kind }, i) => {
      const content = nodesOf([cell(item)])
      const text = content.map((one) => (typeof one === "string" ? one : one.textContent)).join("")
      const old = row.children[i]
      // A cell with something to press is never taken away from under the hand that presses.
      if (old === undefined) row.append(h("td", { class: kind }, content))
      else if (old.textContent !== text) old.replaceChildren(...content)
    })

  const rowOf = (item: T): HTMLTableRowElement => {
    const key = keyOf(item)
    const row = made.get(key) ?? h("tr")
    made.set(key, row)
    fill(row, item)
    return row
  }

  return {
    element,
    get items() {
      return items
    },
    show: (now) => {
      items = new Map(now.map((item) => [keyOf(item), item]))
      for (const key of made.keys()) if (!items.has(key)) made.delete(key)
      const wanted = now.map(rowOf)
      if (wanted.length !== body.children.length || wanted.some((row, i) => body.children[i] !== row)) {
        body.replaceChildren(...wanted)
      }
      table.hidden = now.length === 0
      put(none, now.length === 0 && empty)
    },
    update: (key, change) => {
      const item = items.get(key)
      const row = made.get(key)
      if (item === undefined || row === undefined) return
      const changed = change(item)
      items.set(key, changed)
      fill(row, changed)
    }
  }
}
