/**
 * Tokens that must not let anybody in, at a hub that is started as people start it: over the WebSocket and over HTTP.
 *
 * A hub with secrets, a previous one, audience, issuer, a longest age and a policy file; and one with the JWKS endpoint
 * of an issuer. Each attack is made by somebody who knows everything but the keys, except for those which show what a good
 * signature does not make up for. In the end an honest client is served, and the log holds no token and no secret.
 */
import { createHmac, createPublicKey, generateKeyPairSync, sign as cryptoSign } from "node:crypto"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import { CompactEncrypt, exportSPKI, SignJWT, UnsecuredJWT } from "jose"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { issuer, type IssuerKey, makeKey, sign } from "../layers/jwt/Issuer.ts"
import { type HubProcess, runToEnd, startHub } from "../support/HubProcess.ts"
import { RawClient } from "../support/RawClient.ts"
import { temporaryDirectory } from "../support/temporary.ts"

const text = (value: string): Uint8Array => new TextEncoder().encode(value)

const secret = "the secret of now, with forty bytes or so"
const previous = "the-secret-of-before,-which-is-long-enough-for-all-that-there-is:-64-bytes"
const removed = "the secret of before that, which nobody should use any more"

const audience = "hub"
const issuerName = "https://issuer.test"
const now = Math.floor(Date.now() / 1000)
const good = {
  sub: "mallory",
  scopes: ["publish:**", "subscribe:**"],
  aud: audience,
  iss: issuerName,
  iat: now - 5,
  exp: now + 600
}
const header = { alg: "HS256", typ: "JWT" }

type Json = Readonly<Record<string, unknown>>
const base64url = (part: string | Uint8Array): string => Buffer.from(part).toString("base64url")
const encoded = (part: unknown): string => base64url(typeof part === "string" ? part : JSON.stringify(part))

const hashes: Readonly<Record<string, string>> = { HS256: "sha256", HS384: "sha384", HS512: "sha512" }

/** Any header and payload at all, with a good signature: what JSON.stringify would not write can be given as text. */
const forged = (
  head: unknown,
  payload: unknown,
  key: string | Uint8Array = secret,
  alg = "HS256"
): string => {
  const signed = `${encoded(head)}.${encoded(payload)}`
  return `${signed}.${createHmac(hashes[alg]!, key).update(signed).digest("base64url")}`
}

const withClaims = (claims: Json): string => forged(header, { ...good, ...claims })
const withText = (replaced: string, by: string): string =>
  forged(header, JSON.stringify(good).replace(replaced, by))
const without = (claim: keyof typeof good): string => withClaims({ [claim]: undefined })
const withHeader = (more: Json): string => forged({ ...header, ...more }, good)

const valid = forged(header, good)
const [validHeader, validPayload, validSignature] = valid.split(".") as [string, string, string]
const admin = encoded({ ...good, scopes: ["admin:**"] })
const flipped = (part: string, at: number): string =>
  part.slice(0, at) + (part[at] === "A" ? "B" : "A") + part.slice(at + 1)

type Code = "jwt_invalid" | "token_expired" | "no_token"
type Attack = readonly [name: string, token: string, code?: Code]

const bySecret: ReadonlyArray<Attack> = [
  // Signatures.
  ["alg none", new UnsecuredJWT(good).encode()],
  ["alg None", `${encoded({ alg: "None", typ: "JWT" })}.${validPayload}.`],
  ["alg nOnE with a signature", forged({ alg: "nOnE" }, good)],
  ["alg none with a signature", forged({ alg: "none" }, good)],
  ["no alg", forged({ typ: "JWT" }, good)],
  ["alg of null", forged({ alg: null }, good)],
  ["alg that is a list", forged({ alg: ["HS256"] }, good)],
  ["alg in other letters", forged({ alg: "hs256" }, good)],
  ["alg with a blank", forged({ alg: "HS256 " }, good)],
  ["alg of a name that every object has", forged({ alg: "constructor" }, good)],
  ["unsigned", `${validHeader}.${validPayload}`],
  ["empty signature", `${validHeader}.${validPayload}.`],
  ["signature of zeros", `${validHeader}.${validPayload}.${base64url(new Uint8Array(32))}`],
  ["half a signature", `${validHeader}.${validPayload}.${validSignature.slice(0, 22)}`],
  [
    "signature and more",
    `${validHeader}.${validPayload}.${base64url(Buffer.concat([Buffer.from(validSignature, "base64url"), Buffer.of(0)]))}`
  ],
  ["tampered header", `${encoded({ ...header, kid: "x" })}.${validPayload}.${validSignature}`],
  ["tampered payload", `${validHeader}.${admin}.${validSignature}`],
  ["tampered signature", `${validHeader}.${validPayload}.${flipped(validSignature, 10)}`],
  [
    "last bits of the signature",
    `${valid.slice(0, -1)}${String.fromCharCode(valid.charCodeAt(valid.length - 1) + 1)}`
  ],
  ["signature of another token", `${validHeader}.${admin}.${withClaims({ sub: "x" }).split(".")[2]}`],
  ["truncated", valid.slice(0, -20)],
  ["wrong secret", forged(header, good, "another secret, just as long as the right one")],
  ["a secret that was removed", forged(header, good, removed)],
  ["empty secret", forged(header, good, "")],
  ["weak secret", forged(header, good, "secret")],
  ["the secret in other letters", forged(header, good, secret.toUpperCase())],
  ["the beginning of the secret", forged(header, good, secret.slice(0, 32))],
  ["both secrets in one", forged(header, good, `${secret} ${previous}`)],
  ["HS512 with a secret of 41 bytes", forged({ alg: "HS512" }, good, secret, "HS512")],
  ["HS384 with a secret of 41 bytes", forged({ alg: "HS384" }, good, secret, "HS384")],
  ["HS256 called HS512", forged({ alg: "HS512" }, good)],
  ["HS512 called HS256", forged({ alg: "HS256" }, good, previous, "HS512")],
  // Whom it is for, and of whom.
  ["no aud", without("aud")],
  ["another aud", withClaims({ aud: "other" })],
  ["aud with more", withClaims({ aud: "hub2" })],
  ["aud in other letters", withClaims({ aud: "Hub" })],
  ["aud of others", withClaims({ aud: ["other", "hub2"] })],
  ["aud of nobody", withClaims({ aud: [] })],
  ["aud in a list in a list", withClaims({ aud: [["hub"]] })],
  ["aud that is an object", withClaims({ aud: { hub: true } })],
  ["aud null", withClaims({ aud: null })],
  ["no iss", without("iss")],
  ["another iss", withClaims({ iss: "https://issuer.test.evil" })],
  ["iss with a slash", withClaims({ iss: `${issuerName}/` })],
  ["iss that is a list", withClaims({ iss: [issuerName] })],
  // Types.
  ["typ JWE", withHeader({ typ: "JWE" })],
  ["typ secevent+jwt", withHeader({ typ: "secevent+jwt" })],
  ["typ application/secevent+jwt", withHeader({ typ: "application/secevent+jwt" })],
  ["typ empty", withHeader({ typ: "" })],
  ["typ that is no text", withHeader({ typ: 1 })],
  // Times.
  ["just expired", withClaims({ exp: now - 6 }), "token_expired"],
  ["long expired", withClaims({ exp: 1 }), "token_expired"],
  ["expired before 1970", withClaims({ exp: -1 }), "token_expired"],
  ["no exp", without("exp")],
  ["exp null", withClaims({ exp: null })],
  ["exp that is text", withClaims({ exp: String(now + 600) })],
  ["exp that is true", withClaims({ exp: true })],
  ["exp NaN", withText(`"exp":${good.exp}`, `"exp":NaN`)],
  ["exp Infinity", withText(`"exp":${good.exp}`, `"exp":1e999`)],
  ["exp in another age of the world", withClaims({ exp: 1e300 })],
  [
    "exp hidden by an earlier one",
    withText(`"exp":${good.exp}`, `"exp":${good.exp},"exp":1`),
    "token_expired"
  ],
  ["nbf to come", withClaims({ nbf: now + 60 }), "token_expired"],
  ["nbf that is text", withClaims({ nbf: "now" })],
  ["iat in the future", withClaims({ iat: now + 60 })],
  ["iat that is text", withClaims({ iat: String(now) })],
  ["no iat, where an age is bounded", without("iat")],
  ["too old", withClaims({ iat: now - 3_700 }), "token_expired"],
  // Who.
  ["no sub", without("sub")],
  ["empty sub", withClaims({ sub: "" })],
  ["sub that is a number", withClaims({ sub: 0 })],
  ["sub that is a list", withClaims({ sub: ["mallory"] })],
  ["sub of 257 characters", withClaims({ sub: "x".repeat(257) })],
  ["sub hidden by a later one", withText(`"sub":"mallory"`, `"sub":"mallory","sub":""`)],
  // Headers.
  ["embedded jwk", forged({ alg: "HS256", jwk: { kty: "oct", k: base64url("mine") } }, good, "mine")],
  ["jku", forged({ alg: "HS256", jku: "http://127.0.0.1:1/keys" }, good, "mine")],
  ["x5u", forged({ alg: "HS256", x5u: "http://127.0.0.1:1/certificate" }, good, "mine")],
  ["x5c", forged({ alg: "HS256", x5c: [Buffer.from("mine").toString("base64")] }, good, "mine")],
  ["crit", withHeader({ crit: ["unheard-of"], "unheard-of": 1 })],
  ["crit of something known", withHeader({ crit: ["exp"] })],
  ["crit empty", withHeader({ crit: [] })],
  ["b64 false", withHeader({ b64: false, crit: ["b64"] })],
  ["b64 false without crit", withHeader({ b64: false })],
  ["kid with a path to something empty", forged({ ...header, kid: "../../../dev/null" }, good, "")],
  ["kid with a path", forged({ ...header, kid: "/proc/sys/kernel/randomize_va_space" }, good, "2\n")],
  ["kid with SQL", forged({ ...header, kid: "x' UNION SELECT 'mine';--" }, good, "mine")],
  ["kid with a command", forged({ ...header, kid: "x|cat /etc/passwd" }, good, "mine")],
  ["kid with NUL", forged({ ...header, kid: "a\0b" }, good, "mine")],
  ["kid of 10 kB", withHeader({ kid: "k".repeat(10_000) })],
  ["kid that is a number", withHeader({ kid: 1 })],
  ["cty, a token in a token", forged({ ...header, cty: "JWT" }, valid)],
  ["a header with __proto__", forged(`{"__proto__":{"alg":"HS256"}}`, good)],
  // Shapes.
  ["one dot", `${validHeader}.${validPayload}`],
  ["no dots", validHeader],
  ["four parts", `${valid}.x`],
  ["four dots", `${valid}..`],
  ["only dots", ".."],
  ["JWE by its looks", `${encoded({ alg: "dir", enc: "A256GCM" })}..AAAA.AAAA.AAAA`],
  [
    "JSON serialisation",
    JSON.stringify({ payload: validPayload, protected: validHeader, signature: validSignature })
  ],
  [
    "general JSON serialisation",
    JSON.stringify({
      payload: validPayload,
      signatures: [{ protected: validHeader, signature: validSignature }]
    })
  ],
  ["padding", `${valid}=`],
  ["padding of the payload", `${validHeader}.${validPayload}==.${validSignature}`],
  [
    "the alphabet of base64",
    `${validHeader}.${validPayload}.${Buffer.from(validSignature, "base64url").toString("base64")}`
  ],
  ["a blank in it", `${validHeader}. ${validPayload}.${validSignature}`],
  ["in quotes", `"${valid}"`],
  ["with its scheme twice", `Bearer ${valid}`],
  ["payload with a byte order mark", forged(header, `\uFEFF${JSON.stringify(good)}`)],
  [
    "payload that is wrong UTF-8",
    `${validHeader}.${base64url(Buffer.from([0x7b, 0xff, 0x7d]))}.${validSignature}`
  ],
  ["payload that is a list", forged(header, [good])],
  ["payload that is null", forged(header, "null")],
  ["payload that is empty", forged(header, "")],
  ["payload with something behind", forged(header, `${JSON.stringify(good)}}`)],
  ["header that is a list", forged(["HS256"], good)],
  ["deep payload", forged(header, `{"sub":${"[".repeat(5_000)}${"]".repeat(5_000)}}`)],
  // Rights.
  ["scopes that are text", withClaims({ scopes: "publish:**" })],
  ["scopes null", withClaims({ scopes: null })],
  ["scopes in a list in a list", withClaims({ scopes: [["publish:**"]] })],
  ["scopes that are an object", withClaims({ scopes: { 0: "publish:**" } })],
  ["an unknown action", withClaims({ scopes: ["root:**"] })],
  ["a scope without a pattern", withClaims({ scopes: ["publish"] })],
  ["one bad scope among good ones", withClaims({ scopes: ["publish:**", "subscribe:a..b"] })],
  ["policy that is text", withClaims({ policy: "allow publish **" })],
  ["policy with an unknown field", withClaims({ policy: { rules: [], default: "allow" } })],
  [
    "a rule with an unknown field",
    withClaims({ policy: { rules: [{ effect: "allow", action: "publish", topics: ["**"], unless: "a" }] } })
  ],
  [
    "a rule with an unknown effect",
    withClaims({ policy: { rules: [{ effect: "maybe", action: "publish", topics: ["**"] }] } })
  ],
  [
    "a rule of no topics",
    withClaims({ policy: { rules: [{ effect: "allow", action: "publish", topics: [] }] } })
  ],
  ["limits that are text", withClaims({ limits: "none" })],
  ["limits with an unknown field", withClaims({ limits: { everything: true } })],
  ["roles that are text", withClaims({ roles: "dev" })],
  ["roles that are numbers", withClaims({ roles: [1] })],
  ["a role that there is not", withClaims({ roles: ["root"] })],
  // Sizes.
  ["17 kB", withClaims({ more: "x".repeat(17 * 1024) })],
  ["100 kB", withClaims({ more: "x".repeat(100_000) })],
  ["100 kB of dots", ".".repeat(100_000)],
  ["no token", "", "no_token"]
]

/** By somebody who has the public keys, as everybody has. */
const byKeys = async (rsa: IssuerKey, ec: IssuerKey): Promise<ReadonlyArray<Attack>> => {
  const pem = await exportSPKI(rsa.publicKey)
  const der = createPublicKey(pem).export({ format: "der", type: "spki" })
  const mine = await Effect.runPromise(makeKey("rsa", "RS256"))
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 })
  const signed = (key: IssuerKey, payload: Json = good, more: Json = {}) =>
    Effect.runPromise(sign(key, payload, more))
  const hmac = (alg: string, key: string | Uint8Array) => forged({ alg, kid: "rsa" }, good, key, alg)
  const byWeak = `${encoded({ alg: "RS256", kid: "weak" })}.${validPayload}`
  const [head, , signature] = (await signed(rsa)).split(".") as [string, string, string]
  const encrypted = await new CompactEncrypt(text(JSON.stringify(good)))
    .setProtectedHeader({ alg: "RSA-OAEP-256", enc: "A256GCM", kid: "rsa" })
    .encrypt(createPublicKey(pem))
  return [
    ["HS256 by the public key in PEM", hmac("HS256", pem)],
    ["HS256 by the public key in PEM without its last line break", hmac("HS256", pem.trimEnd())],
    ["HS384 by the public key in PEM", hmac("HS384", pem)],
    ["HS512 by the public key in PEM", hmac("HS512", pem)],
    ["HS256 by the public key in DER", hmac("HS256", der)],
    ["HS256 by the public key as JWK", hmac("HS256", JSON.stringify(rsa.jwk))],
    ["HS256 by the modulus", hmac("HS256", Buffer.from(rsa.jwk.n!, "base64url"))],
    ["HS256 by a symmetric key of the set", forged({ alg: "HS256", kid: "oct" }, good, "a key in the set")],
    [
      "a key of 1024 bits of the set",
      `${byWeak}.${cryptoSign("sha256", Buffer.from(byWeak), weak.privateKey).toString("base64url")}`
    ],
    ["a key of its own under the issuer's id", await signed(mine)],
    ["a key of its own, embedded", await signed(mine, good, { jwk: mine.jwk })],
    [
      "a key of its own, embedded, without an id",
      await signed(mine, good, { jwk: mine.jwk, kid: undefined })
    ],
    [
      "a key of its own by jku",
      await signed(mine, good, { jku: "http://127.0.0.1:1/jwks.json", kid: "mine" })
    ],
    [
      "a key of its own by x5u",
      await signed(mine, good, { x5u: "http://127.0.0.1:1/mine.pem", kid: "mine" })
    ],
    ["a key of its own by x5c", await signed(mine, good, { x5c: [der.toString("base64")] })],
    ["alg none under the issuer's id", `${encoded({ alg: "none", kid: "rsa" })}.${validPayload}.`],
    ["a key for another algorithm", await signed(ec, good, { kid: "rsa" })],
    ["RS256 called PS256", `${encoded({ alg: "PS256", kid: "rsa" })}.${validPayload}.${signature}`],
    ["RS256 called RS512", `${encoded({ alg: "RS512", kid: "rsa" })}.${validPayload}.${signature}`],
    ["another payload", `${head}.${admin}.${signature}`],
    [
      "r and s of zero",
      `${encoded({ alg: "ES256", kid: "ec" })}.${validPayload}.${base64url(new Uint8Array(64))}`
    ],
    ["kid with a path", await signed(mine, good, { kid: "../../rsa" })],
    ["kid with SQL", await signed(mine, good, { kid: "' OR '1'='1" })],
    ["kid of a name that every object has", await signed(mine, good, { kid: "__proto__" })],
    ["kid of 10 kB", await signed(mine, good, { kid: "k".repeat(10_000) })],
    ["JWE to the public key", encrypted],
    ["expired", await signed(rsa, { ...good, exp: now - 60 }), "token_expired"],
    ["another audience", await signed(rsa, { ...good, aud: "other" })],
    ["another issuer", await signed(rsa, { ...good, iss: "https://other.test" })],
    ["crit", await signed(rsa, good, { crit: ["b64"], b64: true })]
  ]
}

/** What is answered to AUTH, and how the connection ends. */
const knock = async (hub: HubProcess, token: unknown) => {
  const client = await RawClient.connect(hub.ws)
  client.send({ op: "AUTH", ref: "a", token })
  const answer = await client.waitFor("an answer", () => true)
  // Whoever is let in is not closed.
  if (answer.op === "OK") client.socket.terminate()
  const { code, reason } = await client.closed
  return { code, reason, answer: answer["code"] ?? answer.op }
}

interface Answer {
  readonly status: number | undefined
  readonly body: string
}

const ask = (hub: HubProcess, headers: Readonly<Record<string, string>>, path = "/topics"): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request(`${hub.ops}${path}`, { headers, agent: false }, (answer) => {
      let body = ""
      answer.setEncoding("utf8").on("data", (chunk: string) => (body += chunk))
      answer.on("end", () => resolve({ status: answer.statusCode, body }))
    })
    sent.on("error", reject)
    sent.end()
  })

const askWith = (hub: HubProcess, token: string): Promise<Answer> =>
  ask(hub, { authorization: `Bearer ${token}` })

/** Each with each other's, as many at once as a few connections are. */
const all = async <A>(items: ReadonlyArray<A>, run: (item: A) => Promise<void>): Promise<void> => {
  const waiting = [...items]
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await run(item)
    })
  )
}

const attack = async (hub: HubProcess, attacks: ReadonlyArray<Attack>): Promise<void> => {
  expect(new Set(attacks.map(([name]) => name)).size).toBe(attacks.length)
  await all(attacks, async ([name, token, code = "jwt_invalid"]) => {
    expect(await knock(hub, token), name).toMatchObject({ answer: code, code: 4401, reason: code })
    const { body, status } = await askWith(hub, token)
    // Node refuses headers of more than 16 KiB before anybody looks at a token.
    expect(status, name).toBe(token.length > 15_000 ? 431 : 401)
    expect(body, name).not.toContain(token.slice(-20) || "mallory")
  })
}

const served = async (hub: HubProcess, token: string): Promise<void> => {
  const client = await RawClient.connect(hub.ws)
  expect(await client.request({ op: "AUTH", token })).toMatchObject({ op: "OK" })
  const topic = `honest.t${Math.random().toString(36).slice(2)}`
  expect(await client.request({ op: "SUBSCRIBE", topic })).toMatchObject({ op: "OK" })
  expect(await client.request({ op: "PUBLISH", topic, payload: "hello" })).toMatchObject({ op: "OK" })
  await client.events(1)
  await client.close()
  expect((await askWith(hub, token)).status).toBe(200)
}

/** Of each token that was sent: its end, if it is long enough to be found by. */
const expectNoTraces = (hub: HubProcess, attacks: ReadonlyArray<Attack>): void => {
  const log = hub.lines.map((line) => JSON.stringify(line)).join("\n")
  for (const hidden of [secret, previous, removed]) expect(log).not.toContain(hidden)
  for (const [name, token] of attacks) {
    for (const part of [token, ...token.split(".")]) {
      if (part.length >= 20) expect(log.includes(part), name).toBe(false)
    }
  }
}

const shared = {
  JWT_AUD: audience,
  JWT_ISS: issuerName,
  // That repeats are delayed is another test's concern.
  LIMIT_AUTH_DELAY_MS: "0"
}

describe("a hub with secrets", () => {
  const directory = mkdtempSync(join(tmpdir(), "event-hub-"))
  let hub: HubProcess

  beforeAll(async () => {
    const policy = join(directory, "policy")
    writeFileSync(policy, "role dev:\n  allow publish a\n")
    hub = await startHub({
      ...shared,
      JWT_SECRET: secret,
      JWT_PREVIOUS_SECRETS: previous,
      JWT_MAX_AGE_MS: "3600000",
      HUB_POLICY: policy
    })
  })
  afterAll(async () => {
    await hub.kill()
    rmSync(directory, { recursive: true, force: true })
  })

  it(`refuses each of ${bySecret.length} tokens, serves who is honest, and keeps quiet about all of them`, async () => {
    expect(bySecret.length).toBeGreaterThanOrEqual(60)
    await attack(hub, bySecret)
    await served(hub, valid)
    expectNoTraces(hub, [...bySecret, ["the good one", valid]])
  })

  it.each([
    ["by the secret", valid],
    ["by the previous secret", forged(header, good, previous)],
    ["HS384 by the previous secret", forged({ alg: "HS384" }, good, previous, "HS384")],
    ["HS512 by the previous secret", forged({ alg: "HS512" }, good, previous, "HS512")],
    ["without typ", forged({ alg: "HS256" }, good)],
    ["typ application/AT+JWT", withHeader({ typ: "application/AT+JWT" })],
    ["any kid: secrets have none", withHeader({ kid: "../../etc/passwd" })],
    ["aud among others", withClaims({ aud: ["other", audience] })],
    ["nbf that has come", withClaims({ nbf: now - 5 })],
    ["just expired, within the tolerance", withClaims({ exp: now + 2 })],
    ["a role that there is", withClaims({ roles: ["dev"] })],
    ["claims that nobody knows", withClaims({ more: { nested: ["x"] }, constructor: "x" })]
  ])("takes a good one: %s", async (_, token) => {
    const client = await RawClient.connect(hub.ws)
    expect(await client.request({ op: "AUTH", token })).toMatchObject({ op: "OK" })
    await client.close()
    expect((await askWith(hub, token)).status).toBe(200)
  })

  it.each([
    ["a number", 1],
    ["null", null],
    ["a list", [valid]],
    ["an object", { token: valid }],
    ["missing", undefined]
  ])("takes no token that is %s", async (_, token) => {
    const client = await RawClient.connect(hub.ws)
    client.send({ op: "AUTH", ref: "a", token })
    const answer = await client.waitFor("an answer", ({ op }) => op === "ERR")
    expect(["bad_request", "no_token"]).toContain(answer["code"])
    client.send({ op: "PUBLISH", ref: "b", topic: "a", payload: 1 })
    expect(await client.closed).toMatchObject({ code: 4401 })
    expect(client.messages.every(({ op }) => op === "ERR")).toBe(true)
  })

  it("takes a token of 1 MB for what it is: too much for one frame", async () => {
    const client = await RawClient.connect(hub.ws)
    client.send({ op: "AUTH", token: withClaims({ more: "x".repeat(1_048_576) }) })
    expect(await client.closed).toMatchObject({ code: 1009 })
  })

  it("looks for a token in AUTH only: not in the URL, a header or the subprotocol of the WebSocket", async () => {
    for (const [url, options] of [
      [`${hub.ws}?token=${valid}`, {}],
      [`${hub.ws}?access_token=${valid}`, {}],
      [hub.ws, { ws: { headers: { authorization: `Bearer ${valid}`, cookie: `token=${valid}` } } }]
    ] as const) {
      const client = await RawClient.connect(url, options)
      client.send({ op: "PUBLISH", ref: "p", topic: "a", payload: 1 })
      expect(await client.closed).toMatchObject({ code: 4401, reason: "no_token" })
    }
    await expect(RawClient.connect(hub.ws, { protocols: [valid] })).rejects.toThrow(/HTTP 4\d\d|subprotocol/)
  })

  it("looks for a token in the header Authorization only, as a bearer token", async () => {
    const statusOf = async (headers: Readonly<Record<string, string>>, path?: string) =>
      (await ask(hub, headers, path)).status
    expect(await statusOf({ authorization: `bearer ${valid}` })).toBe(200)
    expect(await statusOf({ authorization: `BEARER ${valid}` })).toBe(200)
    for (const headers of [
      {},
      { authorization: valid },
      { authorization: "Bearer" },
      { authorization: "Bearer " },
      { authorization: `Basic ${valid}` },
      { authorization: `Basic ${Buffer.from(`mallory:${valid}`).toString("base64")}` },
      { authorization: `Digest ${valid}` },
      { authorization: `Bearer ${valid}, Bearer ${valid}` },
      { authorization: `Bearer token=${valid}` },
      { cookie: `token=${valid}; authorization=Bearer ${valid}` },
      { "proxy-authorization": `Bearer ${valid}` },
      { "x-authorization": `Bearer ${valid}` }
    ]) {
      expect(await statusOf(headers), JSON.stringify(headers).slice(0, 40)).toBe(401)
    }
    for (const name of ["token", "access_token", "authorization"]) {
      expect(await statusOf({}, `/topics?${name}=${valid}`), name).not.toBe(200)
    }
  })
})

describe("a hub with the keys of an issuer", () => {
  const scope = Effect.runSync(Scope.make())
  let hub: HubProcess
  let endpoint: Effect.Success<typeof issuer>
  let rsa: IssuerKey
  let ec: IssuerKey

  beforeAll(async () => {
    rsa = await Effect.runPromise(makeKey("rsa", "RS256"))
    ec = await Effect.runPromise(makeKey("ec", "ES256"))
    endpoint = await Effect.runPromise(Scope.provide(issuer, scope))
    const weak = generateKeyPairSync("rsa", { modulusLength: 1024 }).publicKey.export({ format: "jwk" })
    const keys = [
      rsa.jwk,
      ec.jwk,
      { kty: "oct", kid: "oct", k: base64url("a key in the set"), alg: "HS256" },
      { ...weak, kid: "weak" }
    ]
    endpoint.answers(200, JSON.stringify({ keys }))
    hub = await startHub({
      ...shared,
      JWT_SECRET: "",
      JWT_JWKS_URL: String(endpoint.url),
      JWT_JWKS_COOLDOWN_MS: "100"
    })
  })
  afterAll(async () => {
    await hub.kill()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  it("refuses each of the attacks by who has the public keys, and serves who is honest", async () => {
    const attacks = await byKeys(rsa, ec)
    await attack(hub, attacks)
    await attack(
      hub,
      bySecret.map(([name, token, code]) => [name, token, code === "no_token" ? code : "jwt_invalid"])
    )
    const tokens = await Promise.all([rsa, ec].map((key) => Effect.runPromise(sign(key, good))))
    for (const token of tokens) await served(hub, token)
    expectNoTraces(hub, attacks)
    expect(hub.lines.filter(({ msg }) => msg === "keys are left out")).toHaveLength(1)
  })

  it("goes on with the keys that it has while the endpoint is away, and takes a new one when it is back", async () => {
    const next = await Effect.runPromise(makeKey("next", "EdDSA"))
    const [old, fresh] = await Promise.all([rsa, next].map((key) => Effect.runPromise(sign(key, good))))
    await served(hub, old!)
    endpoint.answers(500, "oops")
    expect(await knock(hub, fresh)).toMatchObject({ answer: "unavailable" })
    expect((await askWith(hub, fresh!)).status).toBe(503)
    await served(hub, old!)
    endpoint.shows(rsa, ec, next)
    await expect.poll(async () => (await askWith(hub, fresh!)).status, { timeout: 10_000 }).toBe(200)
    await served(hub, fresh!)
    await served(hub, old!)
    const metrics = (await ask(hub, {}, "/metrics")).body
    expect(metrics).toMatch(/event_hub_jwks_requests_total\{outcome="status"\} [1-9]/)
    expect(metrics).toMatch(/event_hub_jwks_requests_total\{outcome="ok"\} [1-9]/)
  })
})

describe("a hub with a file of keys", () => {
  it("does not start without a usable one, and says so in one line", async () => {
    const path = join(temporaryDirectory(), "keys.json")
    const env = { HUB_STORE: "memory:", JWT_JWKS_FILE: path }
    for (const [content, message] of [
      [undefined, /cannot be read \(ENOENT\)/],
      ["", /is no JSON/],
      [`{"keys":[]}`, /has no usable key/],
      [`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, /has no usable key; key 1: it is symmetric/]
    ] as const) {
      if (content !== undefined) writeFileSync(path, content)
      const { code, stderr } = await runToEnd(env)
      expect(code).toBe(1)
      expect(stderr).toMatch(message)
      expect(stderr).toMatch(/^event-hub: JWT_JWKS_FILE: [^\n]*keys\.json [^\n]*\n$/)
      expect(stderr).not.toContain("c2VjcmV0")
    }
  })

  it("takes it anew when it changes", async () => {
    const path = join(temporaryDirectory(), "keys.json")
    const [a, b] = await Promise.all(["a", "b"].map((kid) => Effect.runPromise(makeKey(kid, "ES256"))))
    const write = (...keys: ReadonlyArray<IssuerKey>) =>
      writeFileSync(path, JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }))
    write(a!)
    const hub = await startHub({
      ...shared,
      JWT_SECRET: "",
      JWT_JWKS_FILE: path,
      HUB_FILES_INTERVAL_MS: "100"
    })
    onTestFinished(() => void hub.kill())
    const [byA, byB] = await Promise.all([a!, b!].map((key) => Effect.runPromise(sign(key, good))))
    await served(hub, byA!)
    expect(await knock(hub, byB)).toMatchObject({ answer: "jwt_invalid" })
    writeFileSync(path, "{")
    await hub.lineWhere(({ msg }) => msg.includes("cannot be used"))
    await served(hub, byA!)
    write(b!)
    await expect.poll(async () => (await askWith(hub, byB!)).status, { timeout: 10_000 }).toBe(200)
    expect(await knock(hub, byA)).toMatchObject({ answer: "jwt_invalid" })
  })
})

/** What SignJWT makes is what the tests above mean by a good token. */
it("signs as others do", async () => {
  expect(await new SignJWT(good).setProtectedHeader(header).sign(text(secret))).toBe(valid)
})
