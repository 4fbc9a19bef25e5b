/**
 * The process as metrics, by the names that every exporter for Node gives them (those of prom-client), and which hub
 * this is. They are read when somebody scrapes.
 */
import { readdirSync } from "node:fs"
import { monitorEventLoopDelay } from "node:perf_hooks"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as metrics from "../layers/core/metrics.ts"
import { version as hubVersion } from "./version.ts"

const resolutionMs = 10

const unwritten = { update: () => {}, modify: () => {} }

const gauge = (name: string, description: string) => Metric.gauge(name, { description })

/** A counter whose number is kept by Node. */
const total = (name: string, description: string, read: () => number) =>
  Effect.map(Effect.context<never>(), (context: Context.Context<never>) => {
    const counter = Metric.counter(name, { description, incremental: true })
    Metric.registerUnsafe(counter, context, {
      ...unwritten,
      get: () => ({ count: read(), incremental: true })
    })
  })

const cpuSeconds = (part: "user" | "system"): number => process.cpuUsage()[part] / 1e6

/** What there is on Linux alone has no value elsewhere. */
const openFiles = (): number => {
  try {
    return readdirSync("/proc/self/fd").length
  } catch {
    return NaN
  }
}

/** How late the event loop was, beyond what was measured how often. */
const lagOf = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e9 - resolutionMs / 1e3)

export const layer: Layer.Layer<never> = Layer.effectDiscard(
  Effect.gen(function* () {
    const recorder = yield* metrics.recorder
    const loop = monitorEventLoopDelay({ resolution: resolutionMs })
    yield* Effect.acquireRelease(
      Effect.sync(() => loop.enable()),
      () => Effect.sync(() => loop.disable())
    )
    /** The gauges of one scrape are of one stretch of time: the first that is read ends it, for all of them. */
    let lag = { mean: 0, p50: 0, p99: 0, max: 0 }
    const endStretch = (): number => {
      if (loop.count > 0) {
        lag = {
          mean: lagOf(loop.mean),
          p50: lagOf(loop.percentile(50)),
          p99: lagOf(loop.percentile(99)),
          max: lagOf(loop.max)
        }
        loop.reset()
      }
      return lag.mean
    }

    yield* recorder.gauge(metrics.buildInfo, () => 1, { version: hubVersion })
    const [major = "", minor = "", patch = ""] = process.versions.node.split(".")
    const version = { version: process.version, major, minor, patch }
    yield* recorder.gauge(gauge("nodejs_version_info", "1, with the version of Node.js."), () => 1, version)

    yield* total("process_cpu_user_seconds_total", "User CPU time in seconds.", () => cpuSeconds("user"))
    yield* total("process_cpu_system_seconds_total", "System CPU time in seconds.", () =>
      cpuSeconds("system")
    )
    yield* total(
      "process_cpu_seconds_total",
      "User and system CPU time in seconds.",
      () => cpuSeconds("user") + cpuSeconds("system")
    )

    const gauges: ReadonlyArray<readonly [string, string, () => number]> = [
      ["process_resident_memory_bytes", "Resident memory size in bytes.", () => process.memoryUsage.rss()],
      [
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        () => performance.timeOrigin / 1000
      ],
      ["process_open_fds", "Open file descriptors; NaN where the system has no /proc.", openFiles],
      [
        "nodejs_heap_size_total_bytes",
        "Size of the heap of JavaScript in bytes.",
        () => process.memoryUsage().heapTotal
      ],
      [
        "nodejs_heap_size_used_bytes",
        "Used part of the heap of JavaScript in bytes.",
        () => process.memoryUsage().heapUsed
      ],
      [
        "nodejs_external_memory_bytes",
        "Memory outside the heap, of buffers above all, in bytes.",
        () => process.memoryUsage().external
      ],
      [
        "nodejs_eventloop_lag_mean_seconds",
        "Mean delay of the event loop since the last scrape, in seconds.",
        endStretch
      ],
      [
        "nodejs_eventloop_lag_p50_seconds",
        "Median delay of the event loop since the last scrape, in seconds.",
        () => lag.p50
      ],
      [
        "nodejs_eventloop_lag_p99_seconds",
        "99th percentile of the delay of the event loop since the last scrape, in seconds.",
        () => lag.p99
      ],
      [
        "nodejs_eventloop_lag_max_seconds",
        "Longest delay of the event loop since the last scrape, in seconds.",
        () => lag.max
      ]
    ]
    for (const [name, about, read] of gauges) yield* recorder.gauge(gauge(name, about), read)
  })
)
