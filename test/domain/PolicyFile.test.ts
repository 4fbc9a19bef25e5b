/**
 * Policy files: what is wrong with one is told with its place, roles are merged denies first, and what a token says of
 * itself fills one segment of a rule or nothing.
 */
import { describe, expect, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import * as Policy from "../../src/domain/Policy.ts"
import * as PolicyFile from "../../src/domain/PolicyFile.ts"
import * as Topic from "../../src/domain/Topic.ts"
import {
  bad,
  fileText,
  good,
  pattern,
  request,
  roleNames,
  template,
  topics,
  valuesFrom
} from "./policyFileScene.ts"

const file = (text: string): PolicyFile.PolicyFile => Result.getOrThrow(PolicyFile.parsePolicyFile(text))

const problems = (text: string): ReadonlyArray<string> => {
  const parsed = PolicyFile.parsePolicyFile(text)
  return Result.isSuccess(parsed) ? [] : parsed.failure.message.split("\n")
}

const nobody: PolicyFile.Values = { sub: "alice" }

const resolve = (text: string, roles: ReadonlyArray<string>, values: PolicyFile.Values = nobody) =>
  Result.getOrThrow(PolicyFile.resolve(file(text), { ...values, roles }))

const rulesOf = (text: string, roles: ReadonlyArray<string>, values?: PolicyFile.Values) =>
  resolve(text, roles, values).rules.map(Policy.formatRule)

const isAllowed = (policy: Policy.Policy, request: Policy.Request): boolean =>
  Policy.decide(policy, request)._tag === "Allowed"

it("of a text that is none a hundred problems are told", () => {
  expect(problems("nonsense\n".repeat(50_000))).toHaveLength(Policy.maxProblems)
  expect(problems(`role a:\n${"look\n".repeat(50_000)}`)).toHaveLength(Policy.maxProblems)
  const rules = Policy.parsePolicy("look\n".repeat(50_000))
  expect(Result.isFailure(rules) && rules.failure.problems).toHaveLength(Policy.maxProblems)
})

it("who has the same identity has the same rules", () =>
  fc.assert(
    fc.property(
      fileText,
      fc.array(fc.constantFrom(...roleNames), { maxLength: 3 }),
      valuesFrom(fc.oneof(good, bad)),
      valuesFrom(fc.oneof(good, bad)),
      (text, roles, one, other) => {
        const [a, b] = [one, other].map((values) => ({
          identity: PolicyFile.identityOf(file(text), { ...values, roles }),
          rules: rulesOf(text, roles, values)
        }))
        if (a!.identity === b!.identity) expect(a!.rules).toEqual(b!.rules)
        // A shared policy is shared as far as it can be.
        const isFor = (text: string) => roles.length === 0 || !PolicyFile.isTemplate(text)
        if (isFor(text)) expect(a!.identity).toBe(b!.identity)
      }
    )
  ))

const formRule = "a placeholder is a whole segment, ${sub} or ${claim.<name>}"

describe("a policy file", () => {
  const example = `
# Who may do what.
role dev:
  allow publish heartbeat.*            # trailing comment
  deny subscribe secrets.**
role ops: allow admin **

	role   tenant-user:   # its rules are indented or not
allow subscribe orders.\${claim.tenant}.**
    allow subscribe users.\${sub}.** group \${sub} mailer
`

  it("has roles, each with its rules and their lines", () => {
    const { roles } = file(example)
    expect([...roles.keys()]).toEqual(["dev", "ops", "tenant-user"])
    expect(roles.get("dev")).toEqual({
      name: "dev",
      line: 3,
      rules: [
        { line: 4, rule: { effect: "allow", action: "publish", topics: ["heartbeat.*"] } },
        { line: 5, rule: { effect: "deny", action: "subscribe", topics: ["secrets.**"] } }
      ]
    })
    expect(roles.get("ops")?.rules).toEqual([
      { line: 6, rule: { effect: "allow", action: "admin", topics: ["**"] } }
    ])
    expect(roles.get("tenant-user")?.rules.map(({ line, rule }) => [line, Policy.formatRule(rule)])).toEqual([
      [9, "allow subscribe orders.${claim.tenant}.**"],
      [10, "allow subscribe users.${sub}.** group ${sub} mailer"]
    ])
  })

  it("may come from anywhere: with a byte order mark, tabs and any ends of lines", () => {
    expect(rulesOf("\ufeffrole a:\r\n\tallow publish x\rdeny\tpublish  y\r\n", ["a"])).toEqual([
      "allow publish x",
      "deny publish y"
    ])
  })

  it("tells all that is wrong at once, with line and column", () => {
    const text = `allow publish a
role dev:
  allow look a
role:
role a.b:
role ops
role x:allow publish a
  alow publish a
role dev:
  deny publish a..b
role y: allow publish`
    expect(problems(text)).toEqual([
      "1:1: it stands before the first role: rules belong to roles, each opened by a line 'role <name>:'",
      "3:9: 'look' is no action; the actions are publish, subscribe, admin, *",
      "4:1: a rule begins with 'allow' or 'deny', not 'role:'",
      "5:6: 'a.b' is no name of a role: it is one segment",
      "6:9: a ':' is missing behind the name: role ops:",
      "7:8: a space is missing behind 'x:'",
      "8:3: a rule begins with 'allow' or 'deny', not 'alow'",
      "9:6: there is a role 'dev' already, on line 2",
      "10:16: not a pattern: it has an empty segment",
      "11:22: a topic pattern is missing"
    ])
    expect(problems("role")).toEqual(["1:5: the name of the role is missing: role <name>:"])
  })

  it("without a role is wrong: somebody is writing it, or it was cut off", () => {
    for (const text of ["", "\n\n", "# nothing\n"])
      expect(problems(text)).toEqual(["1:1: it has no role: role <name>:"])
  })

  it.each([
    ["allow publish x${sub}", 24],
    ["allow publish a ${sub}x.b", 25],
    ["allow publish ${}", 23],
    ["allow publish ${subject}", 23],
    ["allow publish a.${claim.}", 25],
    ["allow publish a.${claim.${sub}}", 25],
    ["allow publish ${sub", 23],
    ["allow subscribe a group x${sub}", 34],
    ["allow subscribe a group ${sub} ${sub}.x", 40],
    ["allow subscribe a group a.b", 33]
  ])("a placeholder in '%s' is refused with its column", (rule, column) => {
    const [problem] = problems(`role a: ${rule}`)
    expect(problem).toMatch(new RegExp(`^1:${column}: `))
    if (!rule.includes("a.b") && !rule.endsWith(".x")) expect(problem).toBe(`1:${column}: ${formRule}`)
  })

  it("any text is read or refused, with places that are there", () => {
    const word = fc.constantFrom(
      "role",
      "a:",
      "allow",
      "deny",
      "publish",
      "group",
      "a.*",
      "${sub}",
      "#",
      " ",
      "\n",
      ":"
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(word).map((words) => words.join(" "))
        ),
        (text) => {
          const parsed = PolicyFile.parsePolicyFile(text)
          if (Result.isSuccess(parsed)) return
          const lines = Policy.linesOf(text)
          for (const { column, line } of parsed.failure.problems) {
            expect(column).toBeGreaterThan(0)
            expect(column).toBeLessThanOrEqual(lines[line - 1]!.length + 1)
          }
        }
      ),
      { numRuns: 2_000 }
    )
  })

  it("a comment begins at a word that begins with '#'; a name that does is written with a backslash", () => {
    const text =
      "role a: # one\n allow publish a#b \\#c \\\\#d #not this\n allow subscribe x group \\#g # nor this"
    expect(resolve(text, ["a"]).rules).toEqual([
      { effect: "allow", action: "publish", topics: ["a#b", "#c", "\\#d"] },
      { effect: "allow", action: "subscribe", topics: ["x"], groups: ["#g"] }
    ])
    expect(rulesOf(text, ["a"])).toEqual(["allow publish a#b \\#c \\\\#d", "allow subscribe x group \\#g"])
    expect(problems("role a: deny subscribe #secrets")).toEqual(["1:24: a topic pattern is missing"])
  })
})

describe("roles", () => {
  it("one is as it is written: an exception before a deny holds", () => {
    const text = "role a:\n allow subscribe logs.public\n deny subscribe logs.**\n allow subscribe **"
    expect(rulesOf(text, ["a"])).toEqual([
      "allow subscribe logs.public",
      "deny subscribe logs.**",
      "allow subscribe **"
    ])
    expect(rulesOf(text, ["a", "a"])).toEqual(rulesOf(text, ["a"]))
  })

  it("of several, all denies come first, then all allows, in the order of the token", () => {
    const text = "role a:\n allow publish a\n deny publish b\nrole c:\n allow publish c\n deny publish d"
    expect(rulesOf(text, ["c", "a"])).toEqual([
      "deny publish d",
      "deny publish b",
      "allow publish c",
      "allow publish a"
    ])
  })

  it("what any of several denies is denied", () => {
    fc.assert(
      fc.property(fileText, valuesFrom(fc.oneof(good, bad)), request, (text, values, request) => {
        const merged = resolve(text, roleNames, values)
        const isDenied = roleNames.some((role) =>
          resolve(text, [role], values).rules.some(
            (rule) => rule.effect === "deny" && Policy.decide({ rules: [rule] }, request).rule === rule
          )
        )
        if (isDenied) expect(isAllowed(merged, request)).toBe(false)
      }),
      { numRuns: 2_000 }
    )
  })

  it("without placeholders one decides as its rules do", () => {
    fc.assert(
      fc.property(fileText, request, (text, request) => {
        const plain = text.replaceAll(/\$\{[^}]*\}/g, "b")
        const rules = /role dev:([^]*?)role/.exec(plain)![1]!
        const alone = Result.getOrThrow(Policy.parsePolicy(rules))
        expect(isAllowed(resolve(plain, ["dev"]), request)).toBe(isAllowed(alone, request))
      }),
      { numRuns: 1_000 }
    )
  })

  it("that are not there are an error with the name, cut where it is long", () => {
    const unknown = PolicyFile.resolve(file("role a:"), { ...nobody, roles: ["a", "b"] })
    expect(Result.getOrThrow(Result.flip(unknown))).toMatchObject({ _tag: "UnknownRole", role: "b" })
    const long = new PolicyFile.UnknownRole({ role: "x".repeat(1_000) })
    expect(long.message.length).toBeLessThan(150)
    expect(Result.isFailure(PolicyFile.resolve(file("role a:"), { ...nobody, roles: ["__proto__"] }))).toBe(
      true
    )
  })

  it("stand before what the token carries itself, and are not looked at where it has none", () => {
    const own = Result.getOrThrow(Policy.scopesToPolicy(["subscribe:**"]))
    const roles = file("role a:\n deny subscribe secrets.**")
    const policy = (rights: object) =>
      Result.getOrThrow(PolicyFile.policyOf(roles, { ...nobody, policy: own, ...rights })).rules
    expect(policy({ roles: ["a"] }).map(Policy.formatRule)).toEqual([
      "deny subscribe secrets.**",
      "allow subscribe **"
    ])
    expect(policy({})).toBe(own.rules)
  })
})

describe("placeholders", () => {
  const text = `role user:
  deny subscribe users.\${sub}.secret group \${claim.team}
  allow subscribe users.\${sub}.** orders.\${claim.tenant}.** fixed
  allow subscribe news group \${sub} readers`

  it("are filled by what the token says", () => {
    const values = { sub: "ann", values: { tenant: "7", team: "blue" } }
    expect(rulesOf(text, ["user"], values)).toEqual([
      "deny subscribe users.ann.secret group blue",
      "allow subscribe users.ann.** orders.7.** fixed",
      "allow subscribe news group ann readers"
    ])
  })

  it("that nothing fills take away what they allow, and let a deny deny for every value", () => {
    for (const value of ["", "a.b", "*", "**", "$dead", "a b", "é"]) {
      const values = { sub: value, values: { tenant: value, team: value } }
      expect(rulesOf(text, ["user"], values)).toEqual([
        "deny subscribe users.*.secret group *",
        "allow subscribe fixed",
        "allow subscribe news group readers"
      ])
    }
    expect(rulesOf("role a: allow subscribe ${claim.x}.** b.${sub} group ${claim.x}", ["a"])).toEqual([])
    expect(rulesOf("role a: allow subscribe b group ${claim.x}", ["a"])).toEqual([])
  })

  it("are own claims only, whatever they are called", () => {
    for (const name of ["constructor", "__proto__", "toString"]) {
      const rules = `role a: allow publish x.\${claim.${name}}`
      expect(rulesOf(rules, ["a"], { sub: "a", values: {} })).toEqual([])
      expect(rulesOf(rules, ["a"], { sub: "a", values: JSON.parse(`{"${name}":"y"}`) as {} })).toEqual([
        "allow publish x.y"
      ])
    }
  })

  it("filled to a pattern that is too long are as with a bad value", () => {
    const long = `${"y".repeat(60)}.`.repeat(8)
    const rules = `role a:\n allow publish ${long}\${sub}\n deny publish ${long}\${sub}`
    expect(rulesOf(rules, ["a"], { sub: "x".repeat(64) })).toEqual([`deny publish ${long}*`])
  })

  it("come from texts and whole numbers of the token that are one segment", () => {
    const payload = JSON.parse(
      '{"sub":"ann","tenant":7,"n":-0,"exp":5,"iat":5,"nbf":5,"f":1.5,"big":1e300,"yes":true,"no":null,"list":["a"],' +
        '"object":{},"dots":"a.b","own":"$x","empty":"","star":"*","__proto__":"p","team":"blue"}'
    ) as unknown
    const values = PolicyFile.valuesOf(payload)
    expect(Object.entries(values)).toEqual([
      ["sub", "ann"],
      ["tenant", "7"],
      ["n", "0"],
      ["__proto__", "p"],
      ["team", "blue"]
    ])
    expect(Object.getPrototypeOf(values)).toBe(Object.prototype)
    for (const none of [null, undefined, 1, "text"])
      expect(Object.values(PolicyFile.valuesOf(none)).length).toBeLessThan(5)
  })

  const placeholderOf =
    ({ sub, values = {} }: PolicyFile.Values) =>
    (name: string) =>
      name === "sub" ? sub : (values[name.slice("claim.".length)] ?? "")

  it("an allow never matches more than the one literal value, a deny never less", () => {
    let matched = 0
    fc.assert(
      fc.property(template, valuesFrom(fc.oneof(good, bad)), (name, values) => {
        const allows = resolve(`role a: allow publish ${name}`, ["a"], values)
        const denies = resolve(`role a:\n deny publish ${name}\n allow publish ** $s.**`, ["a"], values)
        const literal = PolicyFile.substitute(name, placeholderOf(values))
        const fills = [...name.matchAll(/\$\{([^}]*)\}/g)].every(([, inside]) =>
          PolicyFile.canFill(placeholderOf(values)(inside!))
        )
        for (const topic of topics) {
          const isMatch = fills && Topic.matches(literal, topic)
          if (isMatch) matched++
          expect(isAllowed(allows, { action: "publish", topic })).toBe(isMatch)
          if (isMatch) expect(isAllowed(denies, { action: "publish", topic })).toBe(false)
        }
      }),
      { numRuns: 500 }
    )
    expect(matched).toBeGreaterThan(100)
  })

  it("a bad value, or none, never allows what a good one denies", () => {
    let differ = 0
    const key = "https://x.y/z"
    fc.assert(
      fc.property(
        fileText,
        fc.subarray(roleNames, { minLength: 1 }),
        valuesFrom(good),
        fc.record({ sub: bad, t: bad, z: bad }, { requiredKeys: [] }),
        fc.array(request, { minLength: 1, maxLength: 30 }),
        pattern,
        (text, roles, honest, { sub, t, z }, requests, pattern) => {
          // With rights to everything there is something that a deny can deny.
          const all = `${text}\nrole all:\n allow * ** $s.**\n allow admin ** $s.**`
          const hostile: PolicyFile.Values = {
            sub: sub ?? honest.sub,
            values: {
              t: t ?? honest.values!["t"]!,
              ...(z === undefined ? { [key]: honest.values![key]! } : {})
            }
          }
          for (const held of [roles, [...roles, "all"]]) {
            const before = resolve(all, held, honest)
            const after = resolve(all, held, hostile)
            for (const request of requests) {
              if (isAllowed(before, request) !== isAllowed(after, request)) differ++
              if (!isAllowed(before, request)) expect(isAllowed(after, request)).toBe(false)
            }
            const wanted = { pattern, group: requests[0]!.group }
            if (Policy.decideSubscription(before, wanted)._tag === "Denied") {
              expect(Policy.decideSubscription(after, wanted)._tag).toBe("Denied")
            }
          }
        }
      ),
      { numRuns: 3_000 }
    )
    expect(differ).toBeGreaterThan(500)
  })
})
