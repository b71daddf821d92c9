package covenant

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
)

// The statements that [Documents] reads. The first two are whole lines, after
// what Markdown puts around a line and its words is taken away.
var (
	rootClaim  = regexp.MustCompile(`(?i)^merkle root: *([0-9a-f]{64})$`)
	testsClaim = regexp.MustCompile(`(?i)^(?:(?:smoke )?tests?: *(\d{1,7})/(\d{1,7})|(\d{1,7})/(\d{1,7}) (?:smoke )?tests?)(?: (?:tests? )?pass(?:ed|ing)?)?[.!]?$`)
	badgeURL   = regexp.MustCompile(`(?i)img\.shields\.io/badge/(?:smoke(?:_|%20|--))?tests?-(\d{1,7})(?:%2F|/)(\d{1,7})`)
	decoration = regexp.MustCompile(`^[\s>#+|✅🟢☑️-]+|[\s|]+$`)
)

var emphasis = strings.NewReplacer("*", "", "_", "", "`", "")

// ofThePresent says whether a document speaks of the present: it lies at the root or
// below docs, and is neither a change log nor in a folder for releases or an
// archive.
func ofThePresent(p string) bool {
	if !strings.EqualFold(path.Ext(p), ".md") || strings.HasPrefix(strings.ToLower(path.Base(p)), "change") {
		return false
	}
	dir := path.Dir(p)
	if dir == "." {
		return true
	}
	parts := strings.Split(strings.ToLower(dir), "/")
	for _, part := range parts {
		if part == "archive" || part == "releases" {
			return false
		}
	}
	return parts[0] == "docs"
}

// Documents is the check integrity/documents: documents that state the Merkle
// root or a count of tests state the true one, of the ledger that r is the audit
// of. It reads the Markdown files at the root and below docs, but for change
// logs and the folders releases and archive, and in them, outside of fenced code,
//
//	Merkle Root: <64 hex digits>                  a line of its own
//	27/27 tests, 27/27 tests passed               a line of its own
//	Tests: 27/27, Smoke tests: 27/27 passing      a line of its own
//	img.shields.io/badge/tests-27%2F27-<colour>   anywhere
//
// A line may be a quote, a heading or an element of a list, and its words may be
// emphasised. Anything else is prose, and claims nothing. True is the root of the
// checkpoint, and the count of the last admitted verdict, which the badge shows.
func Documents(t Tree, r *Report, opts Options) judge.Check {
	const id, text = "integrity/documents", "documents state the true root and the true count of tests"
	if err := r.unread(); err != nil {
		return judge.Unjudged(id, text, err)
	}
	truth, err := truthOf(r, opts)
	if err != nil {
		return judge.Unjudged(id, text, err)
	}
	var findings []judge.Finding
	documents, claimed := 0, 0
	err = t.Walk("", func(p string, mode fs.FileMode, _ string) error {
		if !mode.IsRegular() || !ofThePresent(p) {
			return nil
		}
		data, err := t.Blob(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		documents++
		n, found := truth.read(p, string(data))
		claimed += n
		findings = append(findings, found...)
		return nil
	})
	if err != nil {
		return judge.Unjudged(id, text, err)
	}
	if claimed == 0 {
		return judge.NotClaimed(id, text, fmt.Sprintf("none of %d documents states a root or a count of tests", documents))
	}
	return judge.Judged(id, text, fmt.Sprintf("%d statements in %d documents", claimed, documents), findings...)
}

// truth is what documents are held to.
type truth struct {
	root        string
	pass, total int
	verdict     bool // there is an admitted one
}

func truthOf(r *Report, opts Options) (truth, error) {
	root := ledger.Empty("-").Root
	if r.Checkpoint.Note() != nil {
		root = r.Checkpoint.Body().Root
	}
	v := truth{root: hex.EncodeToString(root[:])}
	if opts.Badge == nil {
		return v, nil
	}
	badge := StatusFiles(r.Entries, opts.Badge)[BadgeFile]
	if badge == nil {
		return v, nil
	}
	var counts struct {
		Tests struct{ Pass, Total int }
	}
	if err := json.Unmarshal(badge, &counts); err != nil {
		return v, fmt.Errorf("the last admitted verdict: %w", err)
	}
	v.pass, v.total, v.verdict = counts.Tests.Pass, counts.Tests.Total, true
	return v, nil
}

// read returns how many statements a document makes, and the false ones.
func (v truth) read(p, text string) (claimed int, findings []judge.Finding) {
	fence := ""
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, "\r")
		trimmed := strings.TrimLeft(line, " >")
		if mark := fenceOf(trimmed); fence == "" && mark != "" {
			fence = mark
			continue
		} else if fence != "" {
			if strings.HasPrefix(trimmed, fence) && strings.Trim(trimmed, fence[:1]+" ") == "" {
				fence = ""
			}
			continue
		}
		whole := decoration.ReplaceAllString(emphasis.Replace(line), "")
		if m := rootClaim.FindStringSubmatch(whole); m != nil {
			claimed++
			if !strings.EqualFold(m[1], v.root) {
				findings = append(findings, judge.Finding{
					Path: p, Line: i + 1, Message: "states the root " + m[1] + ", the ledger's is " + v.root, Fix: "Merkle Root: " + v.root,
				})
			}
		}
		counts := badgeURL.FindAllStringSubmatch(line, -1)
		if m := testsClaim.FindStringSubmatch(whole); m != nil {
			counts = append(counts, []string{"", m[1] + m[3], m[2] + m[4]})
		}
		for _, m := range counts {
			claimed++
			pass, err1 := strconv.Atoi(m[1])
			total, err2 := strconv.Atoi(m[2])
			f := judge.Finding{Path: p, Line: i + 1, Message: fmt.Sprintf("states %s/%s tests, ", m[1], m[2])}
			switch {
			case !v.verdict:
				f.Message += "but the ledger has admitted no verdict on them"
				f.Fix = "remove it until the first verdict is published"
			case err1 != nil || err2 != nil || pass != v.pass || total != v.total:
				f.Message += fmt.Sprintf("the last admitted verdict is %d/%d", v.pass, v.total)
				f.Fix = fmt.Sprintf("%d/%d tests", v.pass, v.total)
			default:
				continue
			}
			findings = append(findings, f)
		}
	}
	return claimed, findings
}

// fenceOf returns what opens a block of code: three or more ` or ~.
func fenceOf(line string) string {
	for _, c := range []string{"`", "~"} {
		if n := len(line) - len(strings.TrimLeft(line, c)); n >= 3 {
			return strings.Repeat(c, n)
		}
	}
	return ""
}
