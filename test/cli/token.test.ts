/** `event-hub token` and the command around it, as people run them. */
import { spawnSync } from "node:child_process"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect } from "effect"
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, jwtVerify, SignJWT } from "jose"
import { describe, expect, it, vi } from "vitest"
import { inspect } from "../../src/cli/tokenInspect.ts"
import { runCli } from "../support/runCli.ts"
import { temporaryDirectory } from "../support/temporary.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const secret = "0123456789abcdef0123456789abcdef"

const run = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) => {
  const path = process.env["PATH"] ?? ""
  const { status, stderr, stdout } = spawnSync(process.execPath, ["src/cli/main.ts", ...args], {
    cwd: root,
    env: { PATH: path, NODE_COMPILE_CACHE: `${root}node_modules/.cache/node`, JWT_SECRET: secret, ...env },
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
    [["--ttl", "soon"], {}, /--ttl 'soon' is no duration/],
    [["--alg", "HS512"], {}, /JWT_SECRET has 32 bytes: --alg HS512 takes at least 64/],
    [["--claim", "tenant"], {}, /--claim 'tenant' is no claim: write name=text, or name:=json/],
    [["--claim", "sub=root"], {}, /--claim 'sub': .* of its own/],
    [["--claim", "limits:={"], {}, /--claim 'limits': what follows := is no JSON/]
  ])("%j with %j is refused in one line", (args, env, message) => {
    const { status, stderr, stdout } = run(["token", ...args], env as Record<string, string>)
    expect(stderr).toMatch(message)
    expect(stderr.trimEnd().split("\n")).toHaveLength(1)
    expect(stdout).toBe("")
    expect(status).toBe(1)
  })
})

describe("token: what else it takes", () => {
  it("is roles, claims, an id and an algorithm; each token has an id of its own", () => {
    const long = "0123456789abcdef".repeat(4)
    const args = [
      "--role",
      "dev",
      "--role",
      "ops",
      "--claim",
      "tenant=a=b",
      "--claim",
      "limits:={}",
      "--jti",
      "t1"
    ]
    const { stderr, stdout } = run(["token", "--alg", "HS512", ...args], { JWT_SECRET: long })
    expect(decodeProtectedHeader(stdout.trimEnd())).toEqual({ alg: "HS512", typ: "JWT" })
    expect(decodeJwt(stdout.trimEnd())).toMatchObject({
      roles: ["dev", "ops"],
      scopes: [],
      tenant: "a=b",
      limits: {},
      jti: "t1"
    })
    expect(stderr).toMatch(/, roles: dev ops\n$/)
    const ids = [1, 2].map(() => decodeJwt(run(["token", "-s"]).stdout.trimEnd()).jti)
    expect(ids[0]).toMatch(/^[\da-f-]{36}$/)
    expect(ids[1]).not.toBe(ids[0])
  })
})

describe("token inspect", () => {
  const now = Math.floor(Date.now() / 1000)
  const tokenOf = (claims: object, key = secret, header: object = {}) => {
    const made = Math.floor(Date.now() / 1000)
    return new SignJWT({ sub: "me", iat: made - 60, exp: made + 7_200, ...claims })
      .setProtectedHeader({ alg: "HS256", typ: "JWT", ...header })
      .sign(new TextEncoder().encode(key))
  }
  const inspected = async (token: string, env: Readonly<Record<string, string>> = {}, json = false) => {
    const written: Array<string> = []
    const write = vi
      .spyOn(process.stdout, "write")
      .mockImplementation((chunk) => (written.push(String(chunk)), true))
    const taken = await Effect.runPromise(inspect({ token, json, env: { JWT_SECRET: secret, ...env } }))
    write.mockRestore()
    return { taken, stdout: written.join("") }
  }
  const signatureOf = (token: string): string => token.split(".")[2]!

  it("says what is in a good token and what a hub makes of it, without the part that makes it one", async () => {
    const token = await tokenOf({ scopes: ["publish:a.**"], roles: ["dev"] })
    const { stdout, taken } = await inspected(token)
    expect(stdout).toMatch(/^header +alg: "HS256"\n +typ: "JWT"\nclaims +/)
    expect(stdout).toMatch(/times +issued \S+Z \(1 minute ago\)\n +expires \S+Z \(in 2 hours\)\n/)
    expect(stdout).toMatch(
      /rights +allow publish a\.\*\*\nroles +"dev"\nsignature +good, by JWT_SECRET\nverdict +taken\n$/
    )
    expect(stdout).not.toContain(signatureOf(token))
    expect(stdout).not.toContain(secret)
    expect(taken).toBe(true)
  })

  it("says which of several secrets it is by, by its number", async () => {
    const [second, third] = ["b".repeat(40), "c".repeat(40)]
    const env = { JWT_PREVIOUS_SECRETS: `${second} ${third}` }
    for (const [key, name] of [
      [secret, "JWT_SECRET"],
      [second, "JWT_PREVIOUS_SECRETS, number 1"],
      [third, "JWT_PREVIOUS_SECRETS, number 2"]
    ] as const) {
      const { stdout, taken } = await inspected(await tokenOf({}, key), env, true)
      expect(JSON.parse(stdout)).toMatchObject({ taken: true, signedBy: name, problems: [] })
      expect(stdout).not.toContain(key)
      expect(taken).toBe(true)
    }
  })

  it("reads a token, or what else there is, from standard input", async () => {
    const { code, stdout } = await runCli(
      ["token", "inspect", "-"],
      { JWT_SECRET: secret },
      `${await tokenOf({})}\n`
    )
    expect(stdout).toMatch(/verdict +taken\n$/)
    expect(code).toBe(0)
    const empty = await runCli(["token", "inspect", "-"], { JWT_SECRET: secret }, "")
    expect(empty.stdout).toMatch(/verdict +refused: it is no signed token/)
    expect(empty.code).toBe(1)
  })

  it.each<readonly [string, object, Readonly<Record<string, string>>, ReadonlyArray<RegExp>]>([
    ["expired", { exp: now - 7_300 }, {}, [/it has expired/]],
    ["no sub and no exp", { sub: undefined, exp: undefined }, {}, [/'sub'/, /'exp'/]],
    ["of another secret", {}, { JWT_SECRET: "another secret of at least 32 bytes" }, [/none of the keys/]],
    [
      "for another audience, and too old",
      {},
      { JWT_AUD: "hub", JWT_MAX_AGE_MS: "1000" },
      [/'aud'/, /too long ago/]
    ],
    ["scopes that are none", { scopes: ["fly:a"] }, {}, [/not a scope: 'fly:a'/]],
    ["nothing configured", {}, { JWT_SECRET: "" }, [/no keys are configured here/]]
  ])("says all that is wrong, and fails: %s", async (_, claims, env, reasons) => {
    const { stdout, taken } = await inspected(await tokenOf(claims), env, true)
    const { problems } = JSON.parse(stdout) as { readonly problems: ReadonlyArray<string> }
    expect(problems).toHaveLength(reasons.length)
    for (const [i, reason] of reasons.entries()) expect(problems[i]).toMatch(reason)
    expect(taken).toBe(false)
  })

  it("judges roles by the policy file of the hub, where there is one", async () => {
    const path = join(temporaryDirectory(), "policies.txt")
    writeFileSync(path, "role dev:\n  allow subscribe ${claim.tenant}.**\n")
    const env = { HUB_POLICY: path }
    const good = await inspected(await tokenOf({ roles: ["dev"], tenant: 7, scopes: ["publish:a"] }), env)
    expect(good.stdout).toMatch(/rights +allow subscribe 7\.\*\*\n +allow publish a\n/)
    expect(good.taken).toBe(true)
    for (const [roles, why] of [
      [["dev", "gone"], "there is no role 'gone' in the policy file"],
      ["dev", "its claim 'roles' is no array of strings"]
    ] as const) {
      const token = await tokenOf({ roles })
      const { stdout, taken } = await inspected(token, env)
      expect(stdout).toMatch(`refused: ${why}\n`)
      expect(taken).toBe(false)
      expect((await inspected(token)).taken).toBe(true)
    }
    writeFileSync(path, "role dev:\n  look")
    const { status, stderr } = run(["token", "inspect", await tokenOf({})], env)
    expect(stderr).toMatch(/^event-hub: HUB_POLICY: \S+ cannot be used: 2:3: a rule begins with .*\n$/)
    expect(status).toBe(1)
  })

  it("shows what somebody wrote into it, and lets it not write on the screen", async () => {
    const hostile = "a\u001b[2Jb\u009bc\u2028d\u202ee\nf"
    const { stdout } = await inspected(await tokenOf({ sub: hostile, [hostile]: hostile, roles: [hostile] }))
    expect(stdout).not.toMatch(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    expect(stdout).toContain(String.raw`sub: "a\u001b[2Jb\u009bc\u2028d\u202ee\nf"`)
  })

  it("says what is wrong with the environment in one line", async () => {
    const { status, stderr, stdout } = run(["token", "inspect", await tokenOf({})], { JWT_SECRET: "short" })
    expect(stderr).toMatch(/^event-hub: .*JWT_SECRET must have at least 32 bytes.*\n$/)
    expect(stdout).toBe("")
    expect(status).toBe(1)
  })

  it("knows a static token, and the keys of a file", async () => {
    const env = { STATIC_TOKEN: "the one and only" }
    expect(await inspected("the one and only", env)).toEqual({
      taken: true,
      stdout: "verdict    taken: it is STATIC_TOKEN\n"
    })
    const { privateKey, publicKey } = await generateKeyPair("ES256")
    const path = join(temporaryDirectory(), "keys.json")
    writeFileSync(path, JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "k" }] }))
    const token = await new SignJWT({ sub: "me", exp: Math.floor(Date.now() / 1000) + 60 })
      .setProtectedHeader({ alg: "ES256", kid: "k" })
      .sign(privateKey)
    const { stdout } = await inspected(token, { JWT_SECRET: "", JWT_JWKS_FILE: path }, true)
    expect(JSON.parse(stdout)).toMatchObject({ taken: true, signedBy: "JWT_JWKS_FILE" })
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
