package publish

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

// Incident is what trusted code read from the forge about a commit of the branch
// that should not have come there as it did. It becomes an incident receipt,
// once for each commit.
type Incident struct {
	Commit gitrepo.Hash
	At     time.Time // when it happened, as the forge states it; zero is unknown
	Title  string
	// Observed is kept in the receipt beside the commit.
	Observed map[string]any
}

const (
	// maxExamined is how many commits one publication examines: each takes a few
	// requests to the forge.
	maxExamined = 200
	// maxLine is how far back the last examination is looked for.
	maxLine = 100_000
)

// examination is what a run knows about the commits of the branch. It is made
// once in a run for each commit, however many rounds that takes.
type examination struct {
	seen      map[gitrepo.Hash]bool
	incidents []*receipt.Receipt
	err       error // the forge could not be asked: this run asks no more
}

// examine returns the receipts of incidents that the log lacks, and one that says
// up to where the branch was examined. The latter is kept in the log, where
// nobody can move it: a commit that came while a publication was under way, or
// while the forge could not be asked, is examined by the next one.
//
// It is appended only where something else is, so that an examination alone
// makes no commit.
func (p *Publisher) examine(ctx context.Context, v *view, res *Result) (incidents []*receipt.Receipt, done *receipt.Receipt, err error) {
	if p.Examine == nil {
		return nil, nil, nil
	}
	since, unknown := p.unexamined(v)
	if unknown == nil && p.examined.err == nil {
		p.examined.err = p.ask(ctx, since.commits)
	}
	recorded := recordedIncidents(v.entries)
	for _, r := range p.examined.incidents {
		if !recorded[r.Subjects()[0].Commit] {
			incidents = append(incidents, r)
		}
	}
	res.Examined = len(p.examined.seen)
	if unknown = cmp.Or(unknown, p.examined.err); unknown != nil {
		res.Unexamined = unknown.Error()
		if !since.first {
			return incidents, nil, nil
		}
		// Where to begin is kept, so that what was not seen now is seen later.
		since.to, since.commits, since.left = since.from, nil, 0
	} else if since.left > 0 {
		res.Unexamined = fmt.Sprintf("%d commits older than the newest %d", since.left, maxExamined)
	}
	if since.to.IsZero() || since.from == since.to && !since.first {
		return incidents, nil, nil
	}
	c, err := p.Remote.Commit(since.to)
	if err != nil {
		return nil, nil, err
	}
	observed := map[string]any{
		"commit": c.Hash.String(), "examined": int64(len(since.commits)), "not_examined": int64(since.left), "examined_since": since.from.String(),
	}
	done, err = p.observed(receipt.Observed, c, time.Time{}, map[string]any{"vaultmesh_observed": observed})
	return incidents, done, err
}

// observed makes a receipt about a commit. Times that are not the forge's are
// the commit's own as far as they can be true, so that the same observation is
// the same receipt.
func (p *Publisher) observed(kind receipt.Kind, c gitrepo.Commit, at time.Time, predicate map[string]any) (*receipt.Receipt, error) {
	if at.IsZero() {
		at = c.Committer.When
	}
	if now := p.Now(); at.Year() < 2000 || at.After(now) {
		at = now
	}
	return receipt.New(receipt.Statement{
		Kind: kind, Issuer: p.Issuer.Fingerprint(), Issued: at,
		Subjects: []receipt.Subject{{Name: "commit", Commit: c.Hash.String()}}, Predicate: predicate,
	})
}

// ask asks about the commits that this run has not asked about yet.
func (p *Publisher) ask(ctx context.Context, commits []gitrepo.Hash) error {
	commits = slices.DeleteFunc(slices.Clone(commits), func(h gitrepo.Hash) bool { return p.examined.seen[h] })
	if len(commits) == 0 {
		return nil
	}
	found, err := p.Examine(ctx, commits)
	if err != nil {
		return err
	}
	for _, i := range found {
		c, err := p.Remote.Commit(i.Commit)
		if err != nil {
			return err
		}
		observed := maps.Clone(i.Observed)
		if observed == nil {
			observed = map[string]any{}
		}
		observed["commit"] = i.Commit.String()
		r, err := p.observed(receipt.Incident, c, i.At, map[string]any{"title": i.Title, "vaultmesh_observed": observed})
		if err != nil {
			return err
		}
		p.examined.incidents = append(p.examined.incidents, r)
	}
	if p.examined.seen == nil {
		p.examined.seen = map[gitrepo.Hash]bool{}
	}
	for _, h := range commits {
		p.examined.seen[h] = true
	}
	return nil
}

// span is a part of the branch's first-parent line.
type span struct {
	from, to gitrepo.Hash   // from is not part of it
	commits  []gitrepo.Hash // newest first, without the publisher's own
	left     int            // how many more there are, older ones
	first    bool           // the log holds no examination yet
}

// unexamined returns what came to the branch since the last examination. Where
// nothing was ever examined, that is what came since the last commit of the
// publisher, or where there is none, nothing: what was before the covenant could
// not go past it.
func (p *Publisher) unexamined(v *view) (span, error) {
	s := span{to: v.tips[p.Branch]}
	last, known := lastExamined(v.entries)
	s.from, s.first = last, !known
	n := 0
	for c, err := range p.Remote.FirstParents(s.to) {
		if err != nil {
			return s, err
		}
		if n++; c.Hash == last || s.first && n > maxLine {
			break
		}
		if n > maxLine {
			return s, fmt.Errorf("commit %s, up to which all was examined, is not among the last %d of %s", last, maxLine, short(p.Branch))
		}
		own, err := p.own(c)
		if err != nil {
			return s, err
		}
		if own && s.first {
			s.from = c.Hash
			break
		}
		if !own {
			s.commits = append(s.commits, c.Hash)
		}
	}
	if s.from.IsZero() {
		s.from, s.commits = s.to, nil
	}
	if s.left = max(0, len(s.commits)-maxExamined); s.left > 0 {
		s.commits = s.commits[:maxExamined]
	}
	return s, nil
}

// own says whether a commit is the publisher's: it says so, and changes nothing
// but ledger, status files and root line. What it calls itself is anybody's to
// write; what the others may hold is what the audit proves.
func (p *Publisher) own(c gitrepo.Commit) (bool, error) {
	if !Ours(c.Message) || len(c.Parents) != 1 {
		return false, nil
	}
	was, err := p.tree(c.Parents[0])
	if err != nil {
		return false, err
	}
	is, err := p.tree(c.Hash)
	if err != nil {
		return false, err
	}
	files := map[string][2]string{}
	for side, t := range []covenant.Tree{was, is} {
		if err := t.Walk("", func(path string, mode fs.FileMode, id string) error {
			both := files[path]
			both[side] = mode.String() + id
			files[path] = both
			return nil
		}); err != nil {
			return false, err
		}
	}
	for path, both := range files {
		switch {
		case both[0] == both[1]:
		case path == p.Layout.Docs:
			if ok, err := sameButRoot(was, is, path); !ok || err != nil {
				return false, err
			}
		case path != p.Layout.Ledger("policy") && strings.HasPrefix(path, p.Layout.Ledger("")), strings.HasPrefix(path, p.Layout.Status("")):
		default:
			return false, nil
		}
	}
	return true, nil
}

// sameButRoot says whether two index documents differ in nothing but their root.
func sameButRoot(was, is covenant.Tree, path string) (bool, error) {
	var bare [2][]byte
	for i, t := range []covenant.Tree{was, is} {
		doc, err := t.Blob(path)
		if errors.Is(err, fs.ErrNotExist) {
			doc, err = []byte(firstDocument), nil
		}
		if err != nil {
			return false, err
		}
		if bare[i], err = covenant.WithRoot(doc, checkpoint.Hash{}); err != nil {
			return false, nil //nolint:nilerr // a document that no root can be written to is not the publisher's
		}
	}
	return bytes.Equal(bare[0], bare[1]), nil
}

// about is what receipts of this file keep of the commit they are about.
type about struct {
	Observed *struct {
		Commit   string `json:"commit"`
		Examined *int64 `json:"examined"`
	} `json:"vaultmesh_observed"`
}

// lastExamined returns the commit up to which the log says that the branch was
// examined.
func lastExamined(entries []receipt.Entry) (gitrepo.Hash, bool) {
	for _, e := range slices.Backward(entries) {
		var a about
		if e.Receipt.Kind() != receipt.Observed || json.Unmarshal(e.Receipt.Predicate(), &a) != nil || a.Observed == nil || a.Observed.Examined == nil {
			continue
		}
		if h, err := gitrepo.ParseHash(a.Observed.Commit); err == nil {
			return h, true
		}
	}
	return gitrepo.Hash{}, false
}

// recordedIncidents returns the commits of which the log holds an incident that
// was observed.
func recordedIncidents(entries []receipt.Entry) map[string]bool {
	commits := map[string]bool{}
	for _, e := range entries {
		var a about
		if e.Receipt.Kind() == receipt.Incident && json.Unmarshal(e.Receipt.Predicate(), &a) == nil && a.Observed != nil {
			commits[a.Observed.Commit] = true
		}
	}
	return commits
}
