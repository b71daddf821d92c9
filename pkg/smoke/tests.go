package smoke

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a list of tests, in bytes.
const (
	maxTests = 16 << 20
	maxName  = maxID + len(" (1000000)") // of one name: what add and number make at most
)

// Tests is a list of tests by their names. The zero value names none.
type Tests struct {
	names []string // sorted bytewise, each once
}

// NewTests makes a list of names, in any order. It refuses names that no report
// could have, names given twice, and a list of none.
func NewTests(names []string) (Tests, error) {
	if len(names) == 0 {
		return Tests{}, errors.New("no test is named, wanted at least one")
	}
	if len(names) > maxCases {
		return Tests{}, fmt.Errorf("%d tests, wanted at most %d", len(names), maxCases)
	}
	sorted := slices.Sorted(slices.Values(names))
	for i, name := range sorted {
		if err := checkName(name); err != nil {
			return Tests{}, err
		}
		if i > 0 && sorted[i-1] == name {
			return Tests{}, fmt.Errorf("test %q is named twice", clip(name, 80))
		}
	}
	return Tests{sorted}, nil
}

// checkName refuses what no reader makes of a report, and so would be missing
// for ever.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("a test has an empty name")
	case name != strings.TrimSpace(name):
		return fmt.Errorf("found %q, wanted a name without blanks around it", clip(name, 80))
	case name != printable(name):
		return fmt.Errorf("found %q, wanted a name of printable UTF-8", clip(name, 80))
	case len(name) > maxName:
		return fmt.Errorf("found a name of %d bytes, wanted at most %d: %q", len(name), maxName, clip(name, 80))
	}
	return nil
}

// ParseTests reads a file of test names, at most 16 MiB of UTF-8: one name a
// line, in any order, each once. Empty lines and lines that begin with # say
// nothing. A name that begins with # or \ has a \ in front.
func ParseTests(data []byte) (Tests, error) {
	if len(data) > maxTests {
		return Tests{}, fmt.Errorf("%d bytes, wanted at most %d", len(data), maxTests)
	}
	if !utf8.Valid(data) {
		return Tests{}, errors.New("found bytes that are not UTF-8")
	}
	var names []string
	first := map[string]int{} // of each name its line
	for n := 1; len(data) > 0; n++ {
		var line []byte
		line, data, _ = bytes.Cut(data, []byte("\n"))
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		name := strings.TrimPrefix(string(line), `\`)
		if err := checkName(name); err != nil {
			return Tests{}, fmt.Errorf("line %d: %w", n, err)
		}
		if first[name] != 0 {
			return Tests{}, fmt.Errorf("line %d: test %q is named twice, first on line %d", n, clip(name, 80), first[name])
		}
		first[name] = n
		names = append(names, name)
	}
	return NewTests(names)
}

// Bytes returns the file that ParseTests reads, sorted.
func (t Tests) Bytes() []byte {
	b := []byte("# Each of these tests must be there and pass. Written by remembrancer smoke --write-tests.\n")
	for _, name := range t.names {
		if name[0] == '#' || name[0] == '\\' {
			b = append(b, '\\')
		}
		b = append(append(b, name...), '\n')
	}
	return b
}

// Len returns how many tests are named.
func (t Tests) Len() int { return len(t.names) }

// SHA256 returns the hex SHA-256 of the names in the form of Counts.IDsSHA256,
// and "" if none are named.
func (t Tests) SHA256() string {
	if len(t.names) == 0 {
		return ""
	}
	return sumSorted(t.names)
}

// Missing returns the named tests that are not among these ids, sorted.
func (t Tests) Missing(ids []string) []string {
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	var gone []string
	for _, name := range t.names {
		if !there[name] {
			gone = append(gone, name)
		}
	}
	return gone
}

// missing says which of the named tests did not run. known is false when the
// output does not say which tests did.
func (t Tests) missing(c Counts) (gone []string, known bool) {
	switch {
	case len(t.names) == 0 || c.IDs == nil && c.IDsSHA256 == t.SHA256():
		return nil, true
	case c.IDs == nil:
		return nil, false
	}
	return t.Missing(c.IDs), true
}

// Change is how the tests of a run compare with those that the base names.
type Change struct {
	Named   int      // tests that the base names; 0: it names none, and nothing is compared
	Removed []string // named, and not there; sorted
	// NewlyFailing are named and did not pass: the base says they do.
	NewlyFailing []Case
	// Failing did not pass either: new tests where the base names some.
	Failing []Case
	Added   int    // tests that are there and not named
	Flaky   []Case // passed only when run again, named or not
}

// Compare holds the tests of a suite to those that are expected. Skipped tests
// are among those that did not pass only if they are named.
func (e Expect) Compare(s Suite) Change {
	c := Change{Named: e.Tests.Len(), Flaky: s.Flaky()}
	named := make(map[string]bool, c.Named)
	for _, name := range e.Tests.names {
		named[name] = true
	}
	ids := make([]string, 0, len(s.Cases))
	for _, k := range s.Cases {
		ids = append(ids, k.ID)
		passed := k.Status == Passed || k.Status == Warned && e.allowsWarnings()
		switch {
		case named[k.ID] && !passed:
			c.NewlyFailing = append(c.NewlyFailing, k)
		case k.Status != Passed && k.Status != Warned && k.Status != Skipped:
			c.Failing = append(c.Failing, k)
		}
		if c.Named > 0 && !named[k.ID] {
			c.Added++
		}
	}
	c.Removed = e.Tests.Missing(ids)
	return c
}

// removed is why a run without these named tests does not pass.
func (t Tests) removed(gone []string) string {
	return fmt.Sprintf("removed: %s, of %s", some(gone), plural(int64(len(t.names)), "named test", "named tests"))
}

// notes are the reasons that name tests which did run.
func (c Change) notes() []string {
	var n []string
	if len(c.NewlyFailing) > 0 {
		n = append(n, fmt.Sprintf("newly failing: %s, of %s", some(idsOf(c.NewlyFailing)), plural(int64(c.Named), "named test", "named tests")))
	}
	if len(c.Failing) > 0 && c.Named > 0 {
		n = append(n, "failing, new: "+some(idsOf(c.Failing)))
	}
	if k := len(c.Flaky); k > 0 {
		n = append(n, fmt.Sprintf("%s only when run again: %s", plural(int64(k), "test passed", "tests passed"), some(idsOf(c.Flaky))))
	}
	return n
}

// How much of a change the forms for people show: rows of each list, and bytes
// of each table.
const (
	textRows    = 20
	tableRows   = 200
	tableBytes  = 128 << 10
	messageSize = 500
)

// Text lists what changed, for a terminal: nothing if there is nothing to tell,
// else lines that each end with a newline.
func (c Change) Text() string {
	var b strings.Builder
	list := func(what string, cases []Case) {
		for _, k := range cases[:min(len(cases), textRows)] {
			label := what
			if label == "" {
				label = k.Status.String()
			}
			fmt.Fprintf(&b, "   %-13s %s", label, k.ID)
			if k.File != "" {
				fmt.Fprintf(&b, " (%s)", k.Where())
			}
			if k.Message != "" {
				fmt.Fprintf(&b, ": %s", clip(k.Message, 200))
			}
			b.WriteByte('\n')
		}
		if more := len(cases) - textRows; more > 0 {
			fmt.Fprintf(&b, "   …and %d more\n", more)
		}
	}
	list("removed", c.removedCases())
	list("newly failing", c.NewlyFailing)
	if c.Named > 0 {
		list("failing, new", c.Failing)
	} else {
		list("", c.Failing)
	}
	list("flaky", c.Flaky)
	if c.Named > 0 && c.Added > 0 {
		fmt.Fprintf(&b, "   %s not named by the base\n", plural(int64(c.Added), "test was added, and is", "tests were added, and are"))
	}
	return b.String()
}

// Summary shows what changed as Markdown tables for a job summary: nothing if
// there is nothing to tell. All text of the report is escaped. Each table ends
// after 200 rows or 128 KiB with a line that counts the rest.
func (c Change) Summary() string {
	var b strings.Builder
	table := func(title string, cases []Case) {
		if len(cases) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n#### %s: %d\n\n| test | result | where | message |\n|---|---|---|---|\n", title, len(cases))
		begin := b.Len()
		for i, k := range cases {
			if i == tableRows || b.Len()-begin > tableBytes {
				fmt.Fprintf(&b, "\n…and %d more\n", len(cases)-i)
				break
			}
			result := "not there"
			if k.Status != 0 {
				result = k.Status.String()
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", markdown(k.ID), result, markdown(k.Where()), markdown(clip(k.Message, messageSize)))
		}
	}
	failing := "Failing"
	if c.Named > 0 {
		failing = "Failing, new tests"
	}
	table("Removed tests", c.removedCases())
	table("Newly failing", c.NewlyFailing)
	table(failing, c.Failing)
	table("Flaky", c.Flaky)
	if c.Named > 0 {
		fmt.Fprintf(&b, "\nThe base names %s; added: %d.\n", plural(int64(c.Named), "test", "tests"), c.Added)
	}
	return b.String()
}

// CompareIDs is Compare for an output that says which tests ran, and not how
// each of them ended.
func (e Expect) CompareIDs(ids []string) Change {
	c := Change{Named: e.Tests.Len(), Removed: e.Tests.Missing(ids)}
	if c.Named > 0 {
		c.Added = len(ids) - (c.Named - len(c.Removed))
	}
	return c
}

func (c Change) removedCases() []Case {
	cases := make([]Case, len(c.Removed))
	for i, name := range c.Removed {
		cases[i].ID = name
	}
	return cases
}

// some names the first of many.
func some(names []string) string {
	const most = 3
	var b strings.Builder
	for i, name := range names[:min(len(names), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(clip(name, 60))
	}
	if more := len(names) - most; more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String()
}

func idsOf(cases []Case) []string {
	ids := make([]string, len(cases))
	for i, c := range cases {
		ids[i] = c.ID
	}
	return ids
}
