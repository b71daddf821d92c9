package smoke

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of one report of a test runner and of all reports of one judgement.
const (
	maxRaw      = 64 << 20 // bytes of one file
	maxCases    = 1_000_000
	maxFiles    = 4096
	maxDeclared = 10_000_000 // sums over maxCases suites of maxFiles files fit an int64
	maxMessage  = 2 << 10    // bytes of a case's message
	maxID       = 512        // bytes of a case's name, before a number is added to it
	maxProblems = 16
	maxVisited  = 1_000_000 // entries of directories looked at for one pattern
)

// CaseStatus is how one test ended. Its zero value is no status. The values are
// in the order of severity.
type CaseStatus uint8

const (
	// Passed: the test ran and passed.
	Passed CaseStatus = iota + 1
	// Warned: it failed as was expected of it (a TAP TODO), or only warns.
	Warned
	// Skipped: it did not run, or not to its end, and says so.
	Skipped
	// Failed: it ran and found what it looks for.
	Failed
	// Errored: it left no result, or ended by something else than a finding.
	Errored
)

// String returns the status in lower case, and "invalid" for anything else.
func (s CaseStatus) String() string {
	if s >= Passed && s <= Errored {
		return [...]string{"passed", "warned", "skipped", "failed", "errored"}[s-Passed]
	}
	return "invalid"
}

// Case is the result of one test.
type Case struct {
	ID     string // its name, printable, unique in its Suite
	Status CaseStatus
	Flaky  bool // passed, but only when it was run again
	// File is where it failed, as the report says, with slashes; a file of Go
	// is below the import path of its package. See Place.
	File    string
	Line    int    // from 1; 0 if not known
	Message string // printable, at most 2 KiB
}

// Totals is what a report says of itself, 0 where it says nothing.
type Totals struct{ Tests, Failed, Errored, Skipped int64 }

// Suite is what was read from one report, or from several.
type Suite struct {
	Format   string // "junit", "gotest", "tap" or "suite"; several are joined by +
	Cases    []Case
	Declared Totals
	// Problems say how the report contradicts itself. A suite that has one
	// never passes. At most 16 are kept.
	Problems []string
}

func (s *Suite) problem(format string, args ...any) {
	if len(s.Problems) < maxProblems {
		s.Problems = append(s.Problems, clip(printable(fmt.Sprintf(format, args...)), maxReason))
	}
}

// add appends a case whose text comes from a report.
func (s *Suite) add(c Case) error {
	if len(s.Cases) == maxCases {
		return fmt.Errorf("more than %d tests", maxCases)
	}
	c.ID, c.Message = clip(printable(strings.TrimSpace(c.ID)), maxID), clip(printable(strings.TrimSpace(c.Message)), maxMessage)
	if c.ID == "" {
		c.ID = "(no name)"
	}
	if c.File = strings.ReplaceAll(c.File, `\`, "/"); c.File != printable(c.File) || len(c.File) > maxID {
		c.File = ""
	}
	if c.File == "" || c.Line < 0 {
		c.Line = 0
	}
	s.Cases = append(s.Cases, c)
	return nil
}

// NewSuite makes a suite of the results of a runner within this program. Its
// messages are tamed like those of a report. Names are not: one that is given
// twice, or that no report could have, is an error, and so is a status that is
// none. A suite of no cases is judged a failure.
func NewSuite(cases []Case) (Suite, error) {
	s := Suite{Format: formatSuite}
	seen := map[string]bool{}
	for _, c := range cases {
		if err := checkName(c.ID); err != nil {
			return Suite{}, err
		}
		if len(c.ID) > maxID {
			return Suite{}, fmt.Errorf("found a name of %d bytes, wanted at most %d: %q", len(c.ID), maxID, clip(c.ID, 80))
		}
		switch {
		case seen[c.ID]:
			return Suite{}, fmt.Errorf("test %q is there twice", clip(c.ID, 80))
		case c.Status < Passed || c.Status > Errored:
			return Suite{}, fmt.Errorf("test %q has no status", clip(c.ID, 80))
		case c.Flaky && c.Status != Passed:
			return Suite{}, fmt.Errorf("test %q is flaky and %s, wanted passed", clip(c.ID, 80), c.Status)
		}
		seen[c.ID] = true
		if err := s.add(c); err != nil {
			return Suite{}, err
		}
	}
	return s, nil
}

// number makes the names of cases unique.
func number(cases []Case) {
	next := make(map[string]int, len(cases)) // of each name: the number its next twin may get
	for i := range cases {
		id := cases[i].ID
		n, twice := next[id]
		if !twice {
			next[id] = 2
			continue
		}
		name := id
		for ; twice; n++ {
			name = fmt.Sprintf("%s (%d)", id, n)
			_, twice = next[name]
		}
		next[id], next[name], cases[i].ID = n, 2, name
	}
}

// formatJUnit and the others name the dialects, in Suite.Format.
const (
	formatJUnit  = "junit"
	formatGoTest = "gotest"
	formatTAP    = "tap"
	formatSuite  = "suite"
)

var tapMark = regexp.MustCompile(`(?m)^(TAP version \d+|1\.\.\d+[ \t]*(#.*)?|Bail out!.*)\r?$`)

// ReadResults reads one report of a test runner: JUnit XML, the output of
// go test -json, or TAP. What it is, its content says; name is for messages.
// A report that is truncated, or of a form that is not known, is an error, and
// never a report of no tests.
func ReadResults(name string, data []byte) (Suite, error) {
	s, err := readResults(data)
	if err != nil {
		return Suite{}, fmt.Errorf("%s: %w", clip(printable(name), 100), err)
	}
	for i, p := range s.Problems {
		s.Problems[i] = clip(printable(name), 100) + ": " + p
	}
	number(s.Cases)
	return s, nil
}

func readResults(data []byte) (Suite, error) {
	if len(data) > maxRaw {
		return Suite{}, fmt.Errorf("%d bytes, wanted at most %d", len(data), maxRaw)
	}
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return Suite{}, errors.New("found UTF-16, wanted UTF-8")
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	begin := bytes.TrimLeft(data, " \t\r\n")
	switch {
	case len(begin) == 0:
		return Suite{}, errors.New("the report is empty")
	case begin[0] == '<':
		return readJUnit(begin)
	case begin[0] == '{':
		return readGoTest(begin)
	case tapMark.Match(data):
		return readTAP(data)
	}
	first, _, _ := bytes.Cut(begin, []byte("\n"))
	return Suite{}, fmt.Errorf("the format is not known: found %q, wanted JUnit XML, the output of go test -json, or TAP with its plan", clip(string(first), 80))
}

// MergeSuites makes one suite of several. Each keeps the worse of its cases and
// its declared totals; names that two of them use are numbered.
func MergeSuites(suites ...Suite) Suite {
	var all Suite
	var formats []string
	for _, s := range suites {
		formats = append(formats, strings.Split(s.Format, "+")...)
		all.Cases = append(all.Cases, s.Cases...)
		all.Problems = append(all.Problems, s.Problems...)
		w, _, _ := s.worst()
		all.Declared.Tests += w.Tests
		all.Declared.Failed += w.Failed
		all.Declared.Errored += w.Errored
		all.Declared.Skipped += w.Skipped
	}
	all.Problems = all.Problems[:min(len(all.Problems), maxProblems)]
	slices.Sort(formats)
	all.Format = strings.Trim(strings.Join(slices.Compact(formats), "+"), "+")
	number(all.Cases)
	return all
}

// worst returns the worse of the cases and the declared totals, and how many
// cases passed and warned. A status that is none counts as an error.
func (s Suite) worst() (w Totals, passed, warned int64) {
	w.Tests = int64(len(s.Cases))
	for _, c := range s.Cases {
		switch c.Status {
		case Passed:
			passed++
		case Warned:
			warned++
		case Skipped:
			w.Skipped++
		case Failed:
			w.Failed++
		default:
			w.Errored++
		}
	}
	d := s.Declared
	w.Tests, w.Skipped = max(w.Tests, d.Tests), max(w.Skipped, d.Skipped)
	// Dialects do not agree on what is a failure and what an error, so a
	// declared split counts only when its sum is the worse.
	if d.Failed+d.Errored > w.Failed+w.Errored {
		w.Failed, w.Errored = d.Failed, d.Errored
	}
	return w, passed, warned
}

// Counts returns the worse of the cases and the declared totals. A test that
// the totals name and no case tells of is an error. Problems become the
// disagreement that never passes.
func (s Suite) Counts() Counts {
	w, passed, warned := s.worst()
	rest := w.Tests - w.Failed - w.Errored - w.Skipped - warned
	passed = max(0, min(passed, rest))
	if rest -= passed; rest > 0 {
		w.Errored += rest
	}
	c := Counts{
		Passed: passed, Failed: w.Failed + w.Errored, Errored: w.Errored, Warned: warned, Skipped: w.Skipped,
		Format: s.Format,
	}
	c.Total = c.Passed + c.Failed + c.Warned + c.Skipped
	if n := len(s.Cases); n > 0 && int64(n) == c.Total {
		ids := make([]string, n)
		for i := range s.Cases {
			ids[i] = s.Cases[i].ID
		}
		// An error means names that this package has not numbered.
		c.IDs, c.IDsSHA256, _ = sumIDs(ids)
	}
	if n := len(s.Problems); n > 0 {
		c.Disagreement = "a report contradicts itself: " + strings.Join(s.Problems[:min(n, 2)], "; ")
		if n > 2 {
			c.Disagreement += "; and more"
		}
	}
	return c
}

// Wanting returns the cases that failed or errored, in their order.
func (s Suite) Wanting() []Case {
	var found []Case
	for _, c := range s.Cases {
		if c.Status != Passed && c.Status != Warned && c.Status != Skipped {
			found = append(found, c)
		}
	}
	return found
}

// Flaky returns the cases that passed only when they were run again.
func (s Suite) Flaky() []Case {
	var found []Case
	for _, c := range s.Cases {
		if c.Flaky {
			found = append(found, c)
		}
	}
	return found
}

// Where returns "file:line", "file" or "".
func (c Case) Where() string {
	if c.Line > 0 {
		return c.File + ":" + strconv.Itoa(c.Line)
	}
	return c.File
}

// Results is what the reports of one judgement say.
type Results struct {
	Suite Suite // of all reports that could be read
	Names []string
	Files []Material // name and digest of each report that was read
	// SHA256 is the hex SHA-256 of the lines "<hex SHA-256>  <name>\n" of the
	// files, sorted by name: what sha256sum prints for them. Of an unreadable
	// file there is no line.
	SHA256 string
	Bytes  int64 // of all files
	// Errors say which reports are missing, stale or unreadable. With one of
	// them there is no pass.
	Errors []string
}

// JudgeResults judges one execution by the reports of its tests. An execution
// that was not Run (FromResults) has no exit status. What the command printed
// on standard output is a signal beside the reports: a result there that would
// not pass by itself, or that cannot be read, is a failure.
//
// Reports that are missing, stale or unreadable are an error, unless the exit
// status or the reports that could be read prove a failure.
func JudgeResults(x Execution, res Results, e Expect) Report {
	c := res.Suite.Counts()
	if len(res.Errors) == 0 && c.Disagreement == "" {
		c.Disagreement = x.printed(e)
	}
	x.OutputSHA256, x.OutputBytes = res.SHA256, res.Bytes
	if len(res.Errors) == 0 || x.Failure != "" || (x.ExitCode == nil && !x.Saved) {
		return Judge(x, c, e).because(e.Compare(res.Suite).notes()...)
	}
	r := x.unreadable(e, res.Errors...)
	if r.Verdict == Error && c.Failed > 0 {
		c.Disagreement = res.Errors[0]
		e.Tests = Tests{} // who knows which are in the reports that could not be read
		r = Judge(x, c, e)
	}
	return r
}

// FromResults makes an execution of reports that an earlier step left behind:
// nothing was run, and no exit status is known.
func FromResults(now time.Time) Execution {
	return Execution{Started: now, Finished: now, Saved: true, OutputSHA256: hexSHA256(nil)}
}

// pytestLine is the last line that pytest prints, with or without its frame.
// It is read for what it says against a run, and never for a pass.
var (
	pytestLine = regexp.MustCompile(`^(?:=+ )?(\d+ [a-z]+(?:, \d+ [a-z]+)*) in \d+(?:\.\d+)?s(?: \([0-9:, day]+\))?(?: =+)?$`)
	pytestBad  = regexp.MustCompile(`\b0*[1-9]\d* (?:failed|errors?)\b`)
)

// printed says what is wrong with a result on standard output, if there is one.
func (x Execution) printed(e Expect) string {
	for _, line := range numbered(x.Stdout) {
		if m := pytestLine.FindSubmatch(line); m != nil && pytestBad.Match(m[1]) {
			return "standard output: pytest says " + string(m[1])
		}
	}
	c, err := readAuto(x.Stdout)
	switch {
	case errors.Is(err, errNoResult):
		return ""
	case err != nil:
		return "standard output: " + err.Error()
	}
	if why := shortfalls(c, nil, Expect{Warnings: e.Warnings}); len(why) > 0 {
		return "standard output: " + why[0]
	}
	return ""
}

// ReportFiles finds the reports that patterns name in a workspace.
type ReportFiles struct {
	dir      string
	patterns []string
	before   map[string]stamp // nil: every file is as good as the next
}

type stamp struct {
	size int64
	at   time.Time
}

// FindReports returns the files that patterns name, relative to workspace. A
// pattern is that of path.Match, with slashes, in which ** stands for any
// number of directories. It refuses patterns that leave the workspace; whether
// there are such files, Read will say.
func FindReports(workspace string, patterns []string) (*ReportFiles, error) {
	f := &ReportFiles{dir: workspace}
	if len(patterns) == 0 {
		return nil, errors.New("no pattern of reports is given")
	}
	for _, given := range patterns {
		p := path.Clean(filepath.ToSlash(given))
		if given == "" || path.IsAbs(p) || filepath.IsAbs(given) || p == ".." || strings.HasPrefix(p, "../") {
			return nil, fmt.Errorf("pattern %q leaves the workspace, wanted one relative to it", given)
		}
		for _, segment := range strings.Split(p, "/") {
			if _, err := path.Match(segment, ""); err != nil {
				return nil, fmt.Errorf("pattern %q: %w", given, err)
			}
			if strings.Contains(segment, "**") && segment != "**" {
				return nil, fmt.Errorf("pattern %q: found %q, wanted ** alone between slashes", given, segment)
			}
		}
		f.patterns = append(f.patterns, p)
	}
	return f, nil
}

// Mark remembers the files that are there before a command starts: what it then
// leaves as it is was written by somebody else, and is stale.
func (f *ReportFiles) Mark() error {
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f.before = map[string]stamp{}
	for _, p := range f.patterns {
		found, err := match(root, p)
		if err != nil {
			return err
		}
		for name, info := range found {
			f.before[name] = stamp{info.Size(), info.ModTime()}
		}
	}
	return nil
}

// clockSlack is how far the clock that file systems stamp with may be behind
// the one that Execution.Started is read from; the coarsest counts two seconds.
// Files that Mark has seen are compared exactly.
const clockSlack = 2 * time.Second

// Read reads the reports. With Mark, those that are unchanged since then, or
// older than started, are stale. Every pattern must find a regular file; none
// may lead out of the workspace through a symbolic link.
func (f *ReportFiles) Read(started time.Time) Results {
	res := Results{SHA256: hexSHA256(nil)}
	fail := func(format string, args ...any) {
		if len(res.Errors) < maxProblems {
			res.Errors = append(res.Errors, clip(printable(fmt.Sprintf(format, args...)), maxReason))
		}
	}
	root, err := os.OpenRoot(f.dir)
	if err != nil {
		fail("%v", err)
		return res
	}
	defer root.Close()
	found := map[string]fs.FileInfo{}
	for _, p := range f.patterns {
		some, err := match(root, p)
		if err != nil {
			fail("%v", err)
		} else if len(some) == 0 {
			fail("no file matches %q: wanted the reports of the tests", p)
		}
		for name, info := range some {
			found[name] = info
			res.Names = append(res.Names, name)
		}
	}
	slices.Sort(res.Names)
	res.Names = slices.Compact(res.Names)
	if len(res.Names) > maxFiles {
		fail("%d reports match, wanted at most %d", len(res.Names), maxFiles)
		return res
	}
	sum := sha256.New()
	var suites []Suite
	cases := 0
	for _, name := range res.Names {
		if name != printable(name) {
			fail("%q: wanted a printable name", name)
			continue
		}
		info := found[name]
		old, known := f.before[name]
		if f.before != nil && (known && old == stamp{info.Size(), info.ModTime()} || info.ModTime().Before(started.Add(-clockSlack))) {
			fail("%s: stale: it is older than the run, which did not write it", name)
			continue
		}
		data, err := readRegular(root, name)
		if err != nil {
			fail("%s: %v", name, err)
			continue
		}
		file := Material{Name: name, SHA256: hexSHA256(data)}
		fmt.Fprintf(sum, "%s  %s\n", file.SHA256, name)
		res.Files = append(res.Files, file)
		res.Bytes += int64(len(data))
		s, err := ReadResults(name, data)
		if err != nil {
			fail("%v", err)
			continue
		}
		if cases += len(s.Cases); cases > maxCases {
			fail("%s: more than %d tests in all reports", name, maxCases)
			break
		}
		suites = append(suites, s)
	}
	res.SHA256 = hex.EncodeToString(sum.Sum(nil))
	res.Suite = MergeSuites(suites...)
	return res
}

func readRegular(root *os.Root, name string) ([]byte, error) {
	file, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxRaw+1))
	if err == nil && len(data) > maxRaw {
		err = fmt.Errorf("more than %d bytes", maxRaw)
	}
	return data, err
}

// match returns the files that a pattern names, by their paths with slashes.
// Directories are passed over; a link that leads out of root is an error, and
// so is anything that is neither: reading a pipe would wait for ever.
func match(root *os.Root, pattern string) (map[string]fs.FileInfo, error) {
	found := map[string]fs.FileInfo{}
	visited := 0
	var walk func(dir string, segments []string) error
	visit := func(name string, segments []string) error {
		if visited++; visited > maxVisited {
			return fmt.Errorf("pattern %q: more than %d files to look at, wanted a narrower pattern", pattern, maxVisited)
		}
		// Stat of a Root follows links only as far as they stay inside.
		info, err := root.Stat(filepath.FromSlash(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			var at *fs.PathError
			if errors.As(err, &at) {
				err = at.Err // without the name of a system call
			}
			return fmt.Errorf("%s: %w", name, err)
		case len(segments) > 0 && info.IsDir():
			return walk(name, segments)
		case len(segments) > 0 || info.IsDir():
			return nil
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s: not a regular file", name)
		}
		found[name] = info
		return nil
	}
	walk = func(dir string, segments []string) error {
		first, rest := segments[0], segments[1:]
		if !strings.ContainsAny(first, `*?[\`) {
			return visit(path.Join(dir, first), rest)
		}
		if first == "**" {
			if len(rest) == 0 {
				rest = []string{"*"}
			}
			if err := walk(dir, rest); err != nil {
				return err
			}
		}
		d, err := root.Open(filepath.FromSlash(dir))
		if err != nil {
			return err
		}
		entries, err := d.ReadDir(-1)
		d.Close()
		if err != nil {
			return err
		}
		for _, entry := range entries {
			name := path.Join(dir, entry.Name())
			if first == "**" {
				// Links are not followed, or a loop of them would not end.
				if entry.IsDir() && entry.Name() != ".git" {
					err = visit(name, segments)
				}
			} else if ok, _ := path.Match(first, entry.Name()); ok {
				err = visit(name, rest)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(".", strings.Split(pattern, "/")); err != nil {
		return nil, err
	}
	return found, nil
}

// Place returns the file of a workspace that a report means by the name in
// Case.File, and "" if there is none. A report may name it with the directory
// of the machine, or with the import path, in front.
func Place(workspace, file string) string {
	root, err := os.OpenRoot(workspace)
	if err != nil || file == "" {
		return ""
	}
	defer root.Close()
	segments := strings.Split(strings.TrimPrefix(path.Clean("/"+file), "/"), "/")
	for i := range segments[:min(len(segments), 64)] {
		name := path.Join(segments[i:]...)
		if info, err := root.Lstat(filepath.FromSlash(name)); err == nil && info.Mode().IsRegular() {
			return name
		}
	}
	return ""
}

// place finds "file:line" at the begin of a line of text, as compilers and most
// test runners print it, or in the words of bats and of Perl.
var place = regexp.MustCompile(`(?m)^[ \t#]*(?:([^\s:()'"<>]*\.[A-Za-z]\w*):(\d{1,9})(?:[:\s]|$)|\((?:in test file|from function .* in file|in file) ([^\s,]+), line (\d{1,9})|.*\bat (\S+) line (\d{1,9})\.)`)

func findPlace(text string) (file string, line int) {
	m := place.FindStringSubmatch(text)
	for i := 1; i+1 < len(m); i += 2 {
		if m[i] != "" {
			line, _ = strconv.Atoi(m[i+1])
			return m[i], line
		}
	}
	return "", 0
}

// text keeps the first bytes of a message.
type text struct{ kept []byte }

func (t *text) add(s string) {
	// More than a message holds, so that the place is found behind a banner.
	if room := 2*maxMessage - len(t.kept); room > 0 {
		t.kept = append(t.kept, s[:min(len(s), room)]...)
	}
}
