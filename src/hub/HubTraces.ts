/**
 * Whether and where traces are exported to: the standard variables of OpenTelemetry
 * (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
 *
 * As the standard wants it, what cannot be understood here stops nothing: it is told, and has its default. Whoever
 * sets these variables often sets them for many programs at once.
 */
import * as Redacted from "effect/Redacted"
import * as Defaults from "../domain/Settings.ts"
import { isSamplerName, type Sampler, samplerNames, samplerOf } from "../domain/Sampling.ts"
import type { Receiver } from "../layers/otlp/Receiver.ts"
import { parseIntIn, type Reader, Wrong } from "./environment.ts"

const int32 = 2_147_483_647

const parseEndpoint = (text: string): URL | Wrong => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol !== "http:" && url?.protocol !== "https:") {
    return new Wrong("must be an http: or https: URL such as http://collector:4318; it has no effect")
  }
  return url.username === "" && url.password === ""
    ? url
    : new Wrong(
        "must have no user and password, which OTEL_EXPORTER_OTLP_HEADERS is for; no traces are exported"
      )
}

/** The base has a path per signal; `/` is no path. */
const tracesAt = (base: URL): string => {
  const url = new URL(base)
  url.pathname = `${url.pathname.replace(/\/$/, "")}/v1/traces`
  return url.href
}

type Protocol = Defaults.TraceSettings["protocol"]

/** A variable for all signals, and one for traces, which wins. */
const readBoth = <A>(
  read: Reader,
  name: string,
  about: string,
  shown: string,
  parse: (text: string) => A | Wrong
): A | undefined => {
  const all = read.parsed<A | undefined>(`OTEL_EXPORTER_OTLP_${name}`, about, shown, parse, undefined)
  const own = read.parsed<A | undefined>(
    `OTEL_EXPORTER_OTLP_TRACES_${name}`,
    "The same for traces alone. Wins.",
    "–",
    parse,
    undefined
  )
  return own ?? all
}

const protocols = ["http/json", "http/protobuf"] as const satisfies ReadonlyArray<Protocol>

/** Another one that is asked for is no reason to speak one that the receiver may not understand. */
const readProtocol = (read: Reader): Protocol | undefined => {
  const asked = readBoth(
    read,
    "PROTOCOL",
    "How traces are sent: `http/protobuf` or `http/json`.",
    "`http/protobuf`",
    (text) => text
  )
  if (asked === undefined) return Defaults.traces.protocol
  const found = protocols.find((one) => one === asked)
  if (found === undefined) {
    read.wrong(
      "OTEL_EXPORTER_OTLP_PROTOCOL",
      `must be http/protobuf or http/json, which receivers take on port 4318; by '${asked}' no traces are exported`
    )
  }
  return found
}

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text.trim())
  } catch {
    return undefined
  }
}

/** `name=value,name=value`, each percent-encoded (https://www.w3.org/TR/baggage/#header-content). */
const parsePairs =
  (isName: (name: string) => boolean) =>
  (text: string): Readonly<Record<string, string>> | Wrong => {
    const pairs: Array<readonly [string, string]> = []
    for (const part of text.split(",")) {
      if (part.trim() === "") continue
      const end = part.indexOf("=")
      const name = decoded(part.slice(0, Math.max(0, end)))
      const value = decoded(part.slice(end + 1))
      // What is there may be a secret, so it is counted and not shown.
      if (name === undefined || value === undefined || !isName(name)) {
        return new Wrong(
          `must be name=value,name=value with percent-encoding; part ${pairs.length + 1} is not, and none has an effect`
        )
      }
      pairs.push([name, value])
    }
    return Object.fromEntries(pairs)
  }

/** RFC 9110, section 5.6.2. */
const isHeaderName = (name: string): boolean => /^[\w!#$%&'*+.^`|~-]+$/.test(name)

const parseShare = (text: string): number | Wrong => {
  const share = /^\d*\.?\d+$/.test(text) ? Number(text) : NaN
  return share >= 0 && share <= 1 ? share : new Wrong("must be a number from 0 to 1; it is taken as 1")
}

const parseSwitch = (text: string): boolean | Wrong =>
  /^true$/i.test(text)
    ? true
    : /^false$/i.test(text)
      ? false
      : new Wrong("must be true or false; it is taken as false")

const readSampler = (read: Reader): Sampler => {
  const name = read.parsed(
    "OTEL_TRACES_SAMPLER",
    `Which traces are collected: ${samplerNames.map((one) => `\`${one}\``).join(", ")}. The first is all there are, and what is \`parentbased\` leaves it to the publisher, if that has a trace.`,
    "`parentbased_always_on`",
    (text) =>
      isSamplerName(text)
        ? text
        : new Wrong(`must be one of ${samplerNames.join(", ")}; it is taken as parentbased_always_on`),
    "parentbased_always_on"
  )
  const share = read.parsed(
    "OTEL_TRACES_SAMPLER_ARG",
    "The share of traces that a `traceidratio` collects, from 0 to 1.",
    "1",
    parseShare,
    1
  )
  return samplerOf(name, share)
}

/** None: traces are off. */
export const readTraces = (read: Reader): Receiver | undefined => {
  const isDisabled = read.parsed(
    "OTEL_SDK_DISABLED",
    "`true`: no traces, whatever else is set.",
    "`false`",
    parseSwitch,
    false
  )
  const isOtlp = read.parsed(
    "OTEL_TRACES_EXPORTER",
    "`otlp`, or `none` for no traces.",
    "`otlp`",
    (text) =>
      text === "otlp" || text === "none"
        ? text === "otlp"
        : new Wrong("must be otlp or none; no traces are exported"),
    true
  )
  const base = read.parsed<URL | undefined>(
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "The receiver of traces, such as `http://collector:4318`; `/v1/traces` is added. Traces are off without it.",
    "–",
    parseEndpoint,
    undefined
  )
  const own = read.parsed<URL | undefined>(
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "The same as a whole URL, to which nothing is added. Wins.",
    "–",
    parseEndpoint,
    undefined
  )
  const protocol = readProtocol(read)
  const headers = readBoth(
    read,
    "HEADERS",
    "Headers of the requests, such as `authorization=Bearer%20…`: `name=value,name=value`, percent-encoded.",
    "–",
    parsePairs(isHeaderName)
  )
  const timeoutMs = readBoth(
    read,
    "TIMEOUT",
    "How long a request may take.",
    "10,000",
    parseIntIn([1, int32])
  )
  const serviceName = read.text(
    "OTEL_SERVICE_NAME",
    "The name of the service that the spans are of.",
    "`event-hub`"
  )
  const resource = read.parsed<Readonly<Record<string, string>>>(
    "OTEL_RESOURCE_ATTRIBUTES",
    "What else is said of that service: `name=value,name=value`, percent-encoded.",
    "–",
    parsePairs((name) => name !== ""),
    {}
  )
  const sampler = readSampler(read)
  const maxQueuedSpans = read.int(
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "Spans that wait for the receiver, at most; more are dropped and counted.",
    [1, 1_000_000],
    Defaults.traces.maxQueuedSpans
  )
  const maxBatchSpans = read.int(
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "Spans in one request, at most.",
    [1, 1_000_000],
    Defaults.traces.maxBatchSpans
  )
  const delayMs = read.int(
    "OTEL_BSP_SCHEDULE_DELAY",
    "The longest wait of a span until it is sent.",
    [1, int32],
    Defaults.traces.delayMs
  )
  const endpoint = own?.href ?? (base && tracesAt(base))
  if (isDisabled || !isOtlp || endpoint === undefined || protocol === undefined) return undefined
  return {
    endpoint,
    protocol,
    headers: Redacted.make(headers ?? {}),
    serviceName: serviceName ?? resource["service.name"] ?? Defaults.traces.serviceName,
    resource,
    sampler,
    maxQueuedSpans,
    maxBatchSpans: Math.min(maxBatchSpans, maxQueuedSpans),
    delayMs,
    timeoutMs: timeoutMs ?? Defaults.traces.timeoutMs
  }
}
