/** What a connection may ask for, and what it is told: one request at a time. Given, when, then. */
import { describe, expect, it } from "@effect/vitest"
import fc from "fast-check"
import type { Claims } from "../../src/domain/Claims.ts"
import type * as Quota from "../../src/domain/Quota.ts"
import * as Session from "../../src/domain/Session.ts"
import { errorCodes, isRetryable } from "../../src/protocol/Codes.ts"
import type { Malformed } from "../../src/protocol/Decode.ts"
import type { ClientMessage, Publish, Subscribe } from "../../src/protocol/Messages.ts"
import { brief, claims, context, everything, ready, received, run, sent, verified } from "./sessionScene.ts"

const say = (session: Session.Session, ...messages: ReadonlyArray<ClientMessage>) =>
  run(session, [received(messages, 5)])

const said = (session: Session.Session, ...messages: ReadonlyArray<ClientMessage>) =>
  brief(say(session, ...messages).actions)

const publish = (more: Partial<Publish> = {}): Publish => ({
  op: "PUBLISH",
  ref: 1,
  topic: "a.b",
  payload: 1,
  ...more
})

const subscribe = (more: Partial<Subscribe> = {}): Subscribe => ({
  op: "SUBSCRIBE",
  ref: 1,
  topic: "a.*",
  ...more
})

const over = (retryAfterMs: number): Quota.Limited => ({ kind: "connection_messages", retryAfterMs })

const free = ready(everything)
const bare = ready("")

describe("messages that cannot be understood", () => {
  const bad: Malformed = { op: "MALFORMED", ref: "r", msg: "unknown 'op'" }
  const times = (count: number, now: number) =>
    received(
      Array.from({ length: count }, () => bad),
      now
    )

  it("are answered each, and the connection stays", () => {
    const { actions } = run(free, [received([bad, { op: "PING", ref: 2 }])])
    expect(brief(actions)).toEqual(["ERR r bad_request", "OK 2"])
    expect(sent(actions)[0]).toMatchObject({ msg: "unknown 'op'", retryable: false })
  })

  it("end it with the tenth within a minute, and nothing after that is looked at", () => {
    const nine = run(free, [times(9, 0)])
    expect(brief(nine.actions)).toEqual(Array(9).fill("ERR r bad_request"))
    const { actions } = run(nine.session, [received([bad, { op: "PING", ref: 2 }], 59_999)])
    expect(brief(actions)).toEqual(["ERR r bad_request", "close 4400"])
  })

  it("are forgotten after a minute", () => {
    const later = run(free, [times(9, 0), times(9, 60_000)])
    expect(later.session.phase).toBe("ready")
    expect(brief(run(later.session, [times(1, 60_001)]).actions).at(-1)).toBe("close 4400")
  })

  it("count alike in one frame or in many", () => {
    expect(brief(run(free, [times(12, 0)]).actions)).toEqual([
      ...Array(10).fill("ERR r bad_request"),
      "close 4400"
    ])
    const frames = Array.from({ length: 10 }, (_, i) => times(1, i * 6_000))
    expect(brief(run(free, frames).actions).at(-1)).toBe("close 4400")
  })

  it("are not those that are understood and refused", () => {
    const refused = Array.from({ length: 20 }, () => subscribe({ opts: { credit: 51 } }))
    expect(run(free, [received(refused)]).session.phase).toBe("ready")
  })
})

describe("PUBLISH", () => {
  it("is appended, with the hub's time and id where it has none, and answered when it is durable", () => {
    const { actions } = say(free, publish())
    expect(actions).toEqual([
      {
        _tag: "Append",
        ref: 1,
        record: {
          topic: "a.b",
          id: "made",
          key: undefined,
          tombstone: false,
          body: '{"id":"made","topic":"a.b","ts":5,"payload":1}'
        }
      }
    ])
  })

  it("keeps what the publisher says", () => {
    const opts = {
      id: "mine",
      ts: -1,
      key: "k",
      type: "t",
      headers: { h: "v" },
      tags: ["x"],
      caused_by: "c",
      sid: "s"
    }
    const [action] = say(free, publish({ opts })).actions
    const record = action?._tag === "Append" ? action.record : undefined
    expect(JSON.parse(record?.body ?? "")).toEqual({ ...opts, topic: "a.b", payload: 1 })
  })

  it.each([
    ["a topic that is none", { topic: "a..b" }, "invalid_topic"],
    ["a pattern", { topic: "a.*" }, "invalid_topic"],
    ["a payload that is too large", { payload: "x".repeat(49) }, "payload_too_large"],
    ["an empty id", { opts: { id: "" } }, "bad_request"],
    ["a topic of the hub's own", { topic: "$dead.g.a" }, "forbidden"]
  ] as const)("of %s is refused, whatever the rights", (_, more, code) => {
    expect(said(free, publish(more))).toEqual([`ERR 1 ${code}`])
    expect(said(bare, publish(more))).toEqual([`ERR 1 ${code}`])
    expect(said(ready("allow publish $dead.**"), publish(more))).toEqual([`ERR 1 ${code}`])
  })

  it("where there is no right is forbidden, and spends nothing", () => {
    let asked = 0
    const counting = { ...context, spend: () => void asked++ }
    const { actions } = run(ready("allow subscribe **\nallow publish b"), [received([publish()])], counting)
    expect(brief(actions)).toEqual(["ERR 1 forbidden"])
    expect(asked).toBe(0)
  })

  it("over the rate is told when to come back", () => {
    const spent: Array<Quota.Cost> = []
    const spend = (_: Claims, cost: Quota.Cost) => (spent.push(cost) > 1 ? over(40) : undefined)
    const { actions } = run(free, [received([publish(), publish({ ref: 2 })])], { ...context, spend })
    expect(brief(actions)).toEqual(["Append", "ERR 2 rate_limited"])
    expect(sent(actions)[0]).toMatchObject({
      msg: "too many messages on this connection",
      retryable: true,
      retryAfterMs: 40
    })
    expect(spent[0]).toMatchObject({ topic: "a.b" })
    expect(spent[0]?.bytes).toBeGreaterThan(20)
  })

  it("behind one over the rate is over it as well, on the same topic and in the same frame, and spends nothing", () => {
    const spent: Array<string> = []
    const spend = (_: Claims, { topic = "" }: Quota.Cost) => (spent.push(topic) === 1 ? over(40) : undefined)
    const limited = { ...context, spend }
    const messages = [publish(), publish({ ref: 2 }), publish({ ref: 3, topic: "c" }), publish({ ref: 4 })]
    const step = run(free, [received(messages, 0, 1)], limited)
    expect(brief(step.actions)).toEqual([
      "ERR 1 rate_limited",
      "ERR 2 rate_limited",
      "Append",
      "ERR 4 rate_limited"
    ])
    expect(sent(step.actions)).toMatchObject([
      { retryAfterMs: 40 },
      { retryAfterMs: 40 },
      { retryAfterMs: 40 }
    ])
    expect(spent).toEqual(["a.b", "c"])
    expect(brief(run(step.session, [received([publish({ ref: 5 })], 0, 2)], limited).actions)).toEqual([
      "Append"
    ])
  })

  it("behind one over the rate is told its own wait where that is longer", () => {
    const limited = { ...context, spend: () => over(40), look: () => over(70) }
    const { actions } = run(free, [received([publish(), publish({ ref: 2 })])], limited)
    expect(sent(actions)).toMatchObject([{ retryAfterMs: 40 }, { retryAfterMs: 70 }])
  })

  it("behind AUTH in a frame is behind what was over the rate there, too", () => {
    let asked = 0
    const limited = { ...context, spend: () => (asked++ === 0 ? over(40) : undefined) }
    const messages = [publish(), { op: "AUTH", token: "jwt" } as const, publish({ ref: 2 })]
    const { actions } = run(free, [received(messages), verified(claims(everything))], limited)
    expect(brief(actions)).toEqual(["ERR 1 rate_limited", "Verify", "OK", "ERR 2 rate_limited"])
  })

  it("of many topics over the rate in one frame is remembered for some, and then all that follow are", () => {
    let asked = 0
    const limited = { ...context, spend: () => (asked++ < 16 ? over(40) : undefined) }
    const messages = Array.from({ length: 40 }, (_, i) => publish({ ref: i, topic: `t.${i}` }))
    const { actions, session } = run(free, [received(messages)], limited)
    expect(brief(actions).every((action) => action.endsWith("rate_limited"))).toBe(true)
    expect(session.overRate.topics.size).toBe(16)
  })

  it("never overtakes one of its topic that came before it in its frame", () => {
    const story = fc.array(fc.tuple(fc.constantFrom("a", "b"), fc.boolean(), fc.boolean()), { maxLength: 30 })
    fc.assert(
      fc.property(story, (story) => {
        let frame = 1
        let session = free
        const refusedIn = new Map<number, Set<string>>()
        story.forEach(([topic, isOver, isNew], ref) => {
          if (isNew) frame++
          const limited = { ...context, spend: () => (isOver ? over(1) : undefined) }
          const step = run(session, [received([publish({ ref, topic })], 0, frame)], limited)
          session = step.session
          const refused = refusedIn.get(frame) ?? new Set()
          refusedIn.set(frame, refused)
          expect(brief(step.actions)).toEqual([
            isOver || refused.has(topic) ? `ERR ${ref} rate_limited` : "Append"
          ])
          if (isOver) refused.add(topic)
        })
      })
    )
  })
})

describe("a request that is forbidden", () => {
  const rules = "deny * a.**\nallow publish b"
  const forbidden = (session: Session.Session) =>
    sent(say(session, publish(), subscribe({ topic: "a.b" }), publish({ topic: "c" })).actions).map(
      (message) => (message.op === "ERR" ? [message.code, message.rule] : message.op)
    )

  it("names the rule that denies it to those who administrate the topic, and none where no rule does", () => {
    expect(forbidden(ready(`allow admin **\n${rules}`))).toEqual([
      ["forbidden", "deny * a.**"],
      ["forbidden", "deny * a.**"],
      ["forbidden", undefined]
    ])
  })

  it("names the rule that denies a pattern to those who administrate all of it", () => {
    const ask = (rights: string) =>
      sent(run(ready(rights), [received([{ op: "SUBSCRIBE", ref: 1, topic: "a.*" }])]).actions)
    const denied = { code: "forbidden", rule: "deny subscribe a.b" }
    expect(ask("allow admin a.**\ndeny subscribe a.b\nallow subscribe **")).toMatchObject([denied])
    const [some] = ask("allow admin a.b\ndeny subscribe a.b\nallow subscribe **")
    expect(some).toMatchObject({ code: "forbidden" })
    expect(some).not.toHaveProperty("rule")
  })

  it("says nothing of the rules to anybody else", () => {
    expect(forbidden(ready(rules))).toEqual(Array.from({ length: 3 }, () => ["forbidden", undefined]))
  })
})

describe("SUBSCRIBE", () => {
  it("begins a subscription, and is answered when it stands", () => {
    const message = subscribe({ group: "g" })
    const { actions, session } = say(free, message)
    expect(actions).toMatchObject([
      { _tag: "Subscribe", key: "a.* g", message, subscription: { group: "g", pattern: { name: "a.*" } } }
    ])
    expect([...session.subscriptions.keys()]).toEqual(["a.* g"])
  })

  it.each([
    ["a pattern that is none", { topic: "a.b*" }, "invalid_pattern"],
    ["a group whose name is none", { group: "g.h" }, "bad_request"],
    ["a group without a name", { group: "" }, "bad_request"],
    ["too much credit", { group: "g", opts: { credit: 51 } }, "bad_request"],
    ["too long a time-out", { group: "g", opts: { ackTimeoutMs: 5_001 } }, "bad_request"],
    ["a position in a pattern", { opts: { from: { after: 3 } } }, "bad_request"],
    ["a group for what is not stored", { topic: "$hub.stats", group: "g" }, "bad_request"],
    ["a group for much of that", { topic: "$hub.**", group: "g" }, "bad_request"]
  ] as const)("with %s is refused, whatever the rights", (_, more, code) => {
    expect(said(free, subscribe(more))).toEqual([`ERR 1 ${code}`])
    expect(said(bare, subscribe(more))).toEqual([`ERR 1 ${code}`])
  })

  it.each([
    { group: "g", opts: { credit: 50, ackTimeoutMs: 5_000 } },
    { topic: "a.b", opts: { from: { after: 3 } } },
    { opts: { from: { topics: { "a.b": 3 } } } },
    { opts: { from: "start" } }
  ] as const)("takes all that is allowed: %j", (more) => {
    expect(said(free, subscribe(more))).toEqual(["Subscribe"])
  })

  it("needs a right to every topic of the pattern", () => {
    expect(said(ready("allow subscribe a.b"), subscribe())).toEqual(["ERR 1 forbidden"])
    expect(said(ready("deny subscribe a.b\nallow subscribe a.*"), subscribe())).toEqual(["ERR 1 forbidden"])
    expect(said(ready("allow subscribe a.**"), subscribe())).toEqual(["Subscribe"])
  })

  it("needs a right to the hub's own topics that '**' does not give", () => {
    const own = subscribe({ topic: "$dead.g.**" })
    expect(said(ready("allow subscribe **"), own)).toEqual(["ERR 1 forbidden"])
    expect(said(ready("allow subscribe $dead.**"), own)).toEqual(["Subscribe"])
  })

  it("in a group needs a right to the group, which gives no right without it", () => {
    const session = ready("allow subscribe ** group g")
    expect(said(session, subscribe({ group: "g" }))).toEqual(["Subscribe"])
    expect(said(session, subscribe({ group: "h" }))).toEqual(["ERR 1 forbidden"])
    expect(said(session, subscribe())).toEqual(["ERR 1 forbidden"])
  })

  it("twice is once; in another group, or without one, it is another", () => {
    const messages = [
      subscribe(),
      subscribe({ ref: 2 }),
      subscribe({ ref: 3, group: "g" }),
      subscribe({ ref: 4, group: "g" })
    ]
    expect(said(free, ...messages)).toEqual([
      "Subscribe",
      "ERR 2 already_subscribed",
      "Subscribe",
      "ERR 4 already_subscribed"
    ])
  })

  it("is limited in number, and again possible when one has ended", () => {
    const full = say(free, ...["a", "b", "c"].map((topic) => subscribe({ topic }))).session
    expect(said(full, subscribe({ topic: "d" }))).toEqual(["ERR 1 too_many_subscriptions"])
    expect(said(full, { op: "UNSUBSCRIBE", topic: "a" }, subscribe({ topic: "d" }))).toEqual([
      "Unsubscribe",
      "Subscribe"
    ])
  })

  it("over the rate is told when to come back, and does not stand", () => {
    const { actions, session } = run(free, [received([subscribe()])], { ...context, spend: () => over(40) })
    expect(sent(actions)).toMatchObject([{ code: "rate_limited", retryAfterMs: 40 }])
    expect(session).toEqual(free)
  })
})

describe("UNSUBSCRIBE", () => {
  const session = say(free, subscribe(), subscribe({ group: "g" })).session

  it("ends that subscription and no other, and is answered when it is done", () => {
    const message = { op: "UNSUBSCRIBE", ref: 2, topic: "a.*", group: "g" } as const
    const step = say(session, message)
    expect(step.actions).toEqual([{ _tag: "Unsubscribe", key: "a.* g", message }])
    expect([...step.session.subscriptions.keys()]).toEqual(["a.* "])
    expect(said(step.session, subscribe({ group: "g" }))).toEqual(["Subscribe"])
  })

  it("of a group that cannot be one is refused, and does not end the live subscription", () => {
    expect(said(session, { op: "UNSUBSCRIBE", ref: 2, topic: "a.*", group: "" })).toEqual([
      "ERR 2 bad_request"
    ])
  })

  it("of what is not subscribed is told so", () => {
    expect(said(session, { op: "UNSUBSCRIBE", ref: 2, topic: "a.b" })).toEqual(["ERR 2 not_subscribed"])
    expect(said(session, { op: "UNSUBSCRIBE", ref: 2, topic: "a.*", group: "h" })).toEqual([
      "ERR 2 not_subscribed"
    ])
    expect(said(session, { op: "UNSUBSCRIBE", ref: 2, topic: "a.**b" })).toEqual(["ERR 2 invalid_pattern"])
  })
})

describe("ACK, NACK and EXTEND", () => {
  const session = say(free, subscribe(), subscribe({ group: "g" })).session
  const about = { ref: 2, topic: "a.b", group: "g" }
  const answers: ReadonlyArray<ClientMessage> = [
    { op: "ACK", ...about, ids: ["x"] },
    { op: "NACK", ...about, id: "x", delayMs: 5_000 },
    { op: "EXTEND", ...about, id: "x", byMs: 5_000 }
  ]

  it.each(answers)("go to the group by the pattern that has the topic: $op", (message) => {
    expect(say(session, message).actions).toEqual([{ _tag: "Settle", message }])
  })

  it.each(answers)("go nowhere without a subscription in that group to that topic: $op", (message) => {
    expect(said(free, message)).toEqual(["ERR 2 not_subscribed"])
    expect(said(session, { ...message, topic: "b" } as ClientMessage)).toEqual(["ERR 2 not_subscribed"])
    expect(said(session, { ...message, group: "h" } as ClientMessage)).toEqual(["ERR 2 not_subscribed"])
    expect(said(say(free, subscribe()).session, message)).toEqual(["ERR 2 not_subscribed"])
  })

  it.each(answers)("name a topic, not a pattern: $op", (message) => {
    expect(said(session, { ...message, topic: "a.*" } as ClientMessage)).toEqual(["ERR 2 invalid_topic"])
  })

  it("ask for no longer time than there is", () => {
    expect(said(session, { op: "NACK", ...about, id: "x", delayMs: 5_001 })).toEqual(["ERR 2 bad_request"])
    expect(said(session, { op: "EXTEND", ...about, id: "x", byMs: 5_001 })).toEqual(["ERR 2 bad_request"])
  })

  it("of nothing are answered at once, since no group would", () => {
    expect(said(session, { op: "ACK", ...about, ids: [] })).toEqual(["OK 2"])
    expect(said(session, { op: "ACK", topic: "a.b", group: "g", ids: [] })).toEqual([])
    expect(said(free, { op: "ACK", ...about, ids: [] })).toEqual(["ERR 2 not_subscribed"])
  })
})

describe("PING", () => {
  it("is answered with the time, when an answer is asked for", () => {
    expect(sent(say(bare, { op: "PING", ref: "p" }).actions)).toEqual([{ op: "OK", ref: "p", serverTime: 5 }])
    expect(said(bare, { op: "PING" })).toEqual([])
  })
})

describe("a subscription that ended", () => {
  const session = say(free, subscribe(), subscribe({ group: "g" })).session

  it("is told to the client when the hub ended it", () => {
    const step = run(session, [{ _tag: "Ended", key: "a.* g", reason: "removed" }])
    expect(sent(step.actions)).toEqual([{ op: "END", sub: "a.*", group: "g", reason: "removed" }])
    expect([...step.session.subscriptions.keys()]).toEqual(["a.* "])
  })

  it("is not when it never stood, as its request was answered", () => {
    const step = run(session, [{ _tag: "Ended", key: "a.* ", reason: undefined }])
    expect(step.actions).toEqual([])
    expect([...step.session.subscriptions.keys()]).toEqual(["a.* g"])
  })

  it("is nothing when the client had ended it before", () => {
    expect(run(session, [{ _tag: "Ended", key: "b ", reason: "removed" }])).toEqual({ session, actions: [] })
  })
})

describe("answers", () => {
  it.each(errorCodes)("with %s say whether the same request may succeed later", (code) => {
    expect(Session.err(undefined, code, "why")).toEqual({
      op: "ERR",
      code,
      msg: "why",
      retryable: isRetryable(code)
    })
  })

  it("carry a ref when there was one, be it 0 or empty", () => {
    expect(Session.ok(0)).toEqual({ op: "OK", ref: 0 })
    expect(Session.err("", "internal", "x")).toMatchObject({ ref: "" })
    expect(Session.ok(undefined, { serverTime: 1 })).toEqual({ op: "OK", serverTime: 1 })
  })
})
