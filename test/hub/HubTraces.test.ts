/** The standard variables of OpenTelemetry: what they mean to a hub, and that a wrong one stops nothing. */
import { Redacted, Result } from "effect"
import { describe, expect, it } from "vitest"
import * as Settings from "../../src/domain/Settings.ts"
import * as HubConfig from "../../src/hub/HubConfig.ts"

type Env = Readonly<Record<string, string>>

const read = (env: Env): HubConfig.Configuration => Result.getOrThrow(HubConfig.read(env))
const tracesOf = (env: Env) => read(env).settings.traces

const on = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }

describe("traces", () => {
  it("are off, unless there is a receiver", () => {
    expect(tracesOf({})).toBeUndefined()
    expect(tracesOf({ OTEL_SERVICE_NAME: "hub", OTEL_TRACES_SAMPLER: "always_on" })).toBeUndefined()
    for (const off of [{ OTEL_SDK_DISABLED: "true" }, { OTEL_TRACES_EXPORTER: "none" }]) {
      expect(tracesOf({ ...on, ...off })).toBeUndefined()
      expect(read({ ...on, ...off }).warnings).toEqual([])
    }
  })

  it("have the defaults of the standard", () => {
    const { endpoint, headers, resource, ...rest } = tracesOf(on)!
    expect(endpoint).toBe("http://collector:4318/v1/traces")
    expect([Redacted.value(headers), resource]).toEqual([{}, {}])
    expect(rest).toEqual(Settings.traces)
  })

  it.each([
    ["http://c:4318", "http://c:4318/v1/traces"],
    ["http://c:4318/", "http://c:4318/v1/traces"],
    ["https://c/otlp", "https://c/otlp/v1/traces"],
    ["https://c/otlp/?key=1", "https://c/otlp/v1/traces?key=1"]
  ])("the base %s has them at %s", (base, endpoint) => {
    expect(tracesOf({ OTEL_EXPORTER_OTLP_ENDPOINT: base })?.endpoint).toBe(endpoint)
  })

  it("what is said of traces alone wins, and is left as it is", () => {
    const traces = tracesOf({
      ...on,
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://other:1/x",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
      OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_HEADERS: "a=1",
      OTEL_EXPORTER_OTLP_TRACES_HEADERS: "authorization=Bearer%20t%3D%3D, x-b = 2",
      OTEL_EXPORTER_OTLP_TIMEOUT: "1",
      OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: "2"
    })!
    expect(traces).toMatchObject({ endpoint: "http://other:1/x", protocol: "http/json", timeoutMs: 2 })
    expect(Redacted.value(traces.headers)).toEqual({ authorization: "Bearer t==", "x-b": "2" })
    expect(JSON.stringify(traces)).not.toContain("Bearer")
  })

  it("have a service's name by itself, or among its attributes", () => {
    const attributes = "deployment.environment.name=prod,service.name=a%20b"
    expect(tracesOf({ ...on, OTEL_RESOURCE_ATTRIBUTES: attributes })).toMatchObject({
      serviceName: "a b",
      resource: { "deployment.environment.name": "prod" }
    })
    expect(
      tracesOf({ ...on, OTEL_RESOURCE_ATTRIBUTES: attributes, OTEL_SERVICE_NAME: "c" })?.serviceName
    ).toBe("c")
  })

  it("have a sampler, with its share", () => {
    const sampler = (env: Env) => tracesOf({ ...on, ...env })?.sampler
    expect(sampler({ OTEL_TRACES_SAMPLER: "always_off" })).toEqual({ parentBased: false, ratio: 0 })
    expect(
      sampler({ OTEL_TRACES_SAMPLER: "parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG: ".25" })
    ).toEqual({ parentBased: true, ratio: 0.25 })
    expect(sampler({ OTEL_TRACES_SAMPLER: "traceidratio" })).toEqual({ parentBased: false, ratio: 1 })
  })

  it("a batch is no larger than what may wait", () => {
    expect(tracesOf({ ...on, OTEL_BSP_MAX_QUEUE_SIZE: "10" })).toMatchObject({
      maxQueuedSpans: 10,
      maxBatchSpans: 10
    })
  })
})

describe("what is wrong", () => {
  it.each([
    ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", /must be http\/protobuf or http\/json.*4318.*'grpc'/, undefined],
    ["OTEL_TRACES_EXPORTER", "zipkin", /must be otlp or none/, Settings.traces],
    ["OTEL_SDK_DISABLED", "yes", /must be true or false; it is taken as false/, Settings.traces],
    [
      "OTEL_TRACES_SAMPLER",
      "jaeger_remote",
      /must be one of always_on, .*parentbased_always_on$/,
      Settings.traces
    ],
    ["OTEL_TRACES_SAMPLER_ARG", "2", /must be a number from 0 to 1/, Settings.traces],
    ["OTEL_BSP_SCHEDULE_DELAY", "soon", /must be a whole number/, Settings.traces],
    ["OTEL_RESOURCE_ATTRIBUTES", "a=1,b", /must be name=value.*part 2 is not/, Settings.traces],
    ["OTEL_RESOURCE_ATTRIBUTES", "a=%E0%A4%A", /must be name=value.*part 1 is not/, Settings.traces],
    ["OTEL_EXPORTER_OTLP_HEADERS", "a b=secret", /must be name=value.*part 1 is not/, Settings.traces]
  ])("%s=%s is told, and stops nothing", (name, value, problem, traces) => {
    const { settings, warnings } = read({ ...on, [name]: value })
    expect(warnings).toEqual([expect.stringMatching(new RegExp(`^${name} ${problem.source}`))])
    expect(warnings.join()).not.toContain("secret")
    if (traces === undefined) expect(settings.traces).toBeUndefined()
    else expect(settings.traces).toMatchObject(traces)
  })

  it("an endpoint that is none is no receiver", () => {
    const { settings, warnings } = read({ OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" })
    expect(settings.traces).toBeUndefined()
    expect(warnings).toEqual([
      expect.stringMatching(/^OTEL_EXPORTER_OTLP_ENDPOINT must be an http: or https: URL/)
    ])
  })

  it("a user and a password in it are refused, and not shown", () => {
    const { settings, warnings } = read({ OTEL_EXPORTER_OTLP_ENDPOINT: "http://user:secret@collector:4318" })
    expect(settings.traces).toBeUndefined()
    expect(warnings).toEqual([expect.stringMatching(/must have no user and password/)])
    expect(warnings.join()).not.toContain("secret")
  })

  it("a name that nobody knows is told", () => {
    expect(read({ ...on, OTEL_TRACE_SAMPLER: "always_off" }).warnings).toEqual([
      "OTEL_TRACE_SAMPLER is no setting of the hub and has no effect"
    ])
  })
})
