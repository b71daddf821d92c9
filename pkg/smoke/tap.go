package smoke

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	tapVersion = regexp.MustCompile(`^TAP version \d+\s*$`)
	tapPlan    = regexp.MustCompile(`^1\.\.(\d+)\s*(?:#.*)?$`)
	// The result, the id if there is one, and the description.
	tapPoint     = regexp.MustCompile(`^(not )?ok(?:[ \t]+(\d+))?((?:[ \t-].*)?)$`)
	tapDirective = regexp.MustCompile(`(?i)(?:^|[ \t])#[ \t]*(todo\b|skip[^ \t]*)[ \t]*(.*)$`)
	// tapChild is the result of a direct subtest: they are indented by four.
	tapChild = regexp.MustCompile(`^(?: {4}|\t)not ok(?:[ \t]|$)`)
	// tapTorn is what is left of "not ok" when somebody printed in between, and
	// tapBuried what follows when somebody printed in front.
	tapTorn = regexp.MustCompile(`^(?:not|ot|t)(?:[ \t]|$)`)
	// tapTook is the time that bats --timing puts behind a name. With it no test
	// would have the same name twice.
	tapTook   = regexp.MustCompile(`(\S) in \d+(?:ms|sec)$`)
	tapGaveUp = regexp.MustCompile(`^(?: {4}|\t)+Bail out!`)
	tapBuried = regexp.MustCompile(`not ok[ \t]+[\d-]`)
)

// maxMissing is how many tests without a result are named, so that a plan alone
// does not make a million cases.
const maxMissing = 100

// tap reads one stream of the Test Anything Protocol, versions 12 to 14. Only
// lines that begin in the first column count. Those of subtests, indented,
// belong to their parent, which stands behind them, or before them with a brace.
type tap struct {
	suite Suite
	seen  map[int64]bool // ids
	next  int64          // id of a test that gives none

	plan     int64
	planLine int // 0: none yet
	points   int // tests so far
	planAt   int // points when the plan came
	bailed   bool

	last     *Case // waits for its diagnostics
	out      text
	braced   bool // the subtests of last are behind it
	badChild int  // line of a failed subtest whose parent is to come; 0: none
	yaml     bool // in a block of diagnostics
}

func readTAP(data []byte) (Suite, error) {
	r := tap{suite: Suite{Format: formatTAP}, seen: map[int64]bool{}, next: 1}
	for n := 1; len(data) > 0; n++ {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte("\n"))
		line := strings.TrimSuffix(string(raw), "\r")
		var err error
		if line != "" && strings.IndexByte(" \t#", line[0]) >= 0 {
			r.beside(n, line)
		} else {
			err = r.line(n, line)
		}
		if err != nil {
			return Suite{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := r.end(); err != nil {
		return Suite{}, err
	}
	return r.suite, nil
}

// line reads a line that begins in the first column and is no comment. What is
// not of the protocol was printed by a test, and counts for nothing.
func (r *tap) line(n int, line string) error {
	r.yaml = false
	switch plan := tapPlan.FindStringSubmatch(line); {
	case tapPoint.MatchString(line):
		return r.point(n, line)
	case plan != nil:
		count, err := strconv.ParseInt(plan[1], 10, 64)
		if err != nil || count > maxCases {
			return fmt.Errorf("plan %s: wanted at most %d tests", clip(line, 40), maxCases)
		}
		if r.planLine != 0 {
			r.suite.problem("line %d: a second plan, after that on line %d: wanted exactly one", n, r.planLine)
		} else {
			r.planLine, r.planAt = n, r.points
		}
		r.plan = max(r.plan, count)
	case tapVersion.MatchString(line):
		if r.planLine != 0 || r.points > 0 {
			r.suite.problem("line %d: a version line in the middle: wanted one stream", n)
		}
	case strings.HasPrefix(line, "Bail out!"):
		if err := r.flush(); err != nil {
			return err
		}
		r.bailed = true
		return r.suite.add(Case{ID: "Bail out!", Status: Errored, Message: "the run was given up:" + strings.TrimPrefix(line, "Bail out!")})
	case tapTorn.MatchString(line):
		r.suite.problem("line %d: found %q, which may be a part of \"not ok\"", n, clip(line, 40))
	case line == "}":
		r.braced = false
	}
	return nil
}

func (r *tap) point(n int, line string) error {
	if err := r.flush(); err != nil {
		return err
	}
	m := tapPoint.FindStringSubmatch(line)
	id := r.next
	if m[2] != "" {
		var err error
		if id, err = strconv.ParseInt(m[2], 10, 64); err != nil || id > maxCases {
			return fmt.Errorf("test %s: wanted a number up to %d", clip(m[2], 40), maxCases)
		}
	}
	if r.points++; r.points > maxCases {
		return fmt.Errorf("more than %d tests", maxCases)
	}
	if r.seen[id] {
		r.suite.problem("line %d: a second result of test %d", n, id)
	}
	r.seen[id], r.next = true, id+1

	words := strings.TrimLeft(m[3], " \t")
	c := Case{ID: strings.TrimLeft(strings.TrimPrefix(words, "-"), " \t"), Status: Passed}
	good := m[1] == ""
	switch {
	case !good:
		c.Status = Failed
	case tapBuried.MatchString(c.ID):
		r.suite.problem("line %d: found a \"not ok\" within %q", n, clip(line, 80))
	}
	if d := tapDirective.FindStringSubmatchIndex(c.ID); d != nil {
		c.Message = c.ID[d[4]:d[5]]
		todo := strings.EqualFold(c.ID[d[2]:d[3]], "todo")
		c.ID = c.ID[:d[0]]
		switch {
		case !todo:
			c.Status = Skipped
		case !good:
			c.Status = Warned
		}
	}
	r.braced = strings.HasSuffix(c.ID, "{")
	c.ID = tapTook.ReplaceAllString(strings.TrimSpace(strings.TrimSuffix(c.ID, "{")), "$1")
	if c.ID == "" {
		c.ID = "test " + strconv.FormatInt(id, 10)
	}
	r.last, r.out = &c, text{}
	if r.badChild != 0 {
		r.blame(r.badChild)
		r.badChild = 0
	}
	return nil
}

// blame notes a failed subtest of a test that says it passed.
func (r *tap) blame(line int) {
	if r.last.Status == Passed {
		r.suite.problem("line %d: a subtest of %q failed, and it says it passed", line, clip(r.last.ID, 80))
	}
}

// beside reads a comment or an indented line.
func (r *tap) beside(n int, line string) {
	trimmed := strings.TrimSpace(line)
	switch {
	case r.yaml:
		r.yaml = trimmed != "..."
	case trimmed == "---":
		r.yaml = true
	case tapGaveUp.MatchString(line):
		r.suite.problem("line %d: a subtest gave up the run", n)
	case !tapChild.MatchString(line) || tapDirective.MatchString(line):
	case r.braced && r.last != nil:
		r.blame(n)
	default:
		r.badChild = n
	}
	if r.last != nil && r.last.Status == Failed && trimmed != "---" && trimmed != "..." {
		r.out.add(line + "\n")
	}
}

// flush ends the test whose diagnostics have been read.
func (r *tap) flush() error {
	if r.last == nil {
		return nil
	}
	c := *r.last
	r.last = nil
	if c.Status == Failed {
		c.Message = strings.ReplaceAll("\n"+string(r.out.kept), "\n#", "\n")
		c.File, c.Line = findPlace(string(r.out.kept))
	}
	return r.suite.add(c)
}

func (r *tap) end() error {
	if err := r.flush(); err != nil {
		return err
	}
	switch {
	case r.planLine == 0 && !r.bailed:
		r.suite.problem("no plan: it ended before it said how many tests there are")
	case r.planAt != 0 && r.planAt != r.points:
		r.suite.problem("line %d: the plan is in the middle, wanted it first or last", r.planLine)
	}
	if r.badChild != 0 {
		r.suite.problem("line %d: a subtest failed, and no test follows that it belongs to", r.badChild)
	}
	for id := range r.seen {
		if id < 1 || r.planLine != 0 && id > r.plan {
			r.suite.problem("test numbers go beyond the plan 1..%d", r.plan)
			break
		}
	}
	// The first are named; of all of them the plan tells, as the total.
	missing := 0
	for id := int64(1); id <= r.plan && missing < maxMissing; id++ {
		if !r.seen[id] {
			missing++
			c := Case{ID: "test " + strconv.FormatInt(id, 10), Status: Failed, Message: "it is planned and has no result"}
			if err := r.suite.add(c); err != nil {
				return err
			}
		}
	}
	r.suite.Declared.Tests = r.plan
	return nil
}
