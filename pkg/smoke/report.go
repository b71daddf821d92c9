package smoke

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gowebpki/jcs"
)

// Bounds of a report, in bytes and in number. They keep the worst case, every
// byte escaped to two, under maxReport.
const (
	maxReport  = 16 << 10
	maxCommand = 512
	maxReason  = 300
	maxReasons = 16
)

// Report is the judgement of one run, unsigned. A Report from Judge,
// JudgeOutput or DecodeReport is consistent; a caller adds only Commit.
type Report struct {
	Verdict                                Verdict
	Passed, Failed, Warned, Skipped, Total int64  // all 0 when there was nothing to read
	Errored                                int64  // how many of Failed; see Counts
	Expected                               int64  // the floor; 0 is none
	ExitCode                               *int   // nil: not known, or none
	Commit                                 string // 40 or 64 hex digits of what was tested, or empty
	Command                                string // as a person would type it, cut at 512 bytes; empty for a saved output
	CommandSHA256                          string // hex, of the whole command; only when Command differs from it
	Format                                 string // name of the reader; empty when there was nothing to read
	IDsSHA256                              string // hex; see Counts
	TestsSHA256                            string // hex, of the names in Expect.Tests; empty when none were named
	OutputSHA256                           string // hex, of the raw standard output, or of the reports read; see Results
	OutputBytes                            int64
	Reasons                                []string  // messages for a person; never nil
	Started, Finished                      time.Time // UTC, whole seconds
}

// wire is the JSON form. Canonicalisation sorts the keys.
type wire struct {
	V             int      `json:"v"`
	Verdict       string   `json:"verdict"`
	Passed        int64    `json:"passed"`
	Failed        int64    `json:"failed"`
	Errored       int64    `json:"errored,omitempty"`
	Warned        int64    `json:"warned"`
	Skipped       int64    `json:"skipped"`
	Total         int64    `json:"total"`
	Expected      int64    `json:"expected"`
	ExitCode      *int     `json:"exit_code"`
	Commit        string   `json:"commit"`
	Command       string   `json:"command"`
	CommandSHA256 string   `json:"command_sha256,omitempty"`
	Format        string   `json:"format"`
	IDsSHA256     string   `json:"ids_sha256,omitempty"`
	OutputSHA256  string   `json:"output_sha256"`
	OutputBytes   int64    `json:"output_bytes"`
	Reasons       []string `json:"reasons"`
	Started       string   `json:"started"`
	TestsSHA256   string   `json:"tests_sha256,omitempty"`
	Finished      string   `json:"finished"`
}

const timeLayout = "2006-01-02T15:04:05Z"

// EncodeReport returns the canonical JSON of a consistent report, without a
// newline at its end.
func EncodeReport(r Report) ([]byte, error) {
	data, err := r.encode()
	if err != nil {
		return nil, fmt.Errorf("smoke report: %w", err)
	}
	return data, nil
}

func (r Report) encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	reasons := r.Reasons
	if reasons == nil {
		reasons = []string{}
	}
	raw, err := json.Marshal(wire{
		V: 1, Verdict: r.Verdict.String(),
		Passed: r.Passed, Failed: r.Failed, Errored: r.Errored, Warned: r.Warned, Skipped: r.Skipped, Total: r.Total,
		Expected: r.Expected, ExitCode: r.ExitCode, Commit: r.Commit,
		Command: r.Command, CommandSHA256: r.CommandSHA256, Format: r.Format, IDsSHA256: r.IDsSHA256,
		OutputSHA256: r.OutputSHA256, OutputBytes: r.OutputBytes, Reasons: reasons, TestsSHA256: r.TestsSHA256,
		Started: r.Started.Format(timeLayout), Finished: r.Finished.Format(timeLayout),
	})
	if err != nil {
		return nil, err
	}
	canonical, err := jcs.Transform(raw)
	if err != nil {
		return nil, err
	}
	if len(canonical) > maxReport {
		return nil, fmt.Errorf("%d bytes, wanted at most %d", len(canonical), maxReport)
	}
	return canonical, nil
}

// DecodeReport reads a report that some job handed over. It refuses what
// EncodeReport would not have written byte for byte: other keys, other order,
// other numbers, trailing bytes, and a verdict its own counts contradict.
func DecodeReport(data []byte) (Report, error) {
	r, err := decodeReport(data)
	if err != nil {
		return Report{}, fmt.Errorf("smoke report: %w", err)
	}
	return r, nil
}

func decodeReport(data []byte) (Report, error) {
	if len(data) > maxReport {
		return Report{}, fmt.Errorf("%d bytes, wanted at most %d", len(data), maxReport)
	}
	if !utf8.Valid(data) {
		return Report{}, errors.New("not UTF-8")
	}
	var w wire
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&w); err != nil {
		return Report{}, err
	}
	if w.V != 1 {
		return Report{}, fmt.Errorf("version: found %d, wanted 1", w.V)
	}
	verdict, err := parseVerdict(w.Verdict)
	if err != nil {
		return Report{}, err
	}
	started, err := time.Parse(timeLayout, w.Started)
	if err != nil {
		return Report{}, fmt.Errorf("started: found %q, wanted a time such as 2025-01-02T03:04:05Z", clip(w.Started, 40))
	}
	finished, err := time.Parse(timeLayout, w.Finished)
	if err != nil {
		return Report{}, fmt.Errorf("finished: found %q, wanted a time such as 2025-01-02T03:04:05Z", clip(w.Finished, 40))
	}
	r := Report{
		Verdict: verdict,
		Passed:  w.Passed, Failed: w.Failed, Errored: w.Errored, Warned: w.Warned, Skipped: w.Skipped, Total: w.Total,
		Expected: w.Expected, ExitCode: w.ExitCode, Commit: w.Commit,
		Command: w.Command, CommandSHA256: w.CommandSHA256, Format: w.Format, IDsSHA256: w.IDsSHA256,
		OutputSHA256: w.OutputSHA256, OutputBytes: w.OutputBytes, Reasons: w.Reasons, TestsSHA256: w.TestsSHA256,
		Started: started, Finished: finished,
	}
	// encoding/json accepts repeated keys, other letter cases, missing keys
	// and white space; one comparison refuses all of them.
	again, err := r.encode()
	if err != nil {
		return Report{}, err
	}
	if !bytes.Equal(again, data) {
		return Report{}, errors.New("not in canonical form (RFC 8785, every key once, nothing after it)")
	}
	return r, nil
}

// check holds the laws every report obeys, whoever made it.
func (r Report) check() error {
	if r.Verdict != Pass && r.Verdict != Fail && r.Verdict != Error {
		return errors.New("it has no verdict")
	}
	c := r.counts()
	if err := c.check(); err != nil {
		return err
	}
	if r.Expected < 0 || r.Expected > maxExpect {
		return fmt.Errorf("expected: found %d, wanted 0 to 2^31-1", r.Expected)
	}
	if r.ExitCode != nil && (*r.ExitCode < 0 || int64(*r.ExitCode) > 1<<32-1) {
		return fmt.Errorf("exit_code: found %d, wanted 0 to 2^32-1", *r.ExitCode)
	}
	switch {
	case r.Verdict == Pass:
		// The report does not carry the policy on warnings, so this is the
		// most a pass can mean; Under holds it to the reader's own policy.
		if why := shortfalls(c, r.ExitCode, Expect{Total: int(r.Expected), Warnings: "allow"}); len(why) > 0 {
			return fmt.Errorf("verdict is pass, but %s", why[0])
		}
		if r.Format == "" {
			return errors.New("verdict is pass, but no format was read")
		}
		if r.TestsSHA256 != "" && r.IDsSHA256 == "" {
			return errors.New("verdict is pass of named tests, but the tests that ran have no names")
		}
	case len(r.Reasons) == 0:
		return fmt.Errorf("verdict is %s, but no reason is given", r.Verdict)
	case r.Verdict == Error && (c.Total != 0 || c.Format != "" || c.IDsSHA256 != ""):
		return errors.New("verdict is error, but it has counts")
	}
	if r.Commit != "" && !isHex(r.Commit, 40) && !isHex(r.Commit, 64) {
		return fmt.Errorf("commit: found %q, wanted 40 or 64 lower-case hex digits", clip(r.Commit, 80))
	}
	for _, f := range []struct{ key, sum string }{{"command_sha256", r.CommandSHA256}, {"ids_sha256", r.IDsSHA256}, {"tests_sha256", r.TestsSHA256}} {
		if f.sum != "" && !isHex(f.sum, 64) {
			return fmt.Errorf("%s: found %q, wanted 64 lower-case hex digits", f.key, clip(f.sum, 80))
		}
	}
	if !isHex(r.OutputSHA256, 64) {
		return fmt.Errorf("output_sha256: found %q, wanted 64 lower-case hex digits", clip(r.OutputSHA256, 80))
	}
	if r.OutputBytes < 0 || r.OutputBytes > maxCount {
		return fmt.Errorf("output_bytes: found %d, wanted 0 to 2^53-1", r.OutputBytes)
	}
	if len(r.Format) > 64 || strings.Trim(r.Format, "abcdefghijklmnopqrstuvwxyz0123456789+-") != "" {
		return fmt.Errorf("format: found %q, wanted names of formats", clip(r.Format, 80))
	}
	if len(r.Command) > maxCommand || r.Command != printable(r.Command) {
		return fmt.Errorf("command: wanted at most %d bytes of printable text", maxCommand)
	}
	if len(r.Reasons) > maxReasons {
		return fmt.Errorf("reasons: found %d, wanted at most %d", len(r.Reasons), maxReasons)
	}
	for i, s := range r.Reasons {
		if s == "" || len(s) > maxReason || s != printable(s) {
			return fmt.Errorf("reason %d: wanted 1 to %d bytes of printable text", i+1, maxReason)
		}
	}
	for _, t := range []time.Time{r.Started, r.Finished} {
		if t.Location() != time.UTC || t.Nanosecond() != 0 || t.Year() < 0 || t.Year() > 9999 {
			return errors.New("started and finished: wanted UTC in whole seconds")
		}
	}
	if r.Finished.Before(r.Started) {
		return errors.New("it finished before it started")
	}
	return nil
}

// Badge returns the badge file that scripts of the ancestor read, in its key
// order, with two decimals and a newline:
//
//	{"tests":{"pass":20,"total":26,"pct":76.92}}
//
// Warnings are not passes here, whatever the policy. The percentage is cut and
// not rounded, so that 100.00 means all of them.
func Badge(r Report) []byte { return badge(r.Passed, r.Total) }

func badge(pass, total int64) []byte {
	pct := uint64(0)
	if total > 0 && pass > 0 {
		hi, lo := bits.Mul64(uint64(min(pass, total)), 10000)
		pct, _ = bits.Div64(hi, lo, uint64(total))
	}
	return fmt.Appendf(nil, "{\"tests\":{\"pass\":%d,\"total\":%d,\"pct\":%d.%02d}}\n", pass, total, pct/100, pct%100)
}

// ParseBadge reads a badge file. It accepts only the bytes Badge writes.
func ParseBadge(data []byte) (pass, total int64, err error) {
	var b struct {
		Tests struct {
			Pass  int64       `json:"pass"`
			Total int64       `json:"total"`
			Pct   json.Number `json:"pct"`
		} `json:"tests"`
	}
	if len(data) > 256 {
		return 0, 0, fmt.Errorf("badge: %d bytes, wanted at most 256", len(data))
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return 0, 0, fmt.Errorf("badge: %w", err)
	}
	pass, total = b.Tests.Pass, b.Tests.Total
	if pass < 0 || pass > total || total > maxCount {
		return 0, 0, fmt.Errorf("badge: pass %d of total %d: wanted 0 <= pass <= total <= 2^53-1", pass, total)
	}
	if want := badge(pass, total); !bytes.Equal(want, data) {
		return 0, 0, fmt.Errorf("badge: found %q, wanted %q", clip(string(data), 100), want)
	}
	return pass, total, nil
}

// ShieldsBadge returns the same result in the endpoint form of shields.io,
// which refuses unknown keys and so needs a file of its own.
func ShieldsBadge(r Report) []byte {
	message, color := strconv.FormatInt(r.Passed, 10)+"/"+strconv.FormatInt(r.Total, 10), "red"
	switch {
	case r.Verdict == Pass && r.Warned == 0:
		color = "brightgreen"
	case r.Verdict == Pass:
		color = "yellow"
	case r.Verdict != Fail:
		message, color = "error", "lightgrey"
	}
	return fmt.Appendf(nil, "{\"schemaVersion\":1,\"label\":\"smoke\",\"message\":%q,\"color\":%q}\n", message, color)
}

func (r Report) headline() (mark, line string) {
	mark = "❌"
	if r.Verdict == Pass {
		mark = "✅"
	}
	line = strings.ToUpper(r.Verdict.String())
	if r.Verdict == Error {
		return mark, line + "  could not judge"
	}
	line += fmt.Sprintf("  %d/%d tests passed", r.Passed, r.Total)
	if r.Expected > 0 {
		line += fmt.Sprintf(", at least %d expected", r.Expected)
	}
	return mark, line
}

// Text returns the report for a terminal: the verdict, the reasons, and unless
// it passed what to do next. Each line ends with a newline.
func Text(r Report) string {
	var b strings.Builder
	mark, line := r.headline()
	fmt.Fprintf(&b, "%s smoke-gate: %s\n", mark, line)
	for _, s := range r.Reasons {
		fmt.Fprintf(&b, "   %s\n", printable(s))
	}
	if next := r.next(); next != "" {
		fmt.Fprintf(&b, "   next: %s\n", next)
	}
	return b.String()
}

func (r Report) next() string {
	switch {
	case r.Verdict == Pass:
		return ""
	case r.Command == "" && r.Verdict == Fail:
		return "run the smoke command, fix what did not pass, judge its output again"
	case r.Verdict == Fail:
		return fmt.Sprintf("run `%s`, fix what did not pass, try again", printable(r.Command))
	}
	return "clear the reason above; what could not be judged is never a pass"
}

// Summary returns the report as Markdown for a job summary. Its size is
// bounded by the bounds of a report. Text from the run is escaped: it cannot
// mention people, link issues or open tags.
func Summary(r Report) string {
	var b strings.Builder
	mark, line := r.headline()
	fmt.Fprintf(&b, "### %s Smoke gate: %s\n\n", mark, line)
	b.WriteString("| passed | failed | warned | skipped | total | expected at least | exit status |\n|---:|---:|---:|---:|---:|---:|---:|\n")
	expected, exit := "none set", "not known"
	if r.Expected > 0 {
		expected = strconv.FormatInt(r.Expected, 10)
	}
	if r.ExitCode != nil {
		exit = strconv.Itoa(*r.ExitCode)
	}
	failed := strconv.FormatInt(r.Failed, 10)
	if r.Errored > 0 {
		failed += fmt.Sprintf(" (%d errored)", r.Errored)
	}
	fmt.Fprintf(&b, "| %d | %s | %d | %d | %d | %s | %s |\n\n", r.Passed, failed, r.Warned, r.Skipped, r.Total, expected, exit)
	for _, s := range r.Reasons {
		fmt.Fprintf(&b, "- %s\n", markdown(s))
	}
	if next := r.next(); next != "" {
		fmt.Fprintf(&b, "- **next:** %s\n", markdown(next))
	}
	b.WriteString("\n")
	if r.Command != "" {
		fmt.Fprintf(&b, "Command: <code>%s</code>  \n", markdown(r.Command))
	}
	if r.Commit != "" {
		fmt.Fprintf(&b, "Commit: <code>%s</code>  \n", markdown(r.Commit))
	}
	fmt.Fprintf(&b, "Output: %d bytes, SHA-256 <code>%s</code>\n", r.OutputBytes, markdown(r.OutputSHA256))
	return b.String()
}

// markdown writes every character that means something to Markdown or HTML as
// an entity. After @ and # comes a zero-width space, because entities are
// resolved before mentions and issue links are looked for.
func markdown(s string) string {
	var b strings.Builder
	for _, c := range printable(s) {
		switch {
		case c == '@' || c == '#':
			fmt.Fprintf(&b, "&#%d;&#8203;", c)
		case strings.ContainsRune("&<>|`*_[]\\!~$:", c):
			fmt.Fprintf(&b, "&#%d;", c)
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}
