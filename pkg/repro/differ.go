package repro

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// around is how much of a large file is read on each side of a difference,
	// and how far from it a path is looked for, in bytes.
	around = 4 << 10
	// maxDepth is how many archives deep a difference is looked for: an
	// archive, and one in it.
	maxDepth = 2
	// maxMembers bounds the members of an archive that is looked into.
	maxMembers = 1 << 16
)

// cause is what a difference most likely comes from.
type cause int

const (
	causeUnknown cause = iota
	causePath
	causeTime
	causeZone
	causeLocale
	causeUmask
	causeOwner
	causeOrder
)

// says ends a sentence about the difference.
func (c cause) says() string {
	switch c {
	case causePath:
		return ": the path of the build is in it"
	case causeTime:
		return ": the time of the build is in it"
	case causeZone:
		return ": the time zone of the build is in it"
	case causeLocale:
		return ": the locale of the build is in it"
	case causeUmask:
		return ": the umask of the build is in it"
	case causeOwner:
		return ": the user of the build is in it"
	case causeOrder:
		return ": the order in which files are listed is in it"
	}
	return ""
}

var fixes = map[cause]string{
	causeUnknown: "build in one folder of a machine, then in another with umask 077, TZ=Etc/GMT-14 and LC_ALL=C.UTF-8, and compare: diffoscope FIRST SECOND",
	causePath:    "keep the path out: go build -trimpath; cc -ffile-prefix-map=\"$PWD\"=.; rustc --remap-path-prefix=\"$PWD\"=.; or write paths relative to the checkout",
	causeTime:    "take the date from the commit: date -u -d \"@$SOURCE_DATE_EPOCH\"; tar --mtime=\"@$SOURCE_DATE_EPOCH\"; gzip -n; zip -X after touch -d \"@$SOURCE_DATE_EPOCH\"; ar D",
	causeZone:    "build in one time zone: TZ=UTC, date -u",
	causeLocale:  "build in one locale: LC_ALL=C",
	causeUmask:   "set the modes: tar --mode=u=rwX,go=rX; install -m 644; or umask 022 at the top of the build",
	causeOwner:   "set the owner: tar --owner=0 --group=0 --numeric-owner; ar D",
	causeOrder:   "sort the files: tar --sort=name; find . -type f | LC_ALL=C sort | zip -X -@ FILE",
}

// difference is the first one found between two outputs.
type difference struct {
	where []string // from the outside in
	what  string
	cause cause
}

func (d difference) String() string {
	return strings.Join(append(slices.Clone(d.where), d.what), ": ") + d.cause.says()
}

// in says that the difference is inside of something.
func (d difference) in(where string) difference {
	d.where = append([]string{where}, d.where...)
	return d
}

// clues are what a build leaves in its outputs when it leaks.
type clues struct {
	a, b *side
	left int64 // bytes that may still be unpacked
}

func newClues(a, b *side) *clues { return &clues{a, b, 4 * maxExplained} }

// explain names the first difference of two slices that are not equal.
func (c *clues) explain(a, b []byte) difference { return c.within(a, b, maxDepth) }

func (c *clues) within(a, b []byte, depth int) difference {
	if depth > 0 {
		if d, ok := c.gzip(a, b, depth); ok {
			return d
		}
		for _, open := range []func([]byte, *int64) ([]member, error){readTar, readZip, readAr} {
			ma, err := open(a, &c.left)
			if err != nil {
				continue
			}
			mb, err := open(b, &c.left)
			if err != nil {
				continue
			}
			if d, ok := c.members(ma, mb, depth-1); ok {
				return d
			}
			d := c.bytes(a, b, 0)
			return d.in("its members are equal, how they are packed is not")
		}
	}
	return c.bytes(a, b, 0)
}

// gzip looks at the header first: it comes first. It is no archive, so what it
// holds is not deeper.
func (c *clues) gzip(a, b []byte, depth int) (difference, bool) {
	ha, da, err := gunzip(a, &c.left)
	if err != nil {
		return difference{}, false
	}
	hb, db, err := gunzip(b, &c.left)
	if err != nil {
		return difference{}, false
	}
	switch {
	case !ha.ModTime.Equal(hb.ModTime):
		return difference{[]string{"gzip header"}, fmt.Sprintf("date is %s in the first build, %s in the second", date(ha.ModTime), date(hb.ModTime)), c.dates(ha.ModTime, hb.ModTime)}, true
	case ha.Name != hb.Name:
		return difference{[]string{"gzip header"}, fmt.Sprintf("name is %q in the first build, %q in the second", ha.Name, hb.Name), c.of([]byte(ha.Name), []byte(hb.Name), firstOffset([]byte(ha.Name), []byte(hb.Name)))}, true
	case ha.Comment != hb.Comment || !bytes.Equal(ha.Extra, hb.Extra) || ha.OS != hb.OS:
		return c.bytes(a, b, 0).in("gzip header"), true
	case bytes.Equal(da, db):
		return c.bytes(a, b, 0).in("gzip: the content is equal, how it is compressed is not"), true
	}
	return c.within(da, db, depth).in("in gzip"), true
}

var errTooMuch = errors.New("more than is unpacked")

// unpack reads all of r, as long as there is something left to spend.
func unpack(r io.Reader, left *int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, *left+1))
	if *left -= int64(len(data)); *left < 0 {
		*left = 0
		return nil, errTooMuch
	}
	return data, err
}

func gunzip(data []byte, left *int64) (gzip.Header, []byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return gzip.Header{}, nil, err
	}
	h := z.Header
	plain, err := unpack(z, left)
	return h, plain, err
}

// member is one entry of an archive.
type member struct {
	name  string
	link  string // or what else says what it is
	mode  fs.FileMode
	owner string
	date  time.Time
	data  []byte
}

func readTar(data []byte, left *int64) ([]member, error) {
	var list []member
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF && len(list) > 0 { //nolint:errorlint // documented to be returned as it is
			return list, nil
		}
		if err != nil || len(list) == maxMembers {
			return nil, fmt.Errorf("not a tar file of at most %d members: %w", maxMembers, err)
		}
		content, err := unpack(r, left)
		if err != nil {
			return nil, err
		}
		list = append(list, member{
			name: h.Name, link: string(h.Typeflag) + h.Linkname, mode: h.FileInfo().Mode(), date: h.ModTime, data: content,
			owner: fmt.Sprintf("%d/%d (%s/%s)", h.Uid, h.Gid, h.Uname, h.Gname),
		})
	}
}

func readZip(data []byte, left *int64) ([]member, error) {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	if len(r.File) == 0 || len(r.File) > maxMembers {
		return nil, fmt.Errorf("a zip file of %d members", len(r.File))
	}
	var list []member
	for _, f := range r.File {
		z, err := f.Open()
		if err != nil {
			return nil, err
		}
		content, err := unpack(z, left)
		z.Close()
		if err != nil {
			return nil, err
		}
		list = append(list, member{name: f.Name, mode: f.Mode(), date: f.Modified, data: content})
	}
	return list, nil
}

// readAr reads the format of static libraries and Debian packages: a magic line,
// then for each member 60 bytes of header and the content, padded to even.
func readAr(data []byte, _ *int64) ([]member, error) {
	rest, ok := bytes.CutPrefix(data, []byte("!<arch>\n"))
	if !ok || len(rest) == 0 {
		return nil, errors.New("not an ar file")
	}
	var list []member
	for len(rest) > 0 {
		if len(rest) < 60 || string(rest[58:60]) != "`\n" || len(list) == maxMembers {
			return nil, errors.New("not an ar file")
		}
		field := func(from, to int) string { return strings.TrimRight(string(rest[from:to]), " ") }
		size, err := strconv.ParseInt(field(48, 58), 10, 64)
		if err != nil || size < 0 || size > int64(len(rest)-60) {
			return nil, errors.New("not an ar file")
		}
		m := member{name: field(0, 16), owner: field(28, 34) + "/" + field(34, 40), data: rest[60 : 60+size]}
		if s, err := strconv.ParseInt(field(16, 28), 10, 64); err == nil {
			m.date = time.Unix(s, 0)
		}
		if mode, err := strconv.ParseUint(field(40, 48), 8, 32); err == nil {
			m.mode = fs.FileMode(mode & 0o777)
		}
		list = append(list, m)
		rest = rest[60+size:]
		if size%2 == 1 && len(rest) > 0 {
			rest = rest[1:]
		}
	}
	return list, nil
}

// members names the first difference between two archives; there is none when
// only their packing differs.
func (c *clues) members(a, b []member, depth int) (difference, bool) {
	names := func(list []member) []string {
		var s []string
		for _, m := range list {
			s = append(s, m.name)
		}
		return s
	}
	na, nb := names(a), names(b)
	if !slices.Equal(na, nb) {
		i := 0
		for i < min(len(na), len(nb)) && na[i] == nb[i] {
			i++
		}
		sa, sb := slices.Clone(na), slices.Clone(nb)
		slices.Sort(sa)
		slices.Sort(sb)
		switch only := func(list, other []string) int {
			have := map[string]bool{}
			for _, n := range other {
				have[n] = true
			}
			return slices.IndexFunc(list, func(n string) bool { return !have[n] })
		}; {
		case slices.Equal(sa, sb):
			return difference{nil, fmt.Sprintf("member %d is %q in the first build, %q in the second; the members are the same, their order is not", i+1, na[i], nb[i]), causeOrder}, true
		case i < min(len(na), len(nb)) && only(na[i:], nb) == 0 && only(nb[i:], na) == 0:
			return difference{nil, fmt.Sprintf("member %d is named %q in the first build, %q in the second", i+1, na[i], nb[i]), c.of([]byte(na[i]), []byte(nb[i]), firstOffset([]byte(na[i]), []byte(nb[i])))}, true
		case only(na, nb) >= 0:
			return difference{nil, fmt.Sprintf("member %q is there in the first build only", na[only(na, nb)]), causeUnknown}, true
		case only(nb, na) >= 0:
			return difference{nil, fmt.Sprintf("member %q is there in the second build only", nb[only(nb, na)]), causeUnknown}, true
		}
		return difference{nil, fmt.Sprintf("%d members in the first build, %d in the second: one is there more than once", len(na), len(nb)), causeUnknown}, true
	}
	for i, x := range a {
		y, where := b[i], []string{fmt.Sprintf("member %q", x.name)}
		switch {
		case x.link != y.link:
			return difference{where, fmt.Sprintf("is a link or a type %q in the first build, %q in the second", x.link, y.link), c.of([]byte(x.link), []byte(y.link), firstOffset([]byte(x.link), []byte(y.link)))}, true
		case x.mode != y.mode:
			why := causeUnknown
			if (x.mode^y.mode)&^0o077 == 0 {
				why = causeUmask
			}
			return difference{where, fmt.Sprintf("mode is %s in the first build, %s in the second", x.mode, y.mode), why}, true
		case x.owner != y.owner:
			return difference{where, fmt.Sprintf("owner is %s in the first build, %s in the second", x.owner, y.owner), causeOwner}, true
		case !x.date.Equal(y.date):
			return difference{where, fmt.Sprintf("date is %s in the first build, %s in the second", date(x.date), date(y.date)), c.dates(x.date, y.date)}, true
		case !bytes.Equal(x.data, y.data):
			d := c.within(x.data, y.data, depth)
			d.where = append(where, d.where...)
			return d, true
		}
	}
	return difference{}, false
}

func date(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// bytes names the first difference between plain bytes, which begin at an offset
// of their file.
func (c *clues) bytes(a, b []byte, from int64) difference {
	at := firstOffset(a, b)
	why := c.of(a, b, at)
	what := fmt.Sprintf("at offset %d: %s in the first build, %s in the second", from+int64(at), glimpse(a, at), glimpse(b, at))
	if leak := bytes.Index(a, []byte(c.a.top)); why == causePath && (leak > at || leak+len(c.a.top) < at) {
		what += fmt.Sprintf("; a path is at offset %d", from+int64(leak))
	}
	return difference{nil, what, why}
}

// glimpse shows a few bytes on both sides of an offset.
func glimpse(p []byte, at int) string {
	if at >= len(p) {
		return "the end"
	}
	w := p[max(0, at-8):min(len(p), at+16)]
	return fmt.Sprintf("% x (%q)", w, w)
}

// recent reports whether a date is about that of the builds, in whatever time
// zone it was written.
func (c *clues) recent(t time.Time) bool {
	return t.After(c.a.started.Add(c.a.zone-time.Minute)) && t.Before(c.b.ended.Add(c.b.zone+time.Minute))
}

// dates tells why two dates differ.
func (c *clues) dates(a, b time.Time) cause {
	switch {
	case a.Equal(b) || b.Sub(a).Abs() == c.b.zone-c.a.zone:
		return causeZone // one moment, written in two zones
	case c.recent(a) || c.recent(b):
		return causeTime
	}
	return causeUnknown
}

var (
	clock      = `\d{2}:\d{2}(?::\d{2})?`
	textDates  = regexp.MustCompile(`\d{4}-\d{2}-\d{2}(?:[T _]` + clock + `)?|\d{8}(?:T?\d{4,6})?\b|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?[ 0-9A-Za-z-]{1,20}` + clock + `[ 0-9A-Za-z+:-]{0,16}|` + clock)
	textEpoch  = regexp.MustCompile(`\d{10}(?:\d{9}|\d{6}|\d{3})?`)
	textMode   = regexp.MustCompile(`[-dlbcps](?:[-r][-w][-xsStT]){3}|[0-7]{3,4}`)
	dateLayout = []string{
		"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02_15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", "2006-01-02_15:04", "2006-01-02",
		"20060102T150405", "20060102150405", "20060102T1504", "200601021504", "20060102",
		time.UnixDate, time.RFC1123, time.RFC1123Z, time.ANSIC, time.RubyDate, "Mon Jan _2 15:04:05 -07 2006",
	}
)

// of guesses from the bytes why two slices differ at an offset.
func (c *clues) of(a, b []byte, at int) cause {
	from := max(0, at-around)
	wa, wb := a[from:min(len(a), at+around)], b[from:min(len(b), at+around)]
	i := at - from
	covers := func(w []byte, text string) bool {
		if text == "" {
			return false
		}
		for off := max(0, i-len(text)); off <= i && off < len(w); off++ {
			if bytes.HasPrefix(w[off:], []byte(text)) {
				return true
			}
		}
		return false
	}
	token := func(re *regexp.Regexp, w []byte) string {
		low := max(0, i-48)
		for _, m := range re.FindAllIndex(w[low:min(len(w), i+48)], -1) {
			if m[0] <= i-low && i-low <= m[1] {
				return string(w[low:][m[0]:m[1]])
			}
		}
		return ""
	}
	pair := func(re *regexp.Regexp) (string, string, bool) {
		x, y := token(re, wa), token(re, wb)
		return x, y, x != "" && y != "" && x != y
	}
	switch {
	case covers(wa, c.a.top) && covers(wb, c.b.top):
		return causePath
	case covers(wa, c.a.tz) && covers(wb, c.b.tz):
		return causeZone
	case covers(wb, c.b.lc) || covers(wb, c.b.lang):
		return causeLocale
	}
	if x, y, ok := pair(textEpoch); ok {
		if tx, ty := epoch(x), epoch(y); c.recent(tx) && c.recent(ty) {
			return causeTime
		}
	}
	if x, y, ok := pair(textMode); ok && umaskPair(x, y) {
		return causeUmask
	}
	if x, y, ok := pair(textDates); ok {
		tx, okX := parseDate(x)
		ty, okY := parseDate(y)
		if okX && okY && (c.dates(tx, ty) == causeZone || !c.recent(tx) && !c.recent(ty)) {
			return causeZone
		}
		return causeTime
	}
	if c.binaryTime(wa, i) && c.binaryTime(wb, i) {
		return causeTime
	}
	// The first difference may be a checksum of what follows.
	if bytes.Contains(a, []byte(c.a.top)) && bytes.Contains(b, []byte(c.b.top)) {
		return causePath
	}
	return causeUnknown
}

// binaryTime reports whether four bytes at the offset, or up to three before
// it, are seconds since 1970 near the builds.
func (c *clues) binaryTime(w []byte, i int) bool {
	for off := max(0, i-3); off <= i && off+4 <= len(w); off++ {
		for _, s := range []uint32{binary.LittleEndian.Uint32(w[off:]), binary.BigEndian.Uint32(w[off:])} {
			t := time.Unix(int64(s), 0)
			if t.After(c.a.started.Add(-time.Minute)) && t.Before(c.b.ended.Add(time.Minute)) {
				return true
			}
		}
	}
	return false
}

// epoch reads seconds, or thousandths, millionths, billionths of one.
func epoch(digits string) time.Time {
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return time.Time{}
	}
	for range (19 - len(digits)) / 3 {
		n *= 1000
	}
	return time.Unix(0, n)
}

// parseDate reads a date at the beginning of a text.
func parseDate(s string) (time.Time, bool) {
	for s = strings.TrimSpace(s); s != ""; {
		for _, layout := range dateLayout {
			if t, err := time.Parse(layout, s); err == nil {
				return t, true
			}
		}
		s = strings.TrimSpace(s[:max(0, strings.LastIndexByte(s, ' '))])
	}
	return time.Time{}, false
}

// umaskPair reports whether two texts are modes, or umasks, of which one is the
// other with the bits of group and others taken away.
func umaskPair(x, y string) bool {
	if len(x) >= 9 && len(y) >= 9 {
		return x[:4] == y[:4] && (x[4:] == "------" || y[4:] == "------")
	}
	a, err1 := strconv.ParseUint(x, 8, 16)
	b, err2 := strconv.ParseUint(y, 8, 16)
	if err1 != nil || err2 != nil || len(x) != len(y) {
		return false
	}
	return a == 0o22 && b == 0o77 || a&0o77 != 0 && b == a&^0o77
}
