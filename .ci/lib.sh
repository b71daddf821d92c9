# shellcheck shell=bash
# What .ci/run and .ci/full share: the checks, one function each, and the
# machinery below them. The first failure stops the run; evidence that cannot
# be had is a failure, and the one check that may go without its evidence
# (govulncheck's database is on the network) says "not checked".
#
# Settings, all optional:
#   REMEMBRANCER_FUZZTIME      how long each fuzz target runs (5s)
#   REMEMBRANCER_GO_IMAGE      a builder image at hand, instead of the local replacement
#   REMEMBRANCER_RUNNER_IMAGE  a runner image at hand for act, likewise
set -Eeuo pipefail

export PATH=$PATH:/usr/sbin:/sbin
export GOTOOLCHAIN=local
: "${HOME:=$(cd ~ && pwd)}"
export HOME

ci_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
ci_cache=${XDG_CACHE_HOME:-$HOME/.cache}/remembrancer-ci
ci_bin=$ci_cache/bin
ci_tmp=$(mktemp -d)
ci_step=start
ci_engine_pid=
ci_world_pids=() # of the scenarios' git host
cd "$ci_root"

# command:package or file:package. What is there is left as it is.
ci_packages=(
  git:git curl:curl openssl:openssl gpg:gnupg gpgv:gpgv jq:jq sqlite3:sqlite3
  shellcheck:shellcheck faketime:faketime gcc:gcc dockerd:docker.io debootstrap:debootstrap
  /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
)

ci_go_tools=(
  mvdan.cc/gofumpt@v0.12.0
  github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
  github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
  golang.org/x/vuln/cmd/govulncheck@v1.7.0
  github.com/nektos/act@v0.2.89
)

# The compressed size that a pull may cost, in bytes.
ci_image_limit=12000000
ci_image=remembrancer:ci

# --- machinery ---------------------------------------------------------------

die() {
  printf 'ci: %s\n' "$@" >&2
  exit 1
}

step() { # TITLE COMMAND...
  local begin=$SECONDS
  ci_step=$1
  shift
  printf '\n## %s\n' "$ci_step"
  "$@"
  printf '## %s: passed in %d s\n' "$ci_step" $((SECONDS - begin))
}

finish() {
  local status=$?
  trap - EXIT
  if ((${#ci_world_pids[@]})); then kill "${ci_world_pids[@]}" 2>/dev/null || true; fi
  if [[ -n $ci_engine_pid ]]; then
    # Build stages are left untagged. Whose engine this is not, is not swept.
    docker image prune -f >/dev/null 2>&1 || true
    kill "$ci_engine_pid" 2>/dev/null || true
    wait "$ci_engine_pid" 2>/dev/null || true
  fi
  chmod -R u+w "$ci_tmp" 2>/dev/null || true
  rm -rf --one-file-system "$ci_tmp"
  if ((status)); then
    printf '\n## FAILED after %d s, in: %s\n' "$SECONDS" "$ci_step" >&2
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# tracked prints the files of the work tree that git knows or would add.
tracked() { # PATHSPEC...
  git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while IFS= read -r file; do
    [[ -f $file ]] && printf '%s\n' "$file"
  done || true
}

# --- the machine -------------------------------------------------------------

check_packages() {
  local pair missing=()
  for pair in "${ci_packages[@]}"; do
    [[ -e ${pair%%:*} ]] || command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  if ((${#missing[@]})); then
    [[ $(id -u) == 0 ]] || die "missing: ${missing[*]}" "hint: sudo apt-get install ${missing[*]}"
    echo "installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$ci_tmp/apt.log" 2>&1 ||
      { tail -n 30 "$ci_tmp/apt.log" >&2; die "apt-get install failed"; }
  fi
  go version
  git --version
  dockerd --version
}

# check_tools builds the linters at their exact versions, with this Go, into a
# cache outside the tree.
check_tools() {
  local spec bin info
  mkdir -p "$ci_bin"
  for spec in "${ci_go_tools[@]}"; do
    bin=${spec%@*}
    bin=$ci_bin/${bin##*/}
    info=$(go version -m "$bin" 2>/dev/null || true)
    if [[ $info != *": $(go env GOVERSION)"$'\n'* ]] ||
      ! awk -v want="${spec##*@}" '$1 == "mod" && $3 == want { found = 1 } END { exit !found }' <<<"$info"; then
      echo "building $spec"
      (cd / && GOBIN=$ci_bin go install -trimpath -ldflags='-s -w' "$spec")
    fi
    echo "$spec"
  done
}

# --- checks of the source ----------------------------------------------------

check_shell() {
  local files=() file
  while IFS= read -r file; do
    if [[ $file == *.sh ]] || head -n 1 "$file" | grep -qE '^#!.*[/ ](ba)?sh( |$)'; then
      files+=("$file")
    fi
  done < <(tracked .ci '*.sh' 'examples/**')
  ((${#files[@]})) || die "no shell script found, wanted at least .ci/run"
  shellcheck -x "${files[@]}"
  echo "${#files[@]} scripts"
}

check_format() {
  local files=() unformatted
  mapfile -t files < <(tracked '*.go' ':!*/testdata/*')
  ((${#files[@]})) || die "no Go file found"
  unformatted=$("$ci_bin/gofumpt" -l "${files[@]}")
  [[ -z $unformatted ]] || die "not formatted:" "$unformatted" "hint: $ci_bin/gofumpt -w FILE"
  echo "${#files[@]} files"
}

check_modules() {
  go mod tidy -diff
}

check_lint() {
  go vet ./...
  "$ci_bin/golangci-lint" run ./...
}

check_workflows() {
  local files=() file
  while IFS= read -r file; do
    if grep -q '^jobs:' "$file"; then files+=("$file"); fi
  done < <(tracked '.github/workflows/*.yml' '.github/workflows/*.yaml' 'examples/**.yml' 'examples/**.yaml')
  ((${#files[@]})) || die "no workflow found under .github/workflows or examples"
  # And those that init writes into other repositories.
  local init=$ci_tmp/init
  mkdir -p "$init"
  git init -q "$init"
  go build -o "$ci_tmp/remembrancer-lint" ./cmd/remembrancer
  (cd "$init" && REMEMBRANCER_STATE=$ci_tmp/init-state "$ci_tmp/remembrancer-lint" init --yes >/dev/null 2>&1)
  files+=("$init"/.github/workflows/*.yml)
  "$ci_bin/actionlint" "${files[@]}"
  printf '%s\n' "${files[@]}"
}

# govulncheck ends with 3 when it finds a vulnerability that the code reaches,
# and with 1 when it could not look.
check_vulnerabilities() {
  local status=0
  "$ci_bin/govulncheck" ./... >"$ci_tmp/vuln.log" 2>&1 || status=$?
  cat "$ci_tmp/vuln.log"
  if ((status == 1)) && grep -q '^govulncheck: fetching vulnerabilities:' "$ci_tmp/vuln.log"; then
    echo "NOT CHECKED: the vulnerability database cannot be reached from this machine"
    return 0
  fi
  return "$status"
}

# --- build and tests ---------------------------------------------------------

# build_static builds as the Dockerfile does. With -trimpath a compiled package is
# the same wherever it was compiled, so the image's builder starts from this
# cache.
build_static() { # FILE
  GOCACHE=$ci_cache/static CGO_ENABLED=0 go build -trimpath -buildvcs=false -gcflags=all=-l -ldflags='-s -w' -o "$1" ./cmd/remembrancer
}

check_build() {
  build_static "$ci_tmp/remembrancer"
  wc -c <"$ci_tmp/remembrancer" | xargs printf 'static binary: %d bytes\n'
}

# check_targets finds what compiles only here; each target costs a compilation
# of every dependency.
check_targets() { # OS/ARCHITECTURE...
  local target
  for target in "$@"; do
    CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go vet ./...
    echo "$target"
  done
}

# The test command is the one that the README gives.
check_tests() {
  go test ./...
}

check_race() { # GO-TEST-FLAGS...
  go test -race "$@" ./pkg/...
}

# check_race_short runs it where it finds most: in the packages that start goroutines.
# The full run has it everywhere.
check_race_short() {
  local packages=()
  mapfile -t packages < <(tracked 'pkg/*.go' | grep -v '_test\.go$' |
    xargs grep -lE '^[[:space:]]*go [[:alnum:]_.]+\(|\.Go\(' | xargs -n 1 dirname | sort -u | sed 's|^|./|')
  ((${#packages[@]} > 4)) || die "found ${#packages[@]} packages with goroutines"
  go test -race -short "${packages[@]}"
}

check_bench_module() {
  if [[ ! -f bench/go.mod ]]; then
    echo "no nested module bench"
    return 0
  fi
  (cd bench && go vet ./... && go test ./... "$@")
}

# prometheus_at sees to it that Debian's Prometheus and promtool are in ci_bin,
# unpacked and not installed: the package would start a server.
prometheus_at() {
  local name
  [[ -x $ci_bin/promtool && -x $ci_bin/prometheus ]] && return 0
  (cd "$ci_tmp" && apt-get -qq update && apt-get -qq download prometheus && dpkg -x prometheus_*.deb prometheus)
  for name in prometheus promtool; do
    install -D -m 0755 "$ci_tmp/prometheus/usr/bin/$name" "$ci_bin/$name"
  done
}

# check_prometheus runs what needs Prometheus itself: its parser, engine and
# database from the module, and Debian's promtool.
check_prometheus() {
  prometheus_at
  (cd bench/prom && go vet ./... && go test -count=1 ./...)
}

# check_kubernetes judges the manifests, and then applies them to a real API server,
# which it builds once.
check_kubernetes() {
  (cd bench/k8s && go vet ./... && go test -count=1 ./...)
  .ci/k8s
}

# check_reproducible builds the program twice, from clones in other places, with caches
# of their own and under another umask, and compares the bytes.
check_reproducible() {
  local place umask zone
  while read -r place umask zone; do
    git clone -q "$ci_root" "$ci_tmp/$place/src"
    (umask "$umask" && cd "$ci_tmp/$place/src" && env GOCACHE="$ci_tmp/$place/cache" TZ="$zone" make -s build)
  done <<<$'one 0022 UTC\ntwo/and/deeper 0077 Asia/Tokyo'
  cmp "$ci_tmp/one/src/remembrancer" "$ci_tmp/two/and/deeper/src/remembrancer"
  sha256sum "$ci_tmp/one/src/remembrancer"
}

# check_fuzz runs every fuzz target, one worker each and as many targets at a
# time as there are cores. A package's targets share one instrumented binary.
# A failing input is left under the package's testdata, where go test finds it.
check_fuzz() {
  local files=() packages=() package binary targets=() count=0
  mapfile -t files < <(tracked '*_test.go' | grep -v '^bench/' | xargs -r grep -lE '^func Fuzz')
  ((${#files[@]})) || die "no fuzz target found"
  mapfile -t packages < <(printf '%s\n' "${files[@]}" | xargs -n 1 dirname | sort -u)
  mkdir -p "$ci_tmp/fuzz" "$ci_cache/fuzz"
  for package in "${packages[@]}"; do
    binary=$ci_tmp/fuzz/${package//\//-}.test
    go test -c -fuzz=Fuzz -o "$binary" "./$package"
    mapfile -t targets < <(cd "$package" && "$binary" -test.list '^Fuzz' | grep '^Fuzz')
    ((${#targets[@]})) || continue
    count=$((count + ${#targets[@]}))
    printf "$package %s\n" "${targets[@]}" >>"$ci_tmp/fuzz/list"
  done
  ((count)) || die "no fuzz target found, though a test file declares one"
  ci_tmp=$ci_tmp ci_cache=$ci_cache xargs -P "$(nproc)" -L 1 bash "$ci_root/.ci/fuzz-one" <"$ci_tmp/fuzz/list"
  echo "$count fuzz targets"
}

# --- the image, and workflows through act ------------------------------------

start_engine() {
  local log=$ci_tmp/dockerd.log
  if docker version >/dev/null 2>&1; then
    docker version --format 'docker engine {{.Server.Version}}, already running'
    return 0
  fi
  [[ $(id -u) == 0 ]] || die "no docker engine answers, and only root can start one"
  dockerd </dev/null >"$log" 2>&1 &
  ci_engine_pid=$!
  for _ in {1..120}; do
    if docker version >/dev/null 2>&1; then
      docker version --format 'docker engine {{.Server.Version}}, started for this run'
      return 0
    fi
    kill -0 "$ci_engine_pid" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 20 "$log" >&2
  die "the docker engine did not start"
}

# local_images makes the stand-ins for images that only a registry has:
#   ci_go_image      the pinned image itself if this engine has it; else Debian, this machine's Go, this module's dependencies, and
#                    their compiled packages, so that a build needs no network
#   ci_runner_image  the same image: act's jobs want git, bash, node and Go
local_images() {
  local base full pinned
  pinned=$(sed -n 's/^ARG GO_IMAGE=//p' Dockerfile)
  [[ $pinned == *@sha256:* ]] || die "Dockerfile: GO_IMAGE is '$pinned', wanted NAME@sha256:DIGEST"
  ci_go_image=${REMEMBRANCER_GO_IMAGE:-}
  if [[ -z $ci_go_image ]] && docker image inspect "$pinned" >/dev/null 2>&1; then ci_go_image=$pinned; fi
  ci_runner_image=${REMEMBRANCER_RUNNER_IMAGE:-}
  if [[ -n $ci_go_image && -n $ci_runner_image ]]; then return 0; fi

  base=remembrancer-ci/bookworm:$(go env GOVERSION)-1
  full=remembrancer-ci/golang:$(go env GOVERSION)-1-$(cat go.mod go.sum | sha256sum | cut -c1-16)
  if ! docker image inspect "$full" >/dev/null 2>&1; then
    docker image inspect "$base" >/dev/null 2>&1 || make_base_image "$base"
    make_go_image "$base" "$full"
  fi
  ci_go_image=${ci_go_image:-$full}
  ci_runner_image=${ci_runner_image:-$full}
  if [[ $ci_go_image != "$pinned" ]]; then echo "stand-in for $pinned: $ci_go_image"; fi
}

make_go_image() { # BASE NAME
  local dir=$ci_tmp/go-image
  echo "making $2"
  mkdir -p "$dir/modcache"
  cp go.mod go.sum "$dir"
  go mod download -json >"$dir/modules.json"
  # Every go.mod that is there goes along: loading the module graph reads more
  # of them than there are modules to compile.
  (
    cd "$(go env GOMODCACHE)/cache/download"
    { jq -r '.Info, .GoMod, .Zip' "$dir/modules.json" | sed "s|^$PWD/||"; find . -name '*.mod' -printf '%P\n'; } |
      sort -u | tar -c -T - | tar -C "$dir/modcache" -x
  )
  build_static "$dir/remembrancer"
  cp -r "$ci_cache/static" "$dir/gocache"
  cat >"$dir/Dockerfile" <<END
FROM $1
ENV GOPROXY=file:///modcache GOSUMDB=off GOCACHE=/gocache
COPY modcache /modcache
COPY go.mod go.sum /modules/
RUN cd /modules && go mod download
COPY gocache /gocache
END
  # One such image is enough: the others were for older dependencies.
  docker image ls --format '{{.Repository}}:{{.Tag}}' "${2%:*}" | xargs -r docker rmi >/dev/null 2>&1 || true
  docker build -q --network none -t "$2" "$dir"
  rm -rf "$dir"
}

make_base_image() { # NAME
  local dir=$ci_tmp/rootfs
  [[ $(id -u) == 0 ]] || die "there is no image $1, and only root can make it" \
    "hint: set REMEMBRANCER_GO_IMAGE and REMEMBRANCER_RUNNER_IMAGE, or run this once as root"
  echo "making $1 with debootstrap"
  debootstrap --variant=minbase --include=bash,ca-certificates,curl,git,gnupg,jq,make,nodejs,openssl \
    bookworm "$dir" >"$ci_tmp/debootstrap.log" 2>&1 || { tail -n 20 "$ci_tmp/debootstrap.log" >&2; die "debootstrap failed"; }
  rm -rf "$dir"/var/cache/apt/archives/*.deb "$dir"/var/lib/apt/lists/*
  install -d "$dir/usr/local/go" "$dir/go"
  tar -C "$(go env GOROOT)" --exclude=./api --exclude=./doc --exclude=./test -c . | tar -C "$dir/usr/local/go" -x
  tar -C "$dir" -c . | docker import \
    --change 'ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin GOPATH=/go GOTOOLCHAIN=local' \
    --change 'WORKDIR /go' - "$1" >/dev/null
  rm -rf --one-file-system "$dir"
}

check_image() {
  local config size
  start_engine
  local_images
  docker build --network none --build-arg "GO_IMAGE=$ci_go_image" -t "$ci_image" .
  config=$(docker image inspect -f '{{json .Config.Entrypoint}} user="{{.Config.User}}"' "$ci_image")
  [[ $config == '["/remembrancer"] user=""' ]] || die "image: found $config, wanted [\"/remembrancer\"] user=\"\""
  # docker itself adds empty mount points (dev, proc, etc/hosts ...).
  docker rm -f remembrancer-ci-look >/dev/null 2>&1 || true
  docker create --name remembrancer-ci-look "$ci_image" >/dev/null
  docker export remembrancer-ci-look | tar -tv >"$ci_tmp/image.list"
  docker rm remembrancer-ci-look >/dev/null
  grep -qE '^drwxrwxrwt .* tmp/$' "$ci_tmp/image.list" || die "image: no /tmp that everyone can write to"
  grep -q ' etc/ssl/certs/ca-certificates.crt$' "$ci_tmp/image.list" || die "image: no certificate authorities"
  docker run --rm --network none --read-only "$ci_image" --help >/dev/null
  size=$(docker save "$ci_image" | gzip | wc -c)
  echo "image: $size bytes compressed, limit $ci_image_limit"
  ((size <= ci_image_limit)) || die "image: $((size - ci_image_limit)) bytes too large"
}

# check_act runs one workflow of a clean clone of HEAD, with the pinned builder
# replaced by the local one in a commit on top. In an event file @HEAD@ and
# @BASE@ stand for the clone's last commit and the one before it.
#
# Checkout is act's own: it copies the clone. Other steps of actions/* need the
# forge or the network; each is replaced by one that only says so.
check_act() { # WORKFLOW EVENT [EVENT-FILE]
  local workflow=$1 event=$2 file=${3:-} work flags=() action
  start_engine
  local_images
  work=$(mktemp -d -p "$ci_tmp")
  [[ -z $(git status --porcelain) ]] || echo "note: what is not committed is not in this run"
  git clone -q "$ci_root" "$work/repo"
  git -C "$work/repo" checkout -q -B main
  git -C "$work/repo" remote set-url origin https://github.com/vaultmesh/remembrancer
  [[ -f $work/repo/$workflow ]] || die "act: HEAD has no $workflow"
  sed -i "s|^ARG GO_IMAGE=.*|ARG GO_IMAGE=$ci_go_image|" "$work/repo/Dockerfile"
  git -C "$work/repo" -c user.name=ci -c user.email=ci@localhost -c commit.gpgsign=false \
    commit -q -a -m 'ci: build with the local image'
  if [[ -n $file ]]; then
    sed "s|@HEAD@|$(git -C "$work/repo" rev-parse HEAD)|g; s|@BASE@|$(git -C "$work/repo" rev-parse HEAD~1)|g" \
      "$file" >"$work/event.json"
    jq -e . "$work/event.json" >/dev/null
    flags+=(-e "$work/event.json")
  fi
  while IFS= read -r action; do
    mkdir -p "$work/stand-in"
    printf '%s\n' 'name: stand-in' 'runs:' '  using: composite' '  steps:' \
      "    - run: echo 'replaced on this machine'" '      shell: bash' >"$work/stand-in/action.yml"
    flags+=(--local-repository "$action=$work/stand-in")
    echo "replaced in this run: $action"
  done < <(sed -nE 's/^[ -]*uses: *(actions\/[^ ]+).*/\1/p' "$work/repo/$workflow" | grep -v '^actions/checkout@' | sort -u)
  # The runner image is there already, so nothing is pulled; --rebuild, since act
  # names the images it builds after actions and would reuse an older one.
  (cd "$work/repo" && "$ci_bin/act" "$event" -W "$workflow" "${flags[@]}" \
    -P "ubuntu-latest=$ci_runner_image" -P "ubuntu-24.04=$ci_runner_image" \
    --pull=false --action-offline-mode --rebuild --rm --action-cache-path "$ci_cache/act" </dev/null)
}

# check_act_all runs every workflow that .ci/act has an event for:
# .ci/act/NAME.EVENT.json is for examples/workflows/NAME.yml, or for our own of that name.
check_act_all() {
  local file name event workflow count=0
  for file in .ci/act/*.json; do
    [[ -f $file ]] || continue
    name=${file##*/}
    name=${name%.json}
    event=${name##*.}
    name=${name%.*}
    printf '\n-- %s on %s\n' "$name" "$event"
    workflow=examples/workflows/$name.yml
    [[ -f $workflow ]] || workflow=.github/workflows/$name.yml
    check_act "$workflow" "$event" "$file"
    count=$((count + 1))
  done
  ((count)) || die "act: no event file .ci/act/NAME.EVENT.json"
}

check_clean() {
  local left
  left=$(git status --porcelain)
  if [[ -z ${CI:-} && $left == "$1" ]]; then return 0; fi
  [[ -z $left ]] || die "the run left the tree changed:" "$left"
}

# shellcheck source=.ci/scenarios.sh
source "$ci_root/.ci/scenarios.sh"
