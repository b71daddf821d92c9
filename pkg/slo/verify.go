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

// ErrNotMeasured says that a report is not made of measurements.
var ErrNotMeasured = errors.New("nothing was measured: want data_source prometheus")

// Parse reads a report, as far as it can be read without its evidence: nothing
// in it is true because it is written there. See [Verify].
func Parse(data []byte) (*Report, error) {
	if len(data) > maxReport {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), maxReport)
	}
	r := &Report{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return nil, fmt.Errorf("it is no report of this program: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more follows the report")
	}
	switch {
	case r.Type != reportType:
		return nil, fmt.Errorf("report_type %q, want %s", r.Type, reportType)
	case r.Verdict != Pass && r.Verdict != Fail:
		return nil, fmt.Errorf("verdict %q, want PASS or FAIL: what was not judged is no report", r.Verdict)
	case r.Evidence == nil || r.Evidence.File == "":
		return nil, errors.New("it names no evidence")
	case strings.ContainsAny(r.Evidence.File, `/\`) || strings.HasPrefix(r.Evidence.File, "."):
		return nil, fmt.Errorf("evidence %q: want a file in the report's folder", r.Evidence.File)
	case r.DataSource != FromPrometheus && r.DataSource != FromSimulator:
		return nil, fmt.Errorf("data_source %q, want %s or %s", r.DataSource, FromPrometheus, FromSimulator)
	}
	return r, nil
}

// Verify makes a report anew, of the spec and the archive, and demands that it
// is what the file says, byte for byte. The report that it returns is the one it
// made. It is [ErrNotMeasured] for a simulator's.
func Verify(report []byte, s *Spec, archive []byte) (*Report, error) {
	claimed, err := Parse(report)
	if err != nil {
		return nil, err
	}
	if claimed.DataSource != FromPrometheus {
		return nil, ErrNotMeasured
	}
	if claimed.Spec.SHA256 != s.sum {
		return nil, fmt.Errorf("the report was made of a spec with SHA-256 %s, %s has %s", claimed.Spec.SHA256, s.name, s.sum)
	}
	if got := hexSum(archive); got != claimed.Evidence.SHA256 {
		return nil, fmt.Errorf("%s has SHA-256 %s, the report says %s", claimed.Evidence.File, got, claimed.Evidence.SHA256)
	}
	a, err := ParseArchive(archive)
	if err != nil {
		return nil, err
	}
	// What the spec is called is no part of the evidence.
	named := *s
	named.name = claimed.Spec.File
	made, refusal, err := Judge(&named, a, claimed.Evidence.File)
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
		Type: reportType, Treaty: s.treaty, Timestamp: stamp(now), Window: FormatDuration(ask.window(s)), Verdict: Refused, DataSource: FromPrometheus,
		Reasons: reasons, Subject: &Subject{ask.Revision}, Spec: s.ref(), Generator: ask.Generator,
	}
}
