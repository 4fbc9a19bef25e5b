/**
 * TLS for both ports: what a certificate's files say now is what new connections get, without a restart.
 *
 * A certificate that cannot be used never takes the place of one that can. One that is about to expire is told about
 * in the log each day, by a hub that cannot renew it itself.
 */
import { createPrivateKey, X509Certificate } from "node:crypto"
import type { Server, ServerOptions } from "node:http"
import { createServer } from "node:https"
import { createSecureContext, type TLSSocket } from "node:tls"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as AuthDelay from "../domain/AuthDelay.ts"
import * as DenialLogging from "../layers/core/denialLogging.ts"
import * as metrics from "../layers/core/metrics.ts"
import { ConfigFiles, type CannotUseFile } from "../services/ConfigFiles.ts"
import type { TlsFiles } from "./HubAuth.ts"

interface Certificate {
  readonly cert: string
  readonly key: string
  /** When it expires. */
  readonly validTo: number
  /** Whom it is for. */
  readonly names: string
}

/** TLS 1.0 and 1.1 are deprecated (RFC 8996). */
const minVersion = "TLSv1.2"

/** Of a reason that goes into the log. */
const maxReason = 200

/** How long before its end a certificate is told about. */
const warnMs = 14 * 24 * 60 * 60 * 1_000

const codeOf = (error: unknown): string =>
  error instanceof Error && "code" in error ? ` (${String(error.code)})` : ""

/** What OpenSSL says, without where in it. */
const whyOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  return "reason" in error && typeof error.reason === "string" ? error.reason : error.message
}

/** Both files, or why they are of no use; nothing of the key is in that. */
export const parseCertificate = ([cert = "", key = ""]: ReadonlyArray<string>): Result.Result<
  Certificate,
  string
> => {
  let x509
  try {
    x509 = new X509Certificate(cert)
  } catch (error) {
    return Result.fail(`TLS_CERT holds no certificate in PEM${codeOf(error)}`)
  }
  try {
    let privateKey
    try {
      privateKey = createPrivateKey(key)
    } catch {
      return Result.fail("TLS_KEY holds no key in PEM without a passphrase")
    }
    if (!x509.checkPrivateKey(privateKey)) return Result.fail("TLS_KEY is not the key of TLS_CERT")
    createSecureContext({ cert, key, minVersion })
    return Result.succeed({
      cert,
      key,
      validTo: Date.parse(x509.validTo),
      names: x509.subjectAltName ?? x509.subject
    })
  } catch (error) {
    // What OpenSSL has against a pair that belongs together: a key that is too small, a chain that cannot be read.
    return Result.fail(`TLS_CERT and TLS_KEY cannot be used: ${whyOf(error)}`)
  }
}

const tellExpiry = ({ names, validTo }: Certificate) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    if (validTo - now > warnMs) return Effect.void
    const fields = { setting: "TLS_CERT", names, expires: new Date(validTo).toISOString() }
    return validTo <= now
      ? Effect.logError("the certificate has expired: clients refuse it", fields)
      : Effect.logWarning("the certificate expires soon", fields)
  })

/** What makes the servers of both ports; none: they do not speak TLS. */
export class TlsServers extends Context.Service<
  TlsServers,
  { readonly make: ((options: ServerOptions) => Server) | undefined }
>()("event-hub/hub/tls/TlsServers") {}

const make = (files: TlsFiles | undefined) =>
  Effect.gen(function* () {
    if (files === undefined) return TlsServers.of({ make: undefined })
    const { follow } = yield* ConfigFiles
    const certificate = yield* follow({
      what: "TLS_CERT and TLS_KEY",
      paths: [files.certificate, files.key],
      parse: parseCertificate
    })
    const failed = (yield* metrics.recorder).counter(metrics.handshakesFailed)
    const denials = yield* DenialLogging.make({ leftOut: "more TLS handshakes failed than are logged" })
    const run = Effect.runForkWith(yield* Effect.context<never>())
    const tellFailure = (error: Error, { remoteAddress: address = "unknown" }: TLSSocket): void => {
      failed.count++
      const fields = { code: codeOf(error).slice(2, -1), reason: whyOf(error).slice(0, maxReason), address }
      const line = denials.line({
        what: "a TLS handshake failed",
        who: AuthDelay.originOf(address),
        kind: fields.code,
        fields
      })
      if (line !== undefined) run(line)
    }
    const servers = new Set<ReturnType<typeof createServer>>()
    yield* certificate.changes.pipe(
      Stream.runForEach((now) =>
        Effect.andThen(
          Effect.sync(() => {
            for (const server of servers)
              server.setSecureContext({ cert: now.cert, key: now.key, minVersion })
          }),
          tellExpiry(now)
        )
      ),
      Effect.forkScoped
    )
    yield* Effect.suspend(() => tellExpiry(certificate.current())).pipe(
      Effect.repeat(Schedule.spaced("1 day")),
      Effect.forkScoped
    )
    return TlsServers.of({
      make: (options) => {
        const { cert, key } = certificate.current()
        const server = createServer({
          ...options,
          cert,
          key,
          minVersion,
          // Whoever connects and does not go on is as late as whoever does not finish the head of a request.
          handshakeTimeout: options.headersTimeout ?? 10_000
        })
        server.on("tlsClientError", tellFailure)
        servers.add(server)
        server.once("close", () => servers.delete(server))
        return server
      }
    })
  })

/** For as long as it is there, its servers follow the files. */
export const layer = (files: TlsFiles | undefined): Layer.Layer<TlsServers, CannotUseFile, ConfigFiles> =>
  Layer.effect(TlsServers, make(files))
