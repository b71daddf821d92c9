package archive

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Commit is a commit object.
type Commit struct {
	id, tree          string
	parents           []string
	author, committer string
	encoding          string // of the message, when it is not UTF-8
	message           string
}

// ParseCommit reads the bytes of a commit object, as git cat-file commit prints
// them. The commit's id is what they hash to.
func ParseCommit(raw []byte) (Commit, error) {
	c := Commit{id: objectID("commit", raw)}
	head, message, _ := strings.Cut(string(raw), "\n\n")
	c.message = message
	lines := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	next := func(key string) (string, bool) {
		if len(lines) == 0 {
			return "", false
		}
		v, ok := strings.CutPrefix(lines[0], key+" ")
		if ok {
			lines = lines[1:]
		}
		return v, ok
	}
	bad := func(wanted string) (Commit, error) {
		return Commit{}, fmt.Errorf("commit %s: wanted %s", c.id, wanted)
	}
	var ok bool
	if c.tree, ok = next("tree"); !ok || !isID(c.tree) {
		return bad("a tree of 40 hex digits on the first line")
	}
	for {
		p, ok := next("parent")
		if !ok {
			break
		}
		if !isID(p) {
			return bad("parents of 40 hex digits")
		}
		c.parents = append(c.parents, p)
	}
	if c.author, ok = next("author"); !ok {
		return bad("an author after tree and parents")
	}
	if c.committer, ok = next("committer"); !ok {
		return bad("a committer after the author")
	}
	if _, err := parsePerson(c.committer); err != nil {
		return Commit{}, fmt.Errorf("commit %s: committer: %w", c.id, err)
	}
	c.encoding, _ = next("encoding")
	for _, l := range lines {
		for _, key := range []string{"tree", "parent", "author", "committer", "encoding"} {
			if strings.HasPrefix(l, key+" ") {
				return bad("one " + key + " line, before all others")
			}
		}
	}
	return c, nil
}

func isID(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 20 && s == strings.ToLower(s)
}

// ID returns the commit's object name, 40 hex digits.
func (c Commit) ID() string { return c.id }

// Tree returns the object name of the commit's tree, 40 hex digits.
func (c Commit) Tree() string { return c.tree }

// Time returns the committer's time, in seconds since 1970. It is what
// SOURCE_DATE_EPOCH is for a build of the commit.
func (c Commit) Time() int64 {
	p, _ := parsePerson(c.committer) // was parsed before
	return p.seconds
}

// person is an author or a committer.
type person struct {
	name, email string
	seconds     int64
	stamp       string // the seconds as written
	zone        int    // as written: -130 is an hour and a half west
}

var personLine = regexp.MustCompile(`^([^<>\n\x00]*) <([^<>\n\x00]*)> (0|[1-9][0-9]{0,17}) ([+-][0-9]{4})$`)

func parsePerson(line string) (person, error) {
	m := personLine.FindStringSubmatch(line)
	if m == nil {
		return person{}, fmt.Errorf("found %q, wanted a name, <mail>, seconds and a time zone", line)
	}
	seconds, err1 := strconv.ParseInt(m[3], 10, 64)
	zone, err2 := strconv.Atoi(m[4])
	return person{strings.TrimRight(m[1], blank), m[2], seconds, m[3], zone}, errors.Join(err1, err2)
}

// local returns the time as its clock showed it.
func (p person) local() time.Time {
	east := p.zone/100*3600 + p.zone%100*60
	return time.Unix(p.seconds+int64(east), 0).UTC()
}

// field returns one placeholder of a person.
func (p person) field(kind byte) (string, error) {
	t := p.local()
	// git stops at the one, and its versions differ on the other.
	if dated := strings.IndexByte("dDiIs", kind) >= 0; dated && (t.Unix() < 0 || t.Year() > 9999) {
		return "", errors.New("the date is before 1970, or after 9999: use %at or %ct")
	}
	switch kind {
	case 'n':
		return p.name, nil
	case 'e':
		return p.email, nil
	case 'l':
		local, _, _ := strings.Cut(p.email, "@")
		return local, nil
	case 't':
		return p.stamp, nil
	case 'd':
		if p.zone == -1 {
			return "", errors.New("git takes the zone -0001 for none: use %ai or %ci")
		}
		return t.Format("Mon Jan 2 15:04:05 2006 ") + fmt.Sprintf("%+05d", p.zone), nil
	case 'D':
		return t.Format("Mon, 2 Jan 2006 15:04:05 ") + fmt.Sprintf("%+05d", p.zone), nil
	case 'i':
		return t.Format("2006-01-02 15:04:05 ") + fmt.Sprintf("%+05d", p.zone), nil
	case 'I':
		if p.zone == 0 {
			return "", errors.New("in UTC git writes +00:00 or Z, by its version: use %ai or %ci")
		}
		zone := fmt.Sprintf("%+05d", p.zone)
		return t.Format("2006-01-02T15:04:05") + zone[:3] + ":" + zone[3:], nil
	case 's':
		return t.Format("2006-01-02"), nil
	case 'N', 'E', 'L':
		return "", errors.New("depends on a mailmap: use the small letter")
	case 'r', 'h':
		return "", errors.New("depends on the time of day: use %ai or %ci")
	}
	return "", errors.New("no such placeholder")
}

// format fills in a pretty format.
func (c Commit) format(f string) (string, error) {
	f, _, _ = strings.Cut(f, "\x00") // where git, written in C, ends it
	var b strings.Builder
	for {
		i := strings.IndexByte(f, '%')
		if i < 0 {
			b.WriteString(f)
			return b.String(), nil
		}
		b.WriteString(f[:i])
		text, n, err := c.placeholder(f[i+1:])
		if err != nil {
			return "", fmt.Errorf("%%%s: %w", f[i+1:i+1+min(2, len(f)-i-1)], err)
		}
		b.WriteString(text)
		f = f[i+1+n:]
	}
}

// placeholder returns what the placeholder at the beginning of f stands for, and
// its length.
func (c Commit) placeholder(f string) (text string, n int, err error) {
	if f == "" {
		return "", 0, errors.New("found the end, wanted a placeholder")
	}
	switch f[0] {
	case '%':
		return "%", 1, nil
	case 'n':
		return "\n", 1, nil
	case 'x':
		raw, err := hex.DecodeString(f[1:min(3, len(f))])
		if err != nil || len(raw) != 1 {
			return "", 0, errors.New("wanted two hex digits")
		}
		return string(raw), 3, nil
	case 'H':
		return c.id, 1, nil
	case 'T':
		return c.tree, 1, nil
	case 'P':
		return strings.Join(c.parents, " "), 1, nil
	case 'h', 't', 'p':
		return "", 0, fmt.Errorf("is as long as the clone is large: use %%%s", strings.ToUpper(f[:1]))
	case 'd', 'D':
		return "", 0, errors.New("depends on the branches and tags of the clone: use %H")
	case 'a', 'c':
		line := c.author
		if f[0] == 'c' {
			line = c.committer
		}
		if err := c.readable(line); err != nil {
			return "", 0, err
		}
		p, err := parsePerson(line)
		if err != nil {
			return "", 0, err
		}
		if len(f) < 2 {
			return "", 0, errors.New("found the end, wanted a placeholder")
		}
		text, err := p.field(f[1])
		return text, 2, err
	case 's', 'f', 'b', 'B':
		if err := c.readable(c.message); err != nil {
			return "", 0, err
		}
		return c.part(f[0]), 1, nil
	}
	return "", 0, errors.New("does not follow from the commit alone: use %H, or one of those that git help log has of author, committer and message")
}

// readable refuses what git would convert by the clone's configuration.
func (c Commit) readable(text string) error {
	switch {
	case c.encoding != "" && !strings.EqualFold(c.encoding, "UTF-8"):
		return fmt.Errorf("the commit is written in %s, wanted UTF-8", c.encoding)
	case !utf8.ValidString(text) || strings.Contains(text, "\x00"):
		return errors.New("the commit's text is not UTF-8")
	}
	return nil
}

// part returns the subject (s), as a file name (f), the body (b), or all (B).
func (c Commit) part(kind byte) string {
	if kind == 'B' {
		return c.message
	}
	rest := skipBlank(c.message)
	if kind == 'f' {
		line, _, _ := strings.Cut(rest, "\n")
		return sanitized(line)
	}
	var subject []string
	for rest != "" {
		line, after, _ := strings.Cut(rest, "\n")
		rest = after
		if line = strings.TrimRight(line, blank); line == "" {
			break
		}
		subject = append(subject, line)
	}
	if kind == 's' {
		return strings.Join(subject, " ")
	}
	return skipBlank(rest)
}

// skipBlank takes off the lines of spaces at the beginning.
func skipBlank(s string) string {
	for s != "" {
		line, after, _ := strings.Cut(s, "\n")
		if strings.Trim(line, blank) != "" {
			break
		}
		s = after
	}
	return s
}

// sanitized makes a file name of a subject, as git format-patch names patches.
func sanitized(s string) string {
	var b strings.Builder
	gap := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !isAlpha(c) && !isDigit(c) && c != '.' && c != '_' {
			gap = true
			continue
		}
		if gap && b.Len() > 0 {
			b.WriteByte('-')
		}
		gap = false
		b.WriteByte(c)
		for c == '.' && i+1 < len(s) && s[i+1] == '.' {
			i++
		}
	}
	return strings.TrimRight(b.String(), ".-")
}
