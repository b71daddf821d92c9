# shellcheck shell=bash disable=SC2154 # what lib.sh sets
# Workflows as a user has them: a repository that init put under the covenant,
# with the workflows that init wrote, its changes, and a real bare remote, all
# through act with real containers. Sourced by lib.sh.
#
# What only the forge has is replaced, and each run says so: act copies the
# repository in place of actions/checkout; artifacts go through a folder that
# the jobs share; other actions/* do nothing.

ci_scenarios=(green-change red-change change-that-edits-its-gate queued-change publish-on-merge release-on-a-tag)

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
  go build -o "$world/tsa" ./.ci/tsa
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
# status is act's, its output is kept and shown. world_tree is another repository
# than the project.
runs() {
  local event=$1 workflow=$2 log=$world/logs/$3 status=0 flags=() action with tree=${world_tree:-$world/project}
  shift 3
  while IFS= read -r action; do
    case $action in
      actions/checkout@*) continue ;;
      actions/upload-artifact@*) with=upload ;;
      actions/download-artifact@*) with=download ;;
      *) with=nothing ;;
    esac
    flags+=(--local-repository "$action=$world/stand-in/$with")
  done < <(sed -nE 's/^[ -]*uses: *(actions\/[^ ]+).*/\1/p' "$tree/.github/workflows/$workflow" | sort -u)
  (cd "$tree" && "$ci_bin/act" "$event" -W ".github/workflows/$workflow" -e "$world/event.json" \
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

# A tag signed by a person, and the release workflow on the tag's release: a key
# with a passphrase, two authorities of time, a container that signs; then what a
# stranger makes of it with git, gpg, sha256sum and openssl alone.
#
# The host of this run has no releases to upload to: upload is off, the files are
# handed over through the shared folder. The upload has tests of its own.
scenario_release_on_a_tag() {
  local world_tree=$world/tagged key=$world/release-key stranger=$world/stranger
  local pass='correct horse battery' secret fingerprint policy url file name
  local -x GNUPGHOME=$key REMEMBRANCER_STATE=$world/tagged-state
  rm -rf "${world:?}"/artifacts/*
  install -d -m 700 "$key" "$stranger.gnupg"
  cp -r "$world/project" "$world_tree"
  cp -r "$world/state" "$world/tagged-state"
  git -C "$world_tree" checkout -q main
  git init -q --bare -b main "$world/remotes/tagged.git"
  git -C "$world/remotes/tagged.git" config http.receivepack true
  url=$(world_url)
  url=${url%/project.git}/tagged.git

  gpg --batch --quiet --pinentry-mode loopback --passphrase "$pass" --quick-generate-key 'Releases <releases@example.com>' ed25519 sign 1d 2>"$world/logs/gpg"
  secret=$(gpg --batch --quiet --pinentry-mode loopback --passphrase "$pass" --armor --export-secret-keys)
  fingerprint=$(gpg --batch --quiet --with-colons --list-keys 2>>"$world/logs/gpg" | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p')
  gpg --batch --armor --export >"$world_tree/ops/certs/releases.asc"
  gpgconf --kill gpg-agent
  TMPDIR=$world "$world/tsa" "$world_tree/ops/certs/tsa" one two <"$world/hold" >"$world/tsa.ready" &
  ci_world_pids+=("$!")
  until [[ -s $world/tsa.ready ]]; do
    kill -0 "$!" || die "release-on-a-tag: the authorities of time did not start"
    sleep 0.1
  done

  sed -i '/^release:/,/^$/d' "$world_tree/remembrancer.yaml"
  printf '\nrelease:\n  artifacts: ["out/*.tar"]\n  timestamps: all\n' >>"$world_tree/remembrancer.yaml"
  echo out/ >"$world_tree/.gitignore"
  sed -e "s|uses: ./actions/release-sign|uses: vaultmesh/remembrancer/actions/release-sign@$world_ref|" -e 's/upload: true/upload: false/' \
    -e 's|^      # Build what release.artifacts.*|      - run: mkdir out \&\& git archive --format=tar -o out/project.tar HEAD|' \
    "$ci_root/examples/workflows/release-sign.yml" >"$world_tree/.github/workflows/release-sign.yml"
  printf '      - run: cp -r out ops/receipts/release /artifacts/\n' >>"$world_tree/.github/workflows/release-sign.yml"
  grep -q 'git archive' "$world_tree/.github/workflows/release-sign.yml" || die "release-on-a-tag: the example says no more where to build"
  commit "$world_tree" 'Releases'

  git -C "$world_tree" remote set-url origin "$url"
  git -C "$world_tree" push -q origin main
  (
    cd "$world_tree"
    "$world/remembrancer" smoke --report "$world/tagged-report.json"
    "$world/remembrancer" publish --report "$world/tagged-report.json"
    git fetch -q origin
    REMEMBRANCER_SIGNING_KEY=$secret REMEMBRANCER_PASSPHRASE=$pass "$world/remembrancer" release tag v1.0.0 --push
    git pull -q origin main
  ) >"$world/logs/tagged" 2>&1 || { cat "$world/logs/tagged" >&2; die "release-on-a-tag: no tag"; }
  grep -E '✅|🏁' "$world/logs/tagged"
  policy=$(cd "$world_tree" && "$world/remembrancer" verify-audit --json | jq -r .policy_id)

  # As the forge checks out a release: the tag, with all branches.
  git -C "$world_tree" remote set-url origin https://github.com/example/project
  git -C "$world_tree" checkout -q --detach v1.0.0
  jq -n '{
    action: "published", release: {tag_name: "v1.0.0", draft: false, prerelease: false},
    repository: {default_branch: "main", full_name: "example/project", name: "project", owner: {login: "example"}}
  }' >"$world/event.json"
  REMEMBRANCER_SIGNING_KEY=$secret REMEMBRANCER_PASSPHRASE=$pass \
    must_pass runs release release-sign.yml release-on-a-tag \
    -s REMEMBRANCER_SIGNING_KEY -s REMEMBRANCER_PASSPHRASE --var "REMEMBRANCER_POLICY_ID=$policy"
  says release-on-a-tag "release v1.0.0: tag of commit [0-9a-f]{40}, signed by $fingerprint"
  says release-on-a-tag 'signature of SHA256SUMS stamped 20.* by two'
  if grep -qF -e "$pass" -e "$(sed -n 4p <<<"$secret")" "$world/logs/release-on-a-tag"; then die "release-on-a-tag: the log holds a secret"; fi
  [[ -s $world/artifacts/release/v1.0.0.receipt ]] || die "release-on-a-tag: no receipt was handed over"

  # A stranger: a clone, the files of the release, and the trust in the clone.
  git clone -q "$world/remotes/tagged.git" "$stranger"
  cp -r "$world/artifacts/out" "$stranger/out"
  GNUPGHOME=$stranger.gnupg
  gpg --batch --quiet --import "$stranger"/ops/certs/releases.asc
  git -C "$stranger" verify-tag --raw v1.0.0 2>&1 | grep -q "^\[GNUPG:\] VALIDSIG $fingerprint " || die "release-on-a-tag: git does not accept the tag"
  git -C "$stranger" archive --format=tar v1.0.0 | cmp - "$stranger/out/project.tar"
  (cd "$stranger/out" && sha256sum --strict -c SHA256SUMS)
  for file in project.tar SHA256SUMS; do
    stranger_gpg "$fingerprint" "$file" || die "release-on-a-tag: gpg does not accept $file.asc"
  done
  for file in project.tar SHA256SUMS.asc; do
    for name in one two; do stranger_openssl "$name" "$file" || die "release-on-a-tag: openssl does not accept $file.$name.tsr"; done
  done
  echo 'git verify-tag, sha256sum, gpg, openssl ts: accepted'
  # And of what somebody changed.
  echo changed >>"$stranger/out/project.tar"
  if (cd "$stranger/out" && sha256sum --status --strict -c SHA256SUMS) || stranger_gpg "$fingerprint" project.tar ||
    stranger_openssl one project.tar || stranger_openssl two project.tar; then
    die "release-on-a-tag: a changed artifact was accepted"
  fi
  echo 'a changed artifact: refused by each'

  # The receipt of the container goes into the ledger.
  (
    cd "$world_tree"
    git checkout -q main
    git remote set-url origin "$url"
    git pull -q origin main
    mkdir -p ops/receipts/release
    cp "$world"/artifacts/release/* ops/receipts/release/
    commit . 'Release v1.0.0'
    git push -q origin main
    "$world/remembrancer" publish
    git pull -q origin main
    "$world/remembrancer" verify-audit --policy-id "$policy"
  ) >"$world/logs/released" 2>&1 || { cat "$world/logs/released" >&2; die "release-on-a-tag: the receipt was not published"; }
  says released 'release +[0-9a-f]{16}  v1\.0\.0'
}

# What a stranger types. gpg's own exit status says too little: it is 0 for
# expired and revoked keys, too.
stranger_gpg() { # FINGERPRINT FILE
  (cd "$stranger/out" && gpg --batch --status-fd 1 --verify "$2.asc" "$2" 2>/dev/null) | awk -v want="$1" \
    '$2 == "GOODSIG" { good = 1 } $2 == "VALIDSIG" && $3 == want { valid = 1 } END { exit !(good && valid) }'
}

stranger_openssl() { # AUTHORITY FILE
  local time
  time=$(openssl ts -reply -in "$stranger/out/$2.$1.tsr" -text 2>/dev/null | sed -n 's/^Time stamp: //p')
  openssl ts -verify -data "$stranger/out/$2" -in "$stranger/out/$2.$1.tsr" -CAfile "$stranger/ops/certs/tsa/$1/ca.pem" \
    -attime "$(date -d "$time" +%s)" >/dev/null 2>&1
}
