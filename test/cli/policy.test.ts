/** `event-hub policy`, as people run it: what it says, and the exit code that scripts go by. */
import {
  chmodSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { runCli } from "../support/runCli.ts"
import { temporaryDirectory } from "../support/temporary.ts"
import { tokenFor } from "../support/tokens.ts"

const good = `# Who may do what.
role dev:
  allow publish heartbeat.*  # trailing comment
  allow subscribe **

role tenant:
  deny subscribe orders.\${claim.tenant}.secret
  allow subscribe orders.\${claim.tenant}.** users.\${sub}
  allow subscribe mails group \${sub} mailer
`

const suspicious = `role dev:
  allow subscribe **
  deny subscribe secrets.**
`

const written = (text: string): string => {
  const path = join(temporaryDirectory(), "policies.txt")
  writeFileSync(path, text)
  return path
}

const policy = (...args: ReadonlyArray<string>) => runCli(["policy", ...args])

describe("check", () => {
  it("is content with a good file", async () => {
    expect(await policy("check", written(good))).toEqual({
      code: 0,
      stdout: "2 roles, 5 rules\n",
      stderr: ""
    })
  })

  it("tells all that is wrong, with exit code 1", async () => {
    const path = written("role a:\n  look\nrole a:\n")
    expect(await policy("check", path)).toEqual({
      code: 1,
      stderr: "",
      stdout: `${path}:2:3: error: a rule begins with 'allow' or 'deny', not 'look'
${path}:3:6: error: there is a role 'a' already, on line 1
2 errors
`
    })
    const { code, stdout } = await policy("check", "--json", path)
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({ errors: [{ line: 2, column: 3 }, { line: 3 }], warnings: [] })
  })

  it("warns of what is hardly meant, and fails by it only when it is told to", async () => {
    const path = written(suspicious)
    const { code, stdout } = await policy("check", path)
    expect([code, stdout]).toEqual([
      0,
      `${path}:3:3: warning: it denies no topic: line 2 above allows them. Write denies first\n1 role, 2 rules, 1 warning\n`
    ])
    expect((await policy("check", path, "--strict")).code).toBe(1)
    expect((await policy("check", written(good), "--strict")).code).toBe(0)
  })

  it("reads standard input, and says when there is nothing to read", async () => {
    const { code, stdout } = await runCli(["policy", "check", "-"], {}, "role a: look")
    expect([code, stdout]).toEqual([
      1,
      "standard input:1:9: error: a rule begins with 'allow' or 'deny', not 'look'\n1 error\n"
    ])
    expect(await policy("check", "/nowhere/at/all")).toEqual({
      code: 1,
      stdout: "",
      stderr: "event-hub: cannot read '/nowhere/at/all': there is no such file\n"
    })
  })
})

describe("explain", () => {
  it("names the rule that decides and its line, and why the others do not", async () => {
    const path = written(good)
    const allowed = await policy(
      "explain",
      path,
      "subscribe",
      "orders.7.new",
      "--role",
      "tenant",
      "--claim",
      "tenant=7"
    )
    expect(allowed).toEqual({
      code: 0,
      stderr: "",
      stdout: `allowed: rule 2 allows it: allow subscribe orders.7.**

  1  ${path}:7 (tenant)  deny subscribe orders.7.secret      it does not match 'orders.7.new'
> 2  ${path}:8 (tenant)  allow subscribe orders.7.**         it is the first rule that fits
  3  ${path}:9 (tenant)  allow subscribe mails group mailer  it is about consumer groups, and none was asked for
`
    })
  })

  it("exits with 2 when it is denied, and leaves out what nothing fills", async () => {
    const { code, stdout } = await policy(
      ...[
        "explain",
        "--json",
        written(good),
        "subscribe",
        "orders.7.secret",
        "--role",
        "tenant",
        "--role",
        "dev"
      ]
    )
    expect(code).toBe(2)
    expect(JSON.parse(stdout)).toMatchObject({
      allowed: false,
      rule: 1,
      rules: [
        { n: 1, role: "tenant", line: 7, text: "deny subscribe orders.*.secret", decides: true },
        {
          n: null,
          role: "tenant",
          line: 8,
          decides: false,
          why: expect.stringMatching(/no value that fills/)
        },
        { n: 2, line: 9 },
        { n: 3, role: "dev", line: 3 },
        { n: 4, role: "dev", line: 4, why: "it fits, too, but rule 1 comes first" }
      ]
    })
  })

  it("takes what a token says, and says that it was not verified", async () => {
    const path = written(good)
    const claims = { roles: ["tenant"], tenant: "eu" }
    const token = await tokenFor({
      sub: "ann",
      scopes: ["publish:x"],
      claims,
      secret: "any other secret, of nobody"
    })
    const { code, stderr, stdout } = await policy("explain", path, "subscribe", "users.ann", "--token", token)
    expect([code, stderr]).toEqual([0, "the token's signature and time were not looked at\n"])
    expect(stdout).toMatch(/^allowed: rule 2 allows it: allow subscribe orders\.eu\.\*\* users\.ann\n/)
    expect(stdout).toMatch(/ {2}4 {2}the token +allow publish x +it is about publish/)
  })

  const refused: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
    [["publish", "a"], /give a --role, or a --token/],
    [
      ["publish", "a", "--role", "nobody"],
      /there is no role 'nobody' in the policy file; it has dev, tenant/
    ],
    [["publish", "a..b", "--role", "dev"], /not a pattern: it has an empty segment/],
    [["publish", "a", "--role", "dev", "--claim", "x"], /--claim 'x' is not <name>=<value>/],
    [["publish", "a", "--token", "x", "--role", "dev"], /--token says it all/],
    [["publish", "a", "--token", "x"], /its payload cannot be read/],
    [["subscribe", "a", "--role", "dev", "--group", "a.b"], /--group: a group's name is one topic segment/]
  ]

  it("what cannot be asked is refused with the reason", async () => {
    const path = written(good)
    await Promise.all(
      refused.map(async ([args, reason]) => {
        const { code, stderr } = await policy("explain", path, ...args)
        expect([code, stderr]).toEqual([1, expect.stringMatching(reason)])
      })
    )
  })

  it("says where a file is wrong", async () => {
    const path = written("role a:\n look\n look\n")
    expect(await policy("explain", path, "publish", "a", "--role", "a")).toMatchObject({
      code: 1,
      stderr: `event-hub: ${path}:2:2: a rule begins with 'allow' or 'deny', not 'look' (and 1 more: event-hub policy check)\n`
    })
  })
})

describe("fmt", () => {
  const untidy = good.replace("  allow publish", "allow   publish").replace("\n\n", "\n")

  it("prints, or says by its exit code whether it would change anything", async () => {
    const path = written(untidy)
    expect(await policy("fmt", path)).toEqual({ code: 0, stdout: good, stderr: "" })
    expect((await policy("fmt", "--check", path)).code).toBe(1)
    expect(readFileSync(path, "utf8")).toBe(untidy)
    expect(await policy("fmt", "--check", written(good))).toEqual({ code: 0, stdout: "", stderr: "" })
    expect((await runCli(["policy", "fmt", "-"], {}, untidy)).stdout).toBe(good)
  })

  it("writes in place: through links, with the mode that was there, and nothing else is left", async () => {
    const path = written(untidy)
    chmodSync(path, 0o640)
    const link = `${path}.link`
    symlinkSync(path, link)
    expect(await policy("fmt", "--write", link)).toEqual({ code: 0, stdout: "", stderr: "" })
    expect(readFileSync(path, "utf8")).toBe(good)
    expect(statSync(path).mode & 0o777).toBe(0o640)
    expect(lstatSync(link).isSymbolicLink()).toBe(true)
    expect(readdirSync(join(path, ".."))).toHaveLength(2)
  })

  it("touches nothing that it cannot read, and does not write to standard input", async () => {
    const path = written("role a:\n look\n")
    expect((await policy("fmt", "-w", path)).code).toBe(1)
    expect(readFileSync(path, "utf8")).toBe("role a:\n look\n")
    expect((await runCli(["policy", "fmt", "-w", "-"], {}, good)).stderr).toMatch(/--write needs a file/)
    expect((await policy("fmt", "-w", "--check", path)).stderr).toMatch(/--check writes nothing/)
  })
})

it("each verb has examples in its help", async () => {
  await Promise.all(
    ["check", "explain", "fmt"].map(async (verb) => {
      const { stdout } = await policy(verb, "--help")
      expect(stdout).toMatch(new RegExp(`EXAMPLES[^]*event-hub policy ${verb} `))
    })
  )
})
