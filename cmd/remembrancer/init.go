package main

import (
	"bufio"
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
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
			"It makes the log's key and the publisher's OpenPGP key in the state directory, never in the work tree, and says how to hand them to the forge.",
		Inputs: []action.Input{
			{Name: "yes", Kind: action.Bool, Usage: "Do not ask."},
			{Name: "origin", Usage: "Name of the log, a URL without a scheme; derived from the remote when left out."},
			{Name: "fork", Kind: action.Bool, Usage: "Begin a log of one's own in a fork: new keys, a new origin, an empty ledger that cites its parent."},
			{Name: "compat", Kind: action.Bool, Usage: "Also write the ancestor's commands to ops/bin: remembrancer, publish-merkle-root.sh, tsa-bootstrap, rfc3161-verify, genesis-seal."},
			{Name: "development", Kind: action.Bool, Usage: "Make a publisher's key that says of itself that it is one for development: every verifier repeats it."},
			{Name: "owner", Usage: "Who must approve a change of what decides the gates, as @name or @organisation/team: writes .github/CODEOWNERS."},
			{Name: "action-ref", Usage: "Commit of the actions that the workflows use; the commit of this build when left out, or of the last release."},
		},
		Examples: []string{"remembrancer init --yes"},
	},
	run: runInit,
}

// actionsCommit is what workflows use that a build wrote which does not know its
// own commit: one of ours that has every action that the templates name.
const actionsCommit = "112bd169b912263c97c7b8fa4b7a54888de59fae"

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
	note := ""
	data, err := os.ReadFile(filepath.Join(p.root, config.FileName))
	switch {
	case err == nil:
		if p.cfg, err = config.Parse(config.FileName, data); err != nil {
			return misused("%v", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		detected, why, found := config.Detect(os.DirFS(p.root))
		if found {
			p.cfg.Smoke = detected
		}
		note = why
		if b := headBranch(repo); b != "" {
			p.cfg.Publish.Branch = b
		}
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
	files, err := p.initialFiles(v, parent)
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
	for _, f := range files {
		if err := w.putOnce(p, f); err != nil {
			return err
		}
	}
	w.say("✅ %s is under the covenant, log %s", filepath.Base(p.root), p.cfg.Origin)
	if note != "" {
		w.say("   smoke test: %s", note)
	}
	if _, err := os.Stat(filepath.Join(p.root, ".github", "CODEOWNERS")); errors.Is(err, fs.ErrNotExist) {
		w.say("   nobody owns what decides the gates: remembrancer init --owner @name names who approves its changes")
	}
	w.say("   next: git add -A && git commit; then remembrancer gate")
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

func (p *project) initialFiles(v *action.Values, parent string) ([]written, error) {
	ref := v.String("action-ref")
	if ref == "" {
		ref = revision()
	}
	if ref == "" {
		ref = actionsCommit
	}
	root := ledger.Root(nil)
	data := map[string]any{
		"Ref": ref, "Branch": p.cfg.Publish.Branch, "Ops": p.layout.Ops, "Docs": p.layout.Docs, "Origin": p.cfg.Origin,
		"Root": fmt.Sprintf("%x", root[:]), "Parent": strings.TrimSpace(parent), "Workflow": p.cfg.Publish.Workflow, "Owner": v.String("owner"), "Owned": ownedPaths(p.cfg.Paths.GateOwned),
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
	if v.String("owner") != "" {
		err = errors.Join(err, add(".github/CODEOWNERS", "CODEOWNERS", 0o644))
	}
	if v.Bool("compat") {
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
	attributes, err := os.ReadFile(filepath.Join(p.root, ".gitattributes"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return append(files, written{path: ".gitattributes", data: withAttributes(attributes, covenant.Attributes(p.layout)), update: true}), nil
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
		kept = []string{"# The evidence is bytes: no conversion, no merging. This rule must stay the last."}
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
