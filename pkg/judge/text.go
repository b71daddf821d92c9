package judge

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a person reads is bounded; the data is not.
const (
	shownFindings = 20
	shownMarkdown = 200 << 10 // bytes
)

// Mark is the sign of a check: ✅ ❌ 🚫, ⚠️ for a fail that somebody signed for,
// and – where nothing is claimed.
func (c Check) Mark() string {
	if c.Status == Fail && c.Waived != "" {
		return "⚠️ "
	}
	return c.Status.mark()
}

func (s Status) mark() string {
	switch s {
	case Pass:
		return "✅"
	case Fail:
		return "❌"
	case Unclaimed:
		return "– "
	}
	return "🚫"
}

// Place returns where a finding is as compilers write it, path:line:column, as
// far as it is known.
func (f Finding) Place() string {
	switch {
	case f.Path == "" || f.Line < 1:
		return f.Path
	case f.Column < 1:
		return fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	return fmt.Sprintf("%s:%d:%d", f.Path, f.Line, f.Column)
}

func (f Finding) text() string {
	s := f.Message
	if f.Warning {
		s = "warning: " + s
	}
	if p := f.Place(); p != "" {
		s = p + ": " + s
	}
	return s
}

// Text is the verdict for a terminal: a line for each check with its findings,
// a line for each covenant, and the overall line. Whatever was found, no line of
// it steers a terminal.
func (v Verdict) Text() string {
	var b strings.Builder
	for _, c := range v.Checks {
		fmt.Fprintf(&b, "%s %-32s %s\n", c.Mark(), plain(c.ID), hanging(c.Detail, 36))
		if c.Waived != "" {
			fmt.Fprintf(&b, "     WAIVED %s\n", hanging(c.Waived, 12))
		}
		for i, f := range c.Findings {
			if i == shownFindings {
				fmt.Fprintf(&b, "     and %d more\n", len(c.Findings)-i)
				break
			}
			fmt.Fprintf(&b, "     %s\n", hanging(f.text(), 7))
			if f.Fix != "" {
				fmt.Fprintf(&b, "       %s\n", hanging(f.Fix, 7))
			}
		}
		for _, e := range c.Evidence {
			fmt.Fprintf(&b, "     %s\n", hanging(e, 5))
		}
	}
	b.WriteString("\n")
	for _, c := range v.Covenants {
		head := plain(c.Name)
		if c.Number > 0 {
			head = fmt.Sprintf("COVENANT %d %s", c.Number, c.Name)
		}
		fmt.Fprintf(&b, "%-26s %s %s: %s\n", head, c.Status.mark(), c.Status, c.counts())
	}
	fmt.Fprintf(&b, "%s  %s\n", strings.ToUpper(v.Status.String()), v.Line())
	return b.String()
}

// Brief is what is not a pass, in a line for each check: the first finding of a
// failed one, why another could not be judged, who waived a third.
func (v Verdict) Brief() []string {
	var lines []string
	for _, c := range v.Checks {
		s := c.ID + ": "
		switch {
		case c.Status == Pass || c.Status == Unclaimed:
			continue
		case c.Status == Fail && c.Waived != "":
			s += "WAIVED " + c.Waived
		case c.Status == Fail && len(c.Findings) > 0:
			worst := slices.IndexFunc(c.Findings, func(f Finding) bool { return !f.Warning })
			s += c.Findings[max(worst, 0)].text()
			if more := len(c.Findings) - 1; more > 0 {
				s += fmt.Sprintf("; and %d more", more)
			}
		default:
			s += c.Detail
		}
		lines = append(lines, plain(strings.ReplaceAll(s, "\n", "; ")))
	}
	return lines
}

// Line is the verdict in a few words: how many checks ended in which way.
func (v Verdict) Line() string {
	var all Covenant
	for _, c := range v.Checks {
		all.count(c)
	}
	return all.counts()
}

func (c Covenant) counts() string {
	var parts []string
	for _, n := range []struct {
		n    int
		word string
	}{{c.Passed, "pass"}, {c.Failed - c.Waived, "fail"}, {c.Waived, "waived"}, {c.Errors, "could not be judged"}, {c.Unclaimed, "unclaimed"}} {
		if n.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n.n, n.word))
		}
	}
	if parts == nil {
		return "no checks"
	}
	return strings.Join(parts, ", ")
}

// hanging returns text whose further lines are indented.
func hanging(s string, indent int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = plain(l)
	}
	return strings.Join(lines, "\n"+strings.Repeat(" ", indent))
}

// plain shows every character that is not one to look at as �.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return utf8.RuneError
	}, s)
}

// Markdown is the verdict for the summary of a job, at most 200 KiB. escape makes
// text from elsewhere mean nothing in Markdown.
func (v Verdict) Markdown(title string, escape func(string) string) string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	add("### %s: %s\n", escape(title), strings.ToUpper(v.Status.String()))
	add("| | covenant | checks |\n|---|---|---|")
	for _, c := range v.Covenants {
		add("| %s | %s | %s |", c.Status.mark(), escape(c.Name), c.counts())
	}
	add("\n| | check | detail |\n|---|---|---|")
	for _, c := range v.Checks {
		detail := c.Detail
		if c.Waived != "" {
			detail += " WAIVED " + c.Waived
		}
		add("| %s | %s | %s |", c.Mark(), escape(c.ID), escape(detail))
	}
	add("")
	for _, c := range v.Checks {
		for i, f := range c.Findings {
			if i == shownFindings {
				add("- %s: and %d more", escape(c.ID), len(c.Findings)-i)
				break
			}
			line := fmt.Sprintf("- %s: %s", escape(c.ID), escape(f.text()))
			if f.Fix != "" {
				line += " → " + escape(f.Fix)
			}
			add("%s", line)
		}
	}
	var b strings.Builder
	for i, l := range lines {
		if b.Len()+len(l) > shownMarkdown-100 {
			fmt.Fprintf(&b, "\n_%d more lines are not shown._\n", len(lines)-i)
			break
		}
		b.WriteString(l + "\n")
	}
	return b.String()
}
