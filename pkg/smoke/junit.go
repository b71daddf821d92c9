package smoke

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	maxDepth      = 64 // elements within elements
	maxAttributes = 64 // of one element
)

// junit reads one document as a stream, so that a report of many megabytes of
// output costs no tree of them.
type junit struct {
	dec   *xml.Decoder
	suite Suite
	depth int
}

// tally counts the cases of a suite: its own, or those of the suites in it too.
type tally struct{ tests, bad, skipped int64 }

func (t *tally) count(s CaseStatus) {
	t.tests++
	switch s {
	case Skipped:
		t.skipped++
	case Failed, Errored:
		t.bad++
	}
}

func (t *tally) plus(u tally) {
	t.tests, t.bad, t.skipped = t.tests+u.tests, t.bad+u.bad, t.skipped+u.skipped
}

func readJUnit(data []byte) (Suite, error) {
	j := junit{dec: xml.NewDecoder(bytes.NewReader(data)), suite: Suite{Format: formatJUnit}}
	j.dec.CharsetReader = func(label string, in io.Reader) (io.Reader, error) {
		if strings.EqualFold(label, "us-ascii") {
			return in, nil
		}
		return nil, fmt.Errorf("encoding %q, wanted UTF-8", clip(printable(label), 40))
	}
	if err := j.document(); err != nil {
		line, _ := j.dec.InputPos()
		var broken *xml.SyntaxError
		if errors.As(err, &broken) {
			return Suite{}, fmt.Errorf("line %d: not XML: %s", broken.Line, printable(broken.Msg))
		}
		return Suite{}, fmt.Errorf("line %d: %w", line, err)
	}
	return j.suite, nil
}

// document reads the one root and what may stand around it: nothing.
func (j *junit) document() error {
	seen := false
	for {
		switch t, err := j.token(); {
		case errors.Is(err, io.EOF) && seen:
			return nil
		case errors.Is(err, io.EOF):
			return errors.New("no element: wanted <testsuites> or <testsuite>")
		case err != nil:
			return err
		case seen && t != nil:
			return errors.New("something follows the root element, wanted the end of the file")
		case t == nil:
		default:
			start, ok := t.(xml.StartElement)
			if !ok {
				return errors.New("found text, wanted <testsuites> or <testsuite>")
			}
			if name := start.Name.Local; name != "testsuites" && name != "testsuite" {
				return fmt.Errorf("the root is <%s>, wanted <testsuites> or <testsuite> of JUnit", clip(printable(name), 40))
			}
			if _, j.suite.Declared, err = j.readSuite(start, ""); err != nil {
				return err
			}
			seen = true
		}
	}
}

// token returns the next token, nil for white space and comments. The end of
// the input within an element is an error of the decoder.
func (j *junit) token() (xml.Token, error) {
	t, err := j.dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := t.(type) {
	case xml.StartElement:
		if j.depth++; j.depth > maxDepth {
			return nil, fmt.Errorf("elements nest deeper than %d", maxDepth)
		}
		return t, unique(t.Attr)
	case xml.EndElement:
		j.depth--
		return t, nil
	case xml.Directive:
		// Entities come with these, and no report needs any.
		return nil, errors.New("found a document type or other <! directive, wanted none")
	case xml.CharData:
		if len(bytes.TrimSpace(t)) == 0 {
			return nil, nil
		}
		return t, nil
	}
	return nil, nil
}

// unique refuses an attribute given twice, which the decoder lets pass: whoever
// reads the other of the two counts otherwise.
func unique(attrs []xml.Attr) error {
	if len(attrs) > maxAttributes {
		return fmt.Errorf("%d attributes, wanted at most %d", len(attrs), maxAttributes)
	}
	for i, a := range attrs {
		for _, b := range attrs[:i] {
			if a.Name == b.Name {
				return fmt.Errorf("attribute %q is given twice", clip(printable(a.Name.Local), 40))
			}
		}
	}
	return nil
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// total reads a declared total; known is false when there is none.
func total(e xml.StartElement, name string) (n int64, known bool, err error) {
	value := strings.TrimSpace(attr(e, name))
	if value == "" {
		return 0, false, nil
	}
	n, ok := parseCount(value)
	if !ok || n > maxDeclared {
		return 0, false, fmt.Errorf("attribute %s: found %q, wanted a whole number up to %d", name, clip(printable(value), 40), maxDeclared)
	}
	return n, true, nil
}

// readSuite reads a <testsuites> or <testsuite>. It returns what its cases are,
// and the worst that is declared of them at any level.
func (j *junit) readSuite(start xml.StartElement, parent string) (all tally, worst Totals, err error) {
	name := attr(start, "name")
	if name == "" {
		name = parent
	}
	var own tally
	for {
		t, err := j.token()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return all, worst, err
		}
		switch t := t.(type) {
		case xml.EndElement:
			all.plus(own)
			worst, err = j.weigh(start, name, own, all, worst)
			return all, worst, err
		case xml.CharData:
			return all, worst, fmt.Errorf("found text %q in <%s>, wanted elements", clip(printable(string(bytes.TrimSpace(t))), 40), start.Name.Local)
		case xml.StartElement:
			switch t.Name.Local {
			case "testsuite", "testsuites":
				inner, declared, err := j.readSuite(t, name)
				if err != nil {
					return all, worst, err
				}
				all.plus(inner)
				worst.Tests += declared.Tests
				worst.Failed += declared.Failed
				worst.Errored += declared.Errored
				worst.Skipped += declared.Skipped
			case "testcase":
				status, err := j.readCase(t, name)
				if err != nil {
					return all, worst, err
				}
				own.count(status)
			case "failure", "error":
				// The suite itself: set-up that broke, a file that does not load.
				c := Case{ID: name, Status: Failed}
				if t.Name.Local == "error" {
					c.Status = Errored
				}
				if err := j.result(t, &c); err != nil {
					return all, worst, err
				}
				own.bad++
				if err := j.suite.add(c); err != nil {
					return all, worst, err
				}
			case "properties", "system-out", "system-err":
				if err := j.content(nil); err != nil {
					return all, worst, err
				}
			default:
				if err := j.unknown(t, start); err != nil {
					return all, worst, err
				}
			}
		}
	}
}

// weigh compares a suite's attributes with its cases. Some runners count in an
// attribute only the suite's own cases, some those of the suites in it too.
func (j *junit) weigh(start xml.StartElement, name string, own, all tally, worst Totals) (Totals, error) {
	tests, hasTests, err1 := total(start, "tests")
	failures, hasFailures, err2 := total(start, "failures")
	errored, hasErrors, err3 := total(start, "errors")
	skipped, _, err4 := total(start, "skipped")
	disabled, _, err5 := total(start, "disabled")
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return worst, err
	}
	line, _ := j.dec.InputPos()
	differ := func(what string, declared, own, all int64) {
		if declared != own && declared != all {
			j.suite.problem("line %d: <%s> %q declares %d %s, its cases are %d", line, start.Name.Local, clip(name, 60), declared, what, all)
		}
	}
	if hasTests {
		differ("tests", tests, own.tests, all.tests)
	}
	if hasFailures || hasErrors {
		differ("failures and errors", failures+errored, own.bad, all.bad)
	}
	// Fewer declared than there are is no news: a skip never passes, and some
	// runners count only one of the two kinds.
	if skipped += disabled; skipped > all.skipped {
		differ("skipped", skipped, own.skipped, all.skipped)
	}
	if failures+errored > worst.Failed+worst.Errored {
		worst.Failed, worst.Errored = failures, errored
	}
	worst.Tests, worst.Skipped = max(worst.Tests, tests), max(worst.Skipped, skipped)
	return worst, nil
}

// readCase reads a <testcase>. Of several results the worst counts.
func (j *junit) readCase(start xml.StartElement, suite string) (CaseStatus, error) {
	c := Case{ID: attr(start, "name"), Status: Passed, File: attr(start, "file")}
	if group := attr(start, "classname"); group != "" {
		c.ID = group + "." + c.ID
	} else if suite != "" {
		c.ID = suite + "." + c.ID
	}
	if n, ok := parseCount(attr(start, "line")); ok && n <= maxExpect {
		c.Line = int(n)
		if suite == "pytest" {
			c.Line++ // it counts lines from 0
		}
	}
	for _, name := range []string{"status", "result"} {
		j.state(&c, name, attr(start, name))
	}
	again := false
	for {
		t, err := j.token()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		switch t := t.(type) {
		case xml.EndElement:
			c.Flaky = again && c.Status == Passed
			return c.Status, j.suite.add(c)
		case xml.CharData:
			return 0, fmt.Errorf("found text %q in <testcase>, wanted elements", clip(printable(string(bytes.TrimSpace(t))), 40))
		case xml.StartElement:
			status := CaseStatus(0)
			switch t.Name.Local {
			case "failure", "rerunFailure":
				status = Failed
			case "error", "rerunError":
				status = Errored
			case "skipped":
				status = Skipped
			case "warning":
				status = Warned
			case "flakyFailure", "flakyError":
				again = true
				fallthrough
			case "properties", "system-out", "system-err":
				err = j.content(nil)
			default:
				err = j.unknown(t, start)
			}
			if status != 0 {
				one := Case{Status: status, File: c.File, Line: c.Line}
				if err = j.result(t, &one); err == nil && (status > c.Status || c.Message == "" && status == c.Status) {
					c.Status, c.Message, c.File, c.Line = status, one.Message, one.File, one.Line
				}
			}
			if err != nil {
				return 0, err
			}
		}
	}
}

// The words of attributes that tell how a test ended, by what they mean.
var (
	wordsRan     = []string{"", "run", "passed", "pass", "success", "successful", "ok", "completed", "executed"}
	wordsSkipped = []string{"notrun", "disabled", "skipped", "skip", "suppressed", "ignored", "pending", "untested", "inactive", "todo"}
	wordsFailed  = []string{"fail", "failed", "failure"}
	wordsErrored = []string{"error", "errored", "undefined", "broken", "timedout", "timeout", "crashed", "aborted"}
)

// state takes what an attribute says, in addition to the elements.
func (j *junit) state(c *Case, name, value string) {
	status := Passed
	switch word := strings.ToLower(value); {
	case slices.Contains(wordsRan, word):
	case slices.Contains(wordsSkipped, word):
		status = Skipped
	case slices.Contains(wordsFailed, word):
		status = Failed
	case slices.Contains(wordsErrored, word):
		status = Errored
	default:
		line, _ := j.dec.InputPos()
		j.suite.problem("line %d: %s of test %q is %q, which is not known", line, name, clip(c.ID, 80), clip(value, 40))
	}
	c.Status = max(c.Status, status)
}

// result reads a <failure>, <error> or <skipped> into a case.
func (j *junit) result(start xml.StartElement, c *Case) error {
	var body text
	if err := j.content(&body); err != nil {
		return err
	}
	message, more := strings.TrimSpace(attr(start, "message")), strings.TrimSpace(string(body.kept))
	switch {
	case message == "" || strings.HasPrefix(more, message):
		message = more
	case more != "":
		message += ": " + more
	}
	c.Message = message
	if c.File == "" {
		c.File, c.Line = findPlace(string(body.kept))
	}
	return nil
}

// unknown passes over an element that no dialect is known to have. It could be
// a failure by another name, so the report does not pass.
func (j *junit) unknown(e, parent xml.StartElement) error {
	line, _ := j.dec.InputPos()
	j.suite.problem("line %d: <%s> in <%s> is not known", line, clip(e.Name.Local, 40), parent.Name.Local)
	return j.content(nil)
}

// content reads to the end of the element that has just begun, and keeps the
// first of its text in body if there is one.
func (j *junit) content(body *text) error {
	for level := 1; level > 0; {
		t, err := j.token()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			level++
		case xml.EndElement:
			level--
		case xml.CharData:
			if body != nil {
				body.add(string(t[:min(len(t), 2*maxMessage)]))
			}
		}
	}
	return nil
}
