/** Who a connection is: AUTH, what waits for it, and how time and revocation end it. Given, when, then. */
import { describe, expect, it } from "@effect/vitest"
import * as Session from "../../src/domain/Session.ts"
import type { Auth, ClientMessage } from "../../src/protocol/Messages.ts"
import {
  brief,
  claims,
  context,
  everything,
  opened,
  ready,
  received,
  refused,
  run,
  sent,
  settings,
  tick,
  verified
} from "./sessionScene.ts"

const auth: Auth = { op: "AUTH", ref: 1, token: "jwt" }

const requests: ReadonlyArray<ClientMessage> = [
  { op: "PUBLISH", ref: 2, topic: "a", payload: 1 },
  { op: "SUBSCRIBE", ref: 3, topic: "a" },
  { op: "UNSUBSCRIBE", ref: 4, topic: "a" },
  { op: "ACK", ref: 5, topic: "a", group: "g", ids: ["x"] },
  { op: "NACK", ref: 6, topic: "a", group: "g", id: "x" },
  { op: "EXTEND", ref: 7, topic: "a", group: "g", id: "x" },
  { op: "PING", ref: 8 }
]

const publish = (ref: string): ClientMessage => ({ op: "PUBLISH", ref, topic: "a", payload: 1 })

describe("the first AUTH", () => {
  it("hands the token to the verifier, and answers nothing yet", () => {
    const { actions } = run(opened, [received([auth])])
    expect(actions).toEqual([{ _tag: "Verify", token: "jwt" }])
  })

  it("is answered with all a client has to know", () => {
    const { actions } = run(opened, [received([auth]), verified(claims(everything), 7)])
    expect(sent(actions)).toEqual([
      {
        op: "OK",
        ref: 1,
        connection: "c1",
        history: "h1",
        expiresAt: 1_000_000,
        serverTime: 7,
        heartbeatMs: settings.heartbeatMs,
        limits: {
          maxFrameBytes: context.limits.maxFrameBytes,
          maxPayloadBytes: 50,
          maxMessagesPerFrame: 1_000,
          maxSubscriptions: 3,
          maxCredit: 50,
          maxAckIds: 10_000
        }
      }
    ])
  })

  it("is answered without a ref, too", () => {
    const anonymous = { op: "AUTH", token: "jwt" } as const
    expect(brief(run(opened, [received([anonymous]), verified(claims(""))]).actions)).toEqual([
      "Verify",
      "OK"
    ])
    expect(brief(run(opened, [received([anonymous]), refused("jwt_invalid")]).actions)).toEqual([
      "Verify",
      "ERR jwt_invalid",
      "close 4401"
    ])
  })

  it("with a token that does not expire says so with null, as JSON has no infinity", () => {
    const { actions } = run(opened, [received([auth]), verified(claims("", { expiresAt: Infinity }))])
    expect(sent(actions)[0]).toMatchObject({ expiresAt: null })
  })

  it("without a token is refused at once, and no verifier is asked", () => {
    const { actions } = run(opened, [received([{ ...auth, token: "" }, publish("p")])])
    expect(brief(actions)).toEqual(["ERR 1 no_token", "close 4401"])
  })

  it.each(["no_token", "jwt_invalid", "token_expired"] as const)(
    "that is refused with %s is closed",
    (code) => {
      const { actions, session } = run(opened, [received([auth]), refused(code)])
      expect(brief(actions)).toEqual(["Verify", `ERR 1 ${code}`, "close 4401"])
      expect(sent(actions)[0]).toMatchObject({ msg: `because of ${code}`, retryable: false })
      expect(session.phase).toBe("closed")
    }
  )

  it("that nobody can verify now is closed so that the client comes back", () => {
    const { actions } = run(opened, [received([auth]), refused("unavailable")])
    expect(brief(actions)).toEqual(["Verify", "ERR 1 unavailable", "close 1013"])
    expect(sent(actions)[0]).toMatchObject({ retryable: true })
  })

  it("is expected within ten seconds", () => {
    expect(run(opened, [tick(9_999)]).actions).toEqual([])
    expect(brief(run(opened, [tick(10_000)]).actions)).toEqual(["close 4103"])
    expect(brief(run(ready(everything), [tick(10_000)]).actions)).toEqual([])
  })

  it("that came in time is answered when its verifier does not, and the token is not blamed", () => {
    const { actions } = run(opened, [received([auth], 9_000), tick(9_999), tick(10_000)])
    expect(brief(actions)).toEqual(["Verify", "ERR 1 unavailable", "close 1013"])
  })
})

describe("before AUTH", () => {
  it.each(requests.map((message) => ({ op: message.op, message })))(
    "$op is refused, and ends it",
    ({ message }) => {
      const { actions } = run(opened, [received([message, auth])])
      expect(brief(actions)).toEqual([`ERR ${message.ref} no_token`, "close 4401"])
    }
  )

  it("a message that cannot be understood is told so, and AUTH may still come", () => {
    const { actions } = run(opened, [received([{ op: "MALFORMED", msg: "what?" }, auth])])
    expect(brief(actions)).toEqual(["ERR bad_request", "Verify"])
  })

  it("a verifier that answers unasked is not listened to", () => {
    const step = run(opened, [verified(claims(everything)), refused("jwt_invalid")])
    expect(step).toEqual({ session: opened, actions: [] })
  })
})

describe("what follows AUTH", () => {
  it("waits until AUTH is done, and then goes in its order", () => {
    const first = run(opened, [received([auth, publish("p1")]), received([publish("p2")])])
    expect(brief(first.actions)).toEqual(["Verify"])
    const { actions } = run(first.session, [verified(claims(everything))])
    expect(brief(actions)).toEqual(["OK 1", "Append", "Append"])
    expect(actions.flatMap((action) => (action._tag === "Append" ? [action.ref] : []))).toEqual(["p1", "p2"])
  })

  it("is never looked at when AUTH is refused", () => {
    const { actions } = run(opened, [received([auth, publish("p")]), refused("jwt_invalid")])
    expect(brief(actions)).toEqual(["Verify", "ERR 1 jwt_invalid", "close 4401"])
  })

  it("is not even found malformed before", () => {
    const bad = Array.from({ length: 20 }, () => ({ op: "MALFORMED", msg: "what?" }) as const)
    const { actions, session } = run(opened, [received([auth, ...bad])])
    expect(brief(actions)).toEqual(["Verify"])
    expect(brief(run(session, [verified(claims(""))]).actions).at(-1)).toBe("close 4400")
  })

  it("waits again behind the next AUTH", () => {
    const messages = [auth, publish("p1"), { ...auth, ref: 2, token: "newer" }, publish("p2")]
    const step = run(opened, [received(messages), verified(claims(everything))])
    expect(brief(step.actions)).toEqual(["Verify", "OK 1", "Append", "Verify"])
    const { actions } = run(step.session, [verified(claims("allow publish b"))])
    expect(brief(actions)).toEqual(["OK 2", "ERR p2 forbidden"])
  })
})

describe("a later AUTH", () => {
  const subscribed = run(ready(everything), [
    received([
      { op: "SUBSCRIBE", topic: "a.**" },
      { op: "SUBSCRIBE", topic: "b.*", group: "g" },
      { op: "SUBSCRIBE", topic: "b.*" }
    ])
  ]).session

  it("keeps the subscriptions that the new token allows", () => {
    const { actions, session } = run(subscribed, [received([auth]), verified(claims("allow subscribe **"))])
    expect(sent(actions)).toMatchObject([{ op: "OK", ref: 1, revoked: [] }])
    expect(session.subscriptions).toEqual(subscribed.subscriptions)
  })

  it("ends those that it does not allow, and names them", () => {
    const rights = claims("allow subscribe a.**\nallow subscribe b.* group other")
    const { actions, session } = run(subscribed, [received([auth]), verified(rights)])
    expect(brief(actions)).toEqual(["Verify", "END", "END", "OK 1"])
    expect(sent(actions)).toMatchObject([
      { op: "END", sub: "b.*", group: "g", reason: "revoked" },
      { op: "END", sub: "b.*", reason: "revoked" },
      { op: "OK", revoked: [{ topic: "b.*", group: "g" }, { topic: "b.*" }] }
    ])
    expect([...session.subscriptions.keys()]).toEqual([Session.subscriptionKey("a.**", undefined)])
  })

  it("decides on a subscription in a group by the group's own rules", () => {
    const rights = claims("allow subscribe a.**\nallow subscribe b.* group g")
    const { actions } = run(subscribed, [received([auth]), verified(rights)])
    expect(sent(actions).at(-1)).toMatchObject({ revoked: [{ topic: "b.*" }] })
  })

  it("decides what comes after it by the new token", () => {
    const { session } = run(subscribed, [received([auth]), verified(claims("allow subscribe **"))])
    expect(brief(run(session, [received([publish("p")])]).actions)).toEqual(["ERR p forbidden"])
  })

  it("of somebody else is forbidden and changes nothing, and the connection goes on", () => {
    const other = verified(claims("", { sub: "bob" }))
    const { actions, session } = run(subscribed, [received([auth, publish("p")]), other])
    expect(brief(actions)).toEqual(["Verify", "ERR 1 forbidden", "Append"])
    expect(session).toEqual(subscribed)
  })

  it.each([
    ["jwt_invalid", "close 4401"],
    ["token_expired", "close 4401"]
  ] as const)("that is refused with %s ends the connection", (code, close) => {
    const { actions } = run(subscribed, [received([auth]), refused(code)])
    expect(brief(actions)).toEqual(["Verify", `ERR 1 ${code}`, close])
  })

  it("that cannot be verified changes nothing, and the connection goes on by the token before", () => {
    const inputs = [received([auth, publish("p"), { ...auth, ref: 2 }]), refused("unavailable")]
    const { actions, session } = run(subscribed, inputs)
    expect(brief(actions)).toEqual(["Verify", "ERR 1 unavailable", "Append", "Verify"])
    expect({ ...session, verifying: undefined }).toEqual(subscribed)
    expect(session.verifying).toMatchObject({ ref: 2 })
  })

  it("without a token ends it, too", () => {
    const { actions } = run(subscribed, [received([{ ...auth, token: "" }])])
    expect(brief(actions)).toEqual(["ERR 1 no_token", "close 4401"])
  })
})

describe("time", () => {
  it("ends a connection when its token has expired, and the clocks' tolerance has passed", () => {
    const session = ready("", { expiresAt: 20_000 })
    expect(run(session, [tick(9_999)]).actions).toEqual([])
    expect(brief(run(session, [tick(24_999)]).actions)).toEqual(["EXPIRING"])
    expect(brief(run(session, [tick(25_000)]).actions)).toEqual(["close 4101"])
  })

  it("does not end it when a newer token came", () => {
    const session = ready("", { expiresAt: 20_000 })
    const renewed = run(session, [received([auth]), verified(claims("", { expiresAt: 90_000 }))]).session
    expect(brief(run(renewed, [tick(26_000)]).actions)).toEqual(["Ping"])
  })

  it("warns once of a token that expires soon, a minute before", () => {
    const session = ready("", { expiresAt: 500_000 })
    expect(brief(run(session, [tick(439_999)]).actions)).toEqual(["Ping"])
    const { actions, session: warned } = run(session, [{ _tag: "Pong" }, tick(440_000)])
    expect(sent(actions)).toEqual([{ op: "EXPIRING", expiresAt: 500_000, closesInMs: 65_000 }])
    expect(brief(run(warned, [tick(441_000), tick(450_000)]).actions)).not.toContain("EXPIRING")
  })

  it("warns of a token that lives shortly when half of it is over, and of each newer one again", () => {
    const session = ready("", { expiresAt: 20_000 })
    expect(brief(run(session, [tick(9_999), tick(10_000)]).actions)).toEqual(["EXPIRING"])
    const later = run(session, [tick(10_000), received([auth]), verified(claims("", { expiresAt: 24_000 }))])
    expect(brief(run(later.session, [tick(11_999), tick(12_000)]).actions)).toEqual(["EXPIRING"])
  })

  it("warns once of a token that comes again, before and after the warning", () => {
    const again = [received([auth]), verified(claims("", { expiresAt: 20_000 }), 9_000)]
    const { actions } = run(ready("", { expiresAt: 20_000 }), [
      ...again,
      tick(9_999),
      tick(10_000),
      ...again,
      tick(15_000),
      tick(24_999)
    ])
    expect(brief(actions).filter((name) => name === "EXPIRING")).toHaveLength(1)
    expect(brief(actions).at(-1)).toBe("OK 1")
  })

  it("warns of a token that is over already, within the clocks' tolerance", () => {
    const { session } = run(opened, [received([auth]), verified(claims("", { expiresAt: 8_000 }), 9_000)])
    expect(sent(run(session, [tick(9_500)]).actions)).toMatchObject([{ op: "EXPIRING", closesInMs: 3_500 }])
  })

  it("warns neither of a token that does not expire, nor a client that offered no subprotocol", () => {
    const endless = ready("", { expiresAt: Infinity })
    expect(brief(run(endless, [tick(20_000)]).actions)).toEqual([])
    const old = Session.open("c1", 0, settings, true)
    const { session } = run(old, [received([auth]), verified(claims("", { expiresAt: 20_000 }))])
    expect(brief(run(session, [tick(19_999)]).actions)).toEqual([])
  })

  it("asks for a sign of life every heartbeat, and gives up after two without an answer", () => {
    const steps = [24_999, 25_000, 49_999, 50_000, 74_999, 75_000]
    let session = ready("")
    const seen = steps.map((now) => {
      const step = run(session, [tick(now)])
      session = step.session
      return brief(step.actions)
    })
    expect(seen).toEqual([[], ["Ping"], [], ["Ping"], [], ["close 4001"]])
  })

  it.each([
    ["a pong", { _tag: "Pong" } as const],
    ["any message", received([{ op: "PING" }], 60_000)]
  ])("takes %s as a sign of life", (_, sign) => {
    const { actions } = run(ready(""), [
      tick(25_000),
      tick(50_000),
      sign,
      tick(75_000),
      tick(100_000),
      tick(125_000)
    ])
    expect(brief(actions)).toEqual(["Ping", "Ping", "Ping", "Ping", "close 4001"])
  })

  it("asks nothing of a client that has not said who it is", () => {
    const patient = { ...context, settings: { ...settings, authTimeoutMs: 90_000 } }
    expect(run(opened, [tick(50_000)], patient).actions).toEqual([])
  })
})

describe("a refused AUTH whose answer has to wait", () => {
  const late = { ...context, delayOf: () => 700 }

  it.each([
    ["by the verifier", [received([auth, publish("p")]), refused("jwt_invalid")], ["Verify", "Wait"]],
    ["for want of a token", [received([{ ...auth, token: "" }, publish("p")])], ["Wait"]]
  ] as const)("%s is answered when it has, and nothing before", (_, inputs, so) => {
    const step = run(opened, inputs, late)
    expect(brief(step.actions)).toEqual(so)
    expect(step.actions.at(-1)).toEqual({ _tag: "Wait", ms: 700 })
    const meanwhile = [
      received([auth, { op: "PING", ref: 9 }], 10),
      verified(claims(everything)),
      tick(9_999)
    ]
    const waiting = run(step.session, meanwhile, late)
    expect(waiting.actions).toEqual([])
    const answers = run(waiting.session, [{ _tag: "Waited" }], late).actions
    expect(brief(answers).at(-1)).toBe("close 4401")
    expect(answers).toHaveLength(2)
  })

  it("is answered when the time for AUTH is over, by what it was refused for", () => {
    const { actions } = run(opened, [received([auth]), refused("jwt_invalid"), tick(10_000)], late)
    expect(brief(actions)).toEqual(["Verify", "Wait", "ERR 1 jwt_invalid", "close 4401"])
  })

  it("does not wait when the verifier could not tell", () => {
    const { actions } = run(opened, [received([auth]), refused("unavailable")], late)
    expect(brief(actions)).toEqual(["Verify", "ERR 1 unavailable", "close 1013"])
  })

  it("keeps what the token before it gave, until then", () => {
    const { actions, session } = run(ready(everything), [received([auth]), refused("jwt_invalid")], late)
    expect(brief(actions)).toEqual(["Verify", "Wait"])
    expect(session.claims?.sub).toBe("ann")
    expect(brief(run(session, [{ _tag: "Waited" }], late).actions)).toEqual([
      "ERR 1 jwt_invalid",
      "close 4401"
    ])
  })

  it("has nothing to come back for when it did not wait", () => {
    expect(run(ready(everything), [{ _tag: "Waited" }], late).actions).toEqual([])
  })
})

describe("a changed policy", () => {
  const subscribed = run(ready(everything), [
    received([
      { op: "SUBSCRIBE", topic: "a.**" },
      { op: "SUBSCRIBE", topic: "b.*", group: "g" }
    ])
  ]).session

  it("ends the subscriptions that are not allowed any more, and no other", () => {
    const changed: Session.SessionContext = {
      ...context,
      decideSubscription: (_, { pattern }) =>
        pattern === "a.**"
          ? { _tag: "Allowed", rule: claims(everything).policy.rules[0]! }
          : { _tag: "Denied", rule: undefined, reason: "no_rule_matches" }
    }
    const { actions, session } = run(subscribed, [{ _tag: "PolicyChanged" }], changed)
    expect(brief(actions)).toEqual(["END"])
    expect(sent(actions)).toEqual([{ op: "END", sub: "b.*", group: "g", reason: "revoked" }])
    expect([...session.subscriptions.keys()]).toEqual([Session.subscriptionKey("a.**", undefined)])
    expect(run(session, [{ _tag: "PolicyChanged" }], changed).actions).toEqual([])
  })

  it("takes as many steps as there are subscriptions", () => {
    // What a Map is copied from is gone through: each entry of it is a step.
    let steps = 0
    class Counted extends Map<string, Session.Subscription> {
      override *[Symbol.iterator](): MapIterator<[string, Session.Subscription]> {
        for (const entry of super[Symbol.iterator]()) {
          steps++
          yield entry
        }
      }
    }
    const [subscription] = subscribed.subscriptions.values()
    const all = Array.from({ length: 1_000 }, (_, i) => [`a.${i} `, subscription!] as const)
    const denied: Session.SessionContext = {
      ...context,
      decideSubscription: () => ({ _tag: "Denied", rule: undefined, reason: "no_rule_matches" })
    }
    const many = { ...subscribed, subscriptions: new Counted(all) }
    steps = 0
    const { actions, session } = run(many, [{ _tag: "PolicyChanged" }], denied)
    expect(brief(actions)).toEqual(Array.from({ length: 1_000 }, () => "END"))
    expect(session.subscriptions.size).toBe(0)
    expect(steps).toBe(1_000)
  })

  it("is nothing to a client that nobody knows yet", () => {
    expect(run(opened, [{ _tag: "PolicyChanged" }]).actions).toEqual([])
  })
})

describe("what is forbidden", () => {
  it("comes with what the log is told: who decided, whatever the client is told", () => {
    const session = ready("deny publish a.secret\nallow publish a.*")
    const { actions } = run(session, [
      received([
        { op: "PUBLISH", topic: "a.secret", payload: 1 },
        { op: "PUBLISH", topic: "b", payload: 1 },
        { op: "PUBLISH", topic: "$hub.stats", payload: 1 },
        { op: "SUBSCRIBE", topic: "a.*", group: "g" },
        auth
      ]),
      verified(claims(everything, { sub: "bob" }))
    ])
    const denials = actions.flatMap((action) => (action._tag === "Send" ? (action.denial ?? []) : []))
    expect(denials).toEqual([
      { action: "publish", topic: "a.secret", group: undefined, rule: "deny publish a.secret" },
      { action: "publish", topic: "b", group: undefined, rule: "no rule allows it" },
      expect.objectContaining({ action: "publish", topic: "$hub.stats" }),
      { action: "subscribe", topic: "a.*", group: "g", rule: "no rule allows it" },
      { action: "auth", topic: undefined, group: undefined, rule: "the token is that of 'bob'" }
    ])
    expect(sent(actions).some((message) => "rule" in message)).toBe(false)
  })
})

describe("a revoked token", () => {
  it("ends the connection", () => {
    expect(brief(run(ready(everything), [{ _tag: "Revoked" }]).actions)).toEqual(["close 4102"])
  })
})

describe("a closed session", () => {
  it("does nothing, whatever happens", () => {
    const { session } = run(ready(everything), [{ _tag: "Revoked" }])
    const inputs = [
      received([auth, ...requests, { op: "MALFORMED", msg: "" }]),
      verified(claims(everything)),
      refused("jwt_invalid"),
      tick(9_999_999),
      { _tag: "Revoked" } as const,
      { _tag: "Pong" } as const,
      { _tag: "Ended", key: "a ", reason: "removed" } as const
    ]
    expect(run(session, inputs)).toEqual({ session, actions: [] })
  })
})
