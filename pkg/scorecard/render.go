package scorecard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// JSON returns the card for programs, with a newline at its end.
func (c *Card) JSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(c)
	return b.Bytes(), err
}

// Badge returns the score in the endpoint form of shields.io.
func (c *Card) Badge() []byte {
	color := "red"
	switch {
	case len(c.Unjudged()) > 0:
		color = "lightgrey"
	case c.Score >= 990:
		color = "brightgreen"
	case c.Score >= 900:
		color = "green"
	case c.Score >= 700:
		color = "yellow"
	case c.Score >= 400:
		color = "orange"
	}
	return fmt.Appendf(nil, "{\"schemaVersion\":1,\"label\":\"scorecard\",\"message\":%q,\"color\":%q}\n", c.Score.String()+" / 10", color)
}

// bar draws a score.
func bar(p Points, width int) string {
	full := int(p) * width / 1000
	return strings.Repeat("█", full) + strings.Repeat("░", width-full)
}

// mark is the sign of a line, two columns wide.
func (l Line) mark() string {
	switch {
	case l.State == Unjudged:
		return "🚫"
	case l.earned == whole:
		return "✅"
	case l.earned > 0:
		return "🔶"
	case l.State == Wanting:
		return "❌"
	}
	return "– "
}

// ageText writes an age as people say it.
func ageText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 2*day:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/day)
}

func (l Line) age() string {
	if l.At == nil {
		return ""
	}
	return ageText(time.Duration(l.Age) * time.Second)
}

// detail is what was found, with counts and what took away from it.
func (l Line) detail() string {
	s := l.Detail
	if l.Of > 0 {
		s = fmt.Sprintf("%d of %d; %s", l.Have, l.Of, s)
	}
	return s
}

// aged says what its age took away from evidence that was verified.
func (l Line) aged() []string {
	if !l.Stale {
		return nil
	}
	left := "half is left"
	if l.earned == 0 {
		left = "nothing is left"
	}
	return []string{fmt.Sprintf("stale: %s old, fresh for %s: %s", l.age(), ageText(time.Duration(l.Limit)*time.Second), left)}
}

// worth is what a line has of what it could have.
func (l Line) worth(between string) string {
	if l.Weight == 0 {
		return "task"
	}
	return l.Score.String() + between + Points(l.Weight*10).String()
}

func shorten(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// columns of the table for a terminal.
const (
	nameColumn   = 18
	detailColumn = 58
	barColumn    = 20
)

// Text is the card for a terminal: a table, then what is lacking and what to type
// next, then the score.
func (c *Card) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Remembrancer scorecard  %s  %s  %s\n", c.Repository, shortCommit(c.Commit), c.JudgedAt.Format(time.RFC3339))
	var parts []string
	for _, d := range c.Dimensions {
		fmt.Fprintf(&b, "\n%-26s %s %5s of 10\n", d.Title, bar(d.Score, barColumn), d.Score)
		for _, l := range d.Criteria {
			fmt.Fprintf(&b, "%s\n", strings.TrimRight(fmt.Sprintf("  %s %9s  %-*s %-*s %s", l.mark(), l.worth("/"), nameColumn, l.name, detailColumn, shorten(l.detail(), detailColumn), l.age()), " "))
		}
		parts = append(parts, fmt.Sprintf("%s %s", d.Name, d.Score))
	}
	if gaps := c.gaps(); len(gaps) > 0 {
		b.WriteString("\nWhat is lacking:\n")
		for _, g := range gaps {
			fmt.Fprintf(&b, "%s %s: %s\n", g.mark, strings.Join(g.ids, ", "), g.detail)
			for _, s := range g.more {
				fmt.Fprintf(&b, "   %s\n", s)
			}
		}
	}
	fmt.Fprintf(&b, "\nSCORE  %s of 10  %s\n       %s; each is %d %% of the score\n", c.Score, bar(c.Score, barColumn), strings.Join(parts, ", "), percentOfWhole)
	return b.String()
}

// gap is what one or several criteria lack, and what to type next.
type gap struct {
	mark, detail string
	ids, more    []string
}

// gaps says once what several criteria lack. What the tasks lack is said by the
// criteria behind them.
func (c *Card) gaps() (all []gap) {
	add := func(g gap) {
		if at := slices.IndexFunc(all, func(o gap) bool { return o.detail == g.detail && slices.Equal(o.more, g.more) }); at >= 0 {
			all[at].ids = append(all[at].ids, g.ids...)
			return
		}
		all = append(all, g)
	}
	lines := func(fn func(Line)) {
		for _, d := range c.Dimensions {
			for _, l := range d.Criteria {
				if l.earned < whole && weeks[l.ID] == "" {
					fn(l)
				}
			}
		}
	}
	lines(func(l Line) {
		if l.State == Proven && !l.Stale {
			return // its keys are all that it lacks
		}
		g := gap{mark: l.mark(), detail: shorten(l.detail(), maxTexts), ids: []string{string(l.ID)}, more: l.aged()}
		if l.Next != "" {
			g.more = append(g.more, "next: "+shorten(l.Next, maxTexts))
		}
		add(g)
	})
	lines(func(l Line) {
		if len(l.Development) > 0 {
			add(gap{
				mark: "🔑", ids: []string{string(l.ID)}, detail: "development key: no credit for authorship, half is left",
				more: []string{"for development: " + strings.Join(l.Development, ", "), "next: sign with a key of an operator whom others know: remembrancer key generate, remembrancer key rotate; remembrancer tsa bootstrap"},
			})
		}
	})
	return all
}

func shortCommit(s string) string {
	if s == "" {
		return "nothing committed"
	}
	return "commit " + s[:min(12, len(s))]
}

// Markdown is the card for the summary of a job. escape makes text from elsewhere
// mean nothing in Markdown.
func (c *Card) Markdown(escape func(string) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### Scorecard: %s of 10\n\n%s, %s, %s\n\n| dimension | | score |\n|---|---|---:|\n", c.Score, escape(c.Repository), shortCommit(c.Commit), c.JudgedAt.Format(time.RFC3339))
	for _, d := range c.Dimensions {
		fmt.Fprintf(&b, "| %s | %s | **%s** |\n", d.Title, bar(d.Score, barColumn), d.Score)
	}
	b.WriteString("\n| | criterion | score | evidence | age |\n|---|---|---:|---|---|\n")
	for _, d := range c.Dimensions {
		for _, l := range d.Criteria {
			fmt.Fprintf(&b, "| %s | `%s` | %s | %s | %s |\n", strings.TrimSpace(l.mark()), l.ID, l.worth(" of "), escape(shorten(l.detail(), maxTexts)), l.age())
		}
	}
	if gaps := c.gaps(); len(gaps) > 0 {
		b.WriteString("\n#### What is lacking\n\n")
		for _, g := range gaps {
			fmt.Fprintf(&b, "- `%s`: %s\n", strings.Join(g.ids, "`, `"), escape(g.detail))
			for _, s := range g.more {
				fmt.Fprintf(&b, "  - %s\n", escape(s))
			}
		}
	}
	return b.String()
}

// Table is the table of the criteria in Markdown.
func Table() string {
	var b strings.Builder
	for _, d := range table {
		fmt.Fprintf(&b, "### %s: %d %% of the score\n\n| criterion | weight | claim | verified | fresh for | rests on a signature |\n|---|---:|---|---|---|---|\n", d.title, percentOfWhole)
		for _, c := range d.criteria {
			fresh, signed, weight := "", "", fmt.Sprintf("%d %%", c.Weight)
			if c.Limit > 0 {
				fresh = ageText(c.Limit)
			}
			if c.Signed {
				signed = "yes"
			}
			if c.Weight == 0 {
				weight = "task"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", c.ID, weight, c.Claim, c.How, fresh, signed)
		}
		b.WriteString("\n")
	}
	b.WriteString("### The tasks\n\n| task | what | shown by |\n|---|---|---|\n")
	for _, t := range tasks {
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", t.ID, t.Text, t.By)
	}
	return b.String()
}
