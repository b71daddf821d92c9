package guard

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/forge"
	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// Bypass is a commit that reached a branch past the required checks: whoever
// administers a repository can push without a pull request, and merge a red one.
type Bypass struct {
	Commit gitrepo.Hash
	// Pull is the pull request that brought it, 0 for none. The next three are
	// of that one.
	Pull     int64
	Head     gitrepo.Hash
	MergedBy string // a login
	MergedAt time.Time
	// Missing are the required checks that had not succeeded when it was merged;
	// without a pull request, all.
	Missing []Missing
}

// Missing is a required check and what was there in place of its success:
// "missing", or a conclusion such as failure or skipped.
type Missing struct{ Check, State string }

// Required are the checks that a branch demands. App is the id of the App that
// must post them; 0 is any source, statuses too.
type Required struct {
	Branch string
	Checks []string
	App    int64
}

// Bypasses returns those of some commits of a branch that went past its required
// checks. What counts is what had been posted when the pull request was merged,
// at its head or, for one that a merge queue merged, at the commit itself: a
// check that succeeded afterwards is no excuse. An answer that cannot be had is
// an error, and then nothing is known of any commit.
func Bypasses(ctx context.Context, repo *forge.Repository, commits []gitrepo.Hash, r Required) ([]Bypass, error) {
	var found []Bypass
	for _, c := range commits {
		b, err := r.judge(ctx, repo, c)
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", c, err)
		}
		if len(b.Missing) > 0 {
			found = append(found, b)
		}
	}
	return found, nil
}

func (r Required) judge(ctx context.Context, repo *forge.Repository, commit gitrepo.Hash) (Bypass, error) {
	b := Bypass{Commit: commit}
	pulls, err := repo.PullsOf(ctx, commit)
	if err != nil {
		return b, err
	}
	pulls = slices.DeleteFunc(pulls, func(p forge.Pull) bool { return p.MergedAt.IsZero() || p.BaseRef != r.Branch })
	if len(pulls) == 0 {
		for _, name := range r.Checks {
			b.Missing = append(b.Missing, Missing{name, "missing"})
		}
		return b, nil
	}
	// Rebasing brings several commits, of which the last is named as the merge.
	pull := slices.MinFunc(pulls, func(x, y forge.Pull) int {
		if mine := x.Merge == commit; mine != (y.Merge == commit) {
			if mine {
				return -1
			}
			return 1
		}
		return y.MergedAt.Compare(x.MergedAt)
	})
	b.Pull, b.Head, b.MergedAt = pull.Number, pull.Head, pull.MergedAt
	at := map[gitrepo.Hash]map[string]string{}
	for _, where := range []gitrepo.Hash{pull.Head, commit} {
		if at[where], err = r.states(ctx, repo, where, pull.MergedAt); err != nil {
			return b, err
		}
		b.Missing = nil
		for _, name := range r.Checks {
			if at[pull.Head][name] != "success" && at[commit][name] != "success" {
				b.Missing = append(b.Missing, Missing{name, cmp.Or(at[pull.Head][name], at[commit][name], "missing")})
			}
		}
		if len(b.Missing) == 0 {
			return b, nil
		}
	}
	whole, err := repo.Pull(ctx, pull.Number) // lists do not say who merged
	b.MergedBy = whole.MergedBy.Login
	return b, err
}

// states returns what each required check had said of a commit by then. One that
// was cancelled said nothing; of several that ended, one that is no success
// decides.
func (r Required) states(ctx context.Context, repo *forge.Repository, commit gitrepo.Hash, by time.Time) (map[string]string, error) {
	checks, err := repo.CheckRuns(ctx, commit)
	if err != nil {
		return nil, err
	}
	p := posted{checks: slices.DeleteFunc(checks, func(c forge.CheckRun) bool {
		return !c.Done || c.Completed.After(by) || r.App != 0 && c.App != r.App
	})}
	states := map[string]string{}
	say := func(name, state string) {
		if was := states[name]; was == "" || was == "cancelled" || was == "success" && state != "cancelled" {
			states[name] = state
		}
	}
	for _, name := range r.Checks {
		for _, c := range p.latest(name) {
			say(name, c.Conclusion)
		}
	}
	if r.App != 0 {
		return states, nil
	}
	statuses, err := repo.Statuses(ctx, commit)
	if err != nil {
		return nil, err
	}
	last := map[string]forge.Status{}
	for _, s := range statuses {
		if slices.Contains(r.Checks, s.Context) && !s.At.After(by) && s.ID > last[s.Context].ID {
			last[s.Context] = s
		}
	}
	for name, s := range last {
		say(name, s.State)
	}
	return states, nil
}
