package smoke

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// maxCount is 2^53-1, the largest whole number every JSON reader keeps exact.
const maxCount = 1<<53 - 1

// maxSentinel bounds the object of one SMOKE_JSON line, in bytes; the list of
// names is what makes it long.
const maxSentinel = 4 << 20

// The line a smoke command prints to be understood, as error messages show it.
const sentinelExample = `SMOKE_JSON={"pass":N,"total":N}`

// Counts is what a reader found. The four counts add up to Total.
type Counts struct {
	Passed, Failed, Warned, Skipped, Total int64
	// Errored is how many of the failed ones left no result or ended by
	// something else than a finding, as far as that is told apart.
	Errored int64

	// Format names the reader that found the counts; "smoke-json+human" when
	// both did.
	Format string
	// IDs are the names of all tests, sorted bytewise, each once; nil when the
	// output did not list them.
	IDs []string
	// IDsSHA256 is the hex SHA-256 of the test names, sorted bytewise, each
	// ended by a newline; empty when the output named none.
	IDsSHA256 string
	// Disagreement says how two results in one output differ; such counts
	// never pass. Empty when there is none.
	Disagreement string
}

func (c Counts) check() error {
	sum := int64(0)
	for _, n := range []int64{c.Passed, c.Failed, c.Warned, c.Skipped, c.Total} {
		if n < 0 || n > maxCount {
			return fmt.Errorf("count %d: wanted 0 to 2^53-1", n)
		}
		sum += n
	}
	if c.Errored < 0 || c.Errored > c.Failed {
		return fmt.Errorf("errored is %d, wanted 0 to %d, the number of failed", c.Errored, c.Failed)
	}
	if sum -= c.Total; sum != c.Total {
		return fmt.Errorf("counts do not add up: passed %d + failed %d + warned %d + skipped %d is %d, total says %d",
			c.Passed, c.Failed, c.Warned, c.Skipped, sum, c.Total)
	}
	return nil
}

// A Reader finds the counts in what a command printed on standard output. It
// returns an error when there is no result, or more than one, or one that
// contradicts itself. It must not guess.
type Reader func(stdout []byte) (Counts, error)

// readers is the registry, in the order names are listed to people.
var readers = []struct {
	name string
	read Reader
}{
	{"auto", readAuto},
	{"smoke-json", readSmokeJSON},
	{"human", readHuman},
}

// Formats returns the names ReaderFor accepts, the default first.
func Formats() []string {
	names := make([]string, len(readers))
	for i, r := range readers {
		names[i] = r.name
	}
	return names
}

// ReaderFor returns the reader of a format. The name is one of Formats.
func ReaderFor(format string) (Reader, error) {
	for _, r := range readers {
		if r.name == format {
			return r.read, nil
		}
	}
	return nil, fmt.Errorf("format %q is not known: wanted one of %s", format, strings.Join(Formats(), ", "))
}

// errNoResult says that an output holds nothing of the wanted form, as opposed
// to something broken.
var errNoResult = errors.New("no result found")

func readAuto(stdout []byte) (Counts, error) {
	fromJSON, errJSON := readSmokeJSON(stdout)
	if errJSON != nil && !errors.Is(errJSON, errNoResult) {
		return Counts{}, errJSON
	}
	if errJSON == nil && !hasHumanBlock(stdout) {
		return fromJSON, nil
	}
	fromBlock, errBlock := readHuman(stdout)
	switch {
	case errJSON == nil && errBlock != nil:
		return Counts{}, fmt.Errorf("%w (set format: smoke-json to read the SMOKE_JSON line only)", errBlock)
	case errJSON == nil:
		return reconcile(fromJSON, fromBlock, isLegacy(stdout)), nil
	case errBlock == nil:
		return fromBlock, nil
	case !errors.Is(errBlock, errNoResult):
		return Counts{}, errBlock
	}
	return Counts{}, fmt.Errorf("%w on standard output: print one line %s, or the lines \"Tests Run:\", \"Passed:\", \"Failed:\" and \"Warnings:\"%s",
		errNoResult, sentinelExample, misplaced(stdout))
}

// reconcile merges two results of the same run. Where they differ the worse
// one is kept, and the difference is recorded, so that it can never pass.
func reconcile(j, h Counts, legacy bool) Counts {
	same := j.Passed == h.Passed && j.Total == h.Total
	if !legacy {
		same = same && j.Failed == h.Failed && j.Warned == h.Warned && j.Skipped == h.Skipped
	}
	worse := j
	if h.Total-h.Passed > j.Total-j.Passed || same {
		worse = h // the block tells warnings from failures, the legacy line cannot
	}
	worse.IDs, worse.IDsSHA256 = j.IDs, j.IDsSHA256
	worse.Format = j.Format + "+" + h.Format
	if !same {
		worse.Disagreement = fmt.Sprintf("two results disagree: SMOKE_JSON says %s, the printed block says %s", j.phrase(), h.phrase())
	}
	return worse
}

func (c Counts) phrase() string {
	return fmt.Sprintf("%d of %d passed (failed %d, warned %d, skipped %d)", c.Passed, c.Total, c.Failed, c.Warned, c.Skipped)
}

const sentinel = "SMOKE_JSON="

func readSmokeJSON(stdout []byte) (Counts, error) {
	var found []byte
	at := 0
	for n, line := range numbered(stdout) {
		rest, ok := bytes.CutPrefix(line, []byte(sentinel))
		if !ok {
			continue
		}
		if at != 0 {
			return Counts{}, fmt.Errorf("two SMOKE_JSON lines (output lines %d and %d): wanted exactly one", at, n)
		}
		found, at = slices.Clone(rest), n
	}
	if at == 0 {
		return Counts{}, fmt.Errorf("%w on standard output: print one line %s%s", errNoResult, sentinelExample, misplaced(stdout))
	}
	c, err := parseSmokeJSON(found)
	if err != nil {
		return Counts{}, fmt.Errorf("SMOKE_JSON on output line %d: %w", at, err)
	}
	return c, nil
}

// misplaced is a hint for the commonest mistake.
func misplaced(stdout []byte) string {
	for n, line := range numbered(stdout) {
		if i := bytes.Index(line, []byte(sentinel)); i > 0 {
			return fmt.Sprintf(" (output line %d has SMOKE_JSON=, but not at the start of the line)", n)
		}
	}
	return ""
}

// isLegacy reports whether the one SMOKE_JSON line has no version key.
func isLegacy(stdout []byte) bool {
	for _, line := range numbered(stdout) {
		if rest, ok := bytes.CutPrefix(line, []byte(sentinel)); ok {
			return !gjson.GetBytes(rest, "v").Exists()
		}
	}
	return false
}

func parseSmokeJSON(raw []byte) (Counts, error) {
	raw = bytes.TrimRight(raw, " \t")
	if len(raw) > maxSentinel {
		return Counts{}, fmt.Errorf("%d bytes long, wanted at most %d", len(raw), maxSentinel)
	}
	if !utf8.Valid(raw) || !gjson.ValidBytes(raw) {
		return Counts{}, fmt.Errorf("not valid JSON: found %q, wanted %s", clip(string(raw), 80), sentinelExample)
	}
	doc := gjson.ParseBytes(raw)
	if !doc.IsObject() {
		return Counts{}, fmt.Errorf("found %q, wanted an object such as %s", clip(string(raw), 80), sentinelExample)
	}
	numbers := map[string]int64{}
	seen := map[string]bool{}
	var ids []string
	var idsSum string
	var err error
	doc.ForEach(func(k, v gjson.Result) bool {
		key := k.String()
		if seen[key] {
			err = fmt.Errorf("key %q is given twice", key)
			return false
		}
		seen[key] = true
		switch key {
		case "v", "pass", "fail", "skip", "warn", "total":
			numbers[key], err = wholeNumber(v)
		case "ids":
			ids, err = names(v)
		case "ids_sha256":
			idsSum = v.String()
			if v.Type != gjson.String || !isHex(idsSum, 64) {
				err = fmt.Errorf("found %s, wanted 64 lower-case hex digits", clip(v.Raw, 80))
			}
		default:
			err = fmt.Errorf("unknown key; known keys: pass, total; or v, pass, fail, skip, warn, total, ids, ids_sha256")
		}
		if err != nil {
			err = fmt.Errorf("%q: %w", clip(key, 40), err)
		}
		return err == nil
	})
	if err != nil {
		return Counts{}, err
	}
	required := []string{"pass", "total"}
	if seen["v"] {
		required = []string{"v", "pass", "fail", "skip", "warn", "total"}
	}
	for _, key := range required {
		if !seen[key] {
			return Counts{}, fmt.Errorf("key %q is missing; wanted %s", key, strings.Join(required, ", "))
		}
	}
	c := Counts{Passed: numbers["pass"], Total: numbers["total"], Format: "smoke-json"}
	if c.Passed > c.Total {
		return Counts{}, fmt.Errorf("pass is %d, more than total %d", c.Passed, c.Total)
	}
	if !seen["v"] {
		if len(seen) != len(required) {
			return Counts{}, errors.New(`more keys than pass and total: wanted "v":1 beside them`)
		}
		c.Failed = c.Total - c.Passed
		return c, nil
	}
	if numbers["v"] != 1 {
		return Counts{}, fmt.Errorf("\"v\" is %d, wanted 1", numbers["v"])
	}
	c.Failed, c.Warned, c.Skipped = numbers["fail"], numbers["warn"], numbers["skip"]
	if err := c.check(); err != nil {
		return Counts{}, err
	}
	if seen["ids"] && seen["ids_sha256"] {
		return Counts{}, errors.New("both ids and ids_sha256 are given, wanted one of them")
	}
	c.IDsSHA256 = idsSum
	if seen["ids"] {
		if int64(len(ids)) != c.Total {
			return Counts{}, fmt.Errorf("ids has %d names, total says %d", len(ids), c.Total)
		}
		if c.IDs, c.IDsSHA256, err = sumIDs(ids); err != nil {
			return Counts{}, err
		}
	}
	return c, nil
}

// wholeNumber reads the raw text, because a parsed float would hide 1.0, 1e3
// and every digit beyond 2^53.
func wholeNumber(v gjson.Result) (int64, error) {
	n, ok := parseCount(v.Raw)
	if v.Type != gjson.Number || !ok {
		return 0, fmt.Errorf("found %s, wanted a whole number from 0 to 2^53-1", clip(v.Raw, 40))
	}
	return n, nil
}

// parseCount reads plain decimal digits without sign or leading zero.
func parseCount(s string) (int64, bool) {
	if s == "" || len(s) > 16 || (s[0] == '0' && s != "0") {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n <= maxCount
}

func names(v gjson.Result) ([]string, error) {
	if !v.IsArray() {
		return nil, fmt.Errorf("found %s, wanted a list of names", clip(v.Raw, 40))
	}
	var ids []string
	for _, e := range v.Array() {
		if e.Type != gjson.String {
			return nil, fmt.Errorf("found %s, wanted a name in quotes", clip(e.Raw, 40))
		}
		if err := checkName(e.Str); err != nil {
			return nil, err
		}
		ids = append(ids, e.Str)
	}
	return ids, nil
}

// sumIDs sorts names and returns them with their digest. A name that is there
// twice is an error.
func sumIDs(ids []string) ([]string, string, error) {
	slices.Sort(ids)
	for i, id := range ids {
		if i > 0 && ids[i-1] == id {
			return nil, "", fmt.Errorf("ids: %q is given twice", clip(id, 80))
		}
	}
	return ids, sumSorted(ids), nil
}

func sumSorted(ids []string) string {
	h := sha256.New()
	for _, id := range ids {
		h.Write([]byte(id + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

// The block's lines, in the order the ancestor prints them. The first is the
// one that says a block is there at all: the others are words any tool prints.
var blockLabels = [4]string{"Tests Run:", "Passed:", "Failed:", "Warnings:"}

// blockLine takes "  Passed:   20 " apart. A label followed by words is prose;
// one followed by something that starts like a number but is none is broken.
func blockLine(line []byte) (label int, value int64, err error) {
	text := strings.TrimSpace(string(line))
	for i, l := range blockLabels {
		rest, ok := strings.CutPrefix(text, l)
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		n, ok := parseCount(rest)
		switch {
		case ok:
			return i, n, nil
		case rest != "" && strings.IndexByte("+-.0123456789", rest[0]) >= 0:
			return i, 0, fmt.Errorf("%q: found %q, wanted a whole number alone", l, clip(rest, 40))
		}
	}
	return -1, 0, nil
}

func hasHumanBlock(stdout []byte) bool {
	for _, line := range numbered(stdout) {
		if label, _, _ := blockLine(line); label == 0 {
			return true
		}
	}
	return false
}

func readHuman(stdout []byte) (Counts, error) {
	var at [4]int
	var value [4]int64
	for n, line := range numbered(stdout) {
		label, v, err := blockLine(line)
		if err != nil {
			return Counts{}, fmt.Errorf("output line %d: %w", n, err)
		}
		if label < 0 {
			continue
		}
		if at[label] != 0 {
			return Counts{}, fmt.Errorf("%q is printed twice (output lines %d and %d): wanted exactly once", blockLabels[label], at[label], n)
		}
		at[label], value[label] = n, v
	}
	if at == [4]int{} {
		return Counts{}, fmt.Errorf("%w on standard output: print the lines \"Tests Run:\", \"Passed:\", \"Failed:\" and \"Warnings:\", each with its number", errNoResult)
	}
	for i, n := range at {
		if n == 0 {
			return Counts{}, fmt.Errorf("the printed block has no %q line: wanted %s", blockLabels[i], strings.Join(blockLabels[:], " "))
		}
	}
	c := Counts{Total: value[0], Passed: value[1], Failed: value[2], Warned: value[3], Format: "human"}
	if err := c.check(); err != nil {
		return Counts{}, fmt.Errorf("the printed block: %w", err)
	}
	return c, nil
}

// numbered yields the lines of an output, counted from 1, without their line
// ends and without terminal escape sequences. Sequences end with their line, so
// an unfinished one can hide nothing that follows.
func numbered(out []byte) func(yield func(int, []byte) bool) {
	return func(yield func(int, []byte) bool) {
		for n := 1; len(out) > 0; n++ {
			line := out
			if i := bytes.IndexByte(out, '\n'); i >= 0 {
				line, out = out[:i], out[i+1:]
			} else {
				out = nil
			}
			line = bytes.TrimSuffix(stripEscapes(bytes.TrimSuffix(line, []byte("\r"))), []byte("\r"))
			if !yield(n, line) {
				return
			}
		}
	}
}

// stripEscapes removes ECMA-48 control sequences (ESC [ … final), operating
// system commands (ESC ] … BEL or ESC \) and short escapes such as ESC ( B.
func stripEscapes(line []byte) []byte {
	const esc = 0x1b
	if bytes.IndexByte(line, esc) < 0 {
		return line
	}
	plain := make([]byte, 0, len(line))
	for i := 0; i < len(line); i++ {
		if line[i] != esc {
			plain = append(plain, line[i])
			continue
		}
		if i++; i >= len(line) {
			break
		}
		switch line[i] {
		case '[':
			j := i + 1
			for j < len(line) && line[j] >= 0x20 && line[j] <= 0x3f {
				j++
			}
			if j < len(line) && line[j] >= 0x40 && line[j] <= 0x7e {
				i = j
			}
		case ']':
			rest := line[i+1:]
			bel := bytes.IndexByte(rest, 0x07)
			st := bytes.Index(rest, []byte{esc, '\\'})
			switch {
			case bel >= 0 && (st < 0 || bel < st):
				i += 1 + bel
			case st >= 0:
				i += 2 + st
			}
		default:
			for i+1 < len(line) && line[i] >= 0x20 && line[i] <= 0x2f {
				i++
			}
		}
	}
	return plain
}
