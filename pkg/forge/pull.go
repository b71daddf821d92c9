package forge

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // G505: the names of git's objects are SHA-1
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// The limits of what is read of one repository.
const (
	maxBlob        = 8 << 20 // bytes of one file
	maxTreeEntries = 400_000
	maxList        = 10_000 // reviews, check runs, statuses or runs of one commit
)

// Repository reads one repository of a forge: pull requests, what was posted
// about commits, and git's objects. Answers are parsed into types that hold only
// what was checked; an answer that lacks a field is an error, never a zero value.
type Repository struct {
	rest *REST
	name string // owner/name
}

// Repository names a repository, as owner/name.
func (r *REST) Repository(name string) (*Repository, error) {
	owner, repo, ok := strings.Cut(name, "/")
	if !ok || owner == "" || repo == "" || strings.Contains(repo, "/") {
		return nil, fmt.Errorf("repository %q: want owner/name", name)
	}
	return &Repository{r, name}, nil
}

// Name returns owner/name.
func (r *Repository) Name() string { return r.name }

// User is an account. The zero value stands for one that was deleted.
type User struct {
	ID    int64
	Login string
}

// Pull is a pull request as the forge states it now.
type Pull struct {
	Number  int64
	Open    bool
	Author  User
	Head    gitrepo.Hash
	BaseRef string // name of the branch it is to be merged into
	// Merge is the commit that merging it made, or for an open one the commit
	// that merging it would make; zero when the forge knows none.
	Merge gitrepo.Hash
	// Mergeable is nil while the forge has not worked it out, and in lists.
	Mergeable *bool
	MergedAt  time.Time // zero when it was not merged
	MergedBy  User      // zero in lists
}

type wireUser struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
}

func (u *wireUser) user() User {
	if u == nil {
		return User{}
	}
	return User(*u)
}

type wirePull struct {
	Number int64     `json:"number"`
	State  string    `json:"state"`
	User   *wireUser `json:"user"`
	Head   struct {
		SHA gitrepo.Hash `json:"sha"`
	} `json:"head"`
	Base struct {
		Ref string `json:"ref"`
	} `json:"base"`
	Merge     *gitrepo.Hash `json:"merge_commit_sha"`
	Mergeable *bool         `json:"mergeable"`
	MergedAt  *time.Time    `json:"merged_at"`
	MergedBy  *wireUser     `json:"merged_by"`
}

func (w wirePull) pull() (Pull, error) {
	if w.Number < 1 || w.State != "open" && w.State != "closed" || w.Head.SHA.IsZero() || w.Base.Ref == "" {
		return Pull{}, errors.New("the answer is no pull request: it lacks number, state, head or base")
	}
	p := Pull{
		Number: w.Number, Open: w.State == "open", Author: w.User.user(), Head: w.Head.SHA, BaseRef: w.Base.Ref,
		Mergeable: w.Mergeable, MergedBy: w.MergedBy.user(),
	}
	if w.Merge != nil {
		p.Merge = *w.Merge
	}
	if w.MergedAt != nil {
		p.MergedAt = *w.MergedAt
	}
	return p, nil
}

// path makes a path of the API below the repository.
func (r *Repository) path(elements ...string) string {
	owner, name, _ := strings.Cut(r.name, "/")
	return Path(append([]string{"repos", owner, name}, elements...)...)
}

// get reads one object.
func (r *Repository) get(ctx context.Context, path string, into any) error {
	a, err := r.rest.Get(ctx, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// list reads a list whole.
func list[W, T any](ctx context.Context, r *Repository, path, key string, parse func(W) (T, error)) ([]T, error) {
	raw, err := r.rest.GetPages(ctx, path, key, maxList)
	if err != nil {
		return nil, err
	}
	all := make([]T, 0, len(raw))
	for i, one := range raw {
		var w W
		if err := json.Unmarshal(one, &w); err != nil {
			return nil, fmt.Errorf("GET %s: element %d: %w", path, i, err)
		}
		t, err := parse(w)
		if err != nil {
			return nil, fmt.Errorf("GET %s: element %d: %w", path, i, err)
		}
		all = append(all, t)
	}
	return all, nil
}

// Pull reads a pull request. Asking makes the forge work out whether it can be
// merged, so a second answer may know what the first did not.
func (r *Repository) Pull(ctx context.Context, number int64) (Pull, error) {
	at := r.path("pulls", strconv.FormatInt(number, 10))
	var w wirePull
	if err := r.get(ctx, at, &w); err != nil {
		return Pull{}, err
	}
	p, err := w.pull()
	if err == nil && p.Number != number {
		err = fmt.Errorf("found pull request %d", p.Number)
	}
	if err != nil {
		return Pull{}, fmt.Errorf("GET %s: %w", at, err)
	}
	return p, nil
}

// PullsOf lists the pull requests that a commit belongs to.
func (r *Repository) PullsOf(ctx context.Context, commit gitrepo.Hash) ([]Pull, error) {
	return list(ctx, r, r.path("commits", commit.String(), "pulls"), "", wirePull.pull)
}

// Review is one person's review of a pull request. An approval that was taken
// back is still listed, with another state.
type Review struct {
	ID     int64
	User   User
	State  string // APPROVED, CHANGES_REQUESTED, COMMENTED, DISMISSED or PENDING
	Commit gitrepo.Hash
	At     time.Time // zero for one that was not sent yet
}

type wireReview struct {
	ID     int64         `json:"id"`
	User   *wireUser     `json:"user"`
	State  string        `json:"state"`
	Commit *gitrepo.Hash `json:"commit_id"`
	At     *time.Time    `json:"submitted_at"`
}

func (w wireReview) review() (Review, error) {
	if w.ID < 1 || w.State == "" {
		return Review{}, errors.New("it is no review: it lacks id or state")
	}
	v := Review{ID: w.ID, User: w.User.user(), State: w.State}
	if w.Commit != nil {
		v.Commit = *w.Commit
	}
	if w.At != nil {
		v.At = *w.At
	}
	return v, nil
}

// Reviews lists the reviews of a pull request, oldest first.
func (r *Repository) Reviews(ctx context.Context, number int64) ([]Review, error) {
	all, err := list(ctx, r, r.path("pulls", strconv.FormatInt(number, 10), "reviews"), "", wireReview.review)
	slices.SortStableFunc(all, func(a, b Review) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID)) })
	return all, err
}

// MayWrite reports whether an account may push to the repository.
func (r *Repository) MayWrite(ctx context.Context, login string) (bool, error) {
	at := r.path("collaborators", login, "permission")
	var w struct {
		Permission string `json:"permission"`
	}
	if err := r.get(ctx, at, &w); err != nil {
		return false, err
	}
	switch w.Permission {
	case "admin", "write": // maintain counts as write here, triage as read
		return true, nil
	case "read", "none":
		return false, nil
	}
	return false, fmt.Errorf("GET %s: found permission %q, want admin, write, read or none", at, w.Permission)
}

// InTeam reports whether an account is an active member of an organisation's
// team. The forge answers alike for one who is no member and for a team that the
// token may not see, so the team is asked for first; not seeing it is an error.
func (r *Repository) InTeam(ctx context.Context, org, team, login string) (bool, error) {
	var is struct {
		ID int64 `json:"id"`
	}
	if err := r.get(ctx, Path("orgs", org, "teams", team), &is); err != nil {
		return false, fmt.Errorf("team @%s/%s: %w; a token that may read the organisation's members is needed", org, team, err)
	}
	if is.ID < 1 {
		return false, fmt.Errorf("team @%s/%s: the answer is no team", org, team)
	}
	var w struct {
		State string `json:"state"`
	}
	err := r.get(ctx, Path("orgs", org, "teams", team, "memberships", login), &w)
	if IsNotFound(err) {
		return false, nil
	}
	return w.State == "active", err
}

// Branch returns the commit that a branch is at.
func (r *Repository) Branch(ctx context.Context, name string) (gitrepo.Hash, error) {
	at := r.path("branches", name)
	var w struct {
		Commit struct {
			SHA gitrepo.Hash `json:"sha"`
		} `json:"commit"`
	}
	if err := r.get(ctx, at, &w); err != nil {
		return gitrepo.Hash{}, err
	}
	if w.Commit.SHA.IsZero() {
		return gitrepo.Hash{}, fmt.Errorf("GET %s: the answer names no commit", at)
	}
	return w.Commit.SHA, nil
}

// CheckRun is a check that an App posted about a commit: for GitHub Actions, a
// job of a workflow's run.
type CheckRun struct {
	ID         int64 // later ones are greater
	Name       string
	Done       bool
	Conclusion string // success, failure, skipped, …; "" while it is not done
	App        int64
	Suite      int64     // of the workflow's run
	Completed  time.Time // zero while it is not done
}

type wireCheckRun struct {
	ID         int64      `json:"id"`
	Name       string     `json:"name"`
	Status     string     `json:"status"`
	Conclusion *string    `json:"conclusion"`
	Completed  *time.Time `json:"completed_at"`
	App        *struct {
		ID int64 `json:"id"`
	} `json:"app"`
	Suite *struct {
		ID int64 `json:"id"`
	} `json:"check_suite"`
}

func (w wireCheckRun) checkRun() (CheckRun, error) {
	c := CheckRun{ID: w.ID, Name: w.Name, Done: w.Status == "completed"}
	if w.ID < 1 || w.Name == "" || w.Status == "" || c.Done && (w.Conclusion == nil || w.Completed == nil) {
		return CheckRun{}, errors.New("it is no check run: it lacks id, name, status or conclusion")
	}
	if c.Done {
		c.Conclusion, c.Completed = *w.Conclusion, *w.Completed
	}
	if w.App != nil {
		c.App = w.App.ID
	}
	if w.Suite != nil {
		c.Suite = w.Suite.ID
	}
	return c, nil
}

// CheckRuns lists all check runs of a commit, those of earlier attempts too.
func (r *Repository) CheckRuns(ctx context.Context, commit gitrepo.Hash) ([]CheckRun, error) {
	return list(ctx, r, r.path("commits", commit.String(), "check-runs")+"?filter=all", "check_runs", wireCheckRun.checkRun)
}

// Status is a commit status. Anybody who may push can post one of any name.
type Status struct {
	ID      int64 // later ones are greater
	Context string
	State   string // error, failure, pending or success
	At      time.Time
}

type wireStatus struct {
	ID      int64     `json:"id"`
	Context string    `json:"context"`
	State   string    `json:"state"`
	At      time.Time `json:"created_at"`
}

func (w wireStatus) status() (Status, error) {
	if w.ID < 1 || w.Context == "" || w.State == "" {
		return Status{}, errors.New("it is no status: it lacks id, context or state")
	}
	return Status(w), nil
}

// Statuses lists all statuses of a commit.
func (r *Repository) Statuses(ctx context.Context, commit gitrepo.Hash) ([]Status, error) {
	return list(ctx, r, r.path("commits", commit.String(), "statuses"), "", wireStatus.status)
}

// Run is a run of a workflow.
type Run struct {
	ID         int64 // later ones are greater
	Suite      int64
	Path       string // of the workflow's file
	Event      string
	Done       bool
	Conclusion string // "" while it is not done
}

type wireRun struct {
	ID         int64   `json:"id"`
	Suite      int64   `json:"check_suite_id"`
	Path       string  `json:"path"`
	Event      string  `json:"event"`
	Status     string  `json:"status"`
	Conclusion *string `json:"conclusion"`
}

func (w wireRun) run() (Run, error) {
	if w.ID < 1 || w.Suite < 1 || w.Path == "" || w.Event == "" || w.Status == "" {
		return Run{}, errors.New("it is no run: it lacks id, check suite, path, event or status")
	}
	// A run of a required workflow says behind an @ which version it is of.
	file, _, _ := strings.Cut(w.Path, "@")
	run := Run{ID: w.ID, Suite: w.Suite, Path: file, Event: w.Event, Done: w.Status == "completed"}
	if run.Done && w.Conclusion != nil {
		run.Conclusion = *w.Conclusion
	}
	return run, nil
}

// Runs lists the runs of workflows at a commit.
func (r *Repository) Runs(ctx context.Context, commit gitrepo.Hash) ([]Run, error) {
	return list(ctx, r, r.path("actions", "runs")+"?head_sha="+commit.String(), "workflow_runs", wireRun.run)
}

// RunOfSuite returns the run that a check suite is of; false when there is none.
func (r *Repository) RunOfSuite(ctx context.Context, suite int64) (Run, bool, error) {
	runs, err := list(ctx, r, r.path("actions", "runs")+"?check_suite_id="+strconv.FormatInt(suite, 10), "workflow_runs", wireRun.run)
	for _, run := range runs {
		if run.Suite == suite {
			return run, true, err
		}
	}
	return Run{}, false, err
}

// Jobs returns the ids of the check runs that a run's own jobs are, of all its
// attempts. Others in the same suite were posted through the API by whoever had
// a token of the same App.
func (r *Repository) Jobs(ctx context.Context, run int64) (map[int64]bool, error) {
	ids, err := list(ctx, r, r.path("actions", "runs", strconv.FormatInt(run, 10), "jobs")+"?filter=all", "jobs", func(w struct {
		CheckRun string `json:"check_run_url"`
	},
	) (int64, error) {
		id, err := strconv.ParseInt(path.Base(w.CheckRun), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("check_run_url %q: want the URL of a check run", w.CheckRun)
		}
		return id, nil
	})
	if err != nil {
		return nil, err
	}
	jobs := make(map[int64]bool, len(ids))
	for _, id := range ids {
		jobs[id] = true
	}
	return jobs, nil
}

// Commit is a commit as the forge states it.
type Commit struct {
	Tree    gitrepo.Hash
	Parents []gitrepo.Hash
}

// Commit reads a commit.
func (r *Repository) Commit(ctx context.Context, commit gitrepo.Hash) (Commit, error) {
	at := r.path("git", "commits", commit.String())
	var w struct {
		SHA  gitrepo.Hash `json:"sha"`
		Tree struct {
			SHA gitrepo.Hash `json:"sha"`
		} `json:"tree"`
		Parents []struct {
			SHA gitrepo.Hash `json:"sha"`
		} `json:"parents"`
	}
	if err := r.get(ctx, at, &w); err != nil {
		return Commit{}, err
	}
	if w.SHA != commit || w.Tree.SHA.IsZero() {
		return Commit{}, fmt.Errorf("GET %s: the answer is not that commit", at)
	}
	c := Commit{Tree: w.Tree.SHA}
	for _, p := range w.Parents {
		c.Parents = append(c.Parents, p.SHA)
	}
	return c, nil
}

// Tree is a tree of a repository, to be judged without a checkout. Its listing
// was hashed again, folder by folder, to the name of the tree: an answer that
// was cut short, or that lacks an entry, is never judged. Contents are read when
// they are asked for, and hashed too. It is safe for concurrent use.
type Tree struct {
	ctx   context.Context // of the reads to come
	repo  *Repository
	all   map[string]treeEntry
	paths []string // of all, sorted

	mu    sync.Mutex // guards blobs
	blobs map[gitrepo.Hash][]byte
}

type treeEntry struct {
	mode string // in octal, as the forge writes it
	hash gitrepo.Hash
}

type wireTree struct {
	SHA       gitrepo.Hash `json:"sha"`
	Truncated bool         `json:"truncated"`
	Tree      []struct {
		Path string        `json:"path"`
		Mode string        `json:"mode"`
		SHA  *gitrepo.Hash `json:"sha"`
	} `json:"tree"`
}

const folderMode = "040000"

// Tree reads the listing of a tree, by the tree's own name. The context is that
// of all reads of contents, too.
func (r *Repository) Tree(ctx context.Context, tree gitrepo.Hash) (*Tree, error) {
	t := &Tree{ctx: ctx, repo: r, all: map[string]treeEntry{}, blobs: map[gitrepo.Hash][]byte{}}
	if tree == gitrepo.EmptyTree {
		return t, nil
	}
	if err := t.read(tree, ""); err != nil {
		return nil, fmt.Errorf("tree %s of %s: %w", tree, r.name, err)
	}
	t.paths = slices.Sorted(maps.Keys(t.all))
	return t, nil
}

// read takes in what is below a folder: all at once, or where that is too much
// for one answer, a folder at a time.
func (t *Tree) read(tree gitrepo.Hash, folder string) error {
	found, truncated, err := t.list(tree, "?recursive=1")
	if err != nil {
		return err
	}
	if truncated {
		if found, truncated, err = t.list(tree, ""); err != nil {
			return err
		}
		if truncated {
			return fmt.Errorf("the forge cuts the listing of folder %q short: it cannot be judged", folder)
		}
		if err := verify(tree, found, false); err != nil {
			return err
		}
		for _, p := range slices.Sorted(maps.Keys(found)) {
			if e := found[p]; e.mode == folderMode {
				if err := t.read(e.hash, path.Join(folder, p)); err != nil {
					return err
				}
				delete(found, p)
			}
		}
	} else if err := verify(tree, found, true); err != nil {
		return err
	}
	for p, e := range found {
		if e.mode != folderMode {
			t.all[path.Join(folder, p)] = e
		}
	}
	if len(t.all) > maxTreeEntries {
		return fmt.Errorf("more than %d files", maxTreeEntries)
	}
	return nil
}

// list is one answer: entries by their path below the tree.
func (t *Tree) list(tree gitrepo.Hash, query string) (found map[string]treeEntry, truncated bool, err error) {
	at := t.repo.path("git", "trees", tree.String()) + query
	a, err := t.repo.rest.Get(t.ctx, at)
	if err == nil {
		found, truncated, err = parseListing(tree, a.Body)
	}
	if err != nil {
		return nil, false, fmt.Errorf("GET %s: %w", at, err)
	}
	return found, truncated, nil
}

func parseListing(tree gitrepo.Hash, body []byte) (found map[string]treeEntry, truncated bool, err error) {
	var w wireTree
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, false, err
	}
	if w.SHA != tree {
		return nil, false, fmt.Errorf("found tree %s", w.SHA)
	}
	found = make(map[string]treeEntry, len(w.Tree))
	for _, e := range w.Tree {
		_, twice := found[e.Path]
		if twice || e.SHA == nil || !goodPath(e.Path) {
			return nil, false, fmt.Errorf("entry %q is no path of a file, or comes twice", e.Path)
		}
		found[e.Path] = treeEntry{e.Mode, *e.SHA}
	}
	return found, w.Truncated, nil
}

// goodPath refuses names that git refuses to check out.
func goodPath(p string) bool {
	for name := range strings.SplitSeq(p, "/") {
		if name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.ContainsRune(name, 0) {
			return false
		}
	}
	return true
}

// verify hashes the folders of a listing and demands that they have the names
// which the listing gives them, up to the tree's own. deep says that the listing
// holds what is in its folders.
func verify(tree gitrepo.Hash, found map[string]treeEntry, deep bool) error {
	folders := map[string]map[string]treeEntry{"": {}}
	for p, e := range found {
		if e.mode == folderMode && deep {
			folders[p] = map[string]treeEntry{}
		}
		if !deep && strings.Contains(p, "/") {
			return fmt.Errorf("entry %q is not in the folder that was asked for", p)
		}
	}
	for p, e := range found {
		dir, name := "", p
		if i := strings.LastIndexByte(p, '/'); i >= 0 {
			dir, name = p[:i], p[i+1:]
		}
		in, ok := folders[dir]
		if !ok {
			return fmt.Errorf("entry %q is in a folder that is not listed", p)
		}
		in[name] = e
	}
	for dir, entries := range folders {
		want := tree
		if dir != "" {
			want = found[dir].hash
		}
		if got := hashTree(entries); got != want {
			return fmt.Errorf("the listing of folder %q hashes to %s, want %s: it is not whole", dir, got, want)
		}
	}
	return nil
}

// hashTree names a tree object as git does: entries in the order of their
// names, those of folders ending with a slash.
func hashTree(entries map[string]treeEntry) gitrepo.Hash {
	key := func(name string) string {
		if entries[name].mode == folderMode {
			return name + "/"
		}
		return name
	}
	names := slices.SortedFunc(maps.Keys(entries), func(a, b string) int { return cmp.Compare(key(a), key(b)) })
	var b bytes.Buffer
	for _, name := range names {
		e := entries[name]
		fmt.Fprintf(&b, "%s %s\x00", strings.TrimLeft(e.mode, "0"), name)
		b.Write(e.hash[:])
	}
	return hashObject("tree", b.Bytes())
}

func hashObject(kind string, data []byte) gitrepo.Hash {
	h := sha1.New() //nolint:gosec // G401: git's own name of the object
	fmt.Fprintf(h, "%s %d\x00", kind, len(data))
	h.Write(data)
	return gitrepo.Hash(h.Sum(nil))
}

// ID returns what names a file's content and kind; "" for an absent path.
func (t *Tree) ID(p string) string {
	e, ok := t.all[p]
	if !ok {
		return ""
	}
	return e.mode + " " + hex.EncodeToString(e.hash[:])
}

// Walk visits every file below a folder, in the order of their paths.
func (t *Tree) Walk(folder string, fn func(path string, mode fs.FileMode, id string) error) error {
	below := t.paths
	if folder != "" {
		if _, file := t.all[folder]; file {
			below = []string{folder}
		} else {
			from, _ := slices.BinarySearch(t.paths, folder+"/")
			to, _ := slices.BinarySearch(t.paths, folder+"0") // the character after the slash
			below = t.paths[from:to]
		}
	}
	for _, p := range below {
		if err := fn(p, t.all[p].fileMode(), t.all[p].hash.String()); err != nil {
			return err
		}
	}
	return nil
}

func (e treeEntry) fileMode() fs.FileMode {
	switch e.mode {
	case "100644":
		return 0o644
	case "100755":
		return 0o755
	case "120000":
		return fs.ModeSymlink
	}
	return fs.ModeIrregular // a submodule, or what git no longer writes
}

// Blob reads a file of at most 8 MiB.
func (t *Tree) Blob(p string) ([]byte, error) {
	e, ok := t.all[p]
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	case !e.fileMode().IsRegular():
		return nil, fmt.Errorf("%s has mode %s, want a regular file", p, e.mode)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if data, ok := t.blobs[e.hash]; ok {
		return data, nil
	}
	at := t.repo.path("git", "blobs", e.hash.String())
	var w struct {
		Encoding string `json:"encoding"`
		Content  string `json:"content"`
	}
	if err := t.repo.get(t.ctx, at, &w); err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	data := []byte(w.Content)
	if w.Encoding == "base64" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(w.Content, "\n", "")); err != nil {
			return nil, fmt.Errorf("%s: GET %s: %w", p, at, err)
		}
	}
	switch {
	case len(data) > maxBlob:
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", p, len(data), maxBlob)
	case hashObject("blob", data) != e.hash:
		return nil, fmt.Errorf("%s: GET %s: the content hashes to %s", p, at, hashObject("blob", data))
	}
	t.blobs[e.hash] = data
	return data, nil
}
