package legacy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const maxReceipt = 64 << 10 // bytes

// Receipt is the head of one of the ancestor's .receipt files. It was never signed:
// it says what someone with write access typed.
type Receipt struct {
	Type      string
	Component string
	Version   string
	Timestamp time.Time // UTC, whole seconds
	Evidence  Evidence

	Status     string
	VerifiedBy string
}

// Evidence names what a receipt is about. The ancestor also wrote receipts in which one
// or both are empty; a receipt without a digest attests nothing.
type Evidence struct {
	Artifact string // usually a path; free text
	SHA256   string // 64 lower-case hex digits, or ""
}

// ParseReceipt parses a .receipt file of the ancestor:
//
//	---
//	type: deployment
//	component: scheduler
//	version: 1.0.0
//	timestamp: 2025-10-23T00:31:26Z
//	evidence:
//	  artifact: dist/scheduler.tar.gz
//	  sha256: 9fe65ef6bf4f6da65a5f6dbe8200fdf80f337726658f47439253f75eed47c9e5
//	status: active
//	verified_by: remembrancer-cli
//	---
//
// It looks like YAML and is read as lines: a value is the rest of its line without
// blanks at either end, quotes included. Every key must occur exactly once and no other
// may; all values but the two under evidence must be there. The prose after the second
// "---" repeats the head for people and is not read. A digest of another length (the
// ancestor wrote a few SHA-1 digests there) is an error, and so are control characters
// and more than 64 KiB.
func ParseReceipt(b []byte) (Receipt, error) {
	r, err := parseReceipt(b)
	if err != nil {
		return Receipt{}, fmt.Errorf("legacy receipt: %w", err)
	}
	return r, nil
}

func parseReceipt(b []byte) (Receipt, error) {
	if len(b) > maxReceipt {
		return Receipt{}, fmt.Errorf("found %d bytes, wanted at most %d", len(b), maxReceipt)
	}
	if !utf8.Valid(b) {
		return Receipt{}, errors.New("not UTF-8")
	}
	lines := strings.Split(string(b), "\n")
	if lines[0] != "---" {
		return Receipt{}, fmt.Errorf("line 1: found %.40q, wanted %q", lines[0], "---")
	}
	end := slices.Index(lines[1:], "---")
	if end < 0 {
		return Receipt{}, errors.New(`no second line "---" ends the head`)
	}

	var r Receipt
	var timestamp string
	fields := map[string]*string{
		"type":              &r.Type,
		"component":         &r.Component,
		"version":           &r.Version,
		"timestamp":         &timestamp,
		"evidence":          new(string),
		"evidence.artifact": &r.Evidence.Artifact,
		"evidence.sha256":   &r.Evidence.SHA256,
		"status":            &r.Status,
		"verified_by":       &r.VerifiedBy,
	}
	seen := make(map[string]bool, len(fields))
	section := ""
	for i, line := range lines[1 : 1+end] {
		n := i + 2
		if strings.ContainsFunc(line, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
			return Receipt{}, fmt.Errorf("line %d: found a control character in %q, wanted plain text and LF line ends", n, line)
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return Receipt{}, fmt.Errorf("line %d: found %.40q, wanted \"key: value\"", n, line)
		}
		dotted := strings.Contains(key, ".") // "evidence.sha256" is our name for it, not a key
		if inner, indented := strings.CutPrefix(key, "  "); indented && section != "" {
			key = section + "." + inner
		} else {
			section = ""
		}
		field, known := fields[key]
		switch {
		case !known || dotted:
			return Receipt{}, fmt.Errorf("line %d: unknown key %q", n, key)
		case seen[key]:
			return Receipt{}, fmt.Errorf("line %d: second %s", n, key)
		case value != "" && value[0] != ' ':
			return Receipt{}, fmt.Errorf("line %d: found %.40q, wanted a blank after the colon", n, line)
		}
		seen[key] = true
		*field = strings.Trim(value, " ")
		if key == "evidence" {
			section = key
			if *field != "" {
				return Receipt{}, fmt.Errorf("line %d: found evidence %q, wanted artifact and sha256 on lines of their own", n, *field)
			}
		}
	}

	for _, key := range []string{"type", "component", "version", "timestamp", "evidence", "evidence.artifact", "evidence.sha256", "status", "verified_by"} {
		switch {
		case !seen[key]:
			return Receipt{}, fmt.Errorf("no %s", key)
		case *fields[key] == "" && !strings.HasPrefix(key, "evidence"):
			return Receipt{}, fmt.Errorf("%s is empty", key)
		}
	}
	const layout = "2006-01-02T15:04:05Z"
	t, err := time.Parse(layout, timestamp)
	// Parse admits fractions of a second that the layout does not show.
	if err != nil || t.Format(layout) != timestamp {
		return Receipt{}, fmt.Errorf("timestamp: found %q, wanted UTC like %s", timestamp, layout)
	}
	r.Timestamp = t
	if s := r.Evidence.SHA256; s != "" && (len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "") {
		return Receipt{}, fmt.Errorf("evidence.sha256: found %q, wanted 64 lower-case hex digits or nothing", s)
	}
	return r, nil
}
