/** `event-hub token` and the command around it, as people run them. */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { decodeJwt, decodeProtectedHeader, jwtVerify } from "jose"
import { describe, expect, it } from "vitest"

const root = fileURLToPath(new URL("../..", import.meta.url))
const secret = "0123456789abcdef0123456789abcdef"

const run = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) => {
  const path = process.env["PATH"] ?? ""
  const { status, stderr, stdout } = spawnSync(process.execPath, ["src/cli/main.ts", ...args], {
    cwd: root,
    env: { PATH: path, JWT_SECRET: secret, ...env },
    encoding: "utf8"
  })
  return { status, stderr, stdout }
}

describe("token", () => {
  it("makes a token with the default scopes, and says beside it what it is", async () => {
    const { status, stderr, stdout } = run(["token"])
    expect(status).toBe(0)
    const token = stdout.trimEnd()
    expect(decodeProtectedHeader(token)).toEqual({ alg: "HS256", typ: "JWT" })
    const { payload } = await jwtVerify(token, new TextEncoder().encode(secret))
    expect(payload).toMatchObject({
      sub: "dev",
      scopes: ["publish:heartbeat.received", "subscribe:process.state"]
    })
    expect(Number(payload.exp) - Number(payload.iat)).toBe(12 * 3_600)
    expect(stderr).toMatch(
      /^sub dev, valid until .*, scopes: publish:heartbeat\.received subscribe:process\.state\n$/
    )
  })

  it.each([
    [["token", "-s"], {}],
    [["token"], { npm_config_loglevel: "silent" }]
  ])("%j with %j prints the token and nothing else", (args, env) => {
    const { stderr, stdout } = run(args, env as Record<string, string>)
    expect(stdout).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+\n$/)
    expect(stderr).toBe("")
  })

  it("takes scopes, subject, life time, audience and issuer", () => {
    const { stdout } = run(
      ["token", "-s", "--scope", "publish:a.**", "--scope", "subscribe:b:c", "--sub", "me", "--ttl", "30m"],
      { JWT_AUD: "hub", JWT_ISS: "us" }
    )
    const payload = decodeJwt(stdout.trimEnd())
    expect(payload).toMatchObject({
      sub: "me",
      scopes: ["publish:a.**", "subscribe:b:c"],
      aud: "hub",
      iss: "us"
    })
    expect(Number(payload.exp) - Number(payload.iat)).toBe(1_800)
  })

  it.each([
    [[], { JWT_SECRET: "" }, /JWT_SECRET is not set/],
    [[], { JWT_SECRET: "short" }, /JWT_SECRET has 5 bytes: .*at least 32 bytes/],
    [["--scope", "publish"], {}, /not a scope: 'publish'/],
    [["--scope", "fly:a"], {}, /not a scope: 'fly:a'/],
    [["--scope", "publish:a..b"], {}, /not a scope|not a pattern/],
    [["--ttl", "soon"], {}, /--ttl 'soon' is no duration/]
  ])("%j with %j is refused in one line", (args, env, message) => {
    const { status, stderr, stdout } = run(["token", ...args], env as Record<string, string>)
    expect(stderr).toMatch(message)
    expect(stderr.trimEnd().split("\n")).toHaveLength(1)
    expect(stdout).toBe("")
    expect(status).toBe(1)
  })
})

describe("event-hub", () => {
  it("explains itself", () => {
    const { status, stderr, stdout } = run(["--help"])
    expect(stdout).toMatch(/serve .*\n\s+token /)
    expect(stderr).toBe("")
    expect(status).toBe(0)
  })

  it("without a verb, or with an unknown one, explains itself and fails without a stack trace", () => {
    for (const args of [[], ["tokn"]]) {
      const { status, stderr, stdout } = run(args)
      expect(`${stdout}${stderr}`).toMatch(/USAGE[^]*SUBCOMMANDS/)
      expect(`${stdout}${stderr}`).not.toMatch(/^\s+at |Help requested/m)
      expect(status).toBe(1)
    }
  })

  it("serve says what is wrong with the configuration, as npm start does", () => {
    const { status, stderr } = run(["serve"], { HUB_STORE: "nowhere:" })
    expect(stderr).toBe("event-hub: the configuration is wrong: HUB_STORE must be sqlite:<path> or memory:\n")
    expect(status).toBe(1)
  })
})
