/** What holds for a connection whatever its client sends and whenever its token is verified. */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import fc from "fast-check"
import * as Policy from "../../src/domain/Policy.ts"
import * as Session from "../../src/domain/Session.ts"
import * as Topic from "../../src/domain/Topic.ts"
import type { Decoded } from "../../src/protocol/Decode.ts"
import type { Ref } from "../../src/protocol/Messages.ts"
import {
  brief,
  claims,
  context as scene,
  opened,
  ready,
  received,
  refused,
  tick,
  verified
} from "./sessionScene.ts"

/** The answers to some refused tokens wait. */
const context: Session.SessionContext = {
  ...scene,
  delayOf: (code) => (code === "token_expired" ? 0 : 100)
}

const topic = fc.constantFrom("a", "a.b", "a.c", "b.x", "$dead.g.a", "a..b", "a.*", "", "a b", "é")
const pattern = fc.oneof(topic, fc.constantFrom("**", "b.*", "a.**", "$dead.**", "a.b*"))
const group = fc.constantFrom("g", "h", "no group")
const id = fc.constantFrom("x", "y")

const policy = fc.constantFrom(
  "",
  "allow * **",
  "allow subscribe a.**",
  "allow publish a.*\nallow subscribe b.* group g",
  "deny subscribe a.b\nallow * **"
)

const as = <const Op extends string, A>(op: Op, fields: { [K in keyof A]: fc.Arbitrary<A[K]> }) =>
  fc.record({ op: fc.constant(op), ...fields })

const message = fc.oneof(
  { weight: 2, arbitrary: as("AUTH", { token: fc.constantFrom("jwt", "jwt", "jwt", "") }) },
  { weight: 5, arbitrary: as("PUBLISH", { topic, payload: fc.constantFrom(1, null, "x".repeat(60)) }) },
  { weight: 3, arbitrary: as("SUBSCRIBE", { topic: pattern }) },
  { weight: 3, arbitrary: as("SUBSCRIBE", { topic: pattern, group }) },
  { weight: 2, arbitrary: as("UNSUBSCRIBE", { topic: pattern }) },
  { weight: 2, arbitrary: as("UNSUBSCRIBE", { topic: pattern, group }) },
  { weight: 2, arbitrary: as("ACK", { topic, group, ids: fc.array(id, { maxLength: 2 }) }) },
  { weight: 1, arbitrary: as("NACK", { topic, group, id, delayMs: fc.constantFrom(0, 5_001) }) },
  { weight: 1, arbitrary: as("EXTEND", { topic, group, id, byMs: fc.constantFrom(1, 5_001) }) },
  { weight: 1, arbitrary: as("PING", {}) },
  { weight: 1, arbitrary: as("MALFORMED", { msg: fc.constant("what?") }) }
)

const event = fc.oneof(
  { weight: 8, arbitrary: fc.array(fc.tuple(message, fc.boolean()), { maxLength: 5 }) },
  {
    weight: 6,
    arbitrary: fc.record({ policy, sub: fc.constantFrom("ann", "ann", "ann", "bob") })
  },
  { weight: 1, arbitrary: fc.constantFrom("jwt_invalid", "token_expired", "unavailable") },
  { weight: 1, arbitrary: fc.constantFrom("Pong", "Ended", "Tick", "Tick", "Tick") },
  { weight: 1, arbitrary: fc.constantFrom("Waited", "PolicyChanged") },
  { weight: 1, arbitrary: fc.nat(15).map((n) => (n === 0 ? "Revoked" : "Pong")) }
)

/** What happened to a connection; each message that asks for an answer has a ref of its own. */
const story = fc
  .record({
    begin: fc.record({ policy }),
    events: fc.array(fc.tuple(event, fc.constantFrom(0, 10, 2_000, 9_000)), { maxLength: 40, size: "max" })
  })
  .map(({ begin, events }): ReadonlyArray<Session.Input> => {
    let ref = 0
    let now = 0
    const inputs = events.map(([event, after]): Session.Input => {
      now += after
      if (Array.isArray(event)) {
        const messages = event.map(([message, asks]) => (asks ? { ...message, ref: ++ref } : message))
        return received(messages as ReadonlyArray<Decoded>, now)
      }
      if (typeof event === "object") return verified(claims(event.policy, { sub: event.sub }), now)
      switch (event) {
        case "Tick":
          return tick(now)
        case "Pong":
        case "Revoked":
        case "Waited":
        case "PolicyChanged":
          return { _tag: event }
        case "Ended":
          return { _tag: event, key: Session.subscriptionKey("a.**", undefined), reason: "removed" }
        default:
          return refused(event, now)
      }
    })
    return [received([{ op: "AUTH", token: "jwt", ref: 0 }]), verified(claims(begin.policy)), ...inputs]
  })

interface Moment extends Session.Step {
  readonly before: Session.Session
  readonly input: Session.Input
}

const live = (inputs: ReadonlyArray<Session.Input>): ReadonlyArray<Moment> => {
  let before = opened
  return inputs.map((input) => {
    const step = Session.step(before, input, context)
    const moment = { before, input, ...step }
    before = step.session
    return moment
  })
}

const always = (title: string, holds: (moments: ReadonlyArray<Moment>) => void) =>
  it(title, () => {
    fc.assert(
      // Some stories begin before the first AUTH is verified, some after.
      fc.property(story, fc.constantFrom(0, 1, 2), (inputs, skipped) => {
        holds(live(inputs.slice(skipped)))
      }),
      { numRuns: 300 }
    )
  })

/** The ref that an action answers, now or when it is carried out. */
const answered = (action: Session.Action): Ref | undefined => {
  switch (action._tag) {
    case "Send":
      return "ref" in action.message ? action.message.ref : undefined
    case "Append":
      return action.ref
    case "Subscribe":
    case "Settle":
      return action.message.ref
    case "Unsubscribe":
      return action.message.ref
    default:
      return undefined
  }
}

const refsOf = (messages: ReadonlyArray<Decoded>) => messages.flatMap(({ ref }) => ref ?? [])

describe("a session", () => {
  always("answers a request that has a ref exactly once, unless it waits behind AUTH", (moments) => {
    const asked: Array<Ref> = []
    const told: Array<Ref> = []
    for (const { actions, before, input, session } of moments) {
      if (input._tag === "Received" && before.phase !== "closed") asked.push(...refsOf(input.messages))
      told.push(...actions.flatMap((action) => answered(action) ?? []))
      expect(new Set(told).size).toBe(told.length)
      if (session.phase === "closed") {
        expect(asked).toEqual(expect.arrayContaining(told))
      } else {
        const waiting = refsOf([
          ...(session.verifying === undefined ? [] : [session.verifying]),
          ...session.queued.map(({ message }) => message)
        ])
        expect([...told, ...waiting].toSorted()).toEqual(asked.toSorted())
      }
    }
  })

  always("answers a request that has none only when it fails, but AUTH always", (moments) => {
    let tokens = 0
    let welcomes = 0
    for (const { actions, before, session } of moments) {
      for (const action of actions) {
        if (action._tag === "Verify") tokens++
        if (action._tag !== "Send" || action.message.op !== "OK") continue
        const isWelcome = "connection" in action.message
        if (isWelcome) welcomes++
        expect(isWelcome || action.message.ref !== undefined).toBe(true)
      }
      const ended = before.verifying !== undefined && session.verifying !== before.verifying
      const answers = actions.filter((action) => action._tag === "Send" && action.message.op !== "END")
      if (ended && session.phase !== "closed") expect(answers.length).toBeGreaterThan(0)
    }
    expect(welcomes).toBeLessThanOrEqual(tokens)
  })

  always("looks at nothing while a token is with the verifier", (moments) => {
    for (const { actions, before, input, session } of moments) {
      if (before.verifying === undefined || input._tag !== "Received") continue
      expect(actions).toEqual([])
      expect(session.queued).toEqual([
        ...before.queued,
        ...input.messages.map((message) => ({ message, frame: input.frame }))
      ])
    }
  })

  always("does nothing for a client before it knows it, but ask the verifier or send it away", (moments) => {
    for (const { actions, session } of moments) {
      if (session.claims !== undefined) continue
      const first = brief(actions).filter((name) => !name.startsWith("ERR") && !name.startsWith("close"))
      expect(first.filter((name) => name !== "Verify" && name !== "Wait")).toEqual([])
      if (brief(actions).some((name) => name.endsWith("no_token")))
        expect(brief(actions).at(-1)).toBe("close 4401")
    }
  })

  always("closes once, and that is the last it does", (moments) => {
    const names = moments.flatMap(({ actions }) => brief(actions))
    const closed = names.findIndex((name) => name.startsWith("close"))
    if (closed >= 0) expect(closed).toBe(names.length - 1)
    expect(closed >= 0).toBe(moments.some(({ session }) => session.phase === "closed"))
  })

  always("does only what the token allows, to topics that are valid and not the hub's own", (moments) => {
    for (const { actions, session } of moments) {
      for (const action of actions) {
        if (action._tag === "Append") {
          expect(Result.isSuccess(Topic.parseTopic(action.record.topic))).toBe(true)
          expect(Topic.isOwn(action.record.topic)).toBe(false)
        }
        if (action._tag === "Subscribe") {
          expect(Result.isSuccess(Topic.parsePattern(action.message.topic))).toBe(true)
          expect(action.key).toBe(Session.subscriptionKey(action.message.topic, action.message.group))
        }
      }
      for (const { group, pattern } of session.subscriptions.values()) {
        const request = { pattern: pattern.name, group }
        expect(Policy.decideSubscription(session.claims!.policy, request)._tag).toBe("Allowed")
      }
      expect(session.subscriptions.size).toBeLessThanOrEqual(context.limits.maxSubscriptionsPerConnection)
    }
  })

  always("has the subscriptions that it began and did not end", (moments) => {
    const standing = new Set<string>()
    for (const { actions, input, session } of moments) {
      if (input._tag === "Ended") standing.delete(input.key)
      for (const action of actions) {
        if (action._tag === "Subscribe") {
          expect(standing.has(action.key)).toBe(false)
          standing.add(action.key)
        }
        const gone =
          action._tag === "Unsubscribe" ? [action.key] : action._tag === "Revoke" ? action.ends.keys() : []
        for (const key of gone) expect(standing.delete(key)).toBe(true)
      }
      if (session.phase !== "closed") expect([...session.subscriptions.keys()]).toEqual([...standing])
    }
  })

  always("belongs to one subject for its whole life", (moments) => {
    const subjects = moments.flatMap(({ session }) => session.claims?.sub ?? [])
    expect(new Set(subjects).size).toBeLessThanOrEqual(1)
  })

  always("leaves the session it was given as it was", (moments) => {
    for (const { before, input, ...step } of moments) {
      const again = Session.step(before, input, context)
      expect(again).toEqual({ session: step.session, actions: step.actions })
    }
  })
})

describe("validity", () => {
  const anyTopic = fc.oneof(
    topic,
    fc.string({ maxLength: 20 }),
    fc.string({ unit: fc.constantFrom("a", ".", "*", "$") })
  )

  it("is judged before rights: a bad topic is invalid_topic for everyone", () => {
    fc.assert(
      fc.property(anyTopic, policy, (topic, rights) => {
        const step = Session.step(ready(rights), received([{ op: "PUBLISH", topic, payload: 1 }]), context)
        const isBad = Result.isFailure(Topic.parseTopic(topic))
        expect(brief(step.actions).includes("ERR invalid_topic")).toBe(isBad)
      })
    )
  })

  it("is judged before rights: a bad pattern is invalid_pattern for everyone", () => {
    fc.assert(
      fc.property(anyTopic, policy, (topic, rights) => {
        const step = Session.step(ready(rights), received([{ op: "SUBSCRIBE", topic }]), context)
        const isBad = Result.isFailure(Topic.parsePattern(topic))
        expect(brief(step.actions).includes("ERR invalid_pattern")).toBe(isBad)
      })
    )
  })

  it("is all that keeps a client with every right from publishing and subscribing", () => {
    fc.assert(
      fc.property(anyTopic, (topic) => {
        fc.pre(!Topic.isOwn(topic))
        const messages = [
          { op: "PUBLISH", topic, payload: 1 },
          { op: "SUBSCRIBE", topic }
        ] as const
        const { actions } = Session.step(ready("allow * **"), received(messages), context)
        expect(brief(actions)).toEqual([
          Result.isSuccess(Topic.parseTopic(topic)) ? "Append" : "ERR invalid_topic",
          Result.isSuccess(Topic.parsePattern(topic)) ? "Subscribe" : "ERR invalid_pattern"
        ])
      })
    )
  })
})
