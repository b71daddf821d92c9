package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/action"
	"github.com/vaultmesh/remembrancer/pkg/config"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
)

var policyIDInput = action.Input{Name: "policy-id", Usage: "Pinned id of the trust state, in hex. Without it, what was seen first is believed, and the verdict says so.", Env: "REMEMBRANCER_POLICY_ID"}

// pinnedPolicy returns the id that was given to judge by, "" for none.
func pinnedPolicy(v *action.Values) (string, error) {
	id := strings.ToLower(v.String("policy-id"))
	if b, err := hex.DecodeString(id); id != "" && (err != nil || len(b) != sha256.Size) {
		return "", misused("--policy-id %q: want 64 hex digits, as verify-audit --json shows them", v.String("policy-id"))
	}
	return id, nil
}

var auditVerb = verb{
	spec: action.Spec{
		Name: "verify-audit", Verb: "verify-audit", Summary: "audit the ledger of this repository",
		Description: "Reads the blobs of a commit, never the work tree, and carries out eight checks: paths, checkpoint, entries, lines, " +
			"signatures, receipt files, root line and badge, and that the log only ever grew.",
		Inputs: []action.Input{
			{Name: "rev", Default: "HEAD", Usage: "Commit to audit."},
			policyIDInput,
			{Name: "json", Kind: action.Bool, Usage: "Print the findings as JSON.", CLIOnly: true},
		},
		Exit: "Without a pinned policy id, first use is believed on one's own repository and the exit status is 0.",
	},
	run: func(w *world, v *action.Values, runner *action.Runner) error {
		p, err := w.openProject()
		if err != nil {
			return err
		}
		if err := w.takeBaseConfig(p, runner); err != nil {
			return err
		}
		h, err := p.head(v.String("rev"))
		if err != nil {
			return err
		}
		pinned, err := pinnedPolicy(v)
		if err != nil {
			return err
		}
		r, err := w.audit(p, h, pinned)
		if err != nil {
			return err
		}
		if v.Bool("json") {
			out, err := json.MarshalIndent(auditJSON(h, r), "", "  ")
			if err != nil {
				return err
			}
			w.say("%s", out)
		} else {
			for _, f := range r.Findings {
				w.say("%s %d. %-20s %s", mark(f.Status), f.Check, f.Name, action.Defang(f.Detail))
				for _, e := range f.Evidence {
					w.say("%s", indent(action.Defang(e)))
				}
			}
			w.say("%s  %s", strings.ToUpper(r.Status().String()), auditLine(h, r))
		}
		if h.commit.IsZero() {
			w.note("note: %s", h.where)
		} else if err := w.remember(p, r); err != nil {
			return err
		}
		if p.cfg.Ledger.Mode == config.Advisory && r.Status() != covenant.Pass {
			w.sayAdvisory(v.Bool("json"))
			return nil
		}
		return quietly(auditExit(r))
	},
}

// sayAdvisory says why a red verdict does not stop the job. JSON stays JSON.
func (w *world) sayAdvisory(asJSON bool) {
	say := w.say
	if asJSON {
		say = w.note
	}
	say("⚠️  advisory mode: this verdict does not stop the job")
}

func auditExit(r *covenant.Report) int {
	switch r.Status() {
	case covenant.Pass:
		return exitPass
	case covenant.Fail:
		return exitFail
	default:
		return exitUnjudged
	}
}

func auditJSON(h *head, r *covenant.Report) map[string]any {
	out := map[string]any{
		"verdict": r.Status().String(), "findings": r.Findings, "policy_id": r.PolicyID, "first_use": r.FirstUse, "judged": h.where,
	}
	if len(r.Development) > 0 {
		out["development_keys"] = r.Development
	}
	if n := r.Checkpoint.Note(); n != nil {
		b := r.Checkpoint.Body()
		out["origin"], out["size"], out["root"] = b.Origin, b.Size, fmt.Sprintf("%x", b.Root[:])
	}
	return out
}

// auditLine is the verdict in one line.
func auditLine(h *head, r *covenant.Report) string {
	s := "the log has not begun"
	if r.Checkpoint.Note() != nil {
		b := r.Checkpoint.Body()
		s = fmt.Sprintf("size %d, root %x", b.Size, b.Root[:])
	}
	switch {
	case r.PolicyID == "":
	case r.FirstUse:
		s += "; policy " + r.PolicyID[:16] + " believed on first use, not pinned"
	default:
		s += "; policy " + r.PolicyID[:16] + " as pinned"
	}
	if len(r.Development) > 0 {
		s += "; signed for development, which proves nothing to others"
	}
	if h.commit.IsZero() {
		s += "; " + h.where
	}
	return s
}

func mark(status string) string {
	switch status {
	case "pass":
		return "✅"
	case "fail":
		return "❌"
	}
	return "🚫"
}

func indent(s string) string {
	return "     " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n     ")
}
