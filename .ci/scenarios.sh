# shellcheck shell=bash disable=SC2154 # what lib.sh sets
# Workflows as a user has them: a repository that init put under the covenant,
# with the workflows that init wrote, its changes, and a real bare remote, all
# through act with real containers. Sourced by lib.sh.
#
# What only the forge has is replaced, and each run says so: act copies the
# repository in place of actions/checkout; artifacts go through a folder that
# the jobs share; other actions/* do nothing.

ci_scenarios=(green-change red-change change-that-edits-its-gate queued-change publish-on-merge)

check_scenarios() { # [NAME...]
  local name
  start_engine
  local_images
  make_world
  for name in "${@:-${ci_scenarios[@]}}"; do
    printf '\n-- %s\n' "$name"
    "scenario_${name//-/_}"
  done
}

make_world() {
  world=$(mktemp -d -p "$ci_tmp")
  world_token=a-token-of-this-run
  mkdir "$world/artifacts" "$world/remotes" "$world/logs"
  build_static "$world/remembrancer"
  go build -o "$world/githost" ./.ci/githost
  git clone -q "$ci_root" "$world/product"
  sed -i "s|^ARG GO_IMAGE=.*|ARG GO_IMAGE=$ci_go_image|" "$world/product/Dockerfile"
  commit "$world/product" 'ci: build with the local image'
  world_ref=$(git -C "$world/product" rev-parse HEAD)
  stand_ins

  git init -q --bare -b main "$world/remotes/project.git"
  git -C "$world/remotes/project.git" config http.receivepack true
  mkfifo "$world/hold"
  sleep infinity >"$world/hold" &
  ci_world_pids=("$!")
  "$world/githost" "$world/remotes" "$world_token" <"$world/hold" >"$world/host.url" &
  ci_world_pids+=("$!")
  until [[ -s $world/host.url ]]; do sleep 0.1; done

  git init -q -b main "$world/project"
  cat >"$world/project/SMOKE_TEST.sh" <<'END'
#!/bin/sh
pass=0
for file in one two three; do
  if [ -s "$file.txt" ]; then pass=$((pass + 1)); else echo "$file.txt is empty"; fi
done
printf 'SMOKE_JSON={"pass":%d,"total":3}\n' "$pass"
[ "$pass" = 3 ]
END
  chmod +x "$world/project/SMOKE_TEST.sh"
  for file in one two three; do echo "$file" >"$world/project/$file.txt"; done
  (cd "$world/project" && REMEMBRANCER_STATE=$world/state "$world/remembrancer" \
    init --yes --origin github.com/example/project --action-ref "$world_ref" >"$world/logs/init")
  sed -i 's/^  expect: 0 /  expect: 3 /' "$world/project/remembrancer.yaml"
  sed -i "s|^          report: .*event_name.*|&\n          remote: $(cat "$world/host.url")/project.git|" "$world/project/.github/workflows/merkle-publish.yml"
  commit "$world/project" 'Under the covenant'
  git -C "$world/project" remote add origin https://github.com/example/project
  git -C "$world/project" push -q "$(world_url)" main
  world_base=$(git -C "$world/project" rev-parse HEAD)
}

world_url() { sed "s|http://|http://x-access-token:$world_token@|; s|\$|/project.git|" "$world/host.url"; }

commit() { # DIR MESSAGE
  git -C "$1" add -A
  git -C "$1" -c user.name=ci -c user.email=ci@localhost -c commit.gpgsign=false commit -q -m "$2"
}

# stand_ins makes an action for each that only the forge has.
stand_ins() {
  mkdir -p "$world"/stand-in/{nothing,upload,download}
  cat >"$world/stand-in/nothing/action.yml" <<'END'
name: stand-in
runs:
  using: composite
  steps:
    - run: echo 'replaced on this machine'
      shell: bash
END
  cat >"$world/stand-in/upload/action.yml" <<'END'
name: stand-in
inputs:
  name: {required: true}
  path: {required: true}
  if-no-files-found: {required: false}
runs:
  using: composite
  steps:
    - run: rm -rf "/artifacts/$NAME" && mkdir -p "/artifacts/$NAME" && cp -r "$FILES" "/artifacts/$NAME/"
      shell: bash
      env:
        NAME: ${{ inputs.name }}
        FILES: ${{ inputs.path }}
END
  cat >"$world/stand-in/download/action.yml" <<'END'
name: stand-in
inputs:
  name: {required: true}
  path: {required: true}
  run-id: {required: false}
  github-token: {required: false}
runs:
  using: composite
  steps:
    - run: mkdir -p "$FILES" && cp -r "/artifacts/$NAME/." "$FILES/"
      shell: bash
      env:
        NAME: ${{ inputs.name }}
        FILES: ${{ inputs.path }}
END
}

# change makes a branch of main's first commit, lets a command edit it, and
# checks out what merging it gives, as the forge does for a pull request.
change() { # BRANCH COMMAND...
  local branch=$1 head
  shift
  git -C "$world/project" checkout -q --detach "$world_base"
  (cd "$world/project" && "$@")
  commit "$world/project" "$branch"
  head=$(git -C "$world/project" rev-parse HEAD)
  git -C "$world/project" checkout -q --detach "$world_base"
  git -C "$world/project" -c user.name=ci -c user.email=ci@localhost -c commit.gpgsign=false \
    merge -q --no-ff -m "Merge $branch" "$head"
  jq -n --arg base "$world_base" --arg head "$head" --arg branch "$branch" '{
    action: "synchronize", number: 1,
    pull_request: {number: 1, base: {ref: "main", sha: $base}, head: {ref: $branch, sha: $head}},
    repository: {default_branch: "main", full_name: "example/project", name: "project", owner: {login: "example"}}
  }' >"$world/event.json"
}

# runs EVENT WORKFLOW NAME [ACT-FLAG...] runs a workflow of the project; its
# status is act's, its output is kept and shown.
runs() {
  local event=$1 workflow=$2 log=$world/logs/$3 status=0 flags=() action with
  shift 3
  while IFS= read -r action; do
    case $action in
      actions/checkout@*) continue ;;
      actions/upload-artifact@*) with=upload ;;
      actions/download-artifact@*) with=download ;;
      *) with=nothing ;;
    esac
    flags+=(--local-repository "$action=$world/stand-in/$with")
  done < <(sed -nE 's/^[ -]*uses: *(actions\/[^ ]+).*/\1/p' "$world/project/.github/workflows/$workflow" | sort -u)
  (cd "$world/project" && "$ci_bin/act" "$event" -W ".github/workflows/$workflow" -e "$world/event.json" \
    --local-repository "vaultmesh/remembrancer@$world_ref=$world/product" "${flags[@]}" "$@" \
    -P "ubuntu-latest=$ci_runner_image" --container-options "-v $world/artifacts:/artifacts" \
    --pull=false --action-offline-mode --rebuild --rm --action-cache-path "$ci_cache/act" </dev/null) \
    >"$log" 2>&1 || status=$?
  grep -E '✅|❌|🚫|PASS|FAIL|🏁|COVENANT' "$log" | cut -c1-200 || true
  return "$status"
}

# says fails unless a log has a line.
says() { # NAME REGEXP
  grep -qE -- "$2" "$world/logs/$1" || { tail -n 60 "$world/logs/$1" >&2; die "$1: no line like $2"; }
}

must_pass() {
  local status=0
  "$@" || status=$?
  ((status == 0)) || { tail -n 60 "$world/logs/$4" >&2; die "$4: exit status $status, wanted 0"; }
}

must_fail() {
  if "$@"; then tail -n 60 "$world/logs/$4" >&2 && die "$4: it passed, wanted a red run"; fi
}

scenario_green_change() {
  change green-change sh -c 'echo more >>one.txt'
  must_pass runs pull_request covenant-enforce.yml green-change
  says green-change 'PASS +3/3'
  says green-change 'COVENANT 1 integrity +✅ pass'
}

scenario_red_change() {
  change red-change sh -c ': >two.txt'
  must_fail runs pull_request covenant-enforce.yml red-change
  says red-change '2 of 3 tests passed'
}

# A change that breaks a test and asks for less: the base's configuration judges.
scenario_change_that_edits_its_gate() {
  change edits-its-gate sh -c ": >two.txt; sed -i 's/expect: 3/expect: 1/' remembrancer.yaml; printf '%s\\n' '#!/bin/sh' 'echo SMOKE_JSON={\\\"pass\\\":1,\\\"total\\\":1}' >SMOKE_TEST.sh"
  must_fail runs pull_request covenant-enforce.yml edits-its-gate
  says edits-its-gate '1/1 tests passed, at least 3 expected'
  says edits-its-gate 'integrity/gate-owned +2 changed; approval cannot be known here'
}

scenario_queued_change() {
  change queued-change sh -c 'echo more >>three.txt'
  jq --arg head "$(git -C "$world/project" rev-parse HEAD)" \
    '{action: "checks_requested", merge_group: {head_sha: $head, base_sha: .pull_request.base.sha, base_ref: "refs/heads/main", head_ref: "refs/heads/gh-readonly-queue/main/pr-1"}, repository}' \
    "$world/event.json" >"$world/queued.json"
  mv "$world/queued.json" "$world/event.json"
  must_pass runs merge_group covenant-enforce.yml queued-change
  says queued-change 'PASS +3/3'
}

# A green run on main leaves its report, the publisher observes the run, and the
# root lands on the remote.
scenario_publish_on_merge() {
  local keys
  rm -rf "${world:?}"/artifacts/*
  git -C "$world/project" checkout -q main
  jq -n --arg sha "$world_base" '{
    ref: "refs/heads/main", before: "0000000000000000000000000000000000000000", after: $sha,
    repository: {default_branch: "main", full_name: "example/project", name: "project", owner: {login: "example"}}
  }' >"$world/event.json"
  must_pass runs push covenant-enforce.yml green-push
  [[ -s $world/artifacts/smoke-report/smoke-report.json ]] || die "green-push: no report was handed over"
  jq -n --arg sha "$world_base" '{
    action: "completed",
    workflow_run: {
      id: 1, run_attempt: 1, event: "push", status: "completed", conclusion: "success",
      head_branch: "main", head_sha: $sha, updated_at: "2026-01-02T03:04:05Z", path: ".github/workflows/covenant-enforce.yml",
      repository: {full_name: "example/project"}, head_repository: {full_name: "example/project"}
    },
    repository: {default_branch: "main", full_name: "example/project", name: "project", owner: {login: "example"}}
  }' >"$world/event.json"
  keys=$(find "$world/state/keys" -type f)
  REMEMBRANCER_LOG_KEY=$(cat "$(grep -E 'log' <<<"$keys")") \
  REMEMBRANCER_SIGNING_KEY=$(cat "$(grep -vE 'log' <<<"$keys")") \
  REMEMBRANCER_TOKEN=$world_token \
    must_pass runs workflow_run merkle-publish.yml publish-on-merge \
    -s REMEMBRANCER_LOG_KEY -s REMEMBRANCER_SIGNING_KEY -s REMEMBRANCER_TOKEN
  says publish-on-merge 'Merkle root published: size 0'
  git clone -q "$world/remotes/project.git" "$world/published"
  git -C "$world/published" log -1 --format='%an <%ae>%n%s' | diff - <(printf '%s\n' \
    'Remembrancer Bot <bot@vaultmesh.org>' 'chore(merkle): auto-publish root [skip ci]') ||
    die "publish-on-merge: the tip of main is not the publisher's commit"
  (cd "$world/published" && REMEMBRANCER_STATE=$world/auditor "$world/remembrancer" verify-audit)
  jq -c . "$world/published/ops/status/badge.json"
}
