package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/proof"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
)

var exportProofVerb = verb{
	spec: action.Spec{
		Verb: "export-proof", Summary: "make a folder of evidence about a release that a stranger can check", Args: "[TAG|RECEIPT]",
		Description: "Gathers what vouches for a signed release: artifacts, SHA256SUMS and its signature, the keys, git's tag and commit objects, the receipt with its proof of inclusion, " +
			"and VERIFY.md, which says how to check all of it by hand with sha256sum, openssl, gpg and git. A seal over it is stamped by all pinned authorities, of which two must be independent. " +
			"The folder is whole or not there.\n\n" +
			"Standard output gets the anchors, as JSON: what a verifier needs from elsewhere. Hand them over by another way than the folder.\n\n" +
			"With --renew, new timestamps are put over a folder that was made before.",
		Inputs: []action.Input{
			{Name: "out", Usage: "Folder to make."},
			{Name: "renew", Usage: "Folder of evidence to renew, in place of making one."},
			{Name: "files", Usage: "Folder of the release's files; the one of release.artifacts when left out."},
			ledgerInput, policyInput,
		},
		Exit:     "1 when what there is does not hold; 3 as well when something is missing, such as the signed list, the receipt in the log, or an authority's answer.",
		Examples: []string{"remembrancer export-proof v1.2.0 --out evidence-v1.2.0 > anchors.json", "remembrancer export-proof --renew evidence-v1.2.0"},
	},
	run: func(w *world, v *action.Values, _ *action.Runner) error {
		switch {
		case v.String("renew") != "" && (len(v.Args()) > 0 || v.String("out") != ""):
			return misused("--renew takes neither TAG nor --out")
		case v.String("renew") != "":
			return w.renewBundle(v)
		case len(v.Args()) != 1:
			return misused("want one TAG or RECEIPT")
		case v.String("out") == "":
			return misused("want the folder to make: --out DIR")
		}
		return w.exportBundle(v)
	},
}

var verifyBundleVerb = verb{
	spec: action.Spec{
		Verb: "verify-bundle", Summary: "judge a folder of evidence about a release", Args: "DIR",
		Description: "Judges a folder as remembrancer export-proof makes it: VERIFIED, FAIL, or CONDITIONAL when nothing is wrong, but it leans on keys that no anchor confirms. " +
			"Anchors are a JSON file that must reach you by another way than the folder; one inside it never counts:\n\n" +
			`  {"v":1, "keys":["FINGERPRINT"], "tsa_roots":["SHA-256 of the root's key"], "log_keys":["KEY"],` + "\n" +
			`   "compromised":{"FINGERPRINT":"2027-03-01T00:00:00Z"}}` + "\n\n" +
			"It needs no network and no repository.",
		Inputs: []action.Input{
			{Name: "anchors", Usage: "File of what you trust."},
			{Name: "report", Usage: "Write the verdict as an HTML page for people to this file."},
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
		Exit:     "0 VERIFIED, 1 FAIL, 3 CONDITIONAL, or could not be judged.",
		Examples: []string{"remembrancer verify-bundle evidence-v1.2.0 --anchors anchors.json --report verdict.html"},
	},
	run: runVerifyBundle,
}

func runVerifyBundle(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one folder")
	}
	dir := w.path(v.Args()[0])
	var anchors release.Anchors
	if name := v.String("anchors"); name != "" {
		file := w.path(name)
		if inside, err := isInside(dir, file); err != nil || inside {
			return errors.Join(err, fmt.Errorf("CONDITIONAL: the anchors %s lie inside the bundle, which cannot vouch for itself: get them from elsewhere", name))
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if anchors, err = release.ParseAnchors(data); err != nil {
			return misused("%s: %v", name, err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	report, err := release.VerifyBundle(root.FS(), anchors, w.now())
	if err != nil {
		return err
	}
	if name := v.String("report"); name != "" {
		page, err := report.HTML()
		if err != nil {
			return err
		}
		file := w.path(name)
		if inside, err := isInside(dir, file); err != nil || inside {
			return errors.Join(err, misused("--report %s lies inside the bundle, in which only what is listed may be", name))
		}
		if err := durable.Put(file, page, 0o644); err != nil {
			return err
		}
	}
	if v.Bool("json") {
		if err := w.sayJSON(report); err != nil {
			return err
		}
	} else {
		for _, c := range report.Checks {
			w.sayCheck(c)
		}
		w.say("%s  release %s, commit %s", report.Verdict, action.Defang(report.Tag), report.Commit)
	}
	return quietly(map[string]int{release.Verified: exitPass, release.Failed: exitFail}[report.Verdict] + conditional(report.Verdict))
}

func conditional(verdict string) int {
	if verdict == release.Conditional {
		return exitUnjudged
	}
	return 0
}

// sayCheck prints a check with all that was found.
func (w *world) sayCheck(c judge.Check) {
	text := c.Claim
	if c.Status == judge.Fail {
		text = "not so: " + text
	}
	if c.Detail != "" {
		text += ": " + c.Detail
	}
	w.say("%s %s", c.Mark(), action.Defang(text))
	for _, f := range c.Findings {
		w.say("%s", indent(action.Defang(strings.TrimSpace(f.Path+" "+f.Message))))
	}
	for _, e := range c.Evidence {
		w.say("%s", indent(action.Defang(e)))
	}
}

// isInside tells whether a file lies in a folder, links followed. The file need
// not be there, its own folder must.
func isInside(dir, file string) (bool, error) {
	base, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	at, err := filepath.EvalSymlinks(file)
	if errors.Is(err, fs.ErrNotExist) {
		at, err = filepath.EvalSymlinks(filepath.Dir(file))
	}
	if err != nil {
		return false, err
	}
	return at == base || strings.HasPrefix(at, strings.TrimSuffix(base, string(filepath.Separator))+string(filepath.Separator)), nil
}

// exporting is a bundle that is being made.
type exporting struct {
	w           *world
	p           *project
	trust       *covenant.Trust
	authorities []release.Authority
}

func (w *world) openExport() (*exporting, error) {
	p, err := w.openProject()
	if err != nil {
		return nil, err
	}
	e := &exporting{w: w, p: p}
	h, err := p.head("HEAD")
	if err != nil {
		return nil, err
	}
	if e.trust, err = covenant.LoadTrust(h.tree, p.layout); err != nil {
		return nil, err
	}
	all, err := release.Authorities(h.tree, tsaFolder(p.layout))
	if err != nil {
		return nil, err
	}
	if e.authorities, err = release.Select(all, p.cfg.Release.Authorities); err != nil {
		return nil, misused("%v", err)
	}
	roots := map[[sha256.Size]byte]bool{}
	for _, a := range e.authorities {
		for _, r := range a.RootSPKI {
			roots[r] = true
		}
	}
	if len(e.authorities) < release.MinTimestamps || len(roots) < release.MinTimestamps {
		return nil, fmt.Errorf("evidence needs the stamps of %d independent authorities, %d are pinned: remembrancer tsa bootstrap NAME --url URL, and commit it", release.MinTimestamps, min(len(e.authorities), len(roots)))
	}
	return e, nil
}

func (w *world) exportBundle(v *action.Values) error {
	out := w.path(v.String("out"))
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fmt.Errorf("%s is there already: a bundle is made whole, in a folder of its own", v.String("out")))
	}
	e, err := w.openExport()
	if err != nil {
		return err
	}
	l, err := w.openLog(v)
	if err != nil {
		return err
	}
	ev, err := e.evidence(l, v.Args()[0])
	if err != nil {
		return err
	}
	folder, err := e.folder(v.String("files"))
	if err != nil {
		return err
	}
	artifacts, err := e.signedList(&ev, folder)
	if err != nil {
		return err
	}
	files, err := ev.Files()
	if err != nil {
		return failed("%v", err)
	}
	// What cannot be seen half made is made beside it, and renamed.
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(out), "."+filepath.Base(out)+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	if err := putAll(work, files); err != nil {
		return err
	}
	for _, s := range artifacts {
		if err := copyArtifact(filepath.Join(folder, filepath.FromSlash(s.Name)), filepath.Join(work, "artifacts", filepath.FromSlash(s.Name))); err != nil {
			return fmt.Errorf("artifact %s: %w", s.Name, err)
		}
	}
	report, err := e.stampBundle(work, "", files["SEAL"])
	if err != nil {
		return err
	}
	if err := os.Rename(work, out); err != nil {
		return err
	}
	w.note("%s: evidence for release %s, %d artifacts, sealed by %s; hand out the anchors by another way than the folder", v.String("out"), ev.Tag, len(artifacts), report.SealedBy().Format("2006-01-02 15:04:05 MST"))
	return w.sayAnchors(report)
}

// sayAnchors prints what a verifier needs from elsewhere.
func (w *world) sayAnchors(r release.BundleReport) error {
	var keys, roots []string
	for _, s := range r.Signers {
		keys = append(keys, string(s.Fingerprint))
	}
	for _, s := range r.Stamps {
		roots = append(roots, s.Root)
	}
	slices.Sort(keys)
	slices.Sort(roots)
	return w.sayJSON(map[string]any{"v": 1, "keys": slices.Compact(keys), "tsa_roots": slices.Compact(roots), "log_keys": []string{r.LogKey}})
}

// stampBundle has a seal in a bundle stamped by all authorities, and judges what
// became of it as a stranger without anchors would.
func (e *exporting) stampBundle(dir, folder string, seal []byte) (r release.BundleReport, err error) {
	tokens, err := tsa.Stamp(e.w.ctx, bytes.NewReader(seal), e.authorities, release.Quorum{}, nil, e.w.tsaOptions(0))
	if err != nil {
		return r, err
	}
	for _, t := range tokens {
		if err := putAll(dir, release.StampFiles(folder, t.Authority, t.Response, t.Verified)); err != nil {
			return r, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return r, err
	}
	defer root.Close()
	if r, err = release.VerifyBundle(root.FS(), release.Anchors{}, e.w.now()); err != nil {
		return r, err
	}
	if r.Verdict == release.Failed {
		for _, c := range r.Checks {
			if c.Status == judge.Fail {
				e.w.sayCheck(c)
			}
		}
		return r, failed("the evidence does not hold")
	}
	return r, nil
}

// evidence gathers what the repository and its log say about a release.
func (e *exporting) evidence(l *logFiles, name string) (ev release.BundleEvidence, err error) {
	cp, begun, err := l.head()
	if err != nil {
		return ev, err
	}
	if !begun {
		return ev, errors.New("the log has not begun: the receipt of a release gets there when it is published, see remembrancer publish")
	}
	leaves, err := ledger.Verify(l.read, cp.Body())
	if err != nil {
		return ev, failed("%v", err)
	}
	ev.Tag, ev.Repository = name, cp.Body().Origin
	key := name
	t, err := e.p.repo.Tag(name)
	if err == nil && !t.Annotated {
		return ev, nameOnly(name) // whether it has a receipt or not
	}
	if err == nil {
		key = strings.ReplaceAll(name, "/", "-")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return ev, err
	}
	at, line, findErr := findEntry(l.read, cp.Body(), key)
	switch {
	case findErr != nil && err == nil:
		return ev, fmt.Errorf("%w; a release has one after remembrancer release sign %s and remembrancer publish", findErr, name)
	case findErr != nil:
		return ev, fmt.Errorf("neither a tag nor a receipt: %w", findErr)
	case line.Receipt.Kind() != receipt.Release:
		return ev, failed("receipt %s is of kind %s: evidence is made of a release\nhint: remembrancer log prove %[1]s > receipt.tlog-proof, which remembrancer verify --proof checks offline, proves any receipt", name, line.Receipt.Kind())
	case err != nil: // a receipt was named
		var predicate struct {
			Tag struct {
				Name string `json:"name"`
			} `json:"vaultmesh_tag"`
		}
		if err := json.Unmarshal(line.Receipt.Predicate(), &predicate); err != nil {
			return ev, err
		}
		ev.Tag = predicate.Tag.Name
		if t, err = e.p.repo.Tag(ev.Tag); err != nil {
			return ev, err
		}
	}
	if !t.Annotated {
		return ev, nameOnly(ev.Tag)
	}
	ev.TagObject = t.Raw
	if ev.Commit, err = (&genesis{w: e.w, p: e.p}).git("cat-file", "commit", t.Commit.String()); err != nil {
		return ev, err
	}
	hashes, err := ledger.NewTree(leaves).Inclusion(cp.Body().Size, at)
	if err != nil {
		return ev, err
	}
	if err := e.addKey(&ev, line.Receipt.Issuer()); err != nil {
		return ev, err
	}
	ev.Proof = proof.Marshal(line.Line(), ev.Keys[0], at, hashes, cp.Note())
	ev.Policy = l.policy.Bytes()
	if t.Signature != "" {
		signed, err := release.SignedBy(e.trust.Keys, t.Payload, []byte(t.Signature), e.w.now())
		if err != nil {
			return ev, failed("tag %s: %v", ev.Tag, err)
		}
		return ev, e.addKey(&ev, signed.Fingerprint)
	}
	return ev, nil
}

func nameOnly(tag string) error {
	return fmt.Errorf("tag %s is a name only, with no object that can be shown: a release with evidence has an annotated tag, as remembrancer release tag makes it", tag)
}

func (e *exporting) addKey(ev *release.BundleEvidence, f openpgp.Fingerprint) error {
	k, ok := e.trust.Keys.Lookup(f)
	if !ok {
		return failed("key %s is no trust anchor of this repository", f)
	}
	if !slices.Contains(ev.Keys, k) {
		ev.Keys = append(ev.Keys, k)
	}
	return nil
}

// folder finds the files of a release.
func (e *exporting) folder(given string) (string, error) {
	if given != "" {
		return e.w.path(given), nil
	}
	root, err := os.OpenRoot(e.p.root)
	if err != nil {
		return "", err
	}
	defer root.Close()
	names, err := release.Artifacts(root.FS(), e.p.cfg.Signed())
	if err != nil {
		return "", fmt.Errorf("%w; or name the folder of the release's files with --files", err)
	}
	return filepath.Join(e.p.root, filepath.FromSlash(path.Dir(names[0]))), nil
}

// signedList reads the list of a release and its signature.
func (e *exporting) signedList(ev *release.BundleEvidence, folder string) (release.Sums, error) {
	var err error
	for _, f := range []struct {
		name string
		into *[]byte
	}{{release.SumsFile, &ev.Sums}, {release.SumsFile + ".asc", &ev.SumsBy}} {
		if *f.into, err = os.ReadFile(filepath.Join(folder, f.name)); err != nil {
			return nil, fmt.Errorf("%w: run remembrancer release sign %s, or download the release's files and give their folder with --files", err, ev.Tag)
		}
	}
	sums, err := release.ParseSums(release.SumsFile, ev.Sums)
	if err != nil {
		return nil, failed("%v", err)
	}
	signed, err := release.SignedBy(e.trust.Keys, ev.Sums, ev.SumsBy, e.w.now())
	if err != nil {
		return nil, failed("%s.asc: %v", release.SumsFile, err)
	}
	return sums, e.addKey(ev, signed.Fingerprint)
}

func (w *world) renewBundle(v *action.Values) error {
	dir := w.path(v.String("renew"))
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	e, err := w.openExport()
	if err != nil {
		return err
	}
	renewal, err := release.NewRenewal(root.FS(), w.now())
	if err != nil {
		return failed("%v", err)
	}
	done := false
	defer func() {
		if !done { // half a renewal would spoil what is whole
			_ = root.RemoveAll(renewal.Folder)
			_ = root.Remove(path.Dir(renewal.Folder)) // only when it is empty
		}
	}()
	if err := putAll(dir, map[string][]byte{renewal.Folder + "/SEAL": renewal.Seal}); err != nil {
		return err
	}
	report, err := e.stampBundle(dir, renewal.Folder, renewal.Seal)
	if err != nil {
		return err
	}
	done = true
	w.note("%s: renewed in %s; hand out the anchors by another way than the folder", v.String("renew"), renewal.Folder)
	return w.sayAnchors(report)
}

// putAll writes files, by their slashed paths, into a folder.
func putAll(dir string, files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := durable.Put(filepath.Join(dir, filepath.FromSlash(name)), files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyArtifact copies a regular file.
func copyArtifact(from, to string) error {
	in, err := openRegular(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Sync(), f.Close())
}

// fileDigest returns the SHA-256 of a regular file in hex.
func fileDigest(file string) (string, error) {
	f, err := openRegular(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
