#!/usr/bin/env bash
# What is known of the packages that are locked here, and of those of the benchmarks: whatever is known of those that come
# with the hub fails, and of the others what is serious. A registry that answers no audits is said, and fails nothing.
# `npm audit` ends with 1 when it has found something: whether it has looked at all is for its report to say.
set -uo pipefail
cd "$(dirname "$0")/.."

failures=0
# `npm` has the directory as its prefix, so that no lock file needs what is installed from it.
look() {
  local directory=$1 what=$2
  shift 2
  local report found
  report=$(timeout 60 npm audit --prefix "$directory" "$@" --json 2>/dev/null)
  found=$?
  if ! grep -q '"auditReportVersion"' <<<"$report"; then
    echo "$what: NOT CHECKED: the registry here answers no audits; run 'npm audit' where it does"
  elif [ "$found" -ne 0 ]; then
    timeout 60 npm audit --prefix "$directory" "$@"
    echo "$what: something is known of them"
    failures=1
  else
    echo "$what: nothing is known of them"
  fi
}

look . "packages that come with the hub" --omit=dev
look . "packages of its development" --audit-level=high
look bench "packages of the benchmarks" --audit-level=high
exit $failures
