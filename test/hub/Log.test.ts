/** What the hub logs: one line each, for people or for machines, whatever is in it. */
import { Cause, Effect } from "effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import * as Log from "../../src/hub/Log.ts"
import { StoreUnavailable } from "../../src/services/StoreUnavailable.ts"

const linesOf = (format: "json" | "pretty", program: Effect.Effect<unknown>): ReadonlyArray<string> => {
  const lines: Array<string> = []
  Effect.runSync(
    Effect.provide(
      program,
      Log.layer(format, (line) => void lines.push(line))
    )
  )
  return lines
}

const jsonOf = (program: Effect.Effect<unknown>): Readonly<Record<string, unknown>> =>
  JSON.parse(linesOf("json", program)[0]!) as Readonly<Record<string, unknown>>

describe("json", () => {
  it("begins with the message and its fields, and ends with level and time", () => {
    const [line] = linesOf(
      "json",
      Effect.logInfo("ready", { ws: "ws://127.0.0.1:1", ops: "http://127.0.0.1:2" })
    )
    expect(line).toMatch(
      /^\{"msg":"ready","ws":"ws:\/\/127\.0\.0\.1:1","ops":"http:\/\/127\.0\.0\.1:2","level":"info","time":"[^"]+Z"\}$/
    )
  })

  it("takes annotations as fields, and lets none replace what is the line's own", () => {
    const program = Effect.logError("oh", { level: "mine", msg: "mine", time: "mine", more: 1 }).pipe(
      Effect.annotateLogs({ id: "x" })
    )
    expect(jsonOf(program)).toMatchObject({ msg: "oh", more: 1, id: "x", level: "error" })
  })

  it("says what an error says, and why the store did not answer", () => {
    const error = new StoreUnavailable({ operation: "EventStore.append", cause: new Error("disk is full") })
    expect(String(jsonOf(Effect.logWarning("no luck", error))["msg"])).toMatch(
      /^no luck: .*EventStore\.append.*disk is full/
    )
  })

  it("has the stack of a defect as its cause", () => {
    const line = jsonOf(Effect.logError("a bug", Cause.die(new Error("inside"))))
    expect(line).toMatchObject({ msg: "a bug", level: "error" })
    expect(String(line["cause"])).toMatch(/inside[^]*Log\.test\.ts/)
  })

  it("shows what is no JSON, inside fields and beside them", () => {
    const circle: Record<string, unknown> = { n: 1 }
    circle["self"] = circle
    expect(jsonOf(Effect.logInfo("round", circle))).toMatchObject({ msg: "round", level: "info" })
    expect(String(jsonOf(Effect.logInfo("round", [circle]))["msg"])).toContain("Circular")
  })

  it("is one line of JSON, whatever is logged", () => {
    fc.assert(
      fc.property(
        fc.array(fc.anything({ withBigInt: true, withDate: true, withMap: true }), { maxLength: 4 }),
        (parts) => {
          const [line, ...more] = linesOf("json", Effect.logInfo(...parts))
          expect(more).toEqual([])
          expect(line).not.toContain("\n")
          expect(JSON.parse(line!)).toMatchObject({ level: "info" })
        }
      )
    )
  })
})

describe("pretty", () => {
  it("has the time of day, a level where that matters, the message and the fields", () => {
    expect(linesOf("pretty", Effect.logInfo("stopping", { after: 7 }))[0]).toMatch(
      /^\d\d:\d\d:\d\d\.\d{3} stopping {2}after=7$/
    )
    expect(linesOf("pretty", Effect.logWarning("careful"))[0]).toMatch(/^\S+ WARN careful$/)
  })

  it("lets no field begin a line of its own", () => {
    const forged = "k\n12:00:00.000 group removed  sub=nobody\u001b[2K"
    const [line, ...more] = linesOf(
      "pretty",
      Effect.logInfo("group key released", { key: forged, nested: { forged } })
    )
    expect(more).toEqual([])
    expect(line).not.toMatch(/\p{Cc}/u)
    expect(line).toContain('key="k\\n12:00')
  })

  it("indents what a stack says, so that it begins no line of the log", () => {
    const forged = "no answer\n12:00:00.000 group removed  sub=nobody"
    const [text] = linesOf("pretty", Effect.logError("a request failed", Cause.die(new Error(forged))))
    const [, ...rest] = text!.split("\n")
    expect(rest.length).toBeGreaterThan(1)
    expect(rest.filter((line) => !line.startsWith("    "))).toEqual([])
  })

  it("shows a text that could be taken for more fields as one", () => {
    expect(linesOf("pretty", Effect.logInfo("published", { sub: "eve  topic=a" }))[0]).toContain(
      'sub="eve  topic=a"'
    )
  })
})

describe.each(["json", "pretty"] as const)("%s", (format) => {
  it("lets nothing drive a terminal, end a line for anybody, or turn the order of what is read", () => {
    const hostile = [0x00, 0x07, 0x0a, 0x0d, 0x1b, 0x7f, 0x85, 0x9b, 0x2028, 0x2029, 0x202e, 0x2066].map(
      (code) => String.fromCharCode(code)
    )
    for (const unit of hostile) {
      const text = `a${unit}b`
      const [line, ...more] = linesOf(format, Effect.logInfo(text, { [text]: text, nested: { text } }))
      expect(more).toEqual([])
      expect(line).not.toContain(unit)
      if (format === "json")
        expect(JSON.parse(line!)).toMatchObject({ msg: text, [text]: text, nested: { text } })
    }
  })
})
