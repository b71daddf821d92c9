// Package guard judges a change from outside: it asks the forge what would be
// merged, who approved it and what judged it, and never runs, checks out or
// configures itself from anything that the change brings along.
//
// # Where it runs
//
// In the trusted plane, with a token that can only read (contents, pull
// requests, actions, checks, statuses). A job for pull_request_target runs the
// default branch's copy of its workflow, whatever the change does to that file.
// Of its types, opened, reopened, synchronize, ready_for_review and edited are
// needed: edited is what a change of the base branch causes. A job for
// merge_group runs the queued commit's copy; a change enters the queue only
// through this check, so that copy is the base's or was approved.
//
// Other events are refused by name. pull_request and pull_request_review run the
// change's own copy, which could say anything; workflow_run, issue_comment and
// workflow_dispatch are trusted, but their result is not posted at the change's
// head. Hence an approval that comes after the guard has run does not call it
// again: whoever approves runs the failed job again, and it reads everything
// anew (a workflow that also has the type labeled is called by a label). Nor
// does an approval that is taken back later: the rules of the branch should
// demand the review of code owners too, and dismiss stale ones.
//
// # What is read
//
// The event's payload says which change, and which head. All else is asked now,
// of exact commits: the pull request must be open and at that head, otherwise a
// newer run judges it; the base is where the base branch is now, after
// retargeting too; the merge result is the forge's test merge, whose parents
// must be exactly that base and that head. The forge works it out when asked, so
// it is asked again a few times. A change with conflicts has no merge result and
// cannot be judged. Of a queued commit, the base is the one that the queue says
// it was built on, and must be among its first parents; the head is that of the
// pull request that the queue's branch names.
//
// # What is demanded
//
//   - guard/ledger, guard/receipts, guard/names, guard/kinds: checks 9, 10, 11 and 13
//     of package covenant, on base and merge result
//   - guard/owned: check 12: what decides the gates is unchanged, or a code
//     owner approved this very head
//   - guard/sources: no required name was posted at the head by anything but
//     one unchanged (or approved) workflow
//   - guard/run: the run that judged the head is of the base's workflow, and
//     each required job in it succeeded. A run that has not ended is not judged:
//     the check is unclaimed, and it is the forge that holds the merge until
//     the required checks succeed.
//
// What decides the gates is what the base's configuration lists, and always its
// workflows, its CODEOWNERS and the configuration itself.
//
// # Approval
//
// CODEOWNERS is the base's (.github, the root, docs: the first that is there).
// The last pattern that matches a path names its owners; a path without owners
// cannot be approved. An owner has approved when the last review of that account
// that takes a side approves, was given at exactly this head, and the account
// may write to the repository and is not the author. Teams are asked for their
// members, and a team that cannot be read is an error; addresses of mail name
// nobody. In a queue that squashes, what lands has no parent at the approved
// head, so each owned file must be the very one of that head.
package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/judge"
)

// The bounds of asking again: the forge works out a test merge in a few seconds.
const (
	mergeTries = 8
	mergePause = 2 * time.Second
	runPause   = 15 * time.Second
	maxQueued  = 250 // first parents between a queued commit and its base
)

// Change is a change that could be merged, as the forge states it now.
type Change struct {
	Pull forge.Pull
	// Event is pull_request_target or merge_group.
	Event string
	// Base is the commit that the change is judged by, Merge the one that would
	// land. BaseTree and MergeTree are their trees.
	Base, Merge         gitrepo.Hash
	BaseTree, MergeTree *forge.Tree

	repo  *forge.Repository
	sleep func(context.Context, time.Duration) error
}

// Sleep waits; it returns early with the context's error.
type Sleep func(ctx context.Context, d time.Duration) error

// Open reads the change that an event is about. It fails when the forge states
// another head, base or merge result than can be judged.
func Open(ctx context.Context, repo *forge.Repository, e Event, sleep Sleep) (*Change, error) {
	c := &Change{Event: e.Name, repo: repo, sleep: sleep}
	var err error
	if e.Name == "merge_group" {
		err = c.openQueued(ctx, e)
	} else {
		err = c.openPull(ctx, e)
	}
	if err != nil {
		return nil, err
	}
	if c.BaseTree, err = c.tree(ctx, c.Base); err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	if c.MergeTree, err = c.tree(ctx, c.Merge); err != nil {
		return nil, fmt.Errorf("merge result: %w", err)
	}
	return c, nil
}

func (c *Change) tree(ctx context.Context, commit gitrepo.Hash) (*forge.Tree, error) {
	at, err := c.repo.Commit(ctx, commit)
	if err != nil {
		return nil, err
	}
	return c.repo.Tree(ctx, at.Tree)
}

// openPull asks until the test merge is that of the base branch's tip.
func (c *Change) openPull(ctx context.Context, e Event) error {
	why := ""
	for try := range mergeTries {
		if try > 0 {
			if err := c.sleep(ctx, mergePause); err != nil {
				return err
			}
		}
		p, err := c.repo.Pull(ctx, e.Pull)
		if err != nil {
			return err
		}
		switch {
		case !p.Open:
			return fmt.Errorf("pull request %d is closed: there is nothing to merge", p.Number)
		case p.Head != e.Head:
			return fmt.Errorf("pull request %d is at %s, the event is about %s: the run for the newer head judges it", p.Number, p.Head, e.Head)
		case p.Mergeable != nil && !*p.Mergeable:
			return fmt.Errorf("pull request %d conflicts with %s: there is no merge result to judge; merge %[2]s into it and push", p.Number, p.BaseRef)
		case p.Mergeable == nil || p.Merge.IsZero():
			why = "the forge has not worked out the merge result yet"
			continue
		}
		if c.Base, err = c.repo.Branch(ctx, p.BaseRef); err != nil {
			return err
		}
		merge, err := c.repo.Commit(ctx, p.Merge)
		if err != nil {
			return err
		}
		if slices.Equal(merge.Parents, []gitrepo.Hash{c.Base, p.Head}) {
			c.Pull, c.Merge = p, p.Merge
			return nil
		}
		why = fmt.Sprintf("the forge's merge result %s has parents %v, want %s at %s and the head %s", p.Merge, merge.Parents, p.BaseRef, c.Base, p.Head)
	}
	return fmt.Errorf("pull request %d: %s: run this job again", e.Pull, why)
}

// openQueued reads a commit of a merge queue.
func (c *Change) openQueued(ctx context.Context, e Event) error {
	at, err := c.repo.Branch(ctx, e.QueueRef)
	if err != nil {
		return fmt.Errorf("queued commit %s: %w", e.Head, err)
	}
	if at != e.Head {
		return fmt.Errorf("the queue's branch %s is at %s, the event is about %s: a newer run judges it", e.QueueRef, at, e.Head)
	}
	if c.Pull, err = c.repo.Pull(ctx, e.Pull); err != nil {
		return err
	}
	if !c.Pull.Open {
		return fmt.Errorf("pull request %d is closed: there is nothing to merge", e.Pull)
	}
	c.Base, c.Merge = e.Base, e.Head
	for next, n := e.Head, 0; next != c.Base; n++ {
		commit, err := c.repo.Commit(ctx, next)
		if err != nil {
			return err
		}
		if len(commit.Parents) == 0 || n == maxQueued {
			return fmt.Errorf("queued commit %s was not built on %s, which the event names as its base", e.Head, e.Base)
		}
		next = commit.Parents[0]
	}
	return nil
}

// Options are what a change is held to; all but Wait come from the base's
// configuration.
type Options struct {
	Layout covenant.Layout
	// Config is the path of the configuration.
	Config string
	// Owned are patterns of what decides the gates, as [covenant.Change] has them.
	Owned []string
	// Workflow is the path of the workflow whose run judges a change.
	Workflow string
	// Checks are the names of the required checks, Self the one among them that
	// this very judgement becomes.
	Checks []string
	Self   string
	// App is the id of the App that must post them; 0 is any.
	App int64
	// Approvals is how many code owners must approve each owned path; 0 is 1.
	Approvals int
	// Wait is how long a run may still take; 0 does not wait.
	Wait time.Duration
}

// Judge carries out the checks.
func (c *Change) Judge(ctx context.Context, o Options) []judge.Check {
	o.Owned = slices.Concat(o.Owned, ownersFiles, []string{".github/workflows/**", o.Config, o.Workflow})
	owned, approved := c.judgeOwned(ctx, o)
	report := covenant.CheckChange(c.BaseTree, c.MergeTree, covenant.Change{Layout: o.Layout, Owned: o.Owned, Approved: approved})
	checks := []judge.Check{
		fromChange(report, 9, "guard/ledger", "ledger, root line, status and trust anchors equal the base's"),
		fromChange(report, 10, "guard/receipts", "receipts are only added"),
		fromChange(report, 11, "guard/names", "no two paths fold to one name, and no attribute touches the evidence"),
		owned,
		fromChange(report, 13, "guard/kinds", "no receipt of a reserved kind is added"),
	}
	// What was read of approvals is held to the rule itself.
	if twelve := fromChange(report, 12, owned.ID, owned.Claim); owned.Status == judge.Pass && twelve.Status != judge.Pass {
		checks[3] = twelve
	}
	return append(checks, c.judgeRuns(ctx, o, approved)...)
}

// fromChange takes one of covenant's checks over.
func fromChange(r *covenant.Report, number int, id, claim string) judge.Check {
	for _, f := range r.Findings {
		if f.Check != number {
			continue
		}
		switch f.Status {
		case covenant.Pass.String():
			return judge.Judged(id, claim, f.Detail)
		case covenant.Fail.String():
			return judge.Judged(id, claim, f.Name, judge.Finding{Message: f.Detail})
		}
		return judge.Unjudged(id, claim, errors.New(f.Detail))
	}
	return judge.Unjudged(id, claim, fmt.Errorf("check %d was not carried out", number))
}

// ownedChanges returns the changed paths that check 12 answers for. The check is
// asked about each path alone, so that its patterns are read in one place.
func (c *Change) ownedChanges(o Options) ([]string, error) {
	ids := map[string][2]string{}
	for side, t := range []*forge.Tree{c.BaseTree, c.MergeTree} {
		if err := t.Walk("", func(p string, _ fs.FileMode, _ string) error {
			both := ids[p]
			both[side] = t.ID(p)
			ids[p] = both
			return nil
		}); err != nil {
			return nil, err
		}
	}
	var owned []string
	for _, p := range slices.Sorted(maps.Keys(ids)) {
		if ids[p][0] == ids[p][1] {
			continue
		}
		r := covenant.CheckChange(only{c.BaseTree, p}, only{c.MergeTree, p}, covenant.Change{Layout: o.Layout, Owned: o.Owned})
		switch twelve := fromChange(r, 12, "", ""); twelve.Status {
		case judge.Pass:
		case judge.Fail:
			owned = append(owned, p)
		default:
			return nil, errors.New(twelve.Detail)
		}
	}
	return owned, nil
}

// only is a tree with one path of another.
type only struct {
	*forge.Tree
	path string
}

func (o only) Blob(p string) ([]byte, error) {
	if p != o.path {
		return nil, &fs.PathError{Op: "read", Path: p, Err: fs.ErrNotExist}
	}
	return o.Tree.Blob(p)
}

func (o only) Walk(_ string, fn func(string, fs.FileMode, string) error) error {
	return o.Tree.Walk(o.path, func(p string, m fs.FileMode, id string) error {
		if p != o.path {
			return nil
		}
		return fn(p, m, id)
	})
}

// judgeOwned judges check 12 with what the forge says of approvals.
func (c *Change) judgeOwned(ctx context.Context, o Options) (check judge.Check, approved bool) {
	const id, claim = "guard/owned", "what decides the gates is unchanged, or a code owner approved this very head"
	paths, err := c.ownedChanges(o)
	if err != nil {
		return judge.Unjudged(id, claim, err), false
	}
	if len(paths) == 0 {
		return judge.Judged(id, claim, "unchanged"), false
	}
	loose, err := c.looseFiles(ctx, paths)
	if err != nil {
		return judge.Unjudged(id, claim, err), false
	}
	owners, err := readOwners(c.BaseTree)
	if err != nil {
		return judge.Unjudged(id, claim, err), false
	}
	reviews, err := c.repo.Reviews(ctx, c.Pull.Number)
	if err != nil {
		return judge.Unjudged(id, claim, err), false
	}
	side := approvers(reviews, c.Pull)
	ask := &asker{ctx: ctx, repo: c.repo, known: map[string]answer{}}
	findings := slices.Clone(owners.warnings)
	var unknown error
	var names []string
	for _, p := range paths {
		if slices.Contains(loose, p) {
			findings = append(findings, judge.Finding{
				Path:    p,
				Message: "the queued commit has other content here than the head that was approved",
				Fix:     "update the branch from " + c.Pull.BaseRef + ", have it approved again and queue it again",
			})
			continue
		}
		who, err := ask.approving(owners.of(p), side.at)
		switch need := max(o.Approvals, 1); {
		case len(who) >= need:
			names = append(names, who...)
		case err != nil:
			unknown = errors.Join(unknown, fmt.Errorf("%s: %w", p, err))
		default:
			findings = append(findings, c.unapproved(p, owners, side, len(who), need))
		}
	}
	check = judge.Judged(id, claim, fmt.Sprintf("%d paths changed", len(paths)), findings...)
	switch {
	case check.Status == judge.Fail: // proven wanting, whatever else is not known
		return check, false
	case unknown != nil:
		return judge.Unjudged(id, claim, unknown), false
	}
	slices.Sort(names)
	check.Detail += fmt.Sprintf(", approved at %s by %s", c.Pull.Head, strings.Join(slices.Compact(names), ", "))
	return check, true
}

// looseFiles returns those paths of a queued commit that are not tied to the
// approved head: by a parent, or by being the very same file.
func (c *Change) looseFiles(ctx context.Context, paths []string) ([]string, error) {
	merge, err := c.repo.Commit(ctx, c.Merge)
	if err != nil {
		return nil, err
	}
	if slices.Equal(merge.Parents, []gitrepo.Hash{c.Base, c.Pull.Head}) {
		return nil, nil
	}
	head, err := c.tree(ctx, c.Pull.Head)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return head.ID(p) == c.MergeTree.ID(p) }), nil
}
