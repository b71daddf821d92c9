package smoke

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gowebpki/jcs"
)

// Bounds of a statement, in bytes of JSON and in number. They keep the worst
// case under maxStatement, which fits a receipt of 32 KiB together with what an
// issuer adds.
const (
	maxStatement = 31 << 10
	maxList      = 4 << 10 // of the names in one list
	maxMaterials = 16      // files
	maxFileNames = 2 << 10 // of the names of all files
	maxURL       = 1 << 10
)

// Material is a file by name and content.
type Material struct {
	Name   string // with slashes
	SHA256 string // hex
}

// Evidence is what a statement says beside the report.
type Evidence struct {
	Suite  Suite      // of the reports; without cases when the output was judged
	IDs    []string   // the names of all tests, if the output gave them
	Change Change     // against what the base names
	Config Material   // the configuration that judged, of the base where there is one; zero: none
	Files  []Material // the raw reports
	URL    string     // of the run; empty: none
}

type descriptor struct {
	Digest map[string]string `json:"digest"`
	Name   string            `json:"name"`
}

type omitted struct {
	Count  int    `json:"count"`
	SHA256 string `json:"sha256"`
}

type testCounts struct {
	Errored int64 `json:"errored"`
	Failed  int64 `json:"failed"`
	Passed  int64 `json:"passed"`
	Skipped int64 `json:"skipped"`
	Total   int64 `json:"total"`
	Warned  int64 `json:"warned"`
}

type testResult struct {
	Result        string             `json:"result"`
	Configuration []descriptor       `json:"configuration"`
	URL           string             `json:"url,omitempty"`
	Passed        []string           `json:"passedTests,omitzero"`
	Warned        []string           `json:"warnedTests,omitzero"`
	Failed        []string           `json:"failedTests,omitzero"`
	Counts        testCounts         `json:"vaultmesh_counts"`
	Expected      int64              `json:"vaultmesh_expected"`
	Omitted       map[string]omitted `json:"vaultmesh_omitted,omitempty"`
	Removed       []string           `json:"vaultmesh_removedTests,omitzero"`
	TestsSHA256   string             `json:"vaultmesh_tests_sha256,omitempty"`
	Verdict       string             `json:"vaultmesh_verdict"`
}

type inTotoStatement struct {
	Type          string       `json:"_type"`
	Subject       []descriptor `json:"subject"`
	PredicateType string       `json:"predicateType"`
	Predicate     testResult   `json:"predicate"`
}

// Statement returns the report as an in-toto Statement v1 with a test-result
// predicate v0.1, in canonical JSON of at most 31 KiB without a newline at its
// end. It is unsigned. The package comment has the format.
//
// https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
func Statement(r Report, ev Evidence) ([]byte, error) {
	data, err := statement(r, ev)
	if err != nil {
		return nil, fmt.Errorf("smoke statement: %w", err)
	}
	return data, nil
}

func statement(r Report, ev Evidence) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if ev.URL != printable(ev.URL) || len(ev.URL) > maxURL {
		return nil, fmt.Errorf("URL %q: wanted at most %d printable bytes", clip(ev.URL, 80), maxURL)
	}
	p := testResult{
		Result: "FAILED", URL: ev.URL, Verdict: r.Verdict.String(), Expected: r.Expected, TestsSHA256: r.TestsSHA256,
		Counts:  testCounts{Passed: r.Passed, Failed: r.Failed, Errored: r.Errored, Warned: r.Warned, Skipped: r.Skipped, Total: r.Total},
		Omitted: map[string]omitted{},
	}
	switch {
	case r.Verdict == Pass && r.Warned > 0:
		p.Result = "WARNED"
	case r.Verdict == Pass:
		p.Result = "PASSED"
	}
	subject, err := p.describe(r, ev)
	if err != nil {
		return nil, err
	}
	p.name(r, ev)
	plain, err := json.Marshal(inTotoStatement{
		Type: "https://in-toto.io/Statement/v1", Subject: subject,
		PredicateType: "https://in-toto.io/attestation/test-result/v0.1", Predicate: p,
	})
	if err != nil {
		return nil, err
	}
	canonical, err := jcs.Transform(plain)
	if err != nil {
		return nil, err
	}
	if len(canonical) > maxStatement {
		return nil, errors.New("it is longer than 31 KiB")
	}
	return canonical, nil
}

// describe fills in the configuration, and returns the subject.
func (p *testResult) describe(r Report, ev Evidence) ([]descriptor, error) {
	raw := ev.Files
	if len(raw) == 0 {
		raw = []Material{{"standard output", r.OutputSHA256}}
	}
	size := 0
	for _, f := range raw {
		size += jsonSize(f.Name)
	}
	if len(raw) > maxMaterials || size > maxFileNames {
		// The digest is that of what sha256sum prints for the files.
		p.Omitted["reports"] = omitted{len(raw), r.OutputSHA256}
		raw = []Material{{"reports", r.OutputSHA256}}
	}
	subject, err := descriptors(raw...)
	if err != nil {
		return nil, err
	}
	p.Configuration = subject
	if ev.Config != (Material{}) {
		config, err := descriptors(ev.Config)
		if err != nil {
			return nil, err
		}
		p.Configuration = slices.Concat(config, subject)
	}
	if r.Commit != "" {
		subject = []descriptor{{Name: "commit", Digest: map[string]string{"gitCommit": r.Commit}}}
	}
	return subject, nil
}

func descriptors(files ...Material) ([]descriptor, error) {
	var list []descriptor
	for _, f := range files {
		if f.Name == "" || f.Name != printable(f.Name) || jsonSize(f.Name) > maxFileNames || !isHex(f.SHA256, 64) {
			return nil, fmt.Errorf("file %q: wanted a printable name and a SHA-256", clip(f.Name, 80))
		}
		list = append(list, descriptor{Name: f.Name, Digest: map[string]string{"sha256": f.SHA256}})
	}
	return list, nil
}

// name fills in the lists of tests. They are there only if the tests have names
// and it is known how each ended; an empty one then says "none".
func (p *testResult) name(r Report, ev Evidence) {
	var passed, warned, failed []string
	for _, c := range ev.Suite.Cases {
		switch c.Status {
		case Passed:
			passed = append(passed, c.ID)
		case Warned:
			warned = append(warned, c.ID)
		case Skipped: // the predicate has no list of these
		default:
			failed = append(failed, c.ID)
		}
	}
	known := len(ev.Suite.Cases) > 0
	if !known && r.Verdict == Pass && r.Warned == 0 && len(ev.IDs) > 0 {
		passed, known = ev.IDs, true
	}
	for _, l := range []struct {
		key   string
		known bool
		ids   []string
		into  *[]string
	}{
		{"passedTests", known, passed, &p.Passed},
		{"warnedTests", known, warned, &p.Warned},
		{"failedTests", known, failed, &p.Failed},
		{"vaultmesh_removedTests", ev.Change.Named > 0, ev.Change.Removed, &p.Removed},
	} {
		if !l.known {
			continue
		}
		ids := append([]string{}, l.ids...)
		slices.Sort(ids)
		size := 0
		for _, id := range ids {
			size += jsonSize(id)
		}
		if size > maxList {
			p.Omitted[l.key] = omitted{len(ids), sumSorted(ids)}
			continue
		}
		*l.into = ids
	}
}

// jsonSize is how many bytes printable text takes as an element of a list.
func jsonSize(s string) int {
	return len(s) + strings.Count(s, `"`) + strings.Count(s, `\`) + len(`"",`)
}
