package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/scorecard"
)

// The pages that are tried here. Other pages have tests of their own.
var ownPages = []string{"START_HERE.md", "VERIFY.md", "SECURITY.md", "REPOSITORY_SEAL.md", "VERSION_TIMELINE.md", "CLI.md"}

func docsPage(t *testing.T, name string) string {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join(moduleRoot, "docs", name))
	assert.NilError(t, err)
	return string(doc)
}

// answered is what a command came to.
type answered struct {
	output string
	code   int
}

// typeAll types commands into one shell, from the first to the last, whatever
// becomes of each.
func typeAll(t *testing.T, dir string, env []string, commands []typed) []answered {
	t.Helper()
	const mark = "\x1e"
	var script strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&script, "{ %s\n}\nprintf '%s%%d%s' $?\n", c.command, mark, mark)
	}
	file := filepath.Join(t.TempDir(), "session")
	assert.NilError(t, os.WriteFile(file, []byte(script.String()), 0o600))
	cmd := exec.CommandContext(t.Context(), "bash", file)
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	assert.NilError(t, err, "%s", &stderr)
	t.Logf("standard error of the session:\n%s", &stderr)
	parts := strings.Split(string(out), mark)
	assert.Equal(t, len(parts), 2*len(commands)+1, "%s", out)
	var all []answered
	for i := range commands {
		code, err := strconv.Atoi(parts[2*i+1])
		assert.NilError(t, err)
		all = append(all, answered{parts[2*i], code})
	}
	return all
}

// underHeadings returns the commands of a page by the headings that they stand
// below. Blocks in lists are indented.
func underHeadings(doc string) (headings []string, commands map[string][]typed) {
	lines := strings.Split(doc, "\n")
	const indent = "    "
	listed := false
	for i, l := range lines {
		fence := strings.HasPrefix(l, indent+"```")
		if listed || fence {
			lines[i] = strings.TrimPrefix(l, indent)
		}
		listed = listed != fence
	}
	commands = map[string][]typed{}
	for _, c := range consoleCommands(strings.Join(lines, "\n")) {
		heading := ""
		for _, l := range lines[:c.line] {
			if h, ok := strings.CutPrefix(l, "## "); ok {
				heading = h
			}
		}
		if !slices.Contains(headings, heading) {
			headings = append(headings, heading)
		}
		commands[heading] = append(commands[heading], c)
	}
	return headings, commands
}

// stockEnv is an environment in which nothing of a runner, of git's callers or of
// this person's keys is left.
func stockEnv(t *testing.T) (env []string) {
	t.Helper()
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); {
		case name == "HOME", name == "CI", name == "GNUPGHOME", name == "TMPDIR":
		case strings.HasPrefix(name, "GITHUB_"), strings.HasPrefix(name, "REMEMBRANCER_"), strings.HasPrefix(name, "XDG_"), strings.HasPrefix(name, "GIT_"), strings.HasPrefix(name, "LC_"):
		default:
			env = append(env, kv)
		}
	}
	home := t.TempDir()
	config := "[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[user]\n\tname = N\n\temail = n@example.org\n[core]\n\tautocrlf = false\n[commit]\n\tgpgsign = false\n"
	assert.NilError(t, os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(config), 0o600))
	return append(env, "HOME="+home, "TMPDIR="+t.TempDir(), "LC_ALL=C.UTF-8", "GIT_CONFIG_NOSYSTEM=1", "REMEMBRANCER_STATE="+filepath.Join(home, "state"))
}

func bashIn(t *testing.T, dir string, env []string, script string, args ...string) {
	t.Helper()
	cmd := exec.Command("bash", append([]string{"-euc", script, "bash"}, args...)...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	assert.NilError(t, err, "%s\n%s", script, out)
}

// visitorsClone is a clone of the repository that is tested, with its evidence and
// documents as they are in the work tree, committed. Where the sources are no
// clone with history, it is one without: sealed says whether it has the commit of
// the genesis.
func visitorsClone(t *testing.T, env []string) (dir string, sealed bool) {
	t.Helper()
	root, err := filepath.Abs(moduleRoot)
	assert.NilError(t, err)
	dir = filepath.Join(t.TempDir(), "clone")
	bashIn(t, root, env, `
if [ "$(git rev-parse --show-toplevel 2>/dev/null)" = "$PWD" ] && [ "$(git rev-parse --is-shallow-repository)" = false ]
then git clone -q . "$1"
else git init -q "$1"
fi
for f in ops dist docs examples GENESIS.yaml remembrancer.yaml .gitattributes; do
  rm -rf "${1:?}/$f"
  cp -r "$f" "$1/$f"
done
cd "$1"
git add -A -f
git commit -q --allow-empty -m "As it is"`, dir)
	commit := genesisOf(t).Commit
	cmd := exec.Command("git", "cat-file", "-e", commit)
	cmd.Dir, cmd.Env = dir, env
	return dir, cmd.Run() == nil
}

var (
	docSizes = regexp.MustCompile(`\bsize \d+( → \d+)?`)
	docDates = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
)

// unsettled takes what differs from run to run out of an output. What is of this
// repository stays.
func unsettled(s string) string {
	return strings.ReplaceAll(docDates.ReplaceAllString(docSizes.ReplaceAllString(settled(s), "size <n>"), "<time>"), "\u00a0", " ")
}

// wrongOnes returns the commands that did not do what the page shows.
func wrongOnes(commands []typed, answers []answered) (wrong []string) {
	for i, c := range commands {
		if answers[i].code != 0 || answers[i].output != c.output {
			wrong = append(wrong, c.command)
		}
	}
	return wrong
}

// What an auditor types holds here, line for line and digit for digit.
func TestEveryCommandOfThePageForAuditorsHolds(t *testing.T) {
	t.Parallel()
	env := stockEnv(t)
	clone, sealed := visitorsClone(t, env)
	headings, all := underHeadings(docsPage(t, "VERIFY.md"))
	var commands []typed
	for _, h := range headings {
		commands = append(commands, all[h]...)
	}
	assert.Assert(t, len(commands) >= 35, "found %d commands", len(commands))
	snapshots, err := filepath.Glob(filepath.Join(clone, "ops", "ledger", "snapshots", "*.json"))
	assert.NilError(t, err)
	answers := typeAll(t, clone, env, commands)
	for i, c := range commands {
		assert.Assert(t, !strings.Contains(c.command, "remembrancer "), "VERIFY.md:%d calls the program: %s", c.line, c.command)
		switch ofHistory := strings.Contains(c.command, "$C") || strings.Contains(c.command, "sealed"); {
		case strings.Contains(c.command, "snapshots") && len(snapshots) == 0 && !strings.HasPrefix(c.command, "for f in "):
			assert.Assert(t, answers[i].code != 0, "VERIFY.md:%d: passed without a snapshot: %s", c.line, c.command)
		case ofHistory && !sealed:
			assert.Assert(t, answers[i].code != 0 || answers[i].output == "", "VERIFY.md:%d: passed without the history: %s", c.line, c.command)
		default:
			assert.Equal(t, answers[i], answered{c.output, 0}, "VERIFY.md:%d: %s", c.line, c.command)
		}
	}
	bashIn(t, clone, env, `test -z "$(git status --porcelain)"`)
}

// Each piece of the evidence, changed by itself, turns a command of its section red.
func TestEachChangeOfTheEvidenceIsRedByHand(t *testing.T) {
	t.Parallel()
	env := stockEnv(t)
	clone, sealed := visitorsClone(t, env)
	bashIn(t, clone, env, "git tag as-it-is")
	_, all := underHeadings(docsPage(t, "VERIFY.md"))
	keyrings := slices.DeleteFunc(all["The keys"], func(c typed) bool { return !strings.Contains(c.command, "dearmor") })
	merge := "ops/receipts/federation/*.receipt"
	for _, c := range []struct{ name, change, section, red string }{
		{"a line of the log", `sed -i '1s/"payload":"eyJf/"payload":"eyJg/' ops/ledger/log/00/00/00.jsonl`, "The log", "log.py"},
		{"a line less", `sed -i '$d' ops/ledger/log/00/00/00.jsonl`, "The log", "log.py"},
		{"an unfinished line more", `printf x >> ops/ledger/log/00/00/00.jsonl`, "The log", "log.py"},
		{"the root of the checkpoint", `sed -i '3s/./A/' ops/ledger/checkpoint; sed -i '3s/.$/=/; 3s/^./B/' ops/ledger/checkpoint`, "The log", "openssl pkeyutl"},
		{"the key of the log", `sed -i 's/^\(log [^+]*+[^+]*+A\)./\1q/' ops/ledger/policy`, "The log", "openssl pkeyutl"},
		{"the stated root", `sed -i 's/^Merkle Root: ./&0/; s/^\(Merkle Root: .\{64\}\)./\1/' docs/REMEMBRANCER.md`, "The log", "log.py"},
		{"a second stated root", `sed -n '/^Merkle Root: /p' docs/REMEMBRANCER.md > more; cat more >> docs/REMEMBRANCER.md; rm more`, "The log", "log.py"},
		{
			"another history", `cp ops/ledger/checkpoint kept; printf '%s\n' github.com/vaultmesh/remembrancer 1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= > ops/ledger/checkpoint
			git add -A; git commit -qm forked; mv kept ops/ledger/checkpoint; git add -A; git commit -qm back`, "The log", "grown.py",
		},
		{"a receipt", `sed -i 's/remembrancer/Remembrancer/' ops/receipts/adr/ADR-001-*.receipt`, "The receipts", "gpgv"},
		{"a receipt that only the log has", `rm ops/receipts/adr/ADR-002-*.receipt`, "The receipts", "entries.py"},
		{"a signature of another receipt", `cp ops/receipts/adr/ADR-002-*.asc ops/receipts/adr/ADR-001-*.asc`, "The receipts", "gpgv"},
		{"a signature in the log", `sed -i '1s/"sig":"wmsEABYI/"sig":"wmsEABYJ/' ops/ledger/log/00/00/00.jsonl`, "The receipts", "entries.py"},
		{"another anchor", `cp ops/certs/peers/*.asc ops/certs/4*.asc`, "The receipts", "entries.py"},
		{"what a merge brought", `echo >> "$(echo ` + merge + `).ids"`, "The receipts", "entries.py"},
		{"a count of a merge", `sed -i 's/"total_receipts": 12/"total_receipts": 13/' ` + merge, "Merges", "merge.py"},
		{"who held what", `f=$(echo ` + merge + `).ids; sed -i 's/ b$/ a/' "$f"`, "Merges", "merge.py"},
		{"a peer without a key", `rm ops/certs/peers/*.asc; cp ops/certs/4*.asc ops/certs/peers/`, "Merges", "merge.py"},
		{"the archive", `printf x >> dist/genesis.tar.gz`, "The genesis", "sha256sum -c genesis"},
		{"the archive and its digest", `printf x >> dist/genesis.tar.gz; cd dist; sha256sum genesis.tar.gz > genesis.tar.gz.sha256`, "The genesis", "gpgv"},
		{"a sealed digest", `sed -i '$s/^  ./  x/' GENESIS.yaml`, "The genesis", "GENESIS.yaml | cmp"},
		{"the sealed words", `echo >> dist/GENESIS`, "The genesis", "- GENESIS | cmp"},
		{"another commit", `sed -i 's/^commit: .*/commit: "'$(git rev-parse HEAD)'"/' GENESIS.yaml`, "The genesis", "git rev-parse"},
		{"a token", `f=dist/genesis.tar.gz.development-one.tsr; head -c -1 $f > t; printf x >> t; mv t $f`, "Time", "stamps.sh"},
		{"a token of another file", `cp dist/genesis.tar.gz.asc.development-one.tsr dist/genesis.tar.gz.development-one.tsr`, "Time", "stamps.sh"},
		{"a token less", `rm dist/genesis.tar.gz.asc.development-two.tsr`, "Time", "stamps.sh"},
		{"a root of an authority", `cp ops/certs/tsa/development-two/ca.pem ops/certs/tsa/development-one/ca.pem`, "Time", "stamps.sh"},
		{"an authority", `sed -i 's/"development": true/"development": false/' ops/certs/tsa/development-one/tsa.json`, "The policy id", "policy.py"},
		{"no snapshot", `rm -rf ops/ledger/snapshots`, "Snapshots", "snapshots.py"},
		{"what is not committed", `echo >> ops/ledger/edge`, "Before", "git status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "another commit" && !sealed {
				return // there is no sealed commit to be taken for another
			}
			bashIn(t, clone, env, c.change)
			defer bashIn(t, clone, env, `git reset -q --hard as-it-is && git clean -qfdx`)
			commands := slices.Concat(all["Before"], keyrings)
			if c.section != "Before" {
				commands = append(commands, all[c.section]...)
			}
			wrong := wrongOnes(commands, typeAll(t, clone, env, commands))
			assert.Assert(t, slices.ContainsFunc(wrong, func(command string) bool { return strings.Contains(command, c.red) }), "only these are red: %q", wrong)
		})
	}
}

// Readers type at their own place: a maintainer in a repository that is not under
// the covenant yet, all others in a clone of this one.
func TestEveryCommandOfTheOtherPagesDoesWhatItSays(t *testing.T) {
	env := stockEnv(t) // whose PATH has the program: testscript.Main put it there
	clone, sealed := visitorsClone(t, env)
	for _, name := range ownPages {
		if name == "VERIFY.md" {
			continue
		}
		headings, all := underHeadings(docsPage(t, name))
		for _, h := range headings {
			t.Run(name+"/"+h, func(t *testing.T) {
				dir := clone
				if h == "I maintain a repository" {
					dir = readmeProject(t, env)
				}
				answers := typeAll(t, dir, env, all[h])
				for i, c := range all[h] {
					if strings.Contains(c.command, "genesis verify") && !sealed {
						assert.Assert(t, answers[i].code != 0 || !strings.HasPrefix(answers[i].output, "PASS"), "docs/%s:%d: passed without the history", name, c.line)
						continue
					}
					assert.Equal(t, unsettled(answers[i].output), unsettled(c.output), "docs/%s:%d: %s", name, c.line, c.command)
					if fails := strings.Contains(c.output, "FAIL"); !strings.Contains(c.command, "|") {
						assert.Equal(t, answers[i].code != 0, fails, "docs/%s:%d: %s: exit status %d", name, c.line, c.command, answers[i].code)
					}
				}
			})
		}
	}
}

// What a page tells somebody to type is there, also where no test types it.
func TestEveryCommandThatThesePagesNameExists(t *testing.T) {
	for _, name := range append([]string{"../README.md"}, ownPages...) {
		for _, c := range scorecard.Commands([]byte(docsPage(t, name)), "remembrancer") {
			if len(c.Args) == 0 || c.Args[len(c.Args)-1] == "COMMAND" || c.Args[0] == "action" {
				continue
			}
			assert.NilError(t, commandExists(c.Args), "docs/%s:%d", name, c.Line)
		}
	}
}

// The links of these pages lead somewhere: each is a file or a heading.
func TestEveryLinkOfThesePagesLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range ownPages {
		for _, m := range link.FindAllStringSubmatch(docsPage(t, name), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, fragment, _ := strings.Cut(m[1], "#")
			if path == "" {
				path = name
			}
			file := filepath.Join(moduleRoot, "docs", filepath.FromSlash(path))
			_, err := os.Stat(file)
			assert.NilError(t, err, "docs/%s: %s", name, m[1])
			if fragment == "" {
				continue
			}
			text, err := os.ReadFile(file)
			assert.NilError(t, err, "docs/%s: %s", name, m[1])
			assert.Assert(t, slices.Contains(headingAnchors(string(text)), fragment), "docs/%s: no heading for %s", name, m[1])
		}
	}
}

// headingAnchors are those of a page's headings, as GitHub makes them.
func headingAnchors(doc string) (all []string) {
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for l := range strings.Lines(doc) {
		if h := strings.TrimLeft(l, "#"); h != l && strings.HasPrefix(h, " ") {
			all = append(all, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(h)), ""), " ", "-"))
		}
	}
	return all
}

// Every threat names a test, and every test that is named is one.
func TestEveryThreatNamesATestThatExists(t *testing.T) {
	known := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, folder := range []string{"cmd", "pkg", "examples"} {
		assert.NilError(t, filepath.WalkDir(filepath.Join(moduleRoot, folder), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case strings.HasSuffix(path, "_test.go"):
				text, err := os.ReadFile(path)
				for _, m := range function.FindAllSubmatch(text, -1) {
					known[string(m[1])] = true
				}
				return err
			case strings.HasSuffix(path, ".txtar"):
				known[d.Name()] = true
			}
			return nil
		}))
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+|[\\w-]+\\.txtar)`")
	threats := 0
	for l := range strings.Lines(docsPage(t, "SECURITY.md")) {
		cells := strings.Split(strings.TrimSpace(l), " | ")
		if len(cells) != 5 || cells[0] == "| asset" {
			continue
		}
		threats++
		tests := named.FindAllStringSubmatch(cells[3], -1)
		assert.Assert(t, len(tests) > 0, "no test shows the defence of %s", cells[0])
		for _, m := range tests {
			assert.Check(t, known[m[1]], "there is no %s", m[1])
		}
		for i, cell := range cells {
			assert.Check(t, strings.Trim(cell, "| ") != "", "%s: column %d is empty", cells[0], i)
		}
	}
	assert.Assert(t, threats >= 20, "found %d threats", threats)
}

// sealedState is what the seal's table takes from GENESIS.yaml.
type sealedState struct {
	Repository, Commit, Tree string
	Epoch                    int64  `yaml:"source_date_epoch"`
	Archive                  string `yaml:"git_archive_tar_sha256"`
	Key                      string `yaml:"operator_key"`
	Development              bool
	Authorities              []struct {
		Name        string
		Root        []string `yaml:"root_spki"`
		Development bool
	} `yaml:"timestamp_authorities"`
	Files string
}

func genesisOf(t *testing.T) (g sealedState) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(moduleRoot, "GENESIS.yaml"))
	assert.NilError(t, err)
	assert.NilError(t, yaml.Unmarshal(data, &g))
	return g
}

// evidenceTree is the work tree's evidence as a tree of a commit.
type evidenceTree struct{ fs.FS }

func (e evidenceTree) Blob(path string) ([]byte, error) { return fs.ReadFile(e.FS, path) }

func (e evidenceTree) Walk(folder string, fn func(path string, mode fs.FileMode, id string) error) error {
	return fs.WalkDir(e.FS, folder, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a tree has no such folder, and nothing below it
		}
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(e.FS, path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		return fn(path, 0o644, hex.EncodeToString(sum[:]))
	})
}

var _ judge.Tree = evidenceTree{}

func keysOf(t *testing.T, pattern string) (all []*openpgp.Key) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(moduleRoot, filepath.FromSlash(pattern)))
	assert.NilError(t, err)
	assert.Assert(t, len(files) > 0, "no key is at %s", pattern)
	for _, f := range files {
		data, err := os.ReadFile(f)
		assert.NilError(t, err)
		key, err := openpgp.ParsePublic(data)
		assert.NilError(t, err)
		all = append(all, key)
	}
	return all
}

// sealTable states each value with the file that it comes from.
func sealTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| what | value | comes from |\n|---|---|---|\n")
	row := func(what, value, from string) { fmt.Fprintf(&b, "| %s | `%s` | %s |\n", what, value, from) }
	g := genesisOf(t)
	const seal = "`GENESIS.yaml`"
	row("repository", g.Repository, seal)
	row("sealed commit", g.Commit, seal)
	row("its tree", g.Tree, seal)
	row("its time, as the committer says", time.Unix(g.Epoch, 0).UTC().Format(time.RFC3339), seal)
	row("SHA-256 of its `git archive`", g.Archive, seal)
	row("sealed files", strconv.Itoa(strings.Count(g.Files, "\n")), seal)
	archive, err := os.ReadFile(filepath.Join(moduleRoot, "dist", "genesis.tar.gz"))
	assert.NilError(t, err)
	sum := sha256.Sum256(archive)
	row("SHA-256 of the archive", hex.EncodeToString(sum[:]), "`dist/genesis.tar.gz`")
	row("key that sealed it", g.Key, seal)
	for _, k := range keysOf(t, "ops/certs/*.asc") {
		row("trust anchor"+forDevelopment(k.Development()), string(k.Fingerprint()), "`ops/certs`")
	}
	for _, k := range keysOf(t, "ops/certs/peers/*.asc") {
		row("key of a peer"+forDevelopment(k.Development()), string(k.Fingerprint()), "`ops/certs/peers`")
	}
	for _, a := range g.Authorities {
		for _, root := range a.Root {
			row("root of the authority of time "+a.Name+forDevelopment(a.Development), root, "`ops/certs/tsa/"+a.Name+"`")
		}
		var pinned struct {
			Root        []string `json:"root_spki"`
			Development bool
		}
		data, err := os.ReadFile(filepath.Join(moduleRoot, "ops", "certs", "tsa", a.Name, "tsa.json"))
		assert.NilError(t, err)
		assert.NilError(t, json.Unmarshal(data, &pinned))
		assert.DeepEqual(t, pinned.Root, a.Root)
		assert.Equal(t, pinned.Development, a.Development)
	}
	policy, err := os.ReadFile(filepath.Join(moduleRoot, "ops", "ledger", "policy"))
	assert.NilError(t, err)
	log := regexp.MustCompile(`(?m)^log (\S+)$`).FindSubmatch(policy)
	assert.Assert(t, log != nil)
	row("key of the log", string(log[1]), "`ops/ledger/policy`")
	trust, err := covenant.LoadTrust(evidenceTree{os.DirFS(moduleRoot)}, covenant.Layout{Ops: "ops", Docs: "docs/REMEMBRANCER.md"})
	assert.NilError(t, err)
	row("policy id: anchors, log key and authorities", trust.ID(), "`ops/ledger/policy`, `ops/certs`")
	return b.String()
}

func forDevelopment(yes bool) string {
	if yes {
		return ", for development"
	}
	return ""
}

// renderedPart compares a marked part of a page with what it is made of, or writes it:
// go test ./cmd/remembrancer -run TestPages -args -render.
func renderedPart(t *testing.T, name, part, body string) {
	t.Helper()
	doc := docsPage(t, name)
	want, err := action.RewriteMarked([]byte(doc), part, body)
	assert.NilError(t, err)
	if *render {
		assert.NilError(t, os.WriteFile(filepath.Join(moduleRoot, "docs", name), want, 0o644))
		return
	}
	assert.Equal(t, doc, string(want), "go test ./cmd/remembrancer -run TestPages -args -render")
}

func TestPagesStateTheSealAsTheFilesDo(t *testing.T) {
	renderedPart(t, "REPOSITORY_SEAL.md", "seal", sealTable(t))
}

// ledgerRows is a line of a table for each of the log's first n entries, or for all.
func ledgerRows(t *testing.T, n int) (rows []string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(moduleRoot, "ops", "ledger", "log", "*", "*", "*.jsonl"))
	assert.NilError(t, err)
	for _, segment := range segments { // two digits each: in the order of the log
		data, err := os.ReadFile(segment)
		assert.NilError(t, err)
		for line := range bytes.Lines(data) {
			entry, err := receipt.ParseLine(bytes.TrimSuffix(line, []byte("\n")))
			assert.NilError(t, err)
			r := entry.Receipt
			name := r.Name()
			if name == "" {
				name = "in the log only"
			}
			rows = append(rows, fmt.Sprintf("| %d | %s | %s | %s | `%.16s` |", len(rows), r.Issued().UTC().Format(time.RFC3339), r.Kind(), name, r.ID().String()))
			if len(rows) == n {
				return rows
			}
		}
	}
	return rows
}

// The table may end before the log does: what comes later is not the page's matter
// until it is rendered again.
func TestPagesStateHowTheLedgerBegins(t *testing.T) {
	doc := docsPage(t, "VERSION_TIMELINE.md")
	shown := 0
	if !*render {
		shown = strings.Count(doc[strings.Index(doc, "begin:ledger"):strings.Index(doc, "end:ledger")], "` |\n")
		assert.Assert(t, shown > 0)
	}
	rows := ledgerRows(t, shown)
	releases := 0
	for _, r := range rows {
		if strings.Contains(r, " | release | ") {
			releases++
		}
	}
	said := fmt.Sprintf("Releases among these entries: **%d**. See the rows of the kind *release*.", releases)
	if releases == 0 {
		said = "No release is among these entries: there is none yet."
	}
	renderedPart(t, "VERSION_TIMELINE.md", "ledger", "| entry | issued | kind | name | id |\n|---:|---|---|---|---|\n"+strings.Join(rows, "\n")+"\n\n"+said+"\n")
}

// A version is what its file says.
func TestVersionsOfFormatsAreThoseOfTheirFiles(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| [^|]+ \\| `([^`]+)` \\| \\[[^]]+\\]\\(\\.\\./([^)]+)\\) \\|$")
	rows := row.FindAllStringSubmatch(docsPage(t, "VERSION_TIMELINE.md"), -1)
	assert.Assert(t, len(rows) >= 12, "found %d formats", len(rows))
	for _, m := range rows {
		text, err := os.ReadFile(filepath.Join(moduleRoot, filepath.FromSlash(m[2])))
		assert.NilError(t, err)
		assert.Check(t, strings.Contains(string(text), m[1]), "%s does not say %q", m[2], m[1])
	}
}

// commandsPage is docs/CLI.md: the help of every command that the overview shows.
func commandsPage() string {
	var b strings.Builder
	b.WriteString("# Commands\n\nEvery command, as `remembrancer help COMMAND` shows it. This page is rendered from the declarations that the program itself reads: `go test ./cmd/remembrancer -run TestPages -args -render`. [START_HERE.md](START_HERE.md) says which to type first, and [ACTIONS.md](ACTIONS.md) has the same declarations as actions.\n\n| command | |\n|---|---|\n")
	all := overview()
	shown := slices.DeleteFunc(verbs(), func(v verb) bool { return !strings.Contains(all, "\n  "+v.spec.Verb+" ") })
	for _, v := range shown {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", v.spec.Verb, strings.ReplaceAll(v.spec.Verb, " ", "-"), strings.ReplaceAll(v.spec.Summary, "|", `\|`))
	}
	for _, v := range shown {
		fmt.Fprintf(&b, "\n## %s\n\n```text\n%s```\n", v.spec.Verb, action.Help(v.spec))
	}
	return b.String()
}

func TestPagesShowEveryCommandAsItsDeclarationSays(t *testing.T) {
	if *render {
		assert.NilError(t, os.WriteFile(filepath.Join(moduleRoot, "docs", "CLI.md"), []byte(commandsPage()), 0o644))
	}
	assert.Equal(t, docsPage(t, "CLI.md"), commandsPage(), "go test ./cmd/remembrancer -run TestPages -args -render")
}

// Who begins at the beginning finds all that there is to read.
func TestStartHereLeadsToEveryPage(t *testing.T) {
	entries, err := os.ReadDir(filepath.Join(moduleRoot, "docs"))
	assert.NilError(t, err)
	doc := docsPage(t, "START_HERE.md")
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".md") && e.Name() != "START_HERE.md" && e.Name() != "REMEMBRANCER.md" {
			assert.Check(t, strings.Contains(doc, "]("+e.Name()), "START_HERE.md has no link to %s", e.Name())
		}
	}
}
