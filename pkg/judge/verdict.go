package judge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// covenants are those there are, in the order of their numbers.
var covenants = []string{"integrity", "reproducibility", "federation", "proof-chain", "hygiene", "custom"}

// Covenants returns the names of the covenants, in the order of their numbers.
func Covenants() []string { return slices.Clone(covenants) }

// Covenant is what became of the checks of one covenant.
type Covenant struct {
	Number int    `json:"number,omitempty"` // from 1; 0 for a group of checks that is no covenant
	Name   string `json:"name"`
	// Status is fail when a check fails and nobody signed for it, else error when
	// one could not be judged, else pass when one holds, else unclaimed.
	Status    Status `json:"status"`
	Passed    int    `json:"pass"`
	Failed    int    `json:"fail"`
	Errors    int    `json:"error"`
	Unclaimed int    `json:"unclaimed"`
	Waived    int    `json:"waived"` // of the failed
}

// Verdict is what becomes of all checks together.
type Verdict struct {
	Status    Status     `json:"verdict"`
	Covenants []Covenant `json:"covenants"`
	Checks    []Check    `json:"checks"`
}

// Covenant returns the first part of the check's id.
func (c Check) Covenant() string {
	name, _, _ := strings.Cut(c.ID, "/")
	return name
}

// Sum makes a verdict. required names covenants, and single checks by their ids,
// that must be claimed: a required check of which nothing is claimed fails, and
// so does a covenant of which no check claims anything. A required check that
// nobody makes is an error. Without any check the verdict is error.
//
// The verdict is fail when a covenant fails, else error when one could not be
// judged, else pass when one passes, else unclaimed.
func Sum(checks []Check, required []string) Verdict {
	v := Verdict{Checks: slices.Clone(checks), Covenants: []Covenant{}}
	for _, r := range required {
		if !strings.Contains(r, "/") {
			v.requireCovenant(r)
			continue
		}
		at := slices.IndexFunc(v.Checks, func(c Check) bool { return c.ID == r })
		if at < 0 {
			v.Checks = append(v.Checks, Unjudged(r, "is claimed", errors.New("required, but no check has this id; see covenants.required")))
		} else if c := &v.Checks[at]; c.Status == Unclaimed {
			c.Status = Fail
			c.Findings = append(slices.Clone(c.Findings), Finding{Message: "required, but nothing is claimed: " + c.Detail})
		}
	}
	rank := func(name string) int {
		if at := slices.Index(covenants, name); at >= 0 {
			return at
		}
		return len(covenants)
	}
	slices.SortStableFunc(v.Checks, func(a, b Check) int {
		return cmp.Compare(rank(a.Covenant()), rank(b.Covenant()))
	})
	for _, c := range v.Checks {
		at := slices.IndexFunc(v.Covenants, func(x Covenant) bool { return x.Name == c.Covenant() })
		if at < 0 {
			at = len(v.Covenants)
			v.Covenants = append(v.Covenants, Covenant{Name: c.Covenant(), Number: slices.Index(covenants, c.Covenant()) + 1})
		}
		v.Covenants[at].count(c)
	}
	var states []Status
	for i := range v.Covenants {
		v.Covenants[i].Status = v.Covenants[i].status()
		states = append(states, v.Covenants[i].Status)
	}
	v.Status = Error
	for _, s := range []Status{Fail, Error, Pass, Unclaimed} {
		if slices.Contains(states, s) {
			v.Status = s
			break
		}
	}
	return v
}

func (v *Verdict) requireCovenant(name string) {
	var findings []Finding
	for _, c := range v.Checks {
		switch {
		case c.Covenant() != name:
		case c.Status != Unclaimed:
			return
		default:
			findings = append(findings, Finding{Message: fmt.Sprintf("%s claims nothing: %s", c.ID, c.Detail)})
		}
	}
	if findings == nil {
		findings = []Finding{{Message: "no check of this covenant was made"}}
	}
	v.Checks = append(v.Checks, Judged(name+"/required", "the covenant is claimed", "required by the configuration", findings...))
}

func (c *Covenant) count(k Check) {
	switch k.Status {
	case Pass:
		c.Passed++
	case Unclaimed:
		c.Unclaimed++
	case Fail:
		c.Failed++
		if k.Waived != "" {
			c.Waived++
		}
	default:
		c.Errors++
	}
}

func (c Covenant) status() Status {
	switch {
	case c.Failed > c.Waived:
		return Fail
	case c.Errors > 0:
		return Error
	case c.Passed+c.Waived > 0:
		return Pass
	}
	return Unclaimed
}

// Resource is a document that a verification summary refers to.
type Resource struct {
	URI    string
	SHA256 string // hex
}

// Verified is what a verification summary says beside the verdict.
type Verified struct {
	Verifier string // URI of who judged
	Time     time.Time
	Resource string // URI of what was judged: git+https://host/name@commit
	Policy   Resource
	Inputs   []Resource // attestations that were used: all of them, or none
}

// detailURI names the field in which a summary lists its checks. SLSA has
// extension fields named by URIs.
const detailURI = "https://vaultmesh.org/remembrancer/covenant/v1"

// VerificationSummary returns the predicate of a SLSA verification summary
// (https://slsa.dev/verification_summary/v1). Anything but a pass is FAILED. The
// levels of a pass are one REMEMBRANCER_<COVENANT> for each that passed; they
// are no SLSA levels, which speak of builds.
func (v Verdict) VerificationSummary(w Verified) map[string]any {
	result, levels := "FAILED", []any{"FAILED"}
	if v.Status == Pass {
		result, levels = "PASSED", []any{}
		for _, c := range v.Covenants {
			if c.Status == Pass {
				levels = append(levels, "REMEMBRANCER_"+strings.ToUpper(strings.ReplaceAll(c.Name, "-", "_")))
			}
		}
	}
	inputs, checks := []any{}, []any{}
	for _, in := range w.Inputs {
		inputs = append(inputs, in.descriptor())
	}
	for _, c := range v.Checks {
		m := map[string]any{"id": c.ID, "status": c.Status.String()}
		if c.Waived != "" {
			m["waived"] = c.Waived
		}
		checks = append(checks, m)
	}
	return map[string]any{
		"verifier":           map[string]any{"id": w.Verifier},
		"timeVerified":       w.Time.UTC().Format(time.RFC3339),
		"resourceUri":        w.Resource,
		"policy":             w.Policy.descriptor(),
		"inputAttestations":  inputs,
		"verificationResult": result,
		"verifiedLevels":     levels,
		"slsaVersion":        "1.1",
		detailURI:            map[string]any{"checks": checks},
	}
}

func (r Resource) descriptor() map[string]any {
	return map[string]any{"uri": r.URI, "digest": map[string]any{"sha256": r.SHA256}}
}
