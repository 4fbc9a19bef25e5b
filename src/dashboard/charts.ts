/** A figure, and how it went in the last five minutes: a line for the eyes, a sentence for who does not see it. */
import { duration, h } from "./dom.ts"

const width = 300
const height = 56

/** What is drawn at least, however little there is yet. */
const leastMs = 30_000

export interface Chart {
  readonly element: HTMLElement
  /** Points from the oldest to the newest; `null` where there is no value. */
  readonly draw: (points: ReadonlyArray<readonly [at: number, value: number | null]>, note?: string) => void
}

const svg = (name: string, attributes: Readonly<Record<string, string>>): SVGElement => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

export const chart = (title: string, format: (value: number) => string): Chart => {
  const now = h("p", { class: "now" }, "–")
  const note = h("p", { class: "note" })
  const most = h("span", { class: "most", "aria-hidden": "true" })
  const area = svg("path", { class: "area" })
  const line = svg("path", { class: "line", "vector-effect": "non-scaling-stroke" })
  const picture = svg("svg", {
    role: "img",
    viewBox: `0 0 ${width} ${height}`,
    preserveAspectRatio: "none",
    "aria-label": `${title}: no figures yet`
  })
  picture.append(area, line)
  return {
    element: h(
      "article",
      { class: "chart" },
      h("h3", {}, title),
      now,
      h("div", { class: "plot" }, picture, most),
      note
    ),
    draw: (points, text = "") => {
      const end = points.at(-1)?.[0] ?? 0
      const spanMs = Math.max(leastMs, end - (points[0]?.[0] ?? end))
      const values = points.flatMap(([, value]) => (value === null ? [] : [value]))
      const top = Math.max(...values, 0)
      const x = (at: number) => (width - ((end - at) / spanMs) * width).toFixed(1)
      const y = (value: number) => (height - 2 - (top === 0 ? 0 : value / top) * (height - 6)).toFixed(1)
      let path = ""
      let closed = ""
      let run: Array<string> = []
      const close = () => {
        if (run.length > 0) {
          // A point alone is a dot: a line of no length, with round ends.
          if (run.length === 1) run.push(run[0]!)
          path += `M${run.join("L")}`
          closed += `M${run[0]!.split(" ")[0]} ${height}L${run.join("L")}L${run.at(-1)!.split(" ")[0]} ${height}Z`
        }
        run = []
      }
      for (const [at, value] of points) {
        if (value === null) close()
        else run.push(`${x(at)} ${y(value)}`)
      }
      close()
      line.setAttribute("d", path)
      area.setAttribute("d", closed)
      const last = points.at(-1)?.[1] ?? null
      now.textContent = last === null ? "–" : format(last)
      most.textContent = top === 0 ? "" : `max ${format(top)}`
      note.textContent = text
      picture.setAttribute(
        "aria-label",
        values.length === 0
          ? `${title}: nothing in the last ${duration(spanMs)}`
          : `${title}, last ${duration(spanMs)}: now ${last === null ? "none" : format(last)}, lowest ${format(Math.min(...values))}, highest ${format(top)}`
      )
    }
  }
}
