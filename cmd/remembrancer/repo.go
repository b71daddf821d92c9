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
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/durable"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/publish"
)

// project is the repository a verb works on, with its configuration.
type project struct {
	repo   *gitrepo.Repo
	root   string
	cfg    config.Config
	layout covenant.Layout
}

// openProject finds the repository around the working directory and reads its
// configuration from the work tree.
func (w *world) openProject() (*project, error) {
	repo, err := gitrepo.Open(w.dir)
	if err != nil {
		return nil, err
	}
	p := &project{repo: repo, root: repo.Root()}
	if err := w.keepsOut(p.root); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(p.root, config.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: run remembrancer init", p.root, config.FileName)
	}
	if err != nil {
		return nil, err
	}
	if p.cfg, err = config.Parse(config.FileName, data); err != nil {
		return nil, misused("%v", err)
	}
	p.layout = covenant.Layout{Ops: p.cfg.Paths.Ops, Docs: p.cfg.Paths.Docs}
	return p, nil
}

// head is the tree that the repository's evidence is judged by.
type head struct {
	tree   covenant.Tree
	commit gitrepo.Hash // zero for a work tree
	ledger gitrepo.Hash // the commit whose history is the ledger's: commit, or the ledger branch's
	branch string       // short name, "" when detached
	where  string       // in words
}

// head returns the tree of a revision. Where nothing of the covenant was
// committed yet, the work tree is judged in its place, and where says so.
func (p *project) head(rev string) (*head, error) {
	h := &head{}
	h.branch = p.branchOf(rev)
	commit, err := p.repo.Resolve(rev)
	if err == nil {
		t, err := p.repo.TreeAt(commit)
		if err != nil {
			return nil, err
		}
		h.tree, h.commit, h.ledger, h.where = publish.Tree(t), commit, commit, "commit "+commit.String()[:12]
		if p.cfg.Publish.PublishRef != "" {
			over, tip, err := p.ledgerBranch()
			if err != nil {
				return nil, err
			}
			h.tree, h.ledger = publish.WithLedger(h.tree, over, p.layout), tip
		}
		_, err = h.tree.Blob(p.layout.Ledger(ledger.PolicyPath))
		if err == nil || rev != "HEAD" || !errors.Is(err, fs.ErrNotExist) {
			return h, nil
		}
	} else if rev != "HEAD" {
		return nil, err
	}
	return &head{tree: publish.WorkTree(p.root), branch: h.branch, where: "the work tree: the covenant's files are not committed yet"}, nil
}

// file returns the path of a file of the work tree to write to. A link that a
// commit brought along must not lead a write out of the repository.
func (p *project) file(name string) (string, error) {
	return action.ResolvePath(p.root, name)
}

// branchOf returns the branch that a revision is the tip of, as far as its name
// says so: a commit or tag that somebody looks back at is none.
func (p *project) branchOf(rev string) string {
	if rev == "HEAD" {
		return headBranch(p.repo)
	}
	for _, prefix := range []string{"refs/heads/", "refs/remotes/origin/", "origin/", ""} {
		if rev == prefix+p.cfg.Publish.Branch {
			return p.cfg.Publish.Branch
		}
	}
	return ""
}

// ledgerBranch returns the tree of the configured ledger branch, local or as
// last fetched from origin.
func (p *project) ledgerBranch() (covenant.Tree, gitrepo.Hash, error) {
	for _, ref := range []string{"refs/remotes/origin/" + p.cfg.Publish.PublishRef, "refs/heads/" + p.cfg.Publish.PublishRef} {
		if h, err := p.repo.Resolve(ref); err == nil {
			t, err := p.repo.TreeAt(h)
			if err != nil {
				return nil, gitrepo.Hash{}, err
			}
			return publish.Tree(t), h, nil
		}
	}
	return nil, gitrepo.Hash{}, fmt.Errorf("the ledger's branch %s is not here: git fetch origin %[1]s", p.cfg.Publish.PublishRef)
}

// origin returns the log's name: as configured, or as its policy says.
func (p *project) origin() (string, error) {
	if p.cfg.Origin != "" {
		return p.cfg.Origin, nil
	}
	h, err := p.head("HEAD")
	if err != nil {
		return "", err
	}
	trust, err := covenant.LoadTrust(h.tree, p.layout)
	if err != nil {
		return "", err
	}
	return trust.Policy.Origins()[0], nil
}

// deriveOrigin names a log after the repository's remote. Without one on a
// network the name is made unique: two folders of one name are two logs.
func (w *world) deriveOrigin(repo *gitrepo.Repo) (string, error) {
	if u, err := repo.RemoteURL("origin"); err == nil {
		if o := originOf(u); o != "" && checkpoint.CheckOrigin(o) == nil {
			return o, nil
		}
	}
	name := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '+' && r != '/' {
			return r
		}
		return '-'
	}, filepath.Base(repo.Root()))
	var unique [4]byte
	if _, err := io.ReadFull(w.rand, unique[:]); err != nil {
		return "", err
	}
	return fmt.Sprintf("local/%s-%x", name, unique), nil
}

// originOf turns the URL of a network remote into a schema-less one without
// credentials; "" for any other remote.
func originOf(u string) string {
	u = strings.TrimSuffix(strings.TrimSuffix(u, "/"), ".git")
	if scheme, rest, ok := strings.Cut(u, "://"); ok {
		if scheme == "file" {
			return ""
		}
		if _, after, ok := strings.Cut(rest, "@"); ok {
			rest = after
		}
		return rest
	}
	host, path, ok := strings.Cut(u, ":")
	if !ok || strings.ContainsAny(host, `/\`) || len(host) < 2 {
		return ""
	}
	if _, after, ok := strings.Cut(host, "@"); ok {
		host = after
	}
	return host + "/" + strings.TrimPrefix(path, "/")
}

// past returns the checkpoints of a commit's first-parent ancestors, newest
// first, each once. The history of a fork ends where its parent's begins, if the
// index document cites the parent's checkpoint there: a log may begin anew, but
// never in silence. parent is then the name of that log.
func (p *project) past(h *head, origin string) (past []covenant.Past, shallow bool, parent string, err error) {
	if h.ledger.IsZero() {
		return nil, false, "", nil
	}
	doc, err := h.tree.Blob(p.layout.Docs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, "", err
	}
	name := p.layout.Ledger(ledger.CheckpointPath)
	seen := map[gitrepo.Hash]bool{}
	for c, err := range p.repo.FirstParents(h.ledger) {
		if errors.Is(err, gitrepo.ErrShallow) {
			return past, true, "", nil
		}
		if err != nil {
			return nil, false, "", err
		}
		t, err := p.repo.TreeAt(c.Hash)
		if err != nil {
			return nil, false, "", err
		}
		blob, ok, err := t.BlobHash(name)
		if err != nil {
			return nil, false, "", err
		}
		if !ok || seen[blob] {
			continue
		}
		seen[blob] = true
		note, err := t.Read(blob)
		if err != nil {
			return nil, false, "", err
		}
		if b, err := bodyOf(note); err == nil && b.Origin != origin && bytes.Contains(doc, bytes.TrimSpace(note)) {
			return past, false, b.Origin, nil
		}
		past = append(past, covenant.Past{Commit: c.Hash.String(), Note: note})
	}
	return past, false, "", nil
}

// audit carries out the audit of a revision with all that this verifier knows.
func (w *world) audit(p *project, h *head, policyID string) (*covenant.Report, error) {
	origin, err := p.origin()
	if err != nil {
		return nil, err
	}
	// The name decides which history and which memory the ledger is held to: it
	// is the policy's, whatever the configuration says.
	if trust, err := covenant.LoadTrust(h.tree, p.layout); err == nil && !slices.Contains(trust.Policy.Origins(), origin) {
		return nil, misused("%s names log %s, its log policy is of %s: put the policy's name there", config.FileName, origin, strings.Join(trust.Policy.Origins(), ", "))
	}
	memory, err := w.memory(origin)
	if err != nil {
		return nil, err
	}
	opts := covenant.Options{Layout: p.layout, PolicyID: policyID, Badge: publish.Badge, Now: w.now()}
	var parent string
	if opts.History, opts.HistoryShallow, parent, err = p.past(h, origin); err != nil {
		return nil, err
	}
	if policyID == "" {
		opts.PolicyID = memory.PolicyID
	}
	if memory.Note != "" {
		opts.LastSeen = []byte(memory.Note)
		// Another branch may be older than what was seen of this one. Its ledger
		// is then a prefix, which the branch it comes from was checked for.
		if h.branch != p.cfg.Publish.Branch && olderThan(h.tree, p.layout, memory.Note) {
			opts.LastSeen = nil
		}
	}
	r := covenant.Audit(h.tree, opts)
	if last := len(r.Findings) - 1; parent != "" && last >= 0 && r.Findings[last].Status == covenant.Pass.String() {
		r.Findings[last].Detail += "; begun as a fork of " + parent
	}
	r.FirstUse = policyID == ""
	return r, nil
}

func olderThan(t covenant.Tree, l covenant.Layout, note string) bool {
	seen, err1 := bodyOf([]byte(note))
	data, err := t.Blob(l.Ledger(ledger.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	now, err2 := bodyOf(data)
	return err == nil && err1 == nil && err2 == nil && now.Size < seen.Size
}

// bodyOf reads an unverified note, to compare, not to believe.
func bodyOf(note []byte) (checkpoint.Body, error) {
	text, _, ok := strings.Cut(string(note), "\n\n")
	if !ok {
		return checkpoint.Body{}, errors.New("not a note")
	}
	return checkpoint.ParseBody([]byte(text + "\n"))
}

// stateDir is the one place outside of repositories that the program writes to.
func (w *world) stateDir() (string, error) {
	for _, env := range []struct{ name, sub string }{
		{"REMEMBRANCER_STATE", ""},
		{"XDG_STATE_HOME", "remembrancer"},
		{"LOCALAPPDATA", "remembrancer"},
		{"HOME", filepath.Join(".local", "state", "remembrancer")},
	} {
		if v := w.getenv(env.name); v != "" {
			if !filepath.IsAbs(v) {
				return "", misused("%s is %q, want an absolute path", env.name, v)
			}
			return filepath.Join(v, env.sub), nil
		}
	}
	return "", errors.New("no place for state: set REMEMBRANCER_STATE to a directory")
}

// keepsOut refuses a state directory in a work tree: what is in a work tree gets
// committed, keys too. Below .git nothing does.
func (w *world) keepsOut(root string) error {
	dir, err := w.stateDir()
	if err != nil {
		return err
	}
	// Two places without a relative path are on different volumes.
	rel, err := filepath.Rel(resolved(root), resolved(dir))
	first, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
	if outside := err != nil || !filepath.IsLocal(rel); outside || first == ".git" {
		return nil
	}
	return misused("the state directory %s is in the work tree %s, where keys do not belong: set REMEMBRANCER_STATE to one outside", dir, root)
}

// resolved returns a path without symbolic links, as far as it exists.
func resolved(path string) string {
	if r, err := filepath.EvalSymlinks(path); err == nil {
		return r
	}
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	return filepath.Join(resolved(parent), filepath.Base(path))
}

// state opens the state directory, making it first.
func (w *world) state() (*durable.Dir, error) {
	path, err := w.stateDir()
	if err != nil {
		return nil, err
	}
	return durable.CreateDir(path)
}

// memory is what this verifier remembers of one log: trust on first use.
type memory struct {
	Origin   string `json:"origin"`
	PolicyID string `json:"policy_id"`
	Note     string `json:"note"`
}

func memoryPath(origin string) string { return "seen/" + shortHash(origin) + ".json" }

func (w *world) memory(origin string) (memory, error) {
	d, err := w.state()
	if err != nil {
		return memory{}, err
	}
	defer d.Close()
	data, err := d.Get(memoryPath(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, err
	}
	var m memory
	if err := json.Unmarshal(data, &m); err != nil {
		return memory{}, fmt.Errorf("%s: %w", memoryPath(origin), err)
	}
	return m, nil
}

// remember keeps what an audit accepted. Only what passed is remembered, and a
// size never goes back.
func (w *world) remember(p *project, r *covenant.Report) error {
	if r.Status() != covenant.Pass {
		return nil
	}
	origin, err := p.origin()
	if err != nil {
		return err
	}
	was, err := w.memory(origin)
	if err != nil {
		return err
	}
	m := memory{Origin: origin, PolicyID: r.PolicyID, Note: string(r.Checkpoint.Note())}
	if m.Note == "" || was.Note != "" && r.Checkpoint.Body().Size < mustSize(was.Note) {
		m.Note = was.Note
	}
	if m == was {
		return nil
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	d, err := w.state()
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Put(memoryPath(origin), append(data, '\n'))
}

func mustSize(note string) int64 {
	b, err := bodyOf([]byte(note))
	if err != nil {
		return -1
	}
	return b.Size
}

func shortHash(s string) string { return digest([]byte(s))[:16] }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// headBranch returns the short name of the branch that HEAD is on, "" when it is
// on none.
func headBranch(repo *gitrepo.Repo) string {
	ref, err := repo.HeadBranch()
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(ref, "refs/heads/")
}
