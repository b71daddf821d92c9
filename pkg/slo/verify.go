package slo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const maxReport = 1 << 20 // bytes

// ErrNotMeasured says that a report has no evidence that it could be made anew of.
var ErrNotMeasured = errors.New("nothing was measured: want data_source prometheus")

// Parse reads a report, as far as it can be read without its evidence: nothing
// in it is true because it is written there. See [Verify].
func Parse(data []byte) (*Report, error) {
	r := &Report{}
	if err := readWhole(data, r); err != nil {
		return nil, fmt.Errorf("it is no report of this program: %w", err)
	}
	switch {
	case r.Type != reportType:
		return nil, fmt.Errorf("report_type %q, want %s", r.Type, reportType)
	case r.Verdict != Pass && r.Verdict != Fail:
		return nil, fmt.Errorf("verdict %q, want PASS or FAIL: what was not judged is no report", r.Verdict)
	}
	if err := r.Evidence.check(); err != nil {
		return nil, err
	}
	if r.DataSource != FromPrometheus && r.DataSource != FromSimulator && r.DataSource != FromBackfill {
		return nil, fmt.Errorf("data_source %q, want %s, %s or %s", r.DataSource, FromPrometheus, FromSimulator, FromBackfill)
	}
	return r, nil
}

func (e *Evidence) check() error {
	switch {
	case e == nil || e.File == "":
		return errors.New("it names no evidence")
	case strings.ContainsAny(e.File, `/\`) || strings.HasPrefix(e.File, "."):
		return fmt.Errorf("evidence %q: want a file in the report's folder", e.File)
	}
	return nil
}

// ParseRefusal reads a refusal, as far as it can be read without its evidence.
func ParseRefusal(data []byte) (*Refusal, error) {
	r := &Refusal{}
	if err := readWhole(data, r); err != nil {
		return nil, fmt.Errorf("it is no refusal of this program: %w", err)
	}
	switch {
	case r.Type != reportType || r.Verdict != Refused || len(r.Reasons) == 0:
		return nil, fmt.Errorf("report_type %q and verdict %q with %d reasons, want %s, %s and at least one", r.Type, r.Verdict, len(r.Reasons), reportType, Refused)
	case r.Evidence == nil:
		return nil, errors.New("it was refused before anything was asked: there is no evidence")
	}
	if err := r.Evidence.check(); err != nil {
		return nil, err
	}
	return r, nil
}

// readWhole decodes one JSON object, and refuses what it does not know.
func readWhole(data []byte, into any) error {
	if len(data) > maxReport {
		return fmt.Errorf("%d bytes, want at most %d", len(data), maxReport)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows the object")
	}
	return nil
}

// Verify makes a report anew, of the spec and the archive, and demands that it
// is what the file says, byte for byte. The report that it returns is the one it
// made. It is [ErrNotMeasured] for a simulator's.
func Verify(report []byte, s *Spec, archive []byte) (*Report, error) {
	claimed, err := Parse(report)
	if err != nil {
		return nil, err
	}
	if claimed.DataSource == FromSimulator {
		return nil, ErrNotMeasured
	}
	made, refusal, err := anew(s, claimed.Spec, claimed.Evidence, archive)
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		var codes []string
		for _, r := range refusal.Reasons {
			codes = append(codes, string(r.Code))
		}
		return nil, fmt.Errorf("the evidence is refused (%s), the report says %s", strings.Join(codes, ", "), claimed.Verdict)
	}
	again, err := made.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, report) {
		return nil, fmt.Errorf("the report is not what its evidence shows: %s", difference(report, again))
	}
	return made, nil
}

// VerifyRefusal makes a refusal anew, and demands the same of it as [Verify] does
// of a report.
func VerifyRefusal(refusal []byte, s *Spec, archive []byte) (*Refusal, error) {
	claimed, err := ParseRefusal(refusal)
	if err != nil {
		return nil, err
	}
	report, made, err := anew(s, claimed.Spec, claimed.Evidence, archive)
	if err != nil {
		return nil, err
	}
	if report != nil {
		return nil, fmt.Errorf("the evidence is judged %s, the file says %s", report.Verdict, Refused)
	}
	again, err := made.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, refusal) {
		return nil, fmt.Errorf("the refusal is not what its evidence shows: %s", difference(refusal, again))
	}
	return made, nil
}

// anew judges an archive that a file says it was made of.
func anew(s *Spec, of SpecRef, evidence *Evidence, archive []byte) (*Report, *Refusal, error) {
	if of.SHA256 != s.sum {
		return nil, nil, fmt.Errorf("the report was made of a spec with SHA-256 %s, %s has %s", of.SHA256, s.name, s.sum)
	}
	if got := hexSum(archive); got != evidence.SHA256 {
		return nil, nil, fmt.Errorf("%s has SHA-256 %s, the report says %s", evidence.File, got, evidence.SHA256)
	}
	a, err := ParseArchive(archive)
	if err != nil {
		return nil, nil, err
	}
	// What the spec is called is no part of the evidence.
	named := *s
	named.name = of.File
	return Judge(&named, a, evidence.File)
}

func difference(was, want []byte) string {
	a, b := strings.Split(string(was), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d is %s, the evidence shows %s", i+1, strings.TrimSpace(a[i]), strings.TrimSpace(b[i]))
		}
	}
	return fmt.Sprintf("it has %d lines, the evidence shows %d", len(a), len(b))
}

// Refuse makes a refusal before anything was asked.
func Refuse(s *Spec, ask Ask, now time.Time, reasons ...Reason) *Refusal {
	return &Refusal{
		Type: reportType, Treaty: s.treaty, Timestamp: stamp(now), Window: FormatDuration(ask.window(s)), Verdict: Refused, DataSource: source(ask.Source),
		Reasons: reasons, Subject: &Subject{ask.Revision, ask.Artifact, ask.Environment}, Spec: s.ref(), Generator: ask.Generator,
	}
}
