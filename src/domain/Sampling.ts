/**
 * Which traces are collected: the samplers of OpenTelemetry, by the names of OTEL_TRACES_SAMPLER
 * (https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers).
 */

export interface Sampler {
  /** What has a parent does as that does. */
  readonly parentBased: boolean
  /** The share of all others that is collected, from 0 to 1. */
  readonly ratio: number
}

export const parentBasedAlwaysOn: Sampler = { parentBased: true, ratio: 1 }

/** The names; those that end with `traceidratio` take the share from OTEL_TRACES_SAMPLER_ARG. */
export const samplerNames = [
  "always_on",
  "always_off",
  "traceidratio",
  "parentbased_always_on",
  "parentbased_always_off",
  "parentbased_traceidratio"
] as const

export type SamplerName = (typeof samplerNames)[number]

export const isSamplerName = (text: string): text is SamplerName =>
  (samplerNames as ReadonlyArray<string>).includes(text)

export const samplerOf = (name: SamplerName, share: number): Sampler => ({
  parentBased: name.startsWith("parentbased_"),
  ratio: name.endsWith("always_on") ? 1 : name.endsWith("always_off") ? 0 : share
})

/**
 * The last 14 hexadecimal digits of a trace id are random by W3C Trace Context, level 2. The first 13 of these are as
 * many as a number holds.
 */
const random = [-14, -1] as const
const range = 16 ** (random[1] - random[0])

/**
 * By the id, so that all hubs decide alike of a trace. `parentSampled`: what the parent says; none without
 * one.
 */
export const isSampled = (
  { parentBased, ratio }: Sampler,
  traceId: string,
  parentSampled: boolean | undefined
): boolean => {
  if (parentBased && parentSampled !== undefined) return parentSampled
  if (ratio >= 1) return true
  return Number.parseInt(traceId.slice(...random), 16) < ratio * range
}
