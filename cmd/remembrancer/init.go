package main

import (
	"bufio"
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

//go:embed templates
var templates embed.FS

var initVerb = verb{
	spec: action.Spec{
		Verb: "init", Summary: "put a repository under the covenant",
		Description: "Writes remembrancer.yaml, the trust folder, .gitattributes, the index document and the workflows; files that are there already are kept. " +
			"It makes the log's key and the publisher's OpenPGP key in the state directory, never in the work tree, and says how to hand them to the forge.\n\n" +
			"The smoke test is what the repository has: an executable SMOKE_TEST.sh, smoke_test.sh or scripts/smoke*.sh, or the target smoke or smoke-test of a Makefile; " +
			"else its test runner, with the report of each test that it can write: go test -json, cargo test (through a SMOKE_TEST.sh that reads it), node --test, vitest, jest with jest-junit, mocha, pytest, bats. " +
			"Of any other npm test, and of make test, only the exit status can be read: it is declared as what it is, one test, in smoke.yaml.\n\n" +
			"remembrancer uninstall takes all of it back.",
		Inputs: []action.Input{
			{Name: "yes", Kind: action.Bool, Usage: "Do not ask."},
			{Name: "origin", Usage: "Name of the log, a URL without a scheme; derived from the remote when left out."},
			{Name: "fork", Kind: action.Bool, Usage: "Begin a log of one's own in a fork: new keys, a new origin, an empty ledger that cites its parent."},
			{Name: "compat", Kind: action.Bool, Usage: "Also write the ancestor's commands to ops/bin: remembrancer, publish-merkle-root.sh, tsa-bootstrap, rfc3161-verify, genesis-seal."},
			{Name: "development", Kind: action.Bool, Usage: "Make a publisher's key that says of itself that it is one for development: every verifier repeats it."},
			{Name: "owner", Usage: "Who must approve a change of what decides the gates, as @name or @organisation/team: writes .github/CODEOWNERS."},
			{Name: "action-ref", Usage: "Commit of the actions that the workflows use; the commit of this build when left out, or of the last release."},
		},
		Examples: []string{"remembrancer init --yes", "remembrancer init --yes --owner @acme/leads"},
	},
	run: runInit,
}

// actionsCommit is what workflows use that a build wrote which does not know its
// own commit: one of ours that has every action that the templates name.
const actionsCommit = "eec60e3c11481d56e37201ee45e0f313e1bddcf0"

var codeOwner = regexp.MustCompile(`^@[A-Za-z0-9-]+(/[A-Za-z0-9._-]+)?$`)

// written is a file that init writes.
type written struct {
	path string
	data []byte
	mode fs.FileMode
	// update says that the file is derived from what is there.
	update bool
}

func runInit(w *world, v *action.Values, _ *action.Runner) error {
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		return err
	}
	p := &project{repo: repo, root: repo.Root(), cfg: config.Default()}
	var found runner
	data, err := os.ReadFile(filepath.Join(p.root, config.FileName))
	switch {
	case err == nil:
		if p.cfg, err = config.Parse(config.FileName, data); err != nil {
			return misused("%v", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		found = w.firstConfig(p)
	default:
		return err
	}
	p.layout = covenant.Layout{Ops: p.cfg.Paths.Ops, Docs: p.cfg.Paths.Docs}
	if err := w.keepsOut(p.root); err != nil {
		return err
	}
	parent := ""
	if v.Bool("fork") {
		if parent, err = p.fork(v); err != nil {
			return err
		}
	}
	switch named := v.String("origin"); {
	case named != "" && p.cfg.Origin != "" && named != p.cfg.Origin:
		return misused("%s is there and makes %s the name of the log, --origin says %s: change it there, or begin a log of one's own with --fork", config.FileName, p.cfg.Origin, named)
	case named != "":
		p.cfg.Origin = named
	case p.cfg.Origin == "":
		if p.cfg.Origin, err = w.deriveOrigin(repo); err != nil {
			return err
		}
	}
	if err := checkpoint.CheckOrigin(p.cfg.Origin); err != nil {
		return misused("%v; name the log with --origin", err)
	}
	if o := v.String("owner"); o != "" && !codeOwner.MatchString(o) {
		return misused("--owner %q: want @name or @organisation/team", o)
	}
	files, err := p.initialFiles(initial{
		ref: v.String("action-ref"), owner: v.String("owner"), compat: v.Bool("compat"), parent: parent, runner: found,
	})
	if err != nil {
		return err
	}
	for _, name := range []string{p.layout.Ledger(ledger.PolicyPath), p.layout.Certs()} {
		if _, err := p.file(name); err != nil {
			return err
		}
	}
	for _, f := range files {
		if _, err := p.file(f.path); err != nil {
			return err
		}
	}
	if !v.Bool("yes") {
		w.note("init writes to %s:", p.root)
		for _, f := range files {
			w.note("  %s", f.path)
		}
		w.note("  %s", p.layout.Ledger(ledger.PolicyPath))
		w.note("  %s/", p.layout.Certs())
		if parent != "" {
			w.note("removes the parent's log and badge")
		}
		w.note("and makes two keys in its state directory. Go on? [y/N]")
		answer, _ := bufio.NewReader(w.stdin).ReadString('\n')
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return failed("nothing was written")
		}
	}
	keys, err := w.makeKeys(p, parent != "", v.Bool("development"))
	if err != nil {
		return err
	}
	files = append(files, keys...)
	if parent != "" {
		if err := p.clearLedger(); err != nil {
			return err
		}
	}
	if err := w.putAll(p, files); err != nil {
		return err
	}
	w.say("✅ %s is under the covenant, log %s", filepath.Base(p.root), p.cfg.Origin)
	if found.why != "" {
		w.say("   smoke test: %s", found.why)
	}
	if _, err := os.Stat(filepath.Join(p.root, ".github", "CODEOWNERS")); errors.Is(err, fs.ErrNotExist) {
		w.say("   nobody owns what decides the gates: remembrancer init --owner @name names who approves its changes")
	}
	if found.lacks != "" {
		w.say("   first: %s", found.lacks)
	}
	w.say("   next: git add -A && git commit; then remembrancer gate, and where that is red remembrancer smoke names the tests")
	dir, err := w.stateDir()
	if err != nil {
		return err
	}
	keyDir := filepath.Join(dir, "keys", shortHash(p.cfg.Origin))
	switch stored, err := w.storedKey(p.cfg.Origin, logKeyFile); {
	case err != nil:
		return err
	case stored == nil:
		w.note("the keys of this log are not on this machine: the publishing job has them")
		return nil
	}
	w.note("keys: %s (back them up; hand them to the publishing job only)", keyDir)
	w.note("  gh secret set REMEMBRANCER_LOG_KEY --env remembrancer < %s", filepath.Join(keyDir, logKeyFile))
	w.note("  gh secret set REMEMBRANCER_SIGNING_KEY --env remembrancer < %s", filepath.Join(keyDir, issuerKey))
	return nil
}

// fork returns the checkpoint of the parent's ledger, which is what to cite.
func (p *project) fork(v *action.Values) (parent string, err error) {
	if o := v.String("origin"); o == "" || o == p.cfg.Origin {
		return "", misused("a fork needs a name of its own: --origin, as github.com/you/name")
	}
	dir := filepath.Join(p.root, filepath.FromSlash(p.layout.Ledger("")))
	note, err := os.ReadFile(filepath.Join(dir, ledger.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return "", failed("there is no ledger to fork from")
	}
	if err != nil {
		return "", err
	}
	p.cfg.Origin = ""
	return string(note), nil
}

// clearLedger removes the parent's ledger, and the badge that its log backed,
// from the work tree.
func (p *project) clearLedger() error {
	var gone []string
	for _, name := range []string{ledger.CheckpointPath, ledger.EdgePath, ledger.PolicyPath, "log"} {
		gone = append(gone, p.layout.Ledger(name))
	}
	for _, name := range append(gone, p.layout.Status(covenant.BadgeFile), p.layout.Status(covenant.ShieldsFile)) {
		path, err := p.file(name)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// initial is what the first files of a covenant are made of, beside the
// configuration.
type initial struct {
	ref    string // commit of the actions; "": that of this build
	owner  string // of what decides the gates; "": nobody
	compat bool   // the ancestor's commands, too
	parent string // checkpoint of the log that this one is forked from; ""
	runner runner
}

func (p *project) initialFiles(in initial) ([]written, error) {
	ref, parent := in.ref, in.parent
	if ref == "" {
		ref = revision()
	}
	if ref == "" {
		ref = actionsCommit
	}
	root := ledger.Root(nil)
	data := map[string]any{
		"Ref": ref, "Branch": p.cfg.Publish.Branch, "Ops": p.layout.Ops, "Docs": p.layout.Docs, "Origin": p.cfg.Origin,
		"Root": fmt.Sprintf("%x", root[:]), "Parent": strings.TrimSpace(parent), "Workflow": p.cfg.Publish.Workflow, "Owner": in.owner, "Owned": ownedPaths(p.cfg.Paths.GateOwned),
		"Fetch": in.runner.fetch,
	}
	files := []written{{path: config.FileName, data: config.Render(p.cfg), update: parent != ""}}
	add := func(path, name string, mode fs.FileMode) error {
		text, err := templates.ReadFile("templates/" + name)
		if err != nil {
			return err
		}
		t, err := template.New(name).Delims("[[", "]]").Parse(string(text))
		if err != nil {
			return err
		}
		var b bytes.Buffer
		if err := t.Execute(&b, data); err != nil {
			return err
		}
		files = append(files, written{path: path, data: b.Bytes(), mode: mode})
		return nil
	}
	err := errors.Join(
		add(p.layout.Docs, "REMEMBRANCER.md", 0o644),
		add(p.cfg.Publish.Workflow, "covenant-enforce.yml", 0o644),
		add(".github/workflows/covenant-guard.yml", "covenant-guard.yml", 0o644),
		add(".github/workflows/merkle-publish.yml", "merkle-publish.yml", 0o644),
	)
	if in.owner != "" {
		err = errors.Join(err, add(".github/CODEOWNERS", "CODEOWNERS", 0o644))
	}
	if in.compat {
		err = errors.Join(err,
			add(p.layout.Ops+"/bin/publish-merkle-root.sh", "publish-merkle-root.sh", 0o755),
			add(p.layout.Ops+"/bin/remembrancer", "remembrancer.sh", 0o755),
			add(p.layout.Ops+"/bin/tsa-bootstrap", "tsa-bootstrap.sh", 0o755),
			add(p.layout.Ops+"/bin/rfc3161-verify", "rfc3161-verify.sh", 0o755),
			add(p.layout.Ops+"/bin/genesis-seal", "genesis-seal.sh", 0o755))
	}
	if err != nil {
		return nil, err
	}
	if parent != "" {
		doc := &files[1]
		was, err := os.ReadFile(filepath.Join(p.root, filepath.FromSlash(doc.path)))
		if err == nil {
			if doc.data, err = covenant.WithRoot(was, ledger.Root(nil)); err != nil {
				return nil, failed("%s: %v", doc.path, err)
			}
			doc.data = append(doc.data, "\nThis log was forked from the one with this checkpoint:\n\n```\n"+strings.TrimSpace(parent)+"\n```\n"...)
		}
		doc.update = true
	}
	files = append(files, in.runner.files...)
	attributes, err := p.present(".gitattributes")
	if err != nil {
		return nil, err
	}
	files = append(files, written{path: ".gitattributes", data: withAttributes(attributes, covenant.Attributes(p.layout)), update: true})
	if p.reportsAreOurs() {
		ignored, err := p.present(".gitignore")
		if err != nil {
			return nil, err
		}
		files = append(files, written{path: ".gitignore", data: withIgnored(ignored), update: true})
	}
	return files, nil
}

// present returns the bytes of a file of the work tree; nil where there is none.
func (p *project) present(name string) ([]byte, error) {
	path, err := p.file(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return append([]byte{}, data...), err // an empty file is there
}

// reportsAreOurs says that the smoke command leaves its reports in the folder
// that init chose for them.
func (p *project) reportsAreOurs() bool {
	return slices.ContainsFunc(p.cfg.Smoke.Results, func(r string) bool { return strings.HasPrefix(r, reportFolder+"/") })
}

// ownedPaths writes patterns as a CODEOWNERS file has them: a folder ends in a
// slash there.
func ownedPaths(patterns []string) []string {
	var paths []string
	for _, p := range patterns {
		paths = append(paths, strings.TrimSuffix(p, "**"))
	}
	return paths
}

// attributesComment is what a .gitattributes begins with that init made.
const attributesComment = "# The evidence is bytes: no conversion, no merging. This rule must stay the last."

// withAttributes puts the rule last: the last rule wins.
func withAttributes(doc []byte, rule string) []byte {
	var kept []string
	for line := range strings.Lines(string(doc)) {
		if strings.TrimSpace(line) != rule {
			kept = append(kept, strings.TrimRight(line, "\n"))
		}
	}
	for len(kept) > 0 && kept[len(kept)-1] == "" {
		kept = kept[:len(kept)-1]
	}
	if len(kept) == 0 {
		kept = []string{attributesComment}
	}
	return []byte(strings.Join(append(kept, rule), "\n") + "\n")
}

// makeKeys makes the log's key and the publisher's, or takes those that an
// earlier init made, and returns their public files. The policy comes last: its
// presence says that there is a log with keys.
func (w *world) makeKeys(p *project, fork, development bool) ([]written, error) {
	origin := p.cfg.Origin
	if _, err := os.Stat(filepath.Join(p.root, filepath.FromSlash(p.layout.Ledger(ledger.PolicyPath)))); err == nil && !fork {
		return nil, nil // the log has its keys already, wherever they are
	}
	state, err := w.state()
	if err != nil {
		return nil, err
	}
	defer state.Close()
	logKey, err := w.storedKey(origin, logKeyFile)
	if err != nil {
		return nil, err
	}
	if logKey == nil {
		skey, _, err := checkpoint.GenerateKey(w.rand, origin)
		if err != nil {
			return nil, err
		}
		logKey = []byte(skey + "\n")
		if err := w.putSecret(origin, logKeyFile, logKey); err != nil {
			return nil, err
		}
	}
	signer, err := checkpoint.NewSigner(string(logKey))
	if err != nil {
		return nil, err
	}
	secret, err := w.storedKey(origin, issuerKey)
	if err != nil {
		return nil, err
	}
	if secret == nil {
		name := "Remembrancer publisher of " + origin
		if development {
			name += " " + openpgp.DevelopmentComment
		}
		if secret, _, err = openpgp.Generate(name, "bot@vaultmesh.org", w.now(), w.rand); err != nil {
			return nil, err
		}
		if err := w.putSecret(origin, issuerKey, secret); err != nil {
			return nil, err
		}
	}
	issuer, err := openpgp.FromArmored(secret, nil, w.now)
	if err != nil {
		return nil, err
	}
	// A key that is there already is taken, and never as what it does not say it is.
	if development && !issuer.Public().Development() {
		return nil, misused("--development: the key that an earlier init made for %s, %s, does not say that it is one for development: leave the flag out to use it, or move %s away", origin, issuer.Fingerprint(), keyPath(origin, issuerKey))
	}
	return []written{
		{path: p.layout.Certs() + "/" + string(issuer.Fingerprint()) + ".asc", data: issuer.Public().Armored()},
		{path: p.layout.Ledger(ledger.PolicyPath), data: checkpoint.NewPolicy(signer.VerifierKey())},
	}, nil
}

// putSecret writes a key that only its owner can read.
func (w *world) putSecret(origin, name string, data []byte) error {
	dir, err := w.stateDir()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, filepath.FromSlash(keyPath(origin, name)))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.Put(path, data, 0o600)
}

// putOnce writes a file unless another is there: init never overwrites what
// people wrote.
func (w *world) putOnce(p *project, f written) error {
	path, err := p.file(f.path)
	if err != nil {
		return err
	}
	was, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(was, f.data):
		return nil
	case err == nil && !f.update:
		w.say("   kept     %s", f.path)
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	mode := f.mode
	if mode == 0 {
		mode = 0o644
	}
	if err := durable.Put(path, f.data, mode); err != nil {
		return err
	}
	w.say("   wrote    %s", f.path)
	return nil
}

// putAll writes the files of an init. What it is going to write it remembers
// first: what is remembered and was never written does no harm, while what was
// written and is not remembered would be taken for a person's.
func (w *world) putAll(p *project, files []written) error {
	done, err := w.installed(p)
	if err != nil {
		return err
	}
	some := false
	for _, f := range files {
		was, err := p.present(f.path)
		if err != nil {
			return err
		}
		if was == nil || f.update && !bytes.Equal(was, f.data) {
			done.note(f, was)
			some = true
		}
	}
	if some {
		if err := w.remembersInstalled(p, done); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := w.putOnce(p, f); err != nil {
			return err
		}
	}
	return nil
}

// installed is what this machine remembers of the inits of a work tree, so that
// uninstall can tell what nobody has changed since.
type installed struct {
	Wrote  map[string]string `json:"wrote"`  // by path: SHA-256 of what was written
	Before map[string][]byte `json:"before"` // by path: what was there, where something was
}

// note says that a file is about to be written, where was is, or nothing if that
// is nil. What was there before the first init stays what was there before, as
// long as nobody has touched it since.
func (i *installed) note(f written, was []byte) {
	if i.Wrote[f.path] != digest(was) {
		delete(i.Before, f.path)
		if was != nil {
			i.Before[f.path] = was
		}
	}
	i.Wrote[f.path] = digest(f.data)
}

func installedPath(root string) string { return "init/" + shortHash(resolved(root)) + ".json" }

func (w *world) installed(p *project) (i installed, err error) {
	i = installed{Wrote: map[string]string{}, Before: map[string][]byte{}}
	dir, err := w.stateDir()
	if err != nil {
		return i, err
	}
	data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(installedPath(p.root))))
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal(data, &i); err != nil || i.Wrote == nil || i.Before == nil {
		return i, fmt.Errorf("%s: found no memory of an init, wanted one: remove it, and uninstall compares with what init would write now", filepath.Join(dir, installedPath(p.root)))
	}
	return i, nil
}

func (w *world) remembersInstalled(p *project, i installed) error {
	state, err := w.state()
	if err != nil {
		return err
	}
	defer state.Close()
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return state.Put(installedPath(p.root), append(data, '\n'))
}

// reportFolder is where the test runners of init leave their reports; git
// ignores it.
const reportFolder = ".smoke"

const reportComment = "# Reports of the smoke test."

// withIgnored makes git ignore the folder of the reports.
func withIgnored(doc []byte) []byte {
	rule := "/" + reportFolder + "/"
	for line := range strings.Lines(string(doc)) {
		if strings.TrimSpace(line) == rule {
			return doc
		}
	}
	doc = bytes.Clone(doc)
	if len(doc) > 0 && !bytes.HasSuffix(doc, []byte("\n")) {
		doc = append(doc, '\n')
	}
	return append(doc, reportComment+"\n"+rule+"\n"...)
}

// runner is a test runner that a repository has, and how the gate reads what it
// finds. A bare exit status says nothing of how many tests ran, so a runner is
// taken with the report of each test. Of one that writes none the run itself is
// declared as one test, which is what it is.
type runner struct {
	why   string       // what was found, in words
	smoke config.Smoke // what the configuration says of it
	files []written    // what else init writes for it
	fetch string       // a shell line that brings it to a fresh machine of the forge; "" where that has it
	lacks string       // what to type here before the gate can pass; "" if nothing is missing
}

// firstConfig sets what the first configuration of a repository says, and
// returns what was found.
func (w *world) firstConfig(p *project) runner {
	fsys := os.DirFS(p.root)
	if b := headBranch(p.repo); b != "" {
		p.cfg.Publish.Branch = b
	}
	detected, why, found := config.Detect(fsys)
	if found {
		p.cfg.Smoke = detected
		return runner{why: why}
	}
	// A smoke script that cannot be run was meant to be: Detect names it.
	for _, name := range []string{"SMOKE_TEST.sh", "smoke_test.sh"} {
		if info, err := fs.Stat(fsys, name); err == nil && info.Mode().IsRegular() {
			return runner{why: why}
		}
	}
	r := w.findRunner(fsys)
	if r.why == "" {
		return runner{why: why}
	}
	p.cfg.Smoke = r.smoke
	if r.smoke.Suite != "" {
		p.cfg.Paths.GateOwned = append(p.cfg.Paths.GateOwned, r.smoke.Suite)
	}
	return r
}

// findRunner returns the test runner of a repository, whose why is empty if there
// is none that is known. Of several the first counts, and the others are named.
func (w *world) findRunner(fsys fs.FS) runner {
	var all []runner
	for _, find := range []func(fs.FS) runner{w.goRunner, w.cargoRunner, w.npmRunner, w.pytestRunner, w.batsRunner} {
		if r := find(fsys); r.why != "" {
			all = append(all, r)
		}
	}
	if len(all) == 0 {
		return w.makeRunner(fsys)
	}
	for _, other := range all[1:] {
		what, _, _ := strings.Cut(other.why, ": ")
		all[0].why += "; " + what + " too, which the smoke test does not run yet"
	}
	return all[0]
}

// reported is a runner that writes a report, into a folder that is there then.
func reported(why, line, report string) runner {
	s := config.Default().Smoke
	s.Run = config.Command{Shell: "mkdir -p " + reportFolder + " && " + line}
	s.Results = []string{report}
	return runner{why: why, smoke: s}
}

// oneTest is a runner that says only whether it passed.
func oneTest(why, id string, argv ...string) runner {
	const name = "smoke.yaml"
	s := config.Default().Smoke
	s.Suite = name
	text := fmt.Sprintf(`# The tests of the smoke gate, run in place of a script: see remembrancer help smoke.
#
# %[2]s says only whether it passed, so it counts as one test. To have each test
# counted let it write a report (JUnit XML, TAP or go test -json), and put in
# remembrancer.yaml, in place of suite:
#
#   run: [%[3]s]
#   results: ["reports/**/*.xml"]
version: 1
tests:
  - id: %[1]s
    run: [%[3]s]
    timeout: 10m
`, id, strings.Join(argv, " "), strings.Join(argv, ", "))
	return runner{why: why, smoke: s, files: []written{{path: name, data: []byte(text)}}}
}

// unless returns what to type unless a program is here.
func unless(program, lacks string) string {
	if _, err := exec.LookPath(program); err == nil {
		return ""
	}
	return program + " is not here: " + lacks
}

func isFile(fsys fs.FS, name string) bool {
	info, err := fs.Stat(fsys, name)
	return err == nil && info.Mode().IsRegular()
}

// contains says that a file is there and, in its first MiB, has a text.
func contains(fsys fs.FS, name, text string) bool {
	f, err := fsys.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20)) // of a folder it is an error
	return err == nil && strings.Contains(string(data), text)
}

func (w *world) goRunner(fsys fs.FS) runner {
	if !isFile(fsys, "go.mod") {
		return runner{}
	}
	const report = reportFolder + "/go-test.json"
	r := reported("found go.mod: go test -json, of which each test is counted", "go test -json ./... > "+report, report)
	r.lacks = unless("go", "install Go from go.dev/dl")
	return r
}

func (w *world) cargoRunner(fsys fs.FS) runner {
	if !isFile(fsys, "Cargo.toml") {
		return runner{}
	}
	script, err := templates.ReadFile("templates/cargo-smoke.sh")
	if err != nil {
		panic(err) // it is part of the program
	}
	s := config.Default().Smoke
	s.Results = []string{reportFolder + "/cargo.tap"}
	return runner{
		why: "found Cargo.toml: cargo test, of which SMOKE_TEST.sh counts each test", smoke: s,
		files: []written{{path: "SMOKE_TEST.sh", data: script, mode: 0o755}},
		lacks: unless("cargo", "install Rust from rustup.rs"),
	}
}

func (w *world) npmRunner(fsys fs.FS) runner {
	var manifest struct {
		Scripts                       map[string]string
		Dependencies, DevDependencies map[string]string
	}
	data, err := fs.ReadFile(fsys, "package.json")
	if err != nil || json.Unmarshal(data, &manifest) != nil {
		return runner{}
	}
	script := manifest.Scripts["test"]
	if script == "" || strings.Contains(script, "no test specified") { // what npm init writes
		return runner{}
	}
	// Arguments of npm test go to the last command of the script.
	commands := strings.Split(script, "&&")
	words := strings.Fields(commands[len(commands)-1])
	for len(words) > 1 && slices.Contains([]string{"npx", "c8", "nyc"}, words[0]) {
		words = words[1:]
	}
	words = append(words, "") // there is a first
	counted := func(name, line string) runner {
		report := reportFolder + "/" + name + ".xml"
		return reported("found package.json: npm test ("+name+"), of which each test is counted", strings.ReplaceAll(line, "REPORT", report), report)
	}
	var r runner
	switch {
	case words[0] == "node" && slices.Contains(words, "--test"):
		r = counted("node", `NODE_OPTIONS="$NODE_OPTIONS --test-reporter=junit --test-reporter-destination=REPORT" npm test`)
	case words[0] == "vitest":
		r = counted("vitest", "npm test -- --run --reporter=junit --outputFile=REPORT")
	case words[0] == "mocha":
		r = counted("mocha", "npm test -- --reporter xunit --reporter-option output=REPORT")
	case words[0] == "jest":
		r = counted("jest", "JEST_JUNIT_OUTPUT_FILE=REPORT npm test -- --ci --reporters=default --reporters=jest-junit")
		if manifest.Dependencies["jest-junit"]+manifest.DevDependencies["jest-junit"] == "" {
			r.lacks = "npm install --save-dev jest-junit, which writes the report"
		}
	default:
		r = oneTest("found package.json: npm test, of which only the exit status can be read: it counts as one test", "npm-test", "npm", "test")
	}
	if len(manifest.Dependencies)+len(manifest.DevDependencies) > 0 {
		r.fetch = "npm install"
		if isFile(fsys, "package-lock.json") || isFile(fsys, "npm-shrinkwrap.json") {
			r.fetch = "npm ci"
		}
		if _, err := fs.Stat(fsys, "node_modules"); err != nil && r.lacks == "" {
			r.lacks = r.fetch
		}
	}
	if missing := unless("npm", "install Node.js from nodejs.org"); missing != "" {
		r.lacks = missing
	}
	return r
}

func (w *world) pytestRunner(fsys fs.FS) runner {
	file := ""
	for _, sign := range []struct{ name, text string }{
		{"pytest.ini", ""}, {"conftest.py", ""}, {"pyproject.toml", "pytest"}, {"setup.cfg", "[tool:pytest]"}, {"tox.ini", "[pytest]"},
	} {
		if contains(fsys, sign.name, sign.text) {
			file = sign.name
			break
		}
	}
	for _, pattern := range []string{"test_*.py", "tests/test_*.py", "test/test_*.py"} {
		if found, err := fs.Glob(fsys, pattern); file == "" && err == nil && len(found) > 0 {
			file = found[0]
		}
	}
	if file == "" {
		return runner{}
	}
	const report = reportFolder + "/pytest.xml"
	r := reported("found "+file+": pytest, of which each test is counted", "python3 -m pytest --junit-xml="+report, report)
	// The interpreter of the forge's machines belongs to its distribution.
	r.fetch = "PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install pytest"
	if isFile(fsys, "requirements.txt") {
		r.fetch += " -r requirements.txt"
	}
	if contains(fsys, "pyproject.toml", "[project]") {
		r.fetch += " ."
	}
	if r.lacks = unless("python3", "install Python from python.org"); r.lacks == "" {
		if err := exec.CommandContext(w.ctx, "python3", "-c", "import pytest").Run(); err != nil {
			r.lacks = "pytest is not here: python3 -m pip install pytest"
		}
	}
	return r
}

func (w *world) batsRunner(fsys fs.FS) runner {
	for _, dir := range []string{"test", "tests", "."} {
		if found, err := fs.Glob(fsys, path.Join(dir, "*.bats")); err != nil || len(found) == 0 {
			continue
		}
		const report = reportFolder + "/bats.tap"
		r := reported("found "+path.Join(dir, "*.bats")+": bats, of which each test is counted", "bats --tap "+dir+" > "+report, report)
		r.fetch = "sudo apt-get update && sudo apt-get install --yes bats"
		r.lacks = unless("bats", "apt-get install bats, or brew install bats-core")
		return r
	}
	return runner{}
}

var testTarget = regexp.MustCompile(`(?m)^test[ 	]*:(?:[^=]|$)`)

func (w *world) makeRunner(fsys fs.FS) runner {
	for _, name := range []string{"GNUmakefile", "makefile", "Makefile"} { // as GNU make looks
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			continue
		}
		if !testTarget.Match(data) {
			break
		}
		r := oneTest("found the target test in "+name+", of which only the exit status can be read: it counts as one test", "make-test", "make", "test")
		r.lacks = unless("make", "install make")
		return r
	}
	return runner{}
}
