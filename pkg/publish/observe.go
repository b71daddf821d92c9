package publish

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/gitrepo"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
)

// Observation is what trusted code read from the forge about one run, and what
// the run's keyless job handed over. The two are kept apart in the receipt: what
// was handed over is a claim of code that the change itself could have written.
type Observation struct {
	Commit     gitrepo.Hash // the commit that the run judged; must be on the branch
	Workflow   string       // path of the workflow file in that commit, or "" when no run was observed
	RunID      int64
	Attempt    int64
	Event      string
	Conclusion string    // as the forge states it: success, failure, …
	At         time.Time // when the run was last updated, as the forge states it
	// Report is the smoke report that was handed over, or nil.
	Report []byte
}

// receipt makes the statement of an observation. It holds no time or nonce of
// its own: the same observation is the same receipt, whoever publishes it.
func (o Observation) receipt(p *Publisher, v *view) (*receipt.Receipt, error) {
	fail := func(format string, args ...any) (*receipt.Receipt, error) {
		return nil, &Refusal{What: fmt.Sprintf("observation of commit %s: %s", o.Commit, fmt.Sprintf(format, args...)), Unreadable: true}
	}
	on, err := p.Remote.IsAncestor(o.Commit, v.tips[p.Branch])
	if err != nil {
		return fail("%v", err)
	}
	if !on {
		return fail("it is not on %s", short(p.Branch))
	}
	observed := map[string]any{"commit": o.Commit.String()}
	if o.Workflow != "" {
		t, err := p.Remote.TreeAt(o.Commit)
		if err != nil {
			return fail("%v", err)
		}
		blob, err := t.Lookup(o.Workflow)
		if errors.Is(err, fs.ErrNotExist) {
			return fail("it has no workflow %s", o.Workflow)
		}
		if err != nil {
			return fail("%v", err)
		}
		observed["workflow"] = o.Workflow
		observed["workflow_blob"] = blob.Hash.String()
		observed["run_id"] = o.RunID
		observed["run_attempt"] = o.Attempt
		observed["conclusion"] = o.Conclusion
		observed["event"] = o.Event
	}
	predicate := map[string]any{"vaultmesh_observed": observed}
	if o.Report != nil {
		report, err := smoke.DecodeReport(o.Report)
		if err != nil {
			return fail("report: %v", err)
		}
		if report.Commit != o.Commit.String() {
			return fail("the report is about commit %q", report.Commit)
		}
		predicate["vaultmesh_reported"] = map[string]any{
			"sha256": digest(o.Report), "text": string(o.Report), "type": "smoke",
		}
	}
	return receipt.New(receipt.Statement{
		Kind: receipt.Observed, Issuer: p.Issuer.Fingerprint(), Issued: o.At,
		Subjects:  []receipt.Subject{{Name: "commit", Commit: o.Commit.String()}},
		Predicate: predicate,
	})
}

// Reported returns the smoke report that an observed run handed over. A report
// whose run did not succeed, as far as one was observed, is still the report;
// whether it passes is its own verdict.
func Reported(r *receipt.Receipt) (smoke.Report, bool) {
	if r.Kind() != receipt.Observed {
		return smoke.Report{}, false
	}
	var p struct {
		Reported *struct {
			SHA256 string `json:"sha256"`
			Text   string `json:"text"`
		} `json:"vaultmesh_reported"`
	}
	if json.Unmarshal(r.Predicate(), &p) != nil || p.Reported == nil {
		return smoke.Report{}, false
	}
	if digest([]byte(p.Reported.Text)) != p.Reported.SHA256 {
		return smoke.Report{}, false
	}
	report, err := smoke.DecodeReport([]byte(p.Reported.Text))
	return report, err == nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
