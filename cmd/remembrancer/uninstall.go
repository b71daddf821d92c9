package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

var uninstallVerb = verb{
	spec: action.Spec{
		Verb: "uninstall", Summary: "take back what init wrote, and leave the evidence",
		Description: "Removes from the work tree what init wrote and nobody has changed since: the workflows, remembrancer.yaml, the index document, CODEOWNERS, the smoke test it made, the lines it added to .gitattributes and .gitignore, " +
			"and the hooks of hook install. What differs is kept and named. Nothing is committed: git restore . brings back what was.\n\n" +
			"Evidence stays: once a log has an entry, or a receipt, a badge or a certificate is there that init did not write, all of it is kept, and so are the index document and the rule of .gitattributes that keeps its bytes. --evidence removes these, too.\n\n" +
			"What init wrote it remembers in the state directory. On another machine the files are compared with what this build of init would write now. " +
			"The keys stay in the state directory, and what enforce apply made on the forge stays there: take that back first, with remembrancer enforce remove.",
		Inputs: []action.Input{
			{Name: "yes", Kind: action.Bool, Usage: "Do not ask."},
			{Name: "evidence", Kind: action.Bool, Usage: "Remove the log, the receipts, the status files and the certificates, too."},
		},
		Exit:     "1 when the answer was no.",
		Examples: []string{"remembrancer uninstall", "remembrancer uninstall --evidence --yes"},
	},
	run: runUninstall,
}

// removal is all that an uninstall does, and does not do.
type removal struct {
	files   []string          // paths to remove
	folders []string          // to remove with all that is in them
	restore map[string][]byte // by path: what a file is given back
	keep    []string          // "path: why"
	hooks   bool              // there are hooks of ours
}

func (r *removal) keeps(path, format string, args ...any) {
	r.keep = append(r.keep, path+": "+fmt.Sprintf(format, args...))
}

func runUninstall(w *world, v *action.Values, _ *action.Runner) error {
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(repo.Root(), config.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return misused("%s has no %s: there is nothing to uninstall", repo.Root(), config.FileName)
	}
	if err != nil {
		return err
	}
	p := &project{repo: repo, root: repo.Root()}
	if p.cfg, err = config.Parse(config.FileName, data); err != nil {
		return misused("%v", err)
	}
	p.layout = covenant.Layout{Ops: p.cfg.Paths.Ops, Docs: p.cfg.Paths.Docs}
	if origin, err := p.origin(); p.cfg.Origin == "" && err == nil { // without a policy there is nothing to name
		p.cfg.Origin = origin
	}
	r, err := w.planRemoval(p, v.Bool("evidence"))
	if err != nil {
		return err
	}
	if !v.Bool("yes") {
		w.note("uninstall removes from %s:", p.root)
		for _, line := range r.lines() {
			w.note("  %s", line)
		}
		for _, line := range r.keep {
			w.note("keeps %s", line)
		}
		w.note("Go on? [y/N]")
		answer, _ := bufio.NewReader(w.stdin).ReadString('\n')
		if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
			return failed("nothing was removed")
		}
	}
	if r.hooks {
		if err := runHookUninstall(w, v, nil); err != nil {
			return err
		}
	}
	if err := w.remove(p, r); err != nil {
		return err
	}
	for _, line := range r.keep {
		w.say("   kept     %s", line)
	}
	w.say("✅ %s is no longer under the covenant", filepath.Base(p.root))
	if dir, err := w.stateDir(); err == nil && p.cfg.Origin != "" {
		if _, err := os.Stat(filepath.Join(dir, "keys", shortHash(p.cfg.Origin))); err == nil {
			w.note("the keys of log %s stay in %s: what they signed can be verified as before, and who has them can sign as before", p.cfg.Origin, filepath.Join(dir, "keys", shortHash(p.cfg.Origin)))
		}
	}
	return nil
}

// lines says in words what is going to happen.
func (r *removal) lines() []string {
	var lines []string
	for _, name := range r.files {
		if before, ok := r.restore[name]; ok {
			what := "the lines that init added"
			if before == nil {
				what = "it was not there"
			}
			lines = append(lines, name+" ("+what+")")
			continue
		}
		lines = append(lines, name)
	}
	for _, name := range r.folders {
		lines = append(lines, name+"/")
	}
	if r.hooks {
		lines = append(lines, "the hooks of git that hook install wrote")
	}
	return lines
}

// remove carries out a removal. The configuration goes last: until then an
// uninstall that was cut short can be repeated.
func (w *world) remove(p *project, r *removal) error {
	slices.SortStableFunc(r.files, func(a, b string) int {
		last := func(name string) int {
			if name == config.FileName {
				return 1
			}
			return 0
		}
		return last(a) - last(b)
	})
	for _, name := range r.folders {
		path, err := p.file(name)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		w.say("   removed  %s/", name)
		p.removeEmpty(path)
	}
	for _, name := range r.files {
		path, err := p.file(name)
		if err != nil {
			return err
		}
		if before := r.restore[name]; before != nil {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			if err := durable.Put(path, before, info.Mode().Perm()); err != nil {
				return err
			}
			w.say("   restored %s", name)
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		w.say("   removed  %s", name)
		p.removeEmpty(path)
	}
	state, err := w.stateDir()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(state, filepath.FromSlash(installedPath(p.root)))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeEmpty removes the folders around a path that nothing is left in. git
// knows none of them; one that holds something does not go.
func (p *project) removeEmpty(path string) {
	top := resolved(p.root)
	for dir := filepath.Dir(path); dir != top && dir != p.root && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			return
		}
	}
}

var (
	usedRef   = regexp.MustCompile(`vaultmesh/remembrancer/actions/[a-z/-]+@([^\s#]+)`)
	codeOwned = regexp.MustCompile(`(?m)^/\.github/ (@\S+)$`)
)

// planRemoval finds out what an uninstall may remove, and what not.
func (w *world) planRemoval(p *project, evidence bool) (*removal, error) {
	r := &removal{restore: map[string][]byte{}}
	done, err := w.installed(p)
	if err != nil {
		return nil, err
	}
	kept, err := w.planEvidence(p, r, evidence)
	if err != nil {
		return nil, err
	}
	// What init would write now, under the names that are in the files.
	again := *p
	again.cfg = config.Default()
	again.cfg.Origin = p.cfg.Origin
	in := initial{compat: true, runner: w.firstConfig(&again)}
	// A smoke test that init made is one that is found now.
	made := w.findRunner(os.DirFS(p.root))
	if in.runner.files == nil && len(made.files) > 0 {
		now, err := p.present(made.files[0].path)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(now, made.files[0].data) {
			again.cfg.Smoke = made.smoke
		}
		in.runner.files = made.files
	}
	expected := config.Render(again.cfg)
	again.cfg = p.cfg // the paths that the rest is at
	for name, find := range map[string]*regexp.Regexp{p.cfg.Publish.Workflow: usedRef, ".github/CODEOWNERS": codeOwned} {
		data, err := p.present(name)
		if err != nil {
			return nil, err
		}
		m := find.FindSubmatch(data)
		switch {
		case m == nil:
		case find == usedRef:
			in.ref = string(m[1])
		default:
			in.owner = string(m[1])
		}
	}
	files, err := again.initialFiles(in)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.path == config.FileName {
			f.data = expected
		}
		now, err := p.present(f.path)
		if err != nil {
			return nil, err
		}
		sum, ours := done.Wrote[f.path]
		ours = ours && sum == digest(now)
		before, had := done.Before[f.path]
		switch {
		case now == nil:
		case kept && (f.path == ".gitattributes" || f.path == p.layout.Docs):
			why := "it holds the root of the ledger"
			if f.path == ".gitattributes" {
				why = "its rule keeps the bytes of the evidence"
			}
			r.keeps(f.path, "%s", why)
		case ours && had:
			r.files = append(r.files, f.path)
			r.restore[f.path] = before
		case ours:
			r.files = append(r.files, f.path)
		case f.path == ".gitattributes" || f.path == ".gitignore":
			p.planLines(r, f.path, now)
		case bytes.Equal(now, f.data) || f.path == p.layout.Docs && sameButRoot(now, f.data):
			r.files = append(r.files, f.path)
		case sum == "" && slices.ContainsFunc(made.files, func(m written) bool { return m.path == f.path }):
			// Somebody else made it.
		default:
			r.keeps(f.path, "it is not as init wrote it; git rm %s removes it", f.path)
		}
	}
	// The reports would be seen by git without the line that hides them.
	if reports, err := p.file(reportFolder); err != nil {
		return nil, err
	} else if info, err := os.Lstat(reports); err == nil && info.IsDir() && slices.Contains(r.files, ".gitignore") {
		r.folders = append(r.folders, reportFolder)
	}
	if dir, err := w.hooksDir(); err == nil { // without an own folder of hooks none were installed
		hooks, err := readHooks(dir)
		if err != nil {
			return nil, err
		}
		r.hooks = slices.ContainsFunc(hooks, func(h hookFile) bool { return h.ours })
	}
	return r, nil
}

// planLines plans to take out of a file the lines that init added to it.
func (p *project) planLines(r *removal, name string, now []byte) {
	ours := []string{reportComment, "/" + reportFolder + "/"}
	if name == ".gitattributes" {
		ours = []string{attributesComment, covenant.Attributes(p.layout)}
	}
	left := []byte{} // not nil: the file stays, if with nothing in it
	for line := range strings.Lines(string(now)) {
		if !slices.Contains(ours, strings.TrimSpace(line)) {
			left = append(left, line...)
		}
	}
	switch {
	case len(left) == len(now):
		return
	case len(left) == 0:
		left = nil
	}
	r.files, r.restore[name] = append(r.files, name), left
}

// sameButRoot says that two index documents differ in nothing but the root,
// which the publisher writes.
func sameButRoot(a, b []byte) bool {
	a, err1 := covenant.WithRoot(a, ledger.Root(nil))
	b, err2 := covenant.WithRoot(b, ledger.Root(nil))
	return err1 == nil && err2 == nil && bytes.Equal(a, b)
}

// planEvidence decides on what is below the folder of evidence, and says whether
// anything of it is kept.
func (w *world) planEvidence(p *project, r *removal, evidence bool) (kept bool, err error) {
	folders := []string{strings.TrimSuffix(p.layout.Ledger(""), "/"), strings.TrimSuffix(p.layout.Receipt(""), "/"), strings.TrimSuffix(p.layout.Status(""), "/"), p.layout.Certs()}
	var there, found []string
	for _, folder := range folders {
		top, err := p.file(folder)
		if err != nil {
			return false, err
		}
		if _, err := os.Lstat(top); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		there = append(there, folder)
		err = filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(top, name)
			found = append(found, path.Join(folder, filepath.ToSlash(rel)))
			return err
		})
		if err != nil {
			return false, err
		}
	}
	if evidence {
		r.folders = there
		return false, nil
	}
	own, why, err := w.ownTrust(p)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(found, func(name string) bool { return !slices.Contains(own, name) }) {
		r.keeps(p.layout.Ops, "%d files of evidence; --evidence removes them", len(found))
		return true, nil
	}
	if why != "" && len(found) > 0 {
		r.keeps(p.layout.Ops, "%s; --evidence removes it", why)
		return true, nil
	}
	r.files = append(r.files, found...)
	return false, nil
}

// ownTrust returns the files of the trust folder that init wrote and nobody has
// changed: the public halves of the keys that this machine has. why says what
// speaks against a removal, where there is something.
func (w *world) ownTrust(p *project) (own []string, why string, err error) {
	policy, err := p.present(p.layout.Ledger(ledger.PolicyPath))
	if err != nil || policy == nil {
		return nil, "", err
	}
	name := p.layout.Ledger(ledger.PolicyPath)
	logKey, err1 := w.storedKey(p.cfg.Origin, logKeyFile)
	secret, err2 := w.storedKey(p.cfg.Origin, issuerKey)
	if err := errors.Join(err1, err2); err != nil {
		return nil, "", err
	}
	if logKey == nil || secret == nil {
		certs, err := fs.Glob(os.DirFS(p.root), p.layout.Certs()+"/*.asc")
		return append(certs, name), "the keys of this log are not on this machine, so nobody can tell whether its policy was changed", err
	}
	signer, err := checkpoint.NewSigner(string(logKey))
	if err != nil {
		return nil, "", err
	}
	issuer, err := openpgp.FromArmored(secret, nil, w.now)
	if err != nil {
		return nil, "", err
	}
	cert := p.layout.Certs() + "/" + string(issuer.Fingerprint()) + ".asc"
	public, err := p.present(cert)
	if err != nil {
		return nil, "", err
	}
	if !bytes.Equal(policy, checkpoint.NewPolicy(signer.VerifierKey())) || public != nil && !bytes.Equal(public, issuer.Public().Armored()) {
		return []string{name, cert}, "the log's policy or certificate is not as init wrote it", nil
	}
	return []string{name, cert}, "", nil
}
