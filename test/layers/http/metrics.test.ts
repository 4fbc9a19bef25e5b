/**
 * `/metrics` of a hub that is a process of its own: by the conventions, with the right values after a known history, and
 * with as many series for ten thousand topics as for ten. What docs and deploy/ name is there.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { createOutbox } from "../../../src/layers/sqlite/index.ts"
import { type HubProcess, startHub } from "../../support/HubProcess.ts"
import { RawClient } from "../../support/RawClient.ts"
import { temporaryDirectory } from "../../support/temporary.ts"
import { ask } from "./ops.ts"
import { type Exposition, parsePrometheus } from "./prometheus.ts"

const scrape = async (hub: HubProcess): Promise<Exposition> =>
  parsePrometheus((await ask(hub, "/metrics")).text)

/** The numbers as soon as `is` holds for them; the time limit of the test is its own. */
const scrapeUntil = async (hub: HubProcess, is: (exposition: Exposition) => boolean): Promise<Exposition> => {
  for (;;) {
    const exposition = await scrape(hub)
    if (is(exposition)) return exposition
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const start = async (env: Readonly<Record<string, string>> = {}): Promise<HubProcess> => {
  const hub = await startHub(env)
  onTestFinished(async () => void (await hub.stop()))
  return hub
}

const file = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), "utf8")

describe("a hub without any history", () => {
  let hub: HubProcess
  let exposition: Exposition
  let names: ReadonlySet<string>

  const directory = mkdtempSync(join(tmpdir(), "event-hub-"))

  beforeAll(async () => {
    const policies = join(directory, "policies.txt")
    writeFileSync(policies, "role dev:")
    hub = await startHub({ HUB_STORE: `sqlite:${join(directory, "hub.db")}`, HUB_POLICY: policies })
    exposition = await scrape(hub)
    names = new Set(exposition.families.keys())
  })
  afterAll(async () => {
    await hub.stop()
    rmSync(directory, { recursive: true, force: true })
  })

  it("has a name by the conventions, a type, and a help for each", () => {
    expect(names.size).toBeGreaterThan(50)
    for (const { help, name, type } of exposition.families.values()) {
      expect(name).toMatch(/^(event_hub|process|nodejs)_[a-z0-9_]+$/)
      expect([name, help]).toEqual([name, expect.stringMatching(/^[A-Z0-9].+\.$/)])
      expect([name, name.endsWith("_total")]).toEqual([name, type === "counter"])
      expect(name).not.toMatch(/(?<!measured_timestamp)_(ms|millis|milliseconds|kb|mb|minutes)(_|$)/)
      if (type === "histogram") expect(name).toMatch(/_(seconds|events)$/)
    }
  })

  it("has labels of closed sets alone", () => {
    const labels = new Map<string, Set<string>>()
    for (const series of exposition.series) {
      for (const [, label = "", value = ""] of series.matchAll(/([a-z_]+)="([^"]*)"/g)) {
        labels.set(label, (labels.get(label) ?? new Set()).add(value))
      }
    }
    labels.delete("le")
    expect([...labels.keys()].toSorted()).toEqual([
      "code",
      "limit",
      "major",
      "minor",
      "operation",
      "outcome",
      "patch",
      "path",
      "reason",
      "setting",
      "source",
      "version"
    ])
    expect(labels.get("path")).toEqual(new Set(["live", "group"]))
    expect(labels.get("source")).toEqual(new Set(["hub"]))
    for (const operation of labels.get("operation") ?? []) {
      expect(operation).toMatch(/^(Event|Group|Outbox|Revocation)Store\.[a-zA-Z]+$/)
    }
  })

  it("begins every count at 0, and says what it is", () => {
    for (const series of [
      "event_hub_events_appended_total",
      "event_hub_dead_letters_total",
      'event_hub_connections_closed_total{code="4002",reason="slow_consumer"}',
      'event_hub_connections_refused_total{reason="too_many"}',
      'event_hub_subscriptions_ended_total{reason="revoked"}',
      'event_hub_errors_total{code="forbidden"}',
      'event_hub_rate_limited_total{limit="topic_events"}',
      'event_hub_store_operation_errors_total{operation="EventStore.append"}',
      'event_hub_outbox_sent_total{source="hub"}'
    ]) {
      expect([series, exposition.valueOf(series)]).toEqual([series, 0])
    }
    const { version } = JSON.parse(file("package.json")) as { readonly version: string }
    expect(exposition.valueOf(`event_hub_build_info{version="${version}"}`)).toBe(1)
    expect(exposition.valueOf("event_hub_ready")).toBe(1)
    expect(exposition.valueOf("event_hub_store_bytes")).toBeGreaterThan(0)
    expect(exposition.valueOf("process_cpu_seconds_total")).toBeGreaterThan(0)
    expect(exposition.valueOf("nodejs_heap_size_used_bytes")).toBeGreaterThan(1_000_000)
  })

  it("docs/observability.md has a row for each metric, with its type and labels, and for nothing else", () => {
    const rows = [
      ...file("docs/observability.md").matchAll(
        /^\| `([a-z_0-9]+)` +\| (counter|gauge|histogram) +\| ([^|]*?) *\|/gm
      )
    ]
    const documented = rows.map(([, name = "", type = "", labels = ""]) => `${name} ${type} ${labels}`)
    const expected = [...exposition.families.values()].map(({ name, type }) => {
      const own = exposition.series.filter(
        (series) =>
          series.replace(/\{.*/, "").replace(/_(bucket|sum|count)$/, "") === name ||
          series.startsWith(`${name}{`)
      )
      const labels = new Set(
        own.flatMap((series) => [...series.matchAll(/([a-z_]+)="/g)].map(([, label]) => label!))
      )
      labels.delete("le")
      return `${name} ${type} ${[...labels].map((label) => `\`${label}\``).join(", ")}`
    })
    expect(documented.toSorted()).toEqual(expected.toSorted())
  })

  /** What the expressions of a text ask for. */
  const metricsIn = (text: string): ReadonlySet<string> =>
    new Set(
      [...text.matchAll(/\b(?:event_hub|process|nodejs)_[a-z0-9_]+/g)].map(([name]) =>
        name.replace(/_(bucket|sum|count)$/, (suffix) => (names.has(name) ? suffix : ""))
      )
    )

  it("has every metric that the dashboard of Grafana asks for", () => {
    interface Panel {
      readonly title: string
      readonly targets?: ReadonlyArray<{ readonly expr: string }>
      readonly panels?: ReadonlyArray<Panel>
    }
    const dashboard = JSON.parse(file("deploy/grafana/event-hub.json")) as {
      readonly panels: ReadonlyArray<Panel>
      readonly templating: { readonly list: ReadonlyArray<{ readonly type: string; readonly name: string }> }
    }
    const all = (panels: ReadonlyArray<Panel>): ReadonlyArray<Panel> =>
      panels.flatMap((panel) => [panel, ...all(panel.panels ?? [])])
    const exprs = all(dashboard.panels).flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
    expect(exprs.length).toBeGreaterThan(25)
    const asked = metricsIn(exprs.join("\n"))
    expect(asked.size).toBeGreaterThan(25)
    expect([...asked].filter((name) => !names.has(name))).toEqual([])
    expect(dashboard.templating.list).toContainEqual(
      expect.objectContaining({ type: "datasource", name: "datasource" })
    )
  })

  it("has every metric that the alerts ask for, and each says what it is and what to do", () => {
    const text = file("deploy/prometheus/alerts.yml")
    const exprs = [...text.matchAll(/^ +expr: (?:\|\n((?: {10,}.*\n)+)|(.*))/gm)].map(
      ([, block, line]) => block ?? line ?? ""
    )
    const alerts = text.split(/^ +- alert: /m).slice(1)
    expect(exprs.length).toBe(alerts.length)
    expect([...metricsIn(exprs.join("\n"))].filter((name) => !names.has(name))).toEqual([])
    const guide = file("docs/observability.md")
    for (const alert of alerts) {
      const [name = ""] = alert.split("\n")
      for (const field of ["severity:", "summary:", "description:", "runbook_url:"]) {
        expect([name, alert.includes(field)]).toEqual([name, true])
      }
      const anchor = /runbook_url: \S*docs\/observability\.md#(\S+)/.exec(alert)?.[1]
      expect([name, anchor]).toEqual([name, name.toLowerCase()])
      expect([name, guide.includes(`### ${name}\n`)]).toEqual([name, true])
    }
  })
})

it("says what happened: publishes, a group with a redelivery and a dead letter, an outbox, a close", async () => {
  const path = join(temporaryDirectory(), "hub.db")
  const hub = await start({ HUB_STORE: `sqlite:${path}`, GROUP_RETRY_BASE_MS: "10" })
  const client = await RawClient.authenticated(hub.ws)
  await client.request({ op: "SUBSCRIBE", topic: "jobs.*" })
  await client.request({ op: "SUBSCRIBE", topic: "jobs.a", group: "g", opts: { maxAttempts: 2 } })
  for (const id of ["good", "bad", "good"]) {
    await client.request({ op: "PUBLISH", topic: "jobs.a", payload: id, opts: { id } })
  }
  await client.request({ op: "PUBLISH", topic: "jobs.*", payload: 1 })
  const ofGroup = (id: string) => (message: Readonly<Record<string, unknown>>) =>
    message["group"] === "g" && (message["event"] as { readonly id: string }).id === id
  await client.events(1, ofGroup("good"))
  const before = await scrape(hub)
  expect(before.valueOf("event_hub_group_in_flight_events")).toBe(2)
  expect(before.valueOf("event_hub_live_subscriptions")).toBe(1)
  expect(before.valueOf("event_hub_group_members")).toBe(1)
  expect(before.valueOf("event_hub_connections")).toBe(1)
  await client.request({ op: "ACK", topic: "jobs.a", group: "g", id: "good" })
  await client.events(1, ofGroup("bad"))
  await client.request({ op: "NACK", topic: "jobs.a", group: "g", id: "bad" })
  await client.events(2, ofGroup("bad"))
  await client.request({ op: "NACK", topic: "jobs.a", group: "g", id: "bad" })

  const db = new DatabaseSync(path)
  onTestFinished(() => db.close())
  const outbox = createOutbox(db)
  outbox.transaction(() => outbox.add({ topic: "bills", payload: 1 }))
  await client.close()

  const closed = 'event_hub_connections_closed_total{code="1005",reason="no_status"}'
  const { valueOf } = await scrapeUntil(
    hub,
    ({ valueOf }) =>
      valueOf("event_hub_dead_letters_total") === 1 &&
      valueOf('event_hub_outbox_sent_total{source="hub"}') === 1 &&
      valueOf(closed) === 1 &&
      valueOf("event_hub_connections") === 0
  )
  const values = (series: ReadonlyArray<string>) =>
    Object.fromEntries(series.map((one) => [one, valueOf(one)]))
  const expected = {
    // Two events, a dead letter, and one of the outbox.
    event_hub_events_appended_total: 4,
    event_hub_events_duplicate_total: 1,
    event_hub_events_not_appended_total: 0,
    event_hub_append_wait_duration_seconds_count: 5,
    // What connections published, and what of it they got an OK for.
    event_hub_publish_duration_seconds_count: 3,
    event_hub_live_deliveries_total: 2,
    event_hub_group_deliveries_total: 3,
    event_hub_group_redeliveries_total: 1,
    event_hub_group_acks_total: 1,
    event_hub_group_nacks_total: 2,
    event_hub_dead_letters_total: 1,
    'event_hub_stored_to_sent_duration_seconds_count{path="live"}': 2,
    // First deliveries alone.
    'event_hub_stored_to_sent_duration_seconds_count{path="group"}': 2,
    event_hub_sent_to_acked_duration_seconds_count: 1,
    'event_hub_outbox_to_stored_duration_seconds_count{source="hub"}': 1,
    'event_hub_errors_total{code="invalid_topic"}': 1,
    event_hub_connections_opened_total: 1,
    event_hub_live_subscriptions: 0,
    event_hub_group_members: 0,
    event_hub_group_in_flight_events: 0,
    event_hub_append_queued_events: 0,
    event_hub_outbound_bytes: 0
  }
  expect(values(Object.keys(expected))).toEqual(expected)
  expect(valueOf("event_hub_commit_duration_seconds_count")).toBe(
    valueOf("event_hub_append_batch_events_count")
  )
  expect(valueOf("event_hub_commit_duration_seconds_sum")).toBeGreaterThan(0)
  expect(valueOf("event_hub_publish_duration_seconds_sum")).toBeGreaterThan(0)
})

it("has the same series for ten thousand topics as for ten", async () => {
  const hub = await start({ HUB_STORE: `sqlite:${join(temporaryDirectory(), "hub.db")}` })
  const client = await RawClient.authenticated(hub.ws)
  const publish = async (from: number, to: number): Promise<void> => {
    for (let begin = from; begin < to; begin += 500) {
      const frame = Array.from({ length: Math.min(500, to - begin) }, (_, i) => {
        const n = begin + i
        return { op: "PUBLISH", ref: `p${n}`, topic: `topics.t${n}`, payload: n, opts: { key: `key-${n}` } }
      })
      client.send(frame)
      const last = `p${Math.min(to, begin + 500) - 1}`
      await client.waitFor(last, ({ ref }) => ref === last)
    }
  }
  await publish(0, 10)
  const few = (await scrape(hub)).series
  await publish(10, 10_000)
  const { series: many, valueOf } = await scrape(hub)
  expect(valueOf("event_hub_events_appended_total")).toBe(10_000)
  expect(many.toSorted()).toEqual(few.toSorted())
  await client.close()
})
