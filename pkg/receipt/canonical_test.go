package receipt

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gowebpki/jcs"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
)

// thoroughly is Parse without the reader.
func thoroughly(statement []byte) (*Receipt, error) {
	if len(statement) > MaxStatement {
		return Parse(statement)
	}
	w, fields, err := decodeStatement(statement)
	if err != nil {
		return nil, err
	}
	return newReceipt(statement, w, fields)
}

// lineThoroughly is ParseLine without the readers.
func lineThoroughly(line []byte) (Entry, error) {
	if len(line) > MaxLine {
		return ParseLine(line)
	}
	w, err := decodeEnvelope(line)
	if err != nil {
		return Entry{}, err
	}
	e, err := newEntry(line, w)
	if err != nil {
		return Entry{}, err
	}
	e.Receipt, err = thoroughly(e.Receipt.statement)
	return e, err
}

// said is the text of an error. Of several bad digests of one subject, either may be
// named.
func said(err error) string {
	if err == nil {
		return ""
	}
	text, _, _ := strings.Cut(err.Error(), ": digest ")
	return text
}

func agree(t assert.TestingT, data []byte) {
	got, gotErr := Parse(data)
	want, wantErr := thoroughly(data)
	assert.Equal(t, said(gotErr), said(wantErr), "%q", data)
	assert.Assert(t, reflect.DeepEqual(got, want), "%q", data)
	if canon, err := jcs.Transform(data); isCanonical(data) {
		assert.NilError(t, err, "%q", data)
		assert.Equal(t, string(canon), string(data))
		assert.NilError(t, checkTokens(data), "%q", data)
	}
}

func agreeOnLine(t assert.TestingT, line []byte) {
	got, gotErr := ParseLine(line)
	want, wantErr := lineThoroughly(line)
	assert.Equal(t, said(gotErr), said(wantErr), "%q", line)
	assert.Assert(t, reflect.DeepEqual(got, want), "%q", line)
}

func frozen(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	assert.NilError(t, err)
	return bytes.TrimSuffix(data, []byte("\n"))
}

// fragments are what a canonical text may not hold, or not everywhere.
var fragments = []string{
	``, ` `, "\n", `"`, `\`, `\\`, `\"`, `\/`, `\n`, `\t`, `\b`, `\u0008`, `\u0009`, `\u000b`, `\u000B`, `\u001f`, `\u0020`, `\u007f`,
	`\u2028`, `\ud834\udd1e`, `\ud800`, "\x00", "\x1f", "\x7f", "\x80", "\xff", "é", "\u2028", "\ue000", "\U0001d11e", "\ufffd", "\ufeff",
	`{`, `}`, `[`, `]`, `,`, `:`, `-`, `0`, `-0`, `00`, `1`, `-1`, `.5`, `e1`, `9007199254740991`, `9007199254740992`, `-9007199254740992`,
	`true`, `null`, `{}`, `[]`, `""`, `"a":1,`, `"z":1,`, `"é":1,`, `,"a":1`, `"sha256":"`, `"gitCommit":null,`, `[[[[[[[[[[[[[[`, `]]]]]]]]]]]]]]`,
}

// changed draws a text with a few changes.
func changed(rt *rapid.T, data []byte) []byte {
	for range rapid.IntRange(0, 3).Draw(rt, "changes") {
		from := rapid.IntRange(0, len(data)).Draw(rt, "from")
		to := min(len(data), from+rapid.SampledFrom([]int{0, 0, 1, 1, 2, 5, 40}).Draw(rt, "cut"))
		data = bytes.Join([][]byte{data[:from], data[to:]}, []byte(rapid.SampledFrom(fragments).Draw(rt, "put")))
	}
	return data
}

func TestTheReaderAgreesWithTheThoroughWay(t *testing.T) {
	statement, line := frozen(t, "statement.golden.json"), frozen(t, "line.golden.jsonl")
	t.Run("statements", rapid.MakeCheck(func(rt *rapid.T) { agree(rt, changed(rt, statement)) }))
	t.Run("lines", rapid.MakeCheck(func(rt *rapid.T) { agreeOnLine(rt, changed(rt, line)) }))
	t.Run("statements in lines", rapid.MakeCheck(func(rt *rapid.T) {
		e := Entry{Receipt: &Receipt{statement: changed(rt, statement)}, Signatures: []Signature{{Fingerprint: "F", Packet: []byte("p")}}}
		agreeOnLine(rt, e.encode())
	}))
	for i := range statement {
		for bit := range 8 {
			flipped := bytes.Clone(statement)
			flipped[i] ^= 1 << bit
			agree(t, flipped)
		}
	}
}

// Else it would be right, but of no use.
func TestTheReaderTakesWhatNewMakes(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\x00-\x1f"\\/<>&é\x{2028}\x{10000}a-z]{0,8}`))
	leaf := rapid.OneOf(
		rapid.Map(text, func(s string) any { return s }),
		rapid.Map(rapid.Int64Range(-maxInteger, maxInteger), func(n int64) any { return n }),
		rapid.SampledFrom([]any{true, false, nil, 0, maxInteger, -maxInteger, []any{}, map[string]any{}}),
	)
	list := rapid.Map(rapid.SliceOf(leaf), func(l []any) any { return l })
	key := rapid.StringMatching(`[ !#-\[\]-~]{0,6}`)
	object := rapid.Map(rapid.MapOf(key, rapid.OneOf(leaf, list)), func(m map[string]any) any { return m })
	rapid.Check(t, func(rt *rapid.T) {
		r, err := New(Statement{
			Kind: rapid.SampledFrom(Kinds()).Draw(rt, "kind"), Issuer: openpgp.Fingerprint(strings.Repeat("A", 40)), Issued: time.Unix(1, 0),
			Subjects: []Subject{
				{Name: "x" + text.Draw(rt, "subject"), SHA256: strings.Repeat("ab", 32)},
				{Name: "y", SHA256: strings.Repeat("ab", 32), Commit: strings.Repeat("cd", 20)},
			},
			Predicate: rapid.MapOf(key, rapid.OneOf(leaf, list, object)).Draw(rt, "predicate"),
		})
		assert.NilError(rt, err)
		_, _, ok := readStatement(r.Bytes())
		assert.Assert(rt, ok && isCanonical(r.Bytes()), "%q", r.Bytes())
		agree(rt, r.Bytes())
		line := Entry{Receipt: r, Signatures: []Signature{{Fingerprint: r.Issuer(), Packet: []byte("p")}}}.encode()
		_, ok = readEnvelope(line)
		assert.Assert(rt, ok, "%q", line)
		agreeOnLine(rt, line)
	})
}

func TestTheOrderOfKeysIsTheSameBothWays(t *testing.T) {
	keys := []string{"", " ", "!", "#", "a", "a ", "a!", "aa", "A", "_", "~", "\x7f", "é"}
	for _, a := range keys {
		for _, b := range keys {
			data := []byte(`{"` + a + `":1,"` + b + `":1}`)
			if isCanonical(data) {
				assert.NilError(t, checkCanonical(data), "%s", data)
			} else {
				assert.Assert(t, a == "é" || b == "é" || checkCanonical(data) != nil, "%s", data)
			}
		}
	}
}

func TestDepthIsTheSameBothWays(t *testing.T) {
	for _, n := range []int{maxDepth - 1, maxDepth, maxDepth + 1} {
		for _, inner := range []string{``, `1`, `{}`, `[]`} {
			data := []byte(strings.Repeat("[", n) + inner + strings.Repeat("]", n))
			assert.Equal(t, isCanonical(data), checkCanonical(data) == nil, "%s", data)
		}
		data := []byte(strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n))
		assert.Equal(t, isCanonical(data), checkCanonical(data) == nil, "%s", data)
	}
}

// What the reader leaves to the thorough way is read there.
func TestKeysBeyondASCIIAreRead(t *testing.T) {
	predicate := map[string]any{"é": 1, "\U0001d11e": 2, "\ue000": 3, "tab\t": "x"}
	r, err := New(Statement{
		Kind: Deploy, Issuer: openpgp.Fingerprint(strings.Repeat("A", 40)), Issued: time.Unix(1, 0), Predicate: predicate,
		Subjects: []Subject{{Name: "x", SHA256: strings.Repeat("ab", 32)}},
	})
	assert.NilError(t, err)
	_, _, ok := readStatement(r.Bytes())
	assert.Assert(t, !ok)
	assert.Equal(t, r.Field("tab\t"), "x")
	var n int
	assert.NilError(t, r.Decode("é", &n))
	assert.Equal(t, n, 1)
	agree(t, r.Bytes())
}

func FuzzReader(f *testing.F) {
	f.Add(frozen(f, "statement.golden.json"))
	f.Add(frozen(f, "line.golden.jsonl"))
	f.Fuzz(func(t *testing.T, data []byte) {
		agree(t, data)
		agreeOnLine(t, data)
		var v any
		if isCanonical(data) {
			assert.NilError(t, json.Unmarshal(data, &v))
		}
	})
}

func BenchmarkParseLine(b *testing.B) {
	line := frozen(b, "line.golden.jsonl")
	for name, parse := range map[string]func([]byte) (Entry, error){"reader": ParseLine, "thorough": lineThoroughly} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, err := parse(line)
				assert.NilError(b, err)
			}
		})
	}
}
