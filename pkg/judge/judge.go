// Package judge is what all judges have in common: the commit's tree they read,
// and the checks they answer with.
//
// A judge carries out checks. Each check ends in one of four ways:
//
//   - pass: judged, and the claim holds
//   - fail: judged, and found wanting
//   - error: could not judge; never a pass
//   - unclaimed: the configuration claims nothing here, so nothing was judged;
//     never a pass either, and where evidence is required it is a fail
//
// A check that fails lists its findings: where, what, and what to type next.
package judge

import (
	"cmp"
	"io/fs"
	"slices"
)

// Tree is a commit's tree. A blob that is named but not at hand must be an
// error that is not fs.ErrNotExist.
type Tree interface {
	// Blob returns a file's content; an absent path is fs.ErrNotExist.
	Blob(path string) ([]byte, error)
	// Walk visits every file below a folder ("" is the whole tree) with its mode
	// (regular, symlink, or irregular for a submodule) and an id of its content.
	Walk(folder string, fn func(path string, mode fs.FileMode, id string) error) error
}

// Status is the outcome of a check. Its zero value is no outcome, and counts as
// an error.
type Status int

// The outcomes.
const (
	Pass      Status = iota + 1
	Fail             // judged, and found wanting
	Error            // could not judge
	Unclaimed        // nothing is claimed, nothing was judged
)

func (s Status) String() string {
	switch s {
	case Pass:
		return "pass"
	case Fail:
		return "fail"
	case Unclaimed:
		return "unclaimed"
	}
	return "error"
}

// MarshalText writes the outcome as String does.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that is wrong, or that a person should know.
type Finding struct {
	Path    string `json:"path,omitempty"` // in the repository, slashed; empty when it is of no file
	Line    int    `json:"line,omitempty"` // from 1; 0 is none
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	// Fix is the command to type, or the text to write; empty when there is none.
	Fix string `json:"fix,omitempty"`
	// Warning says that the finding alone does not fail its check.
	Warning bool `json:"warning,omitempty"`
}

// Check is one claim and what became of it.
type Check struct {
	// ID is stable, lower case, "covenant/check": hygiene/links.
	ID string `json:"id"`
	// Claim is what holds when the check passes, as one phrase.
	Claim  string `json:"claim"`
	Status Status `json:"status"`
	// Detail is what was looked at, or why it could not be judged.
	Detail   string    `json:"detail,omitempty"`
	Evidence []string  `json:"evidence,omitempty"` // both sides of a mismatch, digests, notes
	Findings []Finding `json:"findings,omitempty"`
	// Waived is why a fail does not count, when somebody signed for it.
	Waived string `json:"waived,omitempty"`
}

// Judged is a check that was carried out: it fails when a finding is more than a
// warning. Findings are put in order of place.
func Judged(id, claim, detail string, findings ...Finding) Check {
	c := Check{ID: id, Claim: claim, Detail: detail, Status: Pass, Findings: slices.Clone(findings)}
	slices.SortStableFunc(c.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if slices.ContainsFunc(findings, func(f Finding) bool { return !f.Warning }) {
		c.Status = Fail
	}
	return c
}

// Unjudged is a check that could not be carried out.
func Unjudged(id, claim string, err error) Check {
	return Check{ID: id, Claim: claim, Status: Error, Detail: err.Error()}
}

// NotClaimed is a check of which the configuration claims nothing; detail says
// what would claim it.
func NotClaimed(id, claim, detail string) Check {
	return Check{ID: id, Claim: claim, Status: Unclaimed, Detail: detail}
}
