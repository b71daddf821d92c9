package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
)

// Event is what a runner says is to be judged.
type Event struct {
	Name string // pull_request_target or merge_group
	Pull int64
	Head gitrepo.Hash // of the pull request, or the queued commit
	// Base and QueueRef are those of a queued commit: what it was built on, and
	// the name of its branch.
	Base     gitrepo.Hash
	QueueRef string
}

// ErrPlane is an event whose job is not of the trusted plane, or whose result is
// not posted at the change's head.
var ErrPlane = errors.New("want pull_request_target or merge_group")

// queueRef is a branch of a merge queue: gh-readonly-queue/main/pr-104-<commit>.
var queueRef = regexp.MustCompile(`^refs/heads/(gh-readonly-queue/.+/pr-([1-9][0-9]{0,17})-[0-9a-f]{40})$`)

// ParseEvent reads the payload of an event of this repository (owner/name).
// Other events than those of [ErrPlane]'s words fail with it.
func ParseEvent(name, repository string, payload []byte) (Event, error) {
	fail := func(format string, args ...any) (Event, error) {
		return Event{}, fmt.Errorf("event %s: %s", name, fmt.Sprintf(format, args...))
	}
	switch name {
	case "pull_request_target", "merge_group":
	case "pull_request", "pull_request_review", "pull_request_review_comment":
		return Event{}, fmt.Errorf("event %s: %w: this one's job runs the change's own copy of the workflow, which may say anything; after an approval run the guard's failed job again", name, ErrPlane)
	default:
		return Event{}, fmt.Errorf("event %s: %w: of others the result is not posted at the change's head", name, ErrPlane)
	}
	var w struct {
		Number int64 `json:"number"`
		Pull   *struct {
			Number int64 `json:"number"`
			Head   struct {
				SHA gitrepo.Hash `json:"sha"`
			} `json:"head"`
			Base struct {
				Repo struct {
					Name string `json:"full_name"`
				} `json:"repo"`
			} `json:"base"`
		} `json:"pull_request"`
		Group *struct {
			Head    gitrepo.Hash `json:"head_sha"`
			HeadRef string       `json:"head_ref"`
			Base    gitrepo.Hash `json:"base_sha"`
		} `json:"merge_group"`
		Repository struct {
			Name string `json:"full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(payload, &w); err != nil {
		return fail("payload: %v", err)
	}
	if !strings.EqualFold(w.Repository.Name, repository) {
		return fail("the payload is of repository %q, want %s", w.Repository.Name, repository)
	}
	if name == "merge_group" {
		switch {
		case w.Group == nil || w.Pull != nil || w.Group.Head.IsZero() || w.Group.Base.IsZero():
			return fail("the payload has no merge_group with head_sha and base_sha")
		}
		m := queueRef.FindStringSubmatch(w.Group.HeadRef)
		if m == nil {
			return fail("merge_group.head_ref is %q, want refs/heads/gh-readonly-queue/BRANCH/pr-NUMBER-COMMIT", w.Group.HeadRef)
		}
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			return fail("merge_group.head_ref: %v", err)
		}
		return Event{Name: name, Pull: n, Head: w.Group.Head, Base: w.Group.Base, QueueRef: m[1]}, nil
	}
	switch {
	case w.Pull == nil || w.Pull.Number < 1 || w.Pull.Head.SHA.IsZero():
		return fail("the payload has no pull_request with number and head.sha")
	case w.Number != w.Pull.Number:
		return fail("the payload is about pull request %d and %d", w.Number, w.Pull.Number)
	case !strings.EqualFold(w.Pull.Base.Repo.Name, repository):
		return fail("the pull request is to be merged into %q, want %s", w.Pull.Base.Repo.Name, repository)
	}
	return Event{Name: name, Pull: w.Number, Head: w.Pull.Head.SHA}, nil
}
