package judge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Tool is what a SARIF log says about who judged, and where.
type Tool struct {
	Version    string // of the program; may be empty
	Repository string // URI; empty: the log names no repository
	Commit     string // that was judged; may be empty
	// Fallback is a file of the repository to show what is of no file at:
	// viewers drop a result without a place.
	Fallback string
}

// SARIF 2.1.0, as far as it is used here:
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool              `json:"tool"`
		Invocations []sarifInvocation      `json:"invocations"`
		Provenance  []sarifProvenance      `json:"versionControlProvenance,omitempty"`
		Bases       map[string]sarifBaseID `json:"originalUriBaseIds"`
		Results     []sarifResult          `json:"results"`
		ColumnKind  string                 `json:"columnKind"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		URI     string      `json:"informationUri"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID          string         `json:"id"`
		Description sarifMessage   `json:"shortDescription"`
		Properties  map[string]any `json:"properties"`
	}
	sarifInvocation struct {
		// Successful says that everything could be judged, not that it passed.
		Successful    bool                `json:"executionSuccessful"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string            `json:"level"`
		Message sarifMessage      `json:"message"`
		Rule    map[string]string `json:"associatedRule"`
	}
	sarifProvenance struct {
		Repository string `json:"repositoryUri"`
		Commit     string `json:"revisionId,omitempty"`
	}
	sarifBaseID struct {
		Description sarifMessage `json:"description"`
	}
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		Rule         string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Level        string             `json:"level"`
		Message      sarifMessage       `json:"message"`
		Locations    []sarifLocation    `json:"locations,omitempty"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   *sarifRegion  `json:"region,omitempty"`
	}
	sarifArtifact struct {
		URI  string `json:"uri"`
		Base string `json:"uriBaseId"`
	}
	sarifRegion struct {
		Line   int `json:"startLine"`
		Column int `json:"startColumn,omitempty"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

const srcRoot = "%SRCROOT%"

// SARIF writes the verdict as a SARIF 2.1.0 log of one run. Its rules are the
// checks, its results their findings; a check that failed or could not be judged
// without a finding is a result itself, and one that could not be judged a
// notification, too. What was waived is suppressed. Paths are relative to the
// root of the repository, %SRCROOT%. The fingerprint of a result,
// remembrancer/v1, depends on check, path, message and the count of such equal
// results before it, so that it stays when lines move.
func (v Verdict) SARIF(t Tool) ([]byte, error) {
	run := sarifRun{
		Tool: sarifTool{sarifDriver{
			Name: "Remembrancer", Version: t.Version, URI: "https://github.com/vaultmesh/remembrancer", Rules: []sarifRule{},
		}},
		Invocations: []sarifInvocation{{Successful: true}},
		Bases:       map[string]sarifBaseID{srcRoot: {sarifMessage{"the root of the repository"}}},
		Results:     []sarifResult{},
		ColumnKind:  "unicodeCodePoints",
	}
	if t.Repository != "" {
		run.Provenance = []sarifProvenance{{t.Repository, t.Commit}}
	}
	seen := map[string]int{}
	for _, c := range v.Checks {
		rule := slices.IndexFunc(run.Tool.Driver.Rules, func(r sarifRule) bool { return r.ID == c.ID })
		if rule < 0 {
			rule = len(run.Tool.Driver.Rules)
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
				ID: c.ID, Description: sarifMessage{orText(c.Claim, c.ID)}, Properties: map[string]any{"tags": []string{c.Covenant()}},
			})
		}
		findings := c.Findings
		judged := c.Status == Pass || c.Status == Fail || c.Status == Unclaimed
		if !judged {
			in := &run.Invocations[0]
			in.Successful = false
			in.Notifications = append(in.Notifications, sarifNotification{
				Level: "error", Message: sarifMessage{orText(c.Detail, c.ID)}, Rule: map[string]string{"id": c.ID},
			})
		}
		if len(findings) == 0 && c.Status != Pass && c.Status != Unclaimed {
			findings = []Finding{{Message: orText(c.Detail, c.ID)}}
		}
		for _, f := range findings {
			run.Results = append(run.Results, f.sarif(c, rule, t.Fallback, seen))
		}
	}
	out, err := json.MarshalIndent(sarifLog{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	}, "", "  ")
	return append(out, '\n'), err
}

// orText: a message may not be empty.
func orText(s, otherwise string) string {
	if strings.TrimSpace(s) == "" {
		return otherwise
	}
	return s
}

func (f Finding) sarif(c Check, rule int, fallback string, seen map[string]int) sarifResult {
	key := strings.Join([]string{c.ID, f.Path, f.Message}, "\x00")
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", key, seen[key]))
	seen[key]++
	text := orText(f.Message, c.ID)
	if f.Fix != "" {
		text += "\nFix: " + f.Fix
	}
	r := sarifResult{
		Rule: c.ID, RuleIndex: rule, Level: "error", Message: sarifMessage{text},
		Fingerprints: map[string]string{"remembrancer/v1": hex.EncodeToString(sum[:])},
	}
	if f.Warning {
		r.Level = "warning"
	}
	if c.Waived != "" {
		r.Suppressions = []sarifSuppression{{"external", "accepted", c.Waived}}
	}
	where := sarifPhysical{Artifact: sarifArtifact{URI: f.Path, Base: srcRoot}}
	if f.Path == "" {
		if fallback == "" {
			return r
		}
		where.Artifact.URI = fallback
	} else if f.Line > 0 {
		where.Region = &sarifRegion{f.Line, max(f.Column, 0)}
	}
	// A colon, a percent sign or a space in a path is none in a URI.
	where.Artifact.URI = (&url.URL{Path: where.Artifact.URI}).String()
	r.Locations = []sarifLocation{{where}}
	return r
}
