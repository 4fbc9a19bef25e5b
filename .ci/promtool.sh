#!/usr/bin/env bash
# Checks deploy/prometheus, and a hub's /metrics, with Prometheus' own tool: from the PATH, or out of the system's package,
# which is unpacked and not installed. Says so and ends well where there is neither.
set -euo pipefail
cd "$(dirname "$0")/.."

temporary=$(mktemp -d)
hub=
finish() {
  [ -z "$hub" ] || kill "$hub" 2>/dev/null || true
  rm -rf "$temporary"
}
trap finish EXIT

promtool=$(command -v promtool || true)
if [ -z "$promtool" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
  if (cd "$temporary" && timeout 60 apt-get download prometheus >apt.log 2>&1 && dpkg-deb -x prometheus_*.deb unpacked); then
    promtool=$temporary/unpacked/usr/bin/promtool
  fi
fi
if [ -z "$promtool" ]; then
  echo "SKIPPED: there is no promtool on the PATH, and the package 'prometheus' cannot be had (apt-get update?)"
  exit 0
fi
"$promtool" --version 2>&1 | head -1

(cd deploy/prometheus && "$promtool" check rules alerts.yml && "$promtool" test rules alerts.test.yml)

# What the dashboard asks for are expressions, too: as rules, they can be checked.
node_modules/.bin/node -e '
  const panels = JSON.parse(require("node:fs").readFileSync("deploy/grafana/event-hub.json", "utf8")).panels
  const rules = panels.flatMap(({ targets = [] }) => targets).map(({ expr }, i) => ({
    record: `panel:${i}`,
    expr: expr.replaceAll("$__rate_interval", "1m").replaceAll("$instance", ".*")
  }))
  process.stdout.write(JSON.stringify({ groups: [{ name: "dashboard", rules }] }))
' >"$temporary/dashboard.yml"
"$promtool" check rules "$temporary/dashboard.yml"

HUB_STORE=memory: WS_PORT=0 OPS_PORT=0 HUB_LOG=json node_modules/.bin/node src/main.ts >"$temporary/hub.log" &
hub=$!
for _ in $(seq 100); do
  ops=$(sed -n 's/.*"msg":"ready".*"ops":"\([^"]*\)".*/\1/p' "$temporary/hub.log")
  [ -z "$ops" ] || break
  sleep 0.1
done
[ -n "$ops" ] || { echo "the hub did not start" && cat "$temporary/hub.log" && exit 1; }
node_modules/.bin/node -e 'fetch(process.argv[1]).then((a) => a.text()).then((t) => process.stdout.write(t))' "$ops/metrics" \
  >"$temporary/metrics"
"$promtool" check metrics <"$temporary/metrics"
echo "the /metrics of a hub: $(grep -c '^# TYPE' "$temporary/metrics") metrics, nothing to complain of"
