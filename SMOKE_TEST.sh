#!/usr/bin/env bash
# The smoke test of this repository: builds the program and uses it as a person
# would, in throw-away repositories with a real remote. Needs Go, git and the
# usual small tools; writes nothing outside of its temporary folder.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The Go caches are found before HOME moves away.
GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE)
export GOCACHE GOMODCACHE
export HOME=$work/home REMEMBRANCER_STATE=$work/state GIT_CONFIG_NOSYSTEM=1
unset CI GITHUB_ACTIONS GITHUB_EVENT_NAME REMEMBRANCER_KEY_ID XDG_STATE_HOME
mkdir -p "$HOME"
git config --global user.name "Smoke Test"
git config --global user.email smoke@example.org
git config --global init.defaultBranch main
rb=$work/remembrancer

ids=() pass=0 fail=0
try() { # ID COMMAND...: one test
  local id=$1
  shift
  ids+=("\"$id\"")
  # Not inside an if: there bash ignores errexit, and only the last line of a
  # test would count.
  (set -e; cd "$work"; "$@") >"$work/log" 2>&1
  local status=$?
  if ((status == 0)); then
    pass=$((pass + 1))
    printf '✅ %s\n' "$id"
  else
    fail=$((fail + 1))
    printf '❌ %s\n' "$id"
    sed 's/^/   /' "$work/log"
  fi
}
wants() { # STATUS COMMAND...: the exit status is part of the claim
  local want=$1 got=0
  shift
  "$@" || got=$?
  [[ $got == "$want" ]] || { printf 'exit status %s, want %s: %s\n' "$got" "$want" "$*"; return 1; }
}

says() { # PATTERN COMMAND...: succeeds and prints a line like it. Not a pipe into
  # grep -q, which ends the reading early and with it the command.
  local pattern=$1
  shift
  "$@" >"$work/said" && grep -q -- "$pattern" "$work/said"
}

builds() { (cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$rb" ./cmd/remembrancer); }
structure() { (cd "$root" && ls README.md LICENSE go.mod action.yml Dockerfile remembrancer.yaml actions/*/action.yml >/dev/null); }
help_and_version() {
  says 'Exit status' "$rb" help
  says '^remembrancer' "$rb" version
  wants 2 "$rb" no-such-command
}
judges_the_ancestor() {
  wants 1 "$rb" smoke --from "$root/pkg/smoke/testdata/smoke-output.txt" --expect 26 >out
  grep -q '20 of 26' out
}
inits_and_gates() {
  git init -q repo && cd repo
  printf '#!/bin/sh\necho '\''SMOKE_JSON={"pass":2,"total":2}'\''\n' >SMOKE_TEST.sh
  chmod +x SMOKE_TEST.sh
  "$rb" init --yes --origin smoke.example/repo
  git add -A && git commit -qm init
  says '^PASS  4 of 4' "$rb" gate
  [[ -z $(git status --porcelain) ]]
}
records() {
  cd repo
  "$rb" record deploy --component app --version v1.0.0 --evidence SMOKE_TEST.sh
  "$rb" adr create "Keep receipts" --decision "They are evidence."
  git add -A && git commit -qm receipts
  wants 1 "$rb" record deploy --component app --version v1.0.0 --sha256 "$(printf x | sha256sum | cut -d' ' -f1)"
}
publishes() {
  git init -q --bare remote.git
  cd repo && git remote add origin "$work/remote.git" && git push -q -u origin main
  "$rb" smoke --report "$work/report.json"
  says 'size 0 → 3' "$rb" publish --report "$work/report.json"
  git pull -q && grep -q '^Merkle Root: [0-9a-f]\{64\}$' docs/REMEMBRANCER.md
  [[ $(cat ops/status/badge.json) == '{"tests":{"pass":2,"total":2,"pct":100.00}}' ]]
  says 'No Merkle root update needed' "$rb" publish
}
audits() {
  cd repo
  "$rb" verify-audit
  "$rb" log verify --ledger ops/ledger
}
proves() {
  cd repo
  "$rb" log prove app-v1.0.0 >"$work/app.tlog-proof"
  "$rb" verify --proof "$work/app.tlog-proof" --policy ops/ledger/policy
  sed 's/^index .*/index 2/' "$work/app.tlog-proof" >"$work/changed"
  wants 1 "$rb" verify --proof "$work/changed" --policy ops/ledger/policy
  wants 3 "$rb" verify --proof "$work/app.tlog-proof"
}
searches() {
  cd repo
  says ADR-001 "$rb" query evidence
  says app-v1.0.0 "$rb" list deploy
}
finds_tampering() {
  git clone -q "$work/remote.git" tampered && cd tampered
  sed -i 's/^\(.\{40\}\)./\1X/' ops/ledger/log/00/00/00.jsonl
  git commit -qam tampered
  wants 1 "$rb" verify-audit
}
imports_the_ancestor() {
  [[ $("$rb" import --dry-run "$root/pkg/index/testdata/remembrancer.db") == d5c64aee1039e6dd71f5818d456cce2e48e6590b6953c13623af6fa1070decea ]]
}
federates() { "$rb" federation sync --self-test; }

try structure structure
try build builds
try cli help_and_version
try smoke-gate judges_the_ancestor
try init-and-gate inits_and_gates
try receipts records
try merkle-publish publishes
try merkle-audit audits
try proof-chain proves
try search searches
try tampering finds_tampering
try legacy-root imports_the_ancestor
try federation-sync federates

total=${#ids[@]}
printf 'SMOKE_JSON={"v":1,"pass":%d,"fail":%d,"skip":0,"warn":0,"total":%d,"ids":[%s]}\n' \
  "$pass" "$fail" "$total" "$(IFS=,; echo "${ids[*]}")"
((fail == 0))
