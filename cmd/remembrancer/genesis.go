package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/archive"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/release"
	"github.com/vaultmesh/remembrancer/pkg/tsa"
)

var genesisSealVerb = verb{
	spec: action.Spec{
		Verb: "genesis seal", Summary: "seal a commit: digests of all it holds, signed and stamped",
		Description: "Writes GENESIS, GENESIS.yaml, dist/genesis.tar.gz and its .sha256, which are the same bytes on any machine, then the archive's signature, and one " +
			"RFC 3161 token of each pinned authority for the archive and for the signature. Commit all of them.\n\n" +
			"What is there already is kept, so that running it again after a failure adds what is missing. A genesis is sealed once: another one in its place is refused.",
		Inputs: append([]action.Input{
			{Name: "rev", Default: "HEAD", Usage: "Commit to seal."},
			{Name: "tag", Usage: "Tag to seal, in place of a commit."},
			{Name: "development", Kind: action.Bool, Usage: "Say in the genesis that its key is one for development."},
		}, keyInputs()...),
		Exit:     "3 as well when fewer authorities answered than are demanded: run it again.",
		Examples: []string{"remembrancer genesis seal --tag v1.0.0"},
	},
	run: sealGenesis,
}

var genesisVerifyVerb = verb{
	spec: action.Spec{
		Verb: "genesis verify", Summary: "verify the genesis of this repository",
		Description: "Computes everything again from the blobs of the sealed commit, and verifies signature and timestamps by the trust anchors and authorities " +
			"that the repository pins. Of the genesis's own files, those that are committed are judged; only those that are not are taken from the work tree. What is missing fails.",
		Inputs: []action.Input{
			{Name: "rev", Default: "HEAD", Usage: "Commit whose genesis, trust anchors and history are judged."},
			policyIDInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the verdict as JSON.", CLIOnly: true},
		},
	},
	run: verifyGenesis,
}

// genesis is a repository whose genesis is sealed or judged.
type genesis struct {
	w           *world
	p           *project
	head        *head
	trust       *covenant.Trust
	authorities []release.Authority
	origin      string
}

func (w *world) openGenesis(rev string) (*genesis, error) {
	p, err := w.openProject()
	if err != nil {
		return nil, err
	}
	g := &genesis{w: w, p: p}
	if g.head, err = p.head(rev); err != nil {
		return nil, err
	}
	if g.trust, err = covenant.LoadTrust(g.head.tree, p.layout); err != nil {
		return nil, err
	}
	if g.authorities, err = release.Authorities(g.head.tree, path.Join(p.layout.Certs(), release.AuthorityFolder)); err != nil {
		return nil, err
	}
	g.origin, err = p.origin()
	return g, err
}

// commit returns a commit's tree and object.
func (g *genesis) commit(id string) (archive.Source, archive.Commit, error) {
	h, err := gitrepo.ParseHash(id)
	if err != nil {
		return nil, archive.Commit{}, err
	}
	t, err := g.p.repo.TreeAt(h)
	if errors.Is(err, gitrepo.ErrMissingObject) {
		return nil, archive.Commit{}, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	if err != nil {
		return nil, archive.Commit{}, err
	}
	raw, err := g.git("cat-file", "commit", id)
	if err != nil {
		return nil, archive.Commit{}, err
	}
	c, err := archive.ParseCommit(raw)
	if err == nil && c.ID() != id {
		err = fmt.Errorf("commit %s: git gave the object %s", id, c.ID())
	}
	return source{publish.Tree(t), t}, c, err
}

// tag returns the object that a tag names, and the commit that this leads to.
func (g *genesis) tag(name string) (object, commit string, err error) {
	t, err := g.p.repo.Tag(name)
	if err != nil {
		return "", "", err
	}
	if t.Annotated && t.Inner != name {
		return "", "", fmt.Errorf("tag %s: its object bears the name %q", name, t.Inner)
	}
	return t.Object.String(), t.Commit.String(), nil
}

// git asks git for what the repository's objects alone decide.
func (g *genesis) git(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(g.w.ctx, "git", args...)
	cmd.Dir, cmd.Env = g.p.root, append(g.w.childEnviron(), "GIT_NO_REPLACE_OBJECTS=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// read returns a file of the genesis: as committed, else of the work tree.
func (g *genesis) read(name string) ([]byte, error) {
	data, err := g.head.tree.Blob(name)
	if errors.Is(err, fs.ErrNotExist) {
		return g.workFile(name)
	}
	return data, err
}

func (g *genesis) workFile(name string) ([]byte, error) {
	root, err := os.OpenRoot(g.p.root)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(name)
}

// judge carries out the checks.
func (g *genesis) judge() judge.Verdict {
	return judge.Sum(release.VerifyGenesis(release.GenesisEvidence{
		Read: g.read, Repository: g.origin, Commit: g.commit, Tag: g.tag, Keys: g.trust.Keys, Authorities: g.authorities, Now: g.w.now(),
		Ancestor: func(id string) (bool, error) {
			h, err := gitrepo.ParseHash(id)
			if err != nil {
				return false, err
			}
			return g.p.repo.IsAncestor(h, g.head.commit)
		},
	}), nil)
}

// say prints a line for each check, with its evidence.
func (g *genesis) say(v judge.Verdict) {
	for _, c := range v.Checks {
		switch c.Status {
		case judge.Pass:
			g.w.say("%s %s: %s", c.Mark(), c.Claim, action.Defang(c.Detail))
		case judge.Fail:
			g.w.say("%s not so: %s", c.Mark(), c.Claim)
		case judge.Unclaimed:
			g.w.say("%s %s", c.Mark(), action.Defang(c.Detail))
		default:
			g.w.say("%s not judged: %s: %s", c.Mark(), c.Claim, action.Defang(c.Detail))
		}
		for _, f := range c.Findings {
			text := f.Message
			if f.Path != "" {
				text = f.Path + ": " + text
			}
			if f.Warning {
				text = "⚠️  " + text
			}
			if f.Fix != "" {
				text += ": " + f.Fix
			}
			g.w.say("%s", indent(action.Defang(text)))
		}
		for _, e := range c.Evidence {
			g.w.say("%s", indent(action.Defang(e)))
		}
	}
}

func verifyGenesis(w *world, v *action.Values, _ *action.Runner) error {
	pinned, err := pinnedPolicy(v)
	if err != nil {
		return err
	}
	g, err := w.openGenesis(v.String("rev"))
	if err != nil {
		return err
	}
	if pinned != "" && g.trust.ID() != pinned {
		return failed("the trust state of %s has the policy id %s, pinned is %s", g.head.where, g.trust.ID(), pinned)
	}
	verdict := g.judge()
	if v.Bool("json") {
		if err := w.sayJSON(verdict); err != nil {
			return err
		}
	} else {
		g.say(verdict)
		trust := "as pinned"
		if pinned == "" {
			trust = "believed on the repository's own word, not pinned"
		}
		w.say("%s  genesis of %s; policy %s %s", strings.ToUpper(verdict.Status.String()), g.origin, g.trust.ID()[:16], trust)
	}
	return quietly(verdictExit(verdict.Status))
}

func sealGenesis(w *world, v *action.Values, _ *action.Runner) error {
	if v.Given("rev") && v.String("tag") != "" {
		return misused("--rev and --tag are both given: want one")
	}
	g, err := w.openGenesis("HEAD")
	if err != nil {
		return err
	}
	if g.head.commit.IsZero() {
		return errors.New("a genesis seals a commit that holds the trust anchors, and they are not committed yet")
	}
	authorities, quorum, err := g.witnesses()
	if err != nil {
		return err
	}
	s, err := w.signer(v, g.p)
	if err != nil {
		return err
	}
	if _, known := g.trust.Keys.Lookup(s.Fingerprint()); !known {
		return failed("key %s is no trust anchor under %s: sign with one that is, or make it one first", s.Fingerprint(), g.p.layout.Certs())
	}
	settings := release.GenesisSettings{
		Repository: g.origin, Operator: s.Fingerprint(), Trust: g.p.layout.Certs(), Authorities: authorities, Quorum: quorum, Development: v.Bool("development") || s.Public().Development(),
	}
	id, err := g.sealed(v, &settings)
	if err != nil {
		return err
	}
	src, c, err := g.commit(id)
	if err != nil {
		return err
	}
	made, err := release.NewGenesis(src, c, settings)
	if err != nil {
		return err
	}
	return g.seal(made, s, authorities)
}

// sealed returns the commit that is to be sealed: as asked for, or the one that
// was sealed before, or HEAD.
func (g *genesis) sealed(v *action.Values, s *release.GenesisSettings) (commit string, err error) {
	rev := v.String("rev")
	s.Tag = v.String("tag")
	if !v.Given("rev") && s.Tag == "" {
		data, err := g.read(release.GenesisFile)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if was, err := release.ParseGenesis(data); err == nil {
			rev, s.Tag, s.Development = was.Commit, was.Tag, was.Development
		}
	}
	if s.Tag == "" {
		h, err := g.p.repo.Resolve(rev)
		return h.String(), err
	}
	object, commit, err := g.tag(s.Tag)
	if object != commit {
		s.TagObject = object
	}
	return commit, err
}

// seal writes a genesis and what vouches for it. Every file is either the same
// whenever it is made, or kept once it is there, so that a run goes on where
// another one was cut off.
func (g *genesis) seal(made release.Genesis, s openpgp.Signer, authorities []release.Authority) error {
	files, err := made.Written()
	if err != nil {
		return err
	}
	for _, f := range files {
		for _, read := range []func(string) ([]byte, error){g.head.tree.Blob, g.workFile} {
			switch was, err := read(f.Name); {
			case err == nil && !bytes.Equal(was, f.Data):
				return failed("%s is there already and is of another genesis: a repository is sealed once, and remembrancer genesis verify judges it", f.Name)
			case err != nil && !errors.Is(err, fs.ErrNotExist):
				return err
			}
		}
	}
	for _, f := range files {
		if err := g.put(f.Name, func() ([]byte, error) { return f.Data, nil }); err != nil {
			return err
		}
	}
	data, err := made.Archive()
	if err != nil {
		return err
	}
	asc := release.GenesisArchive + ".asc"
	if err := g.put(asc, func() ([]byte, error) {
		packet, err := s.Sign(g.w.ctx, data)
		return openpgp.Armor(packet), err
	}); err != nil {
		return err
	}
	signature, err := g.read(asc)
	if err != nil {
		return err
	}
	for _, a := range authorities {
		for _, f := range []struct {
			name string
			data []byte
		}{{release.GenesisArchive, data}, {asc, signature}} {
			if err := g.put(f.name+"."+a.Name+".tsr", func() ([]byte, error) { return g.w.stamp(a, f.data) }); err != nil {
				if g.w.ctx.Err() != nil {
					return err
				}
				// Another authority may be enough; the verdict says so.
				g.w.note("⚠️  %s: %s", a.Name, action.Defang(err.Error()))
				break
			}
		}
	}
	// What was written is judged before anybody relies on it, as a stranger would.
	verdict := g.judge()
	g.say(verdict)
	if verdict.Status != judge.Pass {
		return fmt.Errorf("the genesis is not complete: what is there is kept, run remembrancer genesis seal again")
	}
	g.w.say("✅ %s is sealed at commit %s", g.origin, made.Commit)
	g.w.note("next: git add -f %s %s %s* && git commit; publish the digest of gzip -dc %[3]s | sha256sum where others can see it", release.GenesisText, release.GenesisFile, release.GenesisArchive)
	return nil
}

// put makes a file unless it is there.
func (g *genesis) put(name string, make func() ([]byte, error)) error {
	switch _, err := g.read(name); {
	case err == nil:
		g.w.note("%s is there already", name)
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	data, err := make()
	if err != nil {
		return err
	}
	p, err := g.p.file(name)
	if err != nil {
		return err
	}
	if err := durable.Put(p, data, 0o644); err != nil {
		return err
	}
	g.w.say("%s", name)
	return nil
}

// witnesses returns the authorities that are to stamp, and how many must.
func (g *genesis) witnesses() ([]release.Authority, release.Quorum, error) {
	if len(g.authorities) == 0 {
		return nil, release.Quorum{}, release.ErrNoAuthority
	}
	chosen, err := release.Select(g.authorities, g.p.cfg.Release.Authorities)
	if err != nil {
		return nil, release.Quorum{}, misused("%v", err)
	}
	quorum, err := release.ParseQuorum(g.p.cfg.Release.Timestamps)
	if err != nil {
		return nil, release.Quorum{}, misused("%v", err)
	}
	return chosen, quorum, nil
}

// stamp asks an authority for a token, which comes back verified.
func (w *world) stamp(a release.Authority, data []byte) ([]byte, error) {
	t, err := tsa.Ask(w.ctx, bytes.NewReader(data), a, w.tsaOptions(0))
	return t.Response, err
}
