package release

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"regexp"
	"strings"
	text "text/template"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

//go:embed templates/VERIFY.md
var guideText string

//go:embed templates/report.html
var reportText string

var (
	guideTemplate  = text.Must(text.New("VERIFY.md").Parse(guideText))
	reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
		"when": func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04:05 UTC") },
		"mark": func(c judge.Check) string {
			return map[judge.Status]string{judge.Pass: "holds", judge.Fail: "does not", judge.Error: "not shown"}[c.Status]
		},
		"group": fingerprintGroups,
	}).Parse(reportText))
)

var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+@:=~/-]*$`)

type guideData struct {
	Tag, Repository string
	Artifacts       []string
}

// renderGuide returns VERIFY.md. It is for a person who has no reason to believe
// this program, so it names none but stock tools.
func renderGuide(d guideData) ([]byte, error) {
	// They stand in a document from which people type commands.
	if !plainName.MatchString(d.Tag) || !plainName.MatchString(d.Repository) {
		return nil, fmt.Errorf("tag %q or log %q: cannot be named in %s", d.Tag, d.Repository, bundleGuide)
	}
	var b bytes.Buffer
	if err := guideTemplate.Execute(&b, d); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

const scriptHead = `#!/bin/sh
# The commands of VERIFY.md, one after the other, for those who made this folder
# or have this file from elsewhere. Do not trust it otherwise: whoever changed
# the folder could change this file. Follow VERIFY.md by hand, or a copy of it
# that you had before.
#
# usage: TAG=... KEYS="..." ROOTS="..." LOGKEY=... sh verify.sh
set -eu
cd "$(dirname "$0")"
: "${TAG:?}" "${KEYS:?}" "${ROOTS:?}" "${LOGKEY:?}"
`

// renderScript returns verify.sh: the commands of the guide.
func renderScript(guide []byte) []byte {
	var b bytes.Buffer
	b.WriteString(scriptHead)
	inside := false
	for line := range strings.Lines(string(guide)) {
		switch {
		case line == "```sh\n":
			inside = true
			b.WriteByte('\n')
		case line == "```\n":
			inside = false
		case inside:
			b.WriteString(line)
		}
	}
	b.WriteString("\necho VERIFIED\n")
	return b.Bytes()
}

// HTML returns the report as one page that needs nothing else: what is proven, by
// whom, when, and what is not.
func (r BundleReport) HTML() ([]byte, error) {
	var b bytes.Buffer
	if err := reportTemplate.Execute(&b, r); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// SealedBy is when all tokens of the seal that verify say that it was there; the
// zero time when none does.
func (r BundleReport) SealedBy() (t time.Time) {
	for _, s := range r.Stamps {
		if s.Of == bundleSeal && s.Time.After(t) {
			t = s.Time
		}
	}
	return t
}

func fingerprintGroups(f any) string {
	s := fmt.Sprint(f)
	var parts []string
	for len(s) > 4 {
		parts, s = append(parts, s[:4]), s[4:]
	}
	return strings.Join(append(parts, s), " ")
}
