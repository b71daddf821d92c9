package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
)

const provenCommit = "A commit is released only when it is on the publish branch and the log of that branch, which must pass its audit, holds an observation of it " +
	"whose smoke report passes, and whose run, where one was observed, succeeded; and, where the log holds covenant receipts at all, one of this commit that passed. " +
	"Of several the last one counts. There is no way around it. A commit of the publisher itself, which changes nothing but the ledger, the status files and the index document, " +
	"is as good as the commit that it was made on."

var releaseTagVerb = verb{
	spec: action.Spec{
		Verb: "release tag", Summary: "make a signed tag of a proven commit", Args: "VERSION",
		Description: "Makes an annotated tag, signed by a trust anchor of the repository, before anything is pushed; git verify-tag accepts it. A tag that exists is never moved.\n\n" +
			provenCommit + "\n\n" +
			"Where the commit's message has [skip ci], as those of the publisher do, GitHub starts no workflow when its tag is pushed. Workflows of the release event, and of workflow_dispatch, run all the same.",
		Inputs: append([]action.Input{
			{Name: "rev", Default: "HEAD", Usage: "Commit to tag."},
			{Name: "message", Usage: "The tag's message; its name when left out."},
			{Name: "push", Kind: action.Bool, Usage: "Push the tag to the remote origin with git, after asking whether it is there."},
			policyIDInput,
		}, keyInputs()...),
		Exit:     "1 when the commit is not proven or not on the branch, when the tag exists, or when the key is no trust anchor.",
		Examples: []string{"remembrancer release tag v1.2.0", "remembrancer release tag 1.2.0 --push"},
	},
	run: runReleaseTag,
}

var releaseSignVerb = verb{
	spec: action.Spec{
		Name: "release-sign", Verb: "release sign", Summary: "sign and time-stamp a release, and upload what vouches for it", Args: "[TAG]",
		Description: "Signs the artifacts that release.artifacts names, as they lie in one folder: SHA256SUMS over all, a detached signature of each and of the list, and an RFC 3161 token of each pinned authority, " +
			"of each artifact and of the list's signature. Then it writes and signs the release's receipt, which goes into the ledger once it is committed to the publish branch. " +
			"All of it is checked with git, gpg, sha256sum and openssl.\n\n" +
			"The tag must lead to a proven commit. A tag that was pushed without a signature is not moved: its raw object becomes a file of the release, tag.raw or commit.raw, and is signed as the others are. " +
			"A tag that somebody else signed is refused.\n\n" +
			provenCommit + "\n\n" +
			"What is there already and holds is kept, also what an earlier run has uploaded; what differs is an error, and nothing is ever replaced. After a failure, run it again.",
		Inputs: append([]action.Input{
			{Name: "tag", Usage: "Tag of the release; TAG, or what the event says, when left out."},
			{Name: "dir", Kind: action.Path, Default: ".", Usage: "Folder that the patterns of release.artifacts begin at."},
			{Name: "upload", Kind: action.Bool, Usage: "Attach everything to the release of this tag on the forge, a draft too."},
			{Name: "repo", Usage: "Repository, as OWNER/NAME; the runner's, or that of the remote origin, when left out."},
			{Name: "api-url", Usage: "REST API of the forge; GitHub Enterprise has https://HOST/api/v3.", Env: "GITHUB_API_URL"},
			{Name: "token", Kind: action.Secret, Usage: "Token with contents: write, to upload with.", Env: "REMEMBRANCER_TOKEN", ActionDefault: "${{ github.token }}"},
			policyIDInput,
		}, keyInputs()...),
		Outputs: []action.Output{
			{Name: "tag", Usage: "Tag of the release."},
			{Name: "sums", Usage: "SHA-256 of SHA256SUMS, in hex."},
			{Name: "receipt", Usage: "Id of the release's receipt."},
			{Name: "uploaded", Usage: "Number of files that this run uploaded."},
		},
		Exit:     "1 when something is not as it must be: the commit, the tag, the key, a file in the place of another. 3 as well when an artifact is missing, no authority is pinned, or fewer answered than release.timestamps demands.",
		Examples: []string{"remembrancer release sign v1.2.0", "remembrancer release sign v1.2.0 --upload"},
	},
	run: runReleaseSign,
}

// trusted is what a publish branch proves, as it is known here.
type trusted struct {
	p       *project
	head    *head
	branch  string // the reference that it was read from
	trust   *covenant.Trust
	entries []receipt.Entry
}

// openTrusted audits the ledger of the publish branch: as last fetched from
// origin, for only what is there can be seen by others.
func (w *world) openTrusted(p *project, pinned string) (*trusted, error) {
	t := &trusted{p: p}
	for _, ref := range []string{"refs/remotes/origin/" + p.cfg.Publish.Branch, "refs/heads/" + p.cfg.Publish.Branch} {
		if _, err := p.repo.Resolve(ref); err == nil {
			t.branch = ref
			break
		}
	}
	if t.branch == "" {
		return nil, fmt.Errorf("the branch %s is not here: git fetch origin %[1]s; a workflow checks out with fetch-depth: 0", p.cfg.Publish.Branch)
	}
	var err error
	if t.head, err = p.head(t.branch); err != nil {
		return nil, err
	}
	audit, err := w.audit(p, t.head, pinned)
	if err != nil {
		return nil, err
	}
	if code := auditExit(audit); code != exitPass {
		var why []string
		for _, f := range audit.Failures() {
			why = append(why, fmt.Sprintf("  %d. %s: %s", f.Check, f.Name, f.Detail))
		}
		return nil, &status{code, fmt.Errorf("the ledger of %s does not pass its audit, so it proves nothing:\n%s\nremembrancer verify-audit --rev %[1]s says more", t.branch, strings.Join(why, "\n"))}
	}
	t.entries = audit.Entries
	t.trust, err = covenant.LoadTrust(t.head.tree, p.layout)
	return t, err
}

// prove says what proves a commit, or fails with all that is missing.
func (t *trusted) prove(commit gitrepo.Hash) (evidence []string, err error) {
	on, err := t.p.repo.IsAncestor(commit, t.head.commit)
	if err != nil {
		return nil, err
	}
	if !on {
		return nil, failed("commit %s is not on %s, which is at %s: merge it first; if it is merged, git fetch origin", commit, t.branch, t.head.commit)
	}
	judged, err := t.judged(commit)
	if err != nil {
		return nil, err
	}
	if judged != commit {
		evidence = append(evidence, fmt.Sprintf("commit %s changes only what the publisher derives: judged is %s", commit.String()[:12], judged))
	}
	smoke, smokeErr := t.observed(judged)
	covenants, covenantErr := t.covenants(judged)
	if err := errors.Join(smokeErr, covenantErr); err != nil {
		return nil, failed("commit %s is not proven, and nothing is signed for it:\n%w\nAfter the workflows of %s have run for it and the publisher has landed: git fetch origin", judged, err, t.p.cfg.Publish.Branch)
	}
	return append(evidence, smoke, covenants), nil
}

// judged returns the commit whose evidence counts for this one: itself, or for
// the publisher's own commits the nearest first parent that is none.
func (t *trusted) judged(commit gitrepo.Hash) (gitrepo.Hash, error) {
	for {
		c, err := t.p.repo.Commit(commit)
		if err != nil {
			return commit, err
		}
		if !publish.Ours(c.Message) || len(c.Parents) != 1 {
			return commit, nil
		}
		if c.Shallow {
			return commit, fmt.Errorf("parent of %s: %w; hint: git fetch --unshallow, or fetch-depth: 0", commit, gitrepo.ErrShallow)
		}
		derived, err := t.derived(c.Parents[0], commit)
		if err != nil || !derived {
			return commit, err
		}
		commit = c.Parents[0]
	}
}

// derived reports whether two commits differ in nothing but what the publisher
// writes. Whoever made the later one: it brings nothing that could be wrong.
func (t *trusted) derived(before, after gitrepo.Hash) (bool, error) {
	var files [2]map[string]gitrepo.Entry
	for i, h := range []gitrepo.Hash{before, after} {
		tree, err := t.p.repo.TreeAt(h)
		if err != nil {
			return false, err
		}
		files[i] = map[string]gitrepo.Entry{}
		if err := tree.Walk("", func(e gitrepo.Entry) error {
			l := t.p.layout
			ours := e.Path == l.Docs || strings.HasPrefix(e.Path, l.Status("")) || strings.HasPrefix(e.Path, l.Ledger(""))
			if !ours || e.Path == l.Ledger("policy") || e.Mode != gitrepo.Regular {
				files[i][e.Path] = e
			}
			return nil
		}); err != nil {
			return false, err
		}
	}
	return maps.Equal(files[0], files[1]), nil
}

// about returns the receipts of a kind that are about a commit, and whether the
// log has any of that kind. A later signature of a receipt is not another one.
func (t *trusted) about(kind receipt.Kind, commit gitrepo.Hash) (list []admitted, any bool) {
	seen := map[receipt.ID]bool{}
	for i, e := range t.entries {
		r := e.Receipt
		if r.Kind() != kind || seen[r.ID()] {
			continue
		}
		seen[r.ID()], any = true, true
		if slices.ContainsFunc(r.Subjects(), func(s receipt.Subject) bool { return s.Commit == commit.String() }) {
			list = append(list, admitted{i, r})
		}
	}
	return list, any
}

// admitted is a receipt at its place in the log.
type admitted struct {
	index int
	*receipt.Receipt
}

func (t *trusted) observed(commit gitrepo.Hash) (string, error) {
	list, _ := t.about(receipt.Observed, commit)
	if len(list) == 0 {
		return "", fmt.Errorf("  smoke: the log has no observation of it")
	}
	last := list[len(list)-1]
	wrong := func(format string, args ...any) (string, error) {
		return "", fmt.Errorf("  smoke: its last observation, #%d, %s", last.index, fmt.Sprintf(format, args...))
	}
	run := "no run was observed"
	if o := gjson.GetBytes(last.Predicate(), "vaultmesh_observed"); o.Get("run_id").Exists() {
		run = fmt.Sprintf("run %d, attempt %d: %s", o.Get("run_id").Int(), o.Get("run_attempt").Int(), o.Get("conclusion"))
		if o.Get("conclusion").String() != "success" {
			return wrong("is of a run that did not succeed: %s", run)
		}
	}
	report, ok := publish.Reported(last.Receipt)
	switch {
	case !ok:
		return wrong("has no smoke report")
	case report.Commit != commit.String():
		return wrong("has a report of commit %q", report.Commit)
	case report.Verdict != smoke.Pass:
		return wrong("reports %s, %d of %d", report.Verdict, report.Passed, report.Total)
	}
	return fmt.Sprintf("smoke: #%d reports %d of %d; %s", last.index, report.Passed, report.Total, run), nil
}

func (t *trusted) covenants(commit gitrepo.Hash) (string, error) {
	list, any := t.about(receipt.Covenant, commit)
	if !any {
		return "covenants: unclaimed, the log has no covenant receipt of any commit", nil
	}
	if len(list) == 0 {
		return "", fmt.Errorf("  covenants: the log has covenant receipts, and none of it")
	}
	last := list[len(list)-1]
	if result := last.Field("verificationResult"); result != "PASSED" {
		return "", fmt.Errorf("  covenants: its last receipt, #%d, says %q", last.index, result)
	}
	return fmt.Sprintf("covenants: #%d says PASSED", last.index), nil
}

// anchored refuses a key that the repository does not trust.
func (t *trusted) anchored(s openpgp.Signer) error {
	if _, known := t.trust.Keys.Lookup(s.Fingerprint()); !known {
		return failed("key %s is no trust anchor in %s of %s: sign with one that is", s.Fingerprint(), t.p.layout.Certs(), t.branch)
	}
	return nil
}

// signedBy returns the trust anchor that signed a tag, "" where nobody did.
func (t *trusted) signedBy(tag gitrepo.Tag, now time.Time) (openpgp.Fingerprint, error) {
	switch {
	case tag.Annotated && tag.Inner != tag.Name:
		return "", failed("tag %s leads to a tag object that is called %q: somebody renamed it", tag.Name, tag.Inner)
	case tag.Foreign:
		return "", failed("tag %s is signed, but not with OpenPGP: no trust anchor vouches for it", tag.Name)
	case tag.Signature == "":
		return "", nil
	}
	v, err := release.SignedBy(t.trust.Keys, tag.Payload, []byte(tag.Signature), now)
	if err != nil {
		return "", failed("the signature of tag %s does not hold: %w", tag.Name, err)
	}
	return v.Fingerprint, nil
}

var versionPattern = regexp.MustCompile(`^[0-9][0-9A-Za-z.+-]*$`)

// tagName returns the tag of a version, which may bear the tag's prefix.
func (p *project) tagName(version string) (string, error) {
	prefix := p.cfg.Release.TagPrefix
	bare := strings.TrimPrefix(version, prefix)
	if !versionPattern.MatchString(bare) || strings.Contains(bare, "..") || strings.HasSuffix(bare, ".") || strings.HasSuffix(bare, ".lock") {
		return "", misused("version %q: want one such as 1.2.0, or the tag %s1.2.0", version, prefix)
	}
	return prefix + bare, nil
}

// skipsCI are the words in a commit's message for which GitHub starts no
// workflow of a push, https://docs.github.com/en/actions/managing-workflow-runs/skipping-workflow-runs.
var skipsCI = regexp.MustCompile(`\[(skip ci|ci skip|no ci|skip actions|actions skip)\]|(?m:^skip-checks: *true *$)`)

func runReleaseTag(w *world, v *action.Values, _ *action.Runner) error {
	if len(v.Args()) != 1 {
		return misused("want one VERSION")
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	name, err := p.tagName(v.Args()[0])
	if err != nil {
		return err
	}
	commit, err := p.repo.Resolve(v.String("rev"))
	if err != nil {
		return err
	}
	t, err := w.openTrusted(p, pinned)
	if err != nil {
		return err
	}
	evidence, err := t.prove(commit)
	if err != nil {
		return err
	}
	switch tag, err := p.repo.Tag(name); {
	case err == nil:
		if by, err := t.signedBy(tag, w.now()); err != nil || by == "" || tag.Commit != commit {
			return failed("tag %s exists already, at commit %s, and is never moved: choose another version; if it was not pushed, git tag -d %[1]s removes it", name, tag.Commit)
		}
		w.note("tag %s is there already", name)
		return w.announceTag(p, tag, v.Bool("push"))
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	s, err := w.signer(v, p)
	if err != nil {
		return err
	}
	if err := t.anchored(s); err != nil {
		return err
	}
	if v.Bool("push") {
		there, err := w.asPerson(p, "ls-remote", "origin", "refs/tags/"+name)
		if err != nil {
			return err
		}
		if there != "" {
			return failed("tag %s exists already on origin (%s), and is never moved: git fetch origin tag %[1]s, or choose another version", name, strings.Fields(there)[0])
		}
	}
	opts := gitrepo.TagOptions{
		Message: v.String("message"), TaggerName: p.cfg.Publish.Author.Name, TaggerEmail: p.cfg.Publish.Author.Email, When: w.now(),
		Signer: func(payload []byte) (string, error) { return armoredSignature(w.ctx, s, payload) },
	}
	if opts.Message == "" {
		opts.Message = name
	}
	// Whose key signs is who tags.
	if ids := s.Public().UserIDs(); len(ids) > 0 {
		if who, mail, ok := strings.Cut(strings.TrimSuffix(ids[0], ">"), " <"); ok && !strings.ContainsAny(who+mail, "<>\n") {
			opts.TaggerName, opts.TaggerEmail = who, mail
		}
	}
	tag, err := p.repo.WriteTag(name, commit, opts)
	if errors.Is(err, gitrepo.ErrTagExists) {
		return failed("%w, and is never moved", err)
	}
	if err != nil {
		return err
	}
	if _, err := t.signedBy(tag, w.now()); err != nil {
		return err
	}
	for _, line := range evidence {
		w.say("   %s", action.Defang(line))
	}
	w.say("✅ tag %s of commit %s, signed by %s", name, commit, s.Public())
	return w.announceTag(p, tag, v.Bool("push"))
}

// announceTag pushes a tag, or says how.
func (w *world) announceTag(p *project, tag gitrepo.Tag, push bool) error {
	c, err := p.repo.Commit(tag.Commit)
	if err != nil {
		return err
	}
	if word := skipsCI.FindString(c.Message); word != "" {
		w.note("⚠️  the message of commit %s has %s: GitHub starts no workflow when this tag is pushed; make a release of it, or start the workflow by hand", tag.Commit.String()[:12], word)
	}
	if !push {
		w.say("git push origin %s", tag.Name)
		return nil
	}
	// Only this one, and without force: if it is there, the server refuses.
	ref := "refs/tags/" + tag.Name
	if _, err := w.asPerson(p, "push", "origin", ref+":"+ref); err != nil {
		return err
	}
	w.say("✅ pushed to origin")
	return nil
}

// asPerson runs git as the person who called: with their identity to the remote,
// and without the keys of this program.
func (w *world) asPerson(p *project, args ...string) (string, error) {
	cmd := exec.CommandContext(w.ctx, "git", args...)
	cmd.Dir, cmd.Env = p.root, append(w.childEnviron(), "GIT_TERMINAL_PROMPT=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// releasing is a release that is signed.
type releasing struct {
	w       *world
	t       *trusted
	tag     gitrepo.Tag
	subject release.Subject
	signer  openpgp.Signer
	signing release.Signing
	folder  string // of the artifacts, absolute
	names   []string
	forge   *forge.Repository // nil without upload
	remote  forge.Release
}

// releaseEvents are what may start a workflow that signs: none of them runs what
// a stranger proposed.
var releaseEvents = []string{"release", "workflow_dispatch", "push", "repository_dispatch"}

func runReleaseSign(w *world, v *action.Values, r *action.Runner) error {
	if event := w.getenv("GITHUB_EVENT_NAME"); r.InActions() && !slices.Contains(releaseEvents, event) || strings.HasPrefix(event, "pull_request") {
		return misused("event %s: a release is signed on one of %s", event, strings.Join(releaseEvents, ", "))
	}
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	p, err := w.openProject()
	if err != nil {
		return err
	}
	rel := &releasing{w: w}
	name, err := w.releaseTag(p, v, r)
	if err != nil {
		return err
	}
	if rel.tag, err = p.repo.Tag(name); err != nil {
		return fmt.Errorf("%w; git fetch origin tag %s", err, name)
	}
	if rel.t, err = w.openTrusted(p, pinned); err != nil {
		return err
	}
	evidence, err := rel.t.prove(rel.tag.Commit)
	if err != nil {
		return err
	}
	origin, err := p.origin()
	if err != nil {
		return err
	}
	rel.subject = release.Subject{Repository: origin, Tag: name, TagObject: rel.tag.Object.String(), Commit: rel.tag.Commit.String()}
	if rel.subject.SignedBy, err = rel.t.signedBy(rel.tag, w.now()); err != nil {
		return err
	}
	for _, line := range evidence {
		w.say("   %s", action.Defang(line))
	}
	if err := rel.prepare(v, r); err != nil {
		return err
	}
	return rel.run(r)
}

// releaseTag finds out which tag is released.
func (w *world) releaseTag(p *project, v *action.Values, r *action.Runner) (string, error) {
	given := v.String("tag")
	switch args := v.Args(); {
	case len(args) > 1, len(args) == 1 && given != "":
		return "", misused("want one TAG")
	case len(args) == 1:
		given = args[0]
	case given == "" && r.InActions():
		e, err := r.Event()
		if err != nil {
			return "", err
		}
		given, _ = strings.CutPrefix(e.Ref, "refs/tags/")
		if e.Name == "release" {
			payload, err := e.Payload()
			if err != nil {
				return "", err
			}
			given = gjson.GetBytes(payload, "release.tag_name").String()
		}
		if given == e.Ref {
			given = ""
		}
	}
	if given == "" {
		return "", misused("want the TAG of the release")
	}
	name, err := p.tagName(given)
	if err == nil && name != given {
		err = misused("tag %q: want one that begins with %q, as release.tag-prefix says", given, p.cfg.Release.TagPrefix)
	}
	return name, err
}

// prepare gathers all that signing takes, so that what is missing is said before
// anything is written.
func (rel *releasing) prepare(v *action.Values, r *action.Runner) (err error) {
	w, p := rel.w, rel.t.p
	quorum, err := release.ParseQuorum(p.cfg.Release.Timestamps)
	if err != nil {
		return misused("%v", err)
	}
	authorities, err := release.Authorities(rel.t.head.tree, tsaFolder(p.layout))
	if err != nil {
		return err
	}
	if authorities, err = release.Select(authorities, p.cfg.Release.Authorities); err != nil {
		return misused("%v", err)
	}
	if len(authorities) == 0 {
		return release.ErrNoAuthority
	}
	root, err := os.OpenRoot(w.path(v.String("dir")))
	if err != nil {
		return err
	}
	defer root.Close()
	artifacts, err := release.Artifacts(root.FS(), p.cfg.Signed())
	if err != nil {
		return err
	}
	folder := path.Dir(artifacts[0])
	for _, a := range artifacts {
		if path.Dir(a) != folder {
			return misused("the artifacts %s and %s lie in two folders: a release is downloaded as one, so build them into one", artifacts[0], a)
		}
		rel.names = append(rel.names, path.Base(a))
	}
	rel.folder = filepath.Join(root.Name(), filepath.FromSlash(folder))
	if rel.signer, err = w.signer(v, p); err != nil {
		return err
	}
	if err := rel.t.anchored(rel.signer); err != nil {
		return err
	}
	rel.signing = release.Signing{
		Keys: rel.t.trust.Keys, Signer: rel.signer, Authorities: authorities, Quorum: quorum, Now: w.now,
		Stamp: func(ctx context.Context, a release.Authority, data []byte) ([]byte, error) {
			t, err := tsa.Ask(ctx, bytes.NewReader(data), a, w.tsaOptions(time.Minute))
			return t.Response, err
		},
		Made: func(name string) { w.note("wrote %s", action.Defang(name)) },
	}
	for _, a := range authorities {
		if a.Development {
			w.note("⚠️  authority %s is one for development: its time proves nothing to others", a.Name)
		}
	}
	if v.Bool("upload") {
		return rel.connect(v, r)
	}
	return nil
}

// connect finds the release on the forge.
func (rel *releasing) connect(v *action.Values, r *action.Runner) error {
	name, host, err := rel.w.forgeRepo(v, r)
	if err != nil {
		return err
	}
	base := v.String("api-url")
	if base == "" && host != "" && host != "github.com" {
		return misused("the remote origin is on %s: say where its API is, as --api-url https://%[1]s/api/v3", host)
	}
	if v.String("token") == "" {
		return errors.New("no token to upload with: set REMEMBRANCER_TOKEN to one with contents: write")
	}
	api, err := forge.NewREST(base, v.String("token"), forge.RESTOptions{})
	if err != nil {
		return misused("%v", err)
	}
	if rel.forge, err = api.Repository(name); err != nil {
		return misused("%v", err)
	}
	rel.remote, err = rel.forge.Release(rel.w.ctx, rel.tag.Name)
	if forge.IsNotFound(err) {
		return fmt.Errorf("%w\n%s has no release of tag %s, or the token may not see it: gh release create %[3]s --verify-tag", err, name, rel.tag.Name)
	}
	if err != nil {
		return err
	}
	// A draft may be of a tag that nobody pushed: the forge would then make one of
	// its own, without a signature.
	object, err := rel.forge.TagObject(rel.w.ctx, rel.tag.Name)
	if err == nil && object != rel.tag.Object {
		return failed("tag %s names %s here, and %s in %s: one of them is not what was released", rel.tag.Name, rel.tag.Object, object, name)
	}
	if forge.IsNotFound(err) {
		return fmt.Errorf("%w\nthe tag is not in %s: git push origin %s", err, name, rel.tag.Name)
	}
	return err
}

// maxEvidence bounds one file of evidence, in bytes.
const maxEvidence = 16 << 20

func (rel *releasing) run(r *action.Runner) error {
	w := rel.w
	dir, err := durable.OpenDir(rel.folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	rel.signing.Dir = dir
	if err := rel.keepTag(dir); err != nil {
		return explainRelease(err)
	}
	if rel.forge != nil {
		if err := rel.recall(dir); err != nil {
			return err
		}
	}
	done, err := rel.signing.Run(w.ctx, rel.names)
	if err != nil {
		return explainRelease(err)
	}
	rec, err := rel.record(done)
	if err != nil {
		return err
	}
	sent := 0
	if rel.forge != nil {
		if sent, err = rel.upload(dir, done, rec); err != nil {
			return explainRelease(err)
		}
	}
	for name, value := range map[string]string{
		"tag": rel.tag.Name, "sums": digest(done.Sums.Bytes()), "receipt": rec.ID().String(), "uploaded": fmt.Sprint(sent),
	} {
		if err := r.SetOutput(name, value); err != nil {
			return err
		}
	}
	rel.say(done, rec, sent)
	if r.InActions() {
		for _, name := range done.Files { // what root in a container leaves behind, the runner cannot clean up
			if err := giveToOwnerOf(w.getenv("GITHUB_WORKSPACE"), filepath.Join(rel.folder, name)); err != nil {
				return err
			}
		}
		return r.Summary(fmt.Sprintf("### release-sign\n\n%s: %d artifacts, %d files, SHA256SUMS `%s`, receipt `%s`, %d uploaded\n",
			action.EscapeMarkdown(rel.tag.Name), len(rel.names), len(done.Files), digest(done.Sums.Bytes()), rec.ID(), sent))
	}
	return nil
}

// keepTag writes the raw object of a tag that nobody signed beside the
// artifacts, as one of them. git hash-object -t tag, or commit, gives its id.
func (rel *releasing) keepTag(dir *durable.Dir) error {
	if rel.subject.SignedBy != "" {
		return nil
	}
	name := "commit.raw"
	if rel.tag.Annotated {
		name = "tag.raw"
	}
	rel.w.note("⚠️  tag %s was made without a signature and is not moved: %s is signed in its place", rel.tag.Name, name)
	if !slices.Contains(rel.names, name) {
		rel.names = append(rel.names, name)
		slices.Sort(rel.names)
	}
	switch was, err := dir.Get(name); {
	case err == nil && !bytes.Equal(was, rel.tag.Raw):
		return &release.TakenError{Name: name, Err: fmt.Errorf("it is not object %s", rel.tag.Object)}
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return dir.Put(name, rel.tag.Raw)
}

// receiptNames are the receipt and its signature by this key: their paths in the
// work tree by the names under which a release has them.
func (rel *releasing) receiptNames() map[string]string {
	base := strings.ReplaceAll(rel.tag.Name, "/", "-") + ".receipt"
	at := rel.t.p.layout.Receipt(string(receipt.Release) + "/" + base)
	sig := "." + string(rel.signer.Fingerprint()) + ".asc"
	return map[string]string{base: at, base + sig: at + sig}
}

// recall fetches what an earlier run has uploaded and is not here: signatures
// and tokens are other bytes each time they are made, and a runner forgets. What
// was fetched is judged like everything else that is there already.
func (rel *releasing) recall(dir *durable.Dir) error {
	assets, err := rel.forge.Assets(rel.w.ctx, rel.remote)
	if err != nil {
		return err
	}
	wanted := rel.signing.Names(rel.names)
	receipts := rel.receiptNames()
	for _, a := range assets {
		place, isReceipt := receipts[a.Name]
		if !a.Whole || !isReceipt && !slices.Contains(wanted, a.Name) {
			continue
		}
		put := func(data []byte) error { return dir.Put(a.Name, data) }
		_, err := dir.Get(a.Name)
		if isReceipt {
			var file string
			if file, err = rel.t.p.file(place); err != nil {
				return err
			}
			_, err = os.Lstat(file)
			put = func(data []byte) error { return durable.Put(file, data, 0o644) }
		}
		if !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			continue
		}
		data, err := rel.forge.Download(rel.w.ctx, a, maxEvidence)
		if err != nil {
			return err
		}
		if err := put(data); err != nil {
			return err
		}
		rel.w.note("%s is on the release already", action.Defang(a.Name))
	}
	return nil
}

// record writes the release's receipt, unless it is there.
func (rel *releasing) record(done release.Signed) (*receipt.Receipt, error) {
	p := rel.t.p
	made, err := done.Receipt(rel.subject, rel.signer.Fingerprint(), rel.w.now())
	if err != nil {
		return nil, err
	}
	file, err := p.file(p.layout.Receipt(made.File()))
	if err != nil {
		return nil, err
	}
	switch data, err := os.ReadFile(file); {
	case err == nil:
		was, err := receipt.Parse(data)
		if err != nil {
			return nil, failed("%s: %w", p.layout.Receipt(made.File()), err)
		}
		same := func(r *receipt.Receipt) string {
			return gjson.GetBytes(r.Predicate(), "vaultmesh_tag").Raw + gjson.GetBytes(r.Predicate(), "purl").Raw
		}
		if was.File() != made.File() || !slices.Equal(was.Subjects(), made.Subjects()) || same(was) != same(made) {
			return nil, failed("%s is there already and is of another release: receipts are never changed", p.layout.Receipt(made.File()))
		}
		made = was
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return made, rel.w.putReceipt(p, made, rel.signer)
}

// upload attaches everything to the release.
func (rel *releasing) upload(dir *durable.Dir, done release.Signed, rec *receipt.Receipt) (int, error) {
	var files []forge.File
	add := func(name string, get func() ([]byte, error)) error {
		data, err := get()
		if err != nil {
			return err
		}
		f := forge.NewFile(name, data)
		f.Open = func() (io.ReadCloser, error) { // artifacts need not all be in memory
			data, err := get()
			return io.NopCloser(bytes.NewReader(data)), err
		}
		files = append(files, f)
		return nil
	}
	for _, name := range done.Files {
		if err := add(name, func() ([]byte, error) { return dir.Get(name) }); err != nil {
			return 0, err
		}
	}
	receipts := rel.receiptNames()
	for _, name := range slices.Sorted(maps.Keys(receipts)) {
		file, err := rel.t.p.file(receipts[name])
		if err != nil {
			return 0, err
		}
		if err := add(name, func() ([]byte, error) { return os.ReadFile(file) }); err != nil {
			return 0, err
		}
	}
	sent, err := rel.forge.Attach(rel.w.ctx, rel.remote, files)
	for _, name := range sent {
		rel.w.note("uploaded %s", action.Defang(name))
	}
	return len(sent), err
}

func (rel *releasing) say(done release.Signed, rec *receipt.Receipt, sent int) {
	w := rel.w
	by := "signed by " + string(rel.subject.SignedBy)
	if rel.subject.SignedBy == "" {
		by = "not signed itself"
	}
	w.say("✅ release %s: tag of commit %s, %s", rel.tag.Name, rel.tag.Commit, by)
	for _, s := range done.Sums {
		w.say("   %s  %s", s.Hex(), action.Defang(s.Name))
	}
	for _, t := range done.Tokens {
		w.say("   signature of SHA256SUMS stamped %s by %s", t.Verified.Time.Format(time.RFC3339), t.Authority)
	}
	w.say("   receipt %s", rec.ID())
	if rel.forge != nil {
		w.say("   %d files uploaded, %d were there", sent, len(done.Files)+2-sent)
	}
	w.note("next: commit %s* to %s, so that the publisher appends it", rel.t.p.layout.Receipt(rec.File()), rel.t.p.cfg.Publish.Branch)
}

// explainRelease gives an error its exit status.
func explainRelease(err error) error {
	var taken *release.TakenError
	var differs *forge.DiffersError
	if errors.As(err, &taken) || errors.As(err, &differs) {
		return &status{exitFail, err}
	}
	return err
}
