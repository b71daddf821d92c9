package receipt_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"
	"pgregory.net/rapid"

	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

var now = time.Date(2025, 10, 22, 18, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

var signers = map[string]func() (openpgp.Signer, error){
	"issuer":   sync.OnceValues(func() (openpgp.Signer, error) { return load("issuer") }),
	"endorser": sync.OnceValues(func() (openpgp.Signer, error) { return load("endorser") }),
}

func load(name string) (openpgp.Signer, error) {
	secret, err := os.ReadFile("testdata/" + name + ".sec.asc")
	if err != nil {
		return nil, err
	}
	return openpgp.FromArmored(secret, nil, clock)
}

func signer(t testing.TB, name string) openpgp.Signer {
	t.Helper()
	s, err := signers[name]()
	assert.NilError(t, err)
	return s
}

func keyring(t testing.TB, names ...string) *openpgp.Keyring {
	t.Helper()
	var keys []*openpgp.Key
	for _, n := range names {
		keys = append(keys, signer(t, n).Public())
	}
	ring, err := openpgp.NewKeyring(keys...)
	assert.NilError(t, err)
	return ring
}

func sign(t testing.TB, r *receipt.Receipt, name string) receipt.Signature {
	t.Helper()
	s, err := receipt.Sign(context.Background(), r, signer(t, name))
	assert.NilError(t, err)
	return s
}

const artifact = "44e55de06b7deed4d5e8bcd1c0fa3bb5e9a0bdc5ef3de2fb1e50f0d5d0d5bb33"

// example is the receipt whose bytes are frozen.
func example(t testing.TB) *receipt.Receipt {
	t.Helper()
	r, err := receipt.New(receipt.Statement{
		Kind: receipt.Deploy, Issuer: signer(t, "issuer").Fingerprint(), Name: "app-v4.0.1",
		Issued: time.Date(2025, 10, 22, 19, 30, 15, 999, time.FixedZone("CEST", 2*3600)),
		Subjects: []receipt.Subject{
			{Name: "app.tar.gz", SHA256: artifact},
			{Name: "commit", Commit: "0123456789abcdef0123456789abcdef01234567"},
		},
		Predicate: map[string]any{
			"component": "app", "version": "v4.0.1", "passed": 26, "total": int64(26), "rolled_back": false, "previous": nil,
			"evidence":       []any{map[string]any{"name": "smoke.txt", "bytes": 1<<53 - 1}},
			"note":           "<b> & \"quotes\", \u2028, \x7f, é, 𝄞, tab\t",
			"vaultmesh_name": "overwritten", "vaultmesh_issuer": "overwritten", "vaultmesh_issued": 1,
		},
	})
	assert.NilError(t, err)
	return r
}

func TestFormatsAreFrozen(t *testing.T) {
	r := example(t)
	golden.AssertBytes(t, r.Bytes(), "statement.golden.json")
	golden.AssertBytes(t, receipt.PAE(r.Bytes()), "pae.golden")
	golden.Assert(t, r.ID().String()+"\n", "id.golden")

	// Ed25519 signatures are deterministic, so the line is too.
	e, err := receipt.NewEntry(r, sign(t, r, "issuer"), sign(t, r, "endorser"))
	assert.NilError(t, err)
	golden.AssertBytes(t, append(e.Line(), '\n'), "line.golden.jsonl")
}

func goldenLine(t testing.TB) []byte {
	t.Helper()
	line, err := os.ReadFile("testdata/line.golden.jsonl")
	assert.NilError(t, err)
	return bytes.TrimSuffix(line, []byte("\n"))
}

func TestAFrozenLineParsesAndVerifies(t *testing.T) {
	e, err := receipt.ParseLine(goldenLine(t))
	assert.NilError(t, err)
	issued, err := e.Verify(keyring(t, "issuer", "endorser"), now)
	assert.NilError(t, err)
	assert.Assert(t, issued)
	assert.DeepEqual(t, e.Line(), goldenLine(t))

	r := e.Receipt
	issuer := signer(t, "issuer").Fingerprint()
	assert.Equal(t, r.Kind(), receipt.Deploy)
	assert.Equal(t, r.Issuer(), issuer)
	assert.Equal(t, r.Name(), "app-v4.0.1")
	assert.Equal(t, r.Issued(), time.Date(2025, 10, 22, 17, 30, 15, 0, time.UTC))
	assert.DeepEqual(t, r.Subjects(), []receipt.Subject{
		{Name: "app.tar.gz", SHA256: artifact}, {Name: "commit", Commit: "0123456789abcdef0123456789abcdef01234567"},
	})
	assert.Equal(t, r.File(), "deploy/app-v4.0.1.receipt")
	assert.Equal(t, r.SignatureFile(issuer), "deploy/app-v4.0.1.receipt."+string(issuer)+".asc")
	assert.Equal(t, r.Field("component"), "app")
	assert.Equal(t, r.Field("passed"), "")
	assert.Equal(t, r.Field("absent"), "")
	assert.Equal(t, r.Field("note"), "<b> & \"quotes\", \u2028, \x7f, é, 𝄞, tab\t")
	var predicate map[string]any
	assert.NilError(t, json.Unmarshal(r.Predicate(), &predicate))
	assert.Equal(t, predicate["vaultmesh_issuer"], string(issuer))
	id, err := receipt.ParseID(r.ID().String())
	assert.NilError(t, err)
	assert.Equal(t, id, r.ID())
}

func TestOnlyTheIssuersSignatureIssues(t *testing.T) {
	r := example(t)
	endorsed, err := receipt.NewEntry(r, sign(t, r, "endorser"))
	assert.NilError(t, err)
	issued, err := endorsed.Verify(keyring(t, "issuer", "endorser"), now)
	assert.NilError(t, err)
	assert.Assert(t, !issued)

	both, err := receipt.NewEntry(r, sign(t, r, "endorser"), sign(t, r, "issuer"))
	assert.NilError(t, err)
	_, err = both.Verify(keyring(t, "issuer"), now)
	assert.ErrorIs(t, err, openpgp.ErrUnknownIssuer)
	_, err = both.Verify(keyring(t, "issuer", "endorser"), now.AddDate(0, 0, -1))
	assert.ErrorContains(t, err, "receipt "+r.ID().String())

	other, err := receipt.New(receipt.Statement{Kind: receipt.ADR, Issuer: r.Issuer(), Issued: now, Subjects: r.Subjects()})
	assert.NilError(t, err)
	assert.Assert(t, receipt.VerifySignature(other, sign(t, r, "issuer"), keyring(t, "issuer"), now) != nil)
}

// with edits the frozen statement, which must hold old.
func with(t testing.TB, old, replacement string) string {
	t.Helper()
	s := string(example(t).Bytes())
	assert.Assert(t, strings.Contains(s, old), old)
	return strings.Replace(s, old, replacement, 1)
}

func TestStatementsAreRefused(t *testing.T) {
	issuer := string(signer(t, "issuer").Fingerprint())
	nested := func(n int) string {
		return with(t, `"passed":26`, `"passed":`+strings.Repeat("[", n)+strings.Repeat("]", n))
	}
	padded := func(size int) string {
		s := with(t, `"passed":26`, `"passed":""`)
		return strings.Replace(s, `"passed":""`, `"passed":"`+strings.Repeat("x", size-len(s))+`"`, 1)
	}
	_, err := receipt.Parse([]byte(padded(receipt.MaxStatement)))
	assert.NilError(t, err)
	_, err = receipt.Parse([]byte(nested(15)))
	assert.NilError(t, err)

	const notCanonical = "receipt is not canonical JSON (RFC 8785)"
	wantInteger := func(n string) string {
		return "receipt holds the number " + n + ": want integers within ±9007199254740991; write a ratio as two counts"
	}
	wantTime := func(s string) string {
		return `receipt: vaultmesh_issued "` + s + `": want an RFC 3339 time in UTC with whole seconds, as 2006-01-02T15:04:05Z`
	}
	wantName := func(s string) string {
		return fmt.Sprintf("receipt name %q: want letters, digits, _ + - and single inner dots, at most 128 bytes", s)
	}
	device := func(s string) string {
		return fmt.Sprintf("receipt name %q is a device name on Windows: choose another", s)
	}
	name := func(s string) string { return with(t, `"vaultmesh_name":"app-v4.0.1"`, `"vaultmesh_name":"`+s+`"`) }
	issued := func(s string) string { return with(t, `"2025-10-22T17:30:15Z"`, `"`+s+`"`) }
	for _, c := range []struct{ name, statement, err string }{
		{"nothing", "", "receipt is not JSON: EOF"},
		{"not JSON", "{", "receipt is not JSON: EOF"},
		{"a space", with(t, `"predicate":`, `"predicate": `), notCanonical},
		{"a newline at the end", with(t, "", "") + "\n", notCanonical},
		{"a CRLF at the end", with(t, "", "") + "\r\n", notCanonical},
		{"a byte order mark", "\ufeff" + with(t, "", ""), "receipt is not JSON: invalid character 'ï' looking for beginning of value"},
		{"two statements", with(t, "", "") + with(t, "", ""), "receipt has bytes after its JSON value"},
		{"keys in another order", with(t, `"component":"app","evidence"`, `"evidence0":"app","evidence"`), notCanonical},
		{"an escaped letter", with(t, `"app"`, `"\u0061pp"`), notCanonical},
		{"an escaped slash", with(t, `https://in`, `https:\/\/in`), notCanonical},
		{"an escaped line separator", with(t, "\u2028", `\u2028`), notCanonical},
		{"a tab by its number", with(t, `\t`, `\u0009`), notCanonical},
		{"a byte too much", padded(receipt.MaxStatement + 1), "receipt is 32769 bytes, want at most 32768"},
		{"a float", with(t, `"passed":26`, `"passed":26.5`), wantInteger("26.5")},
		{"a float that is whole", with(t, `"passed":26`, `"passed":26.0`), wantInteger("26.0")},
		{"an exponent", with(t, `"passed":26`, `"passed":26e0`), wantInteger("26e0")},
		{"2^53", with(t, `"passed":26`, `"passed":9007199254740992`), wantInteger("9007199254740992")},
		{"-2^53", with(t, `"passed":26`, `"passed":-9007199254740992`), wantInteger("-9007199254740992")},
		{"more than 64 bits", with(t, `"passed":26`, `"passed":18446744073709551616`), wantInteger("18446744073709551616")},
		{"minus zero", with(t, `"passed":26`, `"passed":-0`), wantInteger("-0")},
		{"a key twice", with(t, `"passed":26`, `"passed":26,"passed":26`), `receipt names the key "passed" twice`},
		{"a key twice, once escaped", with(t, `"passed":26`, `"passed":26,"p\u0061ssed":26`), `receipt names the key "passed" twice`},
		{"a deep key twice", with(t, `"bytes":9007199254740991`, `"bytes":1,"bytes":1`), `receipt names the key "bytes" twice`},
		{"deep nesting", nested(16), "receipt is nested deeper than 16"},
		{"very deep nesting", nested(10000), "receipt is nested deeper than 16"},
		{"not UTF-8", with(t, `"app"`, "\"\xff\""), "receipt is not UTF-8"},
		{"a surrogate in UTF-8", with(t, `"app"`, "\"\xed\xa0\x80\""), "receipt is not UTF-8"},
		{"a list", "[]", "receipt: json: cannot unmarshal array into Go value of type receipt.wireStatement"},
		{"null", "null", "receipt: has missing, unknown or misspelt keys"},
		{"another type", with(t, "Statement/v1", "Statement/v0"), `receipt: _type is "https://in-toto.io/Statement/v0", want "https://in-toto.io/Statement/v1"`},
		{"an unknown predicate", with(t, "remembrancer/deploy/v1", "remembrancer/deploy/v2"), `receipt: unknown predicateType "https://vaultmesh.org/remembrancer/deploy/v2"`},
		{"no kind", with(t, "remembrancer/deploy/v1", "remembrancer//v1"), `receipt: unknown predicateType "https://vaultmesh.org/remembrancer//v1"`},
		{"an unknown key", with(t, `,"subject":`, `,"sub":1,"subject":`), `receipt: json: unknown field "sub"`},
		{"a key in another case", with(t, `{"_type"`, `{"_Type"`), "receipt: has missing, unknown or misspelt keys"},
		{"an issuer in another case", strings.Replace(with(t, `,"vaultmesh_issuer":"`+issuer+`"`, ""), `{"component"`, `{"Vaultmesh_issuer":"`+issuer+`","component"`, 1), ""},
		{"a predicate that is a list", `{"_type":"https://in-toto.io/Statement/v1","predicate":[],"predicateType":"https://vaultmesh.org/remembrancer/adr/v1","subject":[]}`, "receipt: predicate: want an object"},
		{"a predicate that is null", `{"_type":"https://in-toto.io/Statement/v1","predicate":null,"predicateType":"https://vaultmesh.org/remembrancer/adr/v1","subject":[]}`, "receipt: predicate: want an object"},
		{"no predicate", `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://vaultmesh.org/remembrancer/adr/v1","subject":[]}`, "receipt: has missing, unknown or misspelt keys"},
		{"no issuer", with(t, `,"vaultmesh_issuer":"`+issuer+`"`, ""), ""},
		{"an issuer in small letters", with(t, issuer, strings.ToLower(issuer)), fmt.Sprintf("receipt: vaultmesh_issuer %q: want upper-case hex without spaces", strings.ToLower(issuer))},
		{"an issuer with spaces", with(t, issuer, issuer[:20]+" "+issuer[20:]), fmt.Sprintf("receipt: vaultmesh_issuer %q: want upper-case hex without spaces", issuer[:20]+" "+issuer[20:])},
		{"a short issuer", with(t, issuer, issuer[24:]), ""},
		{"an issuer that is a number", with(t, `"`+issuer+`"`, "1"), ""},
		{"a time with an offset", issued("2025-10-22T19:30:15+02:00"), wantTime("2025-10-22T19:30:15+02:00")},
		{"a time with a zero offset", issued("2025-10-22T17:30:15+00:00"), wantTime("2025-10-22T17:30:15+00:00")},
		{"a time with a fraction", issued("2025-10-22T17:30:15.5Z"), wantTime("2025-10-22T17:30:15.5Z")},
		{"a time that is none", issued("2025-02-30T17:30:15Z"), wantTime("2025-02-30T17:30:15Z")},
		{"a time with a small z", issued("2025-10-22T17:30:15z"), wantTime("2025-10-22T17:30:15z")},
		{"no time", issued(""), wantTime("")},
		{"a name that is null", with(t, `"app-v4.0.1"`, "null"), wantName("")},
		{"an empty name", name(""), wantName("")},
		{"a way up", name(".."), wantName("..")},
		{"a name that climbs", name("../../etc"), wantName("../../etc")},
		{"two dots inside", name("a..b"), wantName("a..b")},
		{"a dot first", name(".a"), wantName(".a")},
		{"a dot last", name("a."), wantName("a.")},
		{"a dash first", name("-rf"), wantName("-rf")},
		{"a slash", name("a/b"), wantName("a/b")},
		{"a colon", name("a:b"), wantName("a:b")},
		{"a space in the name", name("a b"), wantName("a b")},
		{"a letter beyond ASCII", name("ä"), wantName("ä")},
		{"129 bytes", name(strings.Repeat("a", 129)), wantName(strings.Repeat("a", 129))},
		{"a device", name("nul"), device("nul")},
		{"a device with an extension", name("Com1.v2"), device("Com1.v2")},
		{"no subject", with(t, `,"subject":[`, `,"subject":[],"x":[`), `receipt: json: unknown field "x"`},
		{"an empty list of subjects", head(t) + `"subject":[]}`, "receipt: subject: 0 subjects, want 1 to 256"},
		{"subjects that are null", head(t) + `"subject":null}`, "receipt: subject: 0 subjects, want 1 to 256"},
		{"257 subjects", head(t) + `"subject":[` + strings.TrimSuffix(strings.Repeat(`{"digest":{"sha256":"x"},"name":"x"},`, 257), ",") + `]}`, "receipt: subject: 257 subjects, want 1 to 256"},
		{"a subject without a name", head(t) + `"subject":[{"digest":{"sha256":"` + artifact + `"},"name":""}]}`, `receipt: subject: "": want a name and a digest`},
		{"a subject without a digest", head(t) + `"subject":[{"digest":{},"name":"x"}]}`, `receipt: subject: "x": want a name and a digest`},
		{"a subject with a uri", head(t) + `"subject":[{"digest":{"sha256":"` + artifact + `"},"name":"x","uri":"y"}]}`, `receipt: json: unknown field "uri"`},
		{"a short digest", with(t, artifact, artifact[2:]), `receipt: subject: "app.tar.gz": digest sha256:` + artifact[2:] + `: want sha256 or gitCommit in lower-case hex`},
		{"a digest in capitals", with(t, artifact, strings.ToUpper(artifact)), `receipt: subject: "app.tar.gz": digest sha256:` + strings.ToUpper(artifact) + `: want sha256 or gitCommit in lower-case hex`},
		{"a digest of another kind", with(t, `"sha256":"`, `"md5":"`), `receipt: subject: "app.tar.gz": digest md5:` + artifact + `: want sha256 or gitCommit in lower-case hex`},
		{"a short commit", with(t, `"0123456789abcdef0`, `"0`), `receipt: subject: "commit": digest gitCommit:0123456789abcdef01234567: want sha256 or gitCommit in lower-case hex`},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := receipt.Parse([]byte(c.statement))
			assert.Assert(t, r == nil)
			if c.err == "" {
				assert.ErrorContains(t, err, "receipt: vaultmesh_issuer: ")
				return
			}
			assert.Error(t, err, c.err)
		})
	}
}

// head is the frozen statement up to its subjects.
func head(t testing.TB) string {
	t.Helper()
	h, _, ok := strings.Cut(string(example(t).Bytes()), `"subject":`)
	assert.Assert(t, ok)
	return h
}

func TestALoneSurrogateIsRefused(t *testing.T) {
	for _, s := range []string{`"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\ud800"`} {
		r, err := receipt.Parse([]byte(with(t, `"app"`, s)))
		assert.Assert(t, r == nil && err != nil, s)
	}
}

func TestNewRefusesWhatItWouldHaveToChange(t *testing.T) {
	good := func() receipt.Statement {
		return receipt.Statement{
			Kind: receipt.ADR, Issuer: signer(t, "issuer").Fingerprint(), Issued: now,
			Subjects: []receipt.Subject{{Name: "x", SHA256: artifact}}, Predicate: map[string]any{},
		}
	}
	_, err := receipt.New(good())
	assert.NilError(t, err)
	for name, c := range map[string]struct {
		do  func(s *receipt.Statement)
		err string
	}{
		"no kind":       {func(s *receipt.Statement) { s.Kind = "" }, "unknown predicateType"},
		"another kind":  {func(s *receipt.Statement) { s.Kind = "rumour" }, "unknown predicateType"},
		"no issuer":     {func(s *receipt.Statement) { s.Issuer = "" }, "vaultmesh_issuer"},
		"no time":       {func(s *receipt.Statement) { s.Issued = time.Time{}.AddDate(20000, 0, 0) }, "vaultmesh_issued"},
		"no subject":    {func(s *receipt.Statement) { s.Subjects = nil }, "0 subjects"},
		"no digest":     {func(s *receipt.Statement) { s.Subjects[0].SHA256 = "" }, "want a name and a digest"},
		"bad name":      {func(s *receipt.Statement) { s.Name = "../x" }, "receipt name"},
		"a float":       {func(s *receipt.Statement) { s.Predicate["x"] = 0.5 }, "holds the number 0.5"},
		"a whole float": {func(s *receipt.Statement) { s.Predicate["x"] = 1e21 }, "holds the number 1e+21"},
		"2^53":          {func(s *receipt.Statement) { s.Predicate["x"] = int64(1 << 53) }, "holds the number 9007199254740992"},
		"a function":    {func(s *receipt.Statement) { s.Predicate["x"] = func() {} }, "unsupported type"},
		"bad text":      {func(s *receipt.Statement) { s.Predicate["x"] = "\xff" }, `text "\xff" is not UTF-8`},
		"a bad key":     {func(s *receipt.Statement) { s.Predicate["\xff"] = 1 }, `text "\xff" is not UTF-8`},
		"bad text in a list": {func(s *receipt.Statement) {
			s.Predicate["x"] = []any{map[string]any{"y": []string{"\xff"}}}
		}, `text "\xff" is not UTF-8`},
		"bad text in a map": {func(s *receipt.Statement) { s.Predicate["x"] = map[string]string{"y": "\xff"} }, `text "\xff" is not UTF-8`},
		"a bad subject":     {func(s *receipt.Statement) { s.Subjects[0].Name = "\xff" }, `text "\xff" is not UTF-8`},
		"too much":          {func(s *receipt.Statement) { s.Predicate["x"] = strings.Repeat("x", receipt.MaxStatement) }, "bytes, want at most 32768"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.do(&s)
			r, err := receipt.New(s)
			assert.Assert(t, r == nil)
			assert.ErrorContains(t, err, c.err)
		})
	}
}

func TestLinesAreRefused(t *testing.T) {
	line := string(goldenLine(t))
	e, err := receipt.ParseLine(goldenLine(t))
	assert.NilError(t, err)
	first, second := e.Signatures[0].Fingerprint, e.Signatures[1].Fingerprint
	env := func(old, replacement string) string {
		assert.Assert(t, strings.Contains(line, old), old)
		return strings.Replace(line, old, replacement, 1)
	}
	sigs := line[strings.Index(line, `[{`):strings.Index(line, `]}`)]
	a, b, _ := strings.Cut(sigs[1:], "},")
	a += "}"
	signatures := func(s string) string { return env(sigs[1:], s) }
	packet := base64.StdEncoding.EncodeToString(e.Signatures[0].Packet)
	assert.Assert(t, strings.HasSuffix(packet, "="), "this packet must have padding: %d bytes", len(e.Signatures[0].Packet))
	// The last letter before padding has bits that decoding ignores.
	loose := []byte(packet)
	loose[bytes.IndexByte(loose, '=')-1]++
	spaced := base64.StdEncoding.EncodeToString([]byte(with(t, `"predicate":`, `"predicate": `)))
	payload := base64.StdEncoding.EncodeToString(e.Receipt.Bytes())

	const notItself = "log line does not encode back to itself: it is not canonical"
	for _, c := range []struct{ name, line, err string }{
		{"nothing", "", "log line is not a DSSE envelope: EOF"},
		{"not JSON", "{", "log line is not a DSSE envelope: unexpected EOF"},
		{"too long", env(packet, strings.Repeat("A", receipt.MaxLine+1-len(line)+len(packet))), "log line is 65536 bytes, want at most 65535"},
		{"signatures out of order", signatures(b + "," + a), "log line: want one signature for a fingerprint, in ascending order"},
		{"one key twice", signatures(a + "," + a), "log line: want one signature for a fingerprint, in ascending order"},
		{"no signature", signatures(""), "log line has no signature"},
		{"signatures that are null", env("["+sigs[1:]+"]", "null"), "log line has no signature"},
		{"another payload type", env("application/vnd.in-toto+json", "text/plain"), `log line: payloadType is "text/plain", want "application/vnd.in-toto+json"`},
		{"an unknown key", env(`{"payload"`, `{"extra":1,"payload"`), `log line is not a DSSE envelope: json: unknown field "extra"`},
		{"an unknown key in a signature", env(`{"keyid"`, `{"cert":"","keyid"`), `log line is not a DSSE envelope: json: unknown field "cert"`},
		{"a key in another case", env(`"payload"`, `"Payload"`), notItself},
		{"a key twice", env(`{"payload"`, `{"payload":"","payload"`), notItself},
		{"a space", env(`,"payloadType"`, `, "payloadType"`), notItself},
		{"a carriage return at the end", line + "\r", notItself},
		{"a newline at the end", line + "\n", notItself},
		{"a second envelope", line + line, notItself},
		{"a payload that is not base64", env(payload, "*"), "log line: payload: illegal base64 data at input byte 0"},
		{"a payload that is not canonical", env(payload, spaced), "log line: receipt is not canonical JSON (RFC 8785)"},
		{"base64 with a newline", env(packet, packet[:4]+`\n`+packet[4:]), notItself},
		{"base64 with loose bits", env(packet, string(loose)), notItself},
		{"base64 without padding", env(packet, strings.TrimRight(packet, "=")), "log line: signature of " + string(first) + " is not base64"},
		{"an empty signature", env(packet, ""), "log line: signature of " + string(first) + " is not base64"},
		{"a small fingerprint", env(string(second), strings.ToLower(string(second))), notItself},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := receipt.ParseLine([]byte(c.line))
			assert.DeepEqual(t, got.Signatures, []receipt.Signature(nil))
			assert.Assert(t, got.Receipt == nil)
			assert.Error(t, err, c.err)
		})
	}
	t.Run("no fingerprint", func(t *testing.T) {
		got, err := receipt.ParseLine([]byte(env(string(first), "me")))
		assert.Assert(t, got.Receipt == nil)
		assert.ErrorContains(t, err, "log line: keyid: ")
	})
	t.Run("an entry that cannot be a line", func(t *testing.T) {
		for _, s := range [][]receipt.Signature{nil, {{Fingerprint: first, Packet: nil}}, {e.Signatures[0], e.Signatures[0]}, {{Fingerprint: first, Packet: make([]byte, receipt.MaxLine)}}} {
			got, err := receipt.NewEntry(e.Receipt, s...)
			assert.Assert(t, err != nil && got.Receipt == nil && got.Signatures == nil)
		}
	})
}

func TestNamesAndKinds(t *testing.T) {
	for _, name := range []string{"a", "app-v4.0.1", "A_b+c-d", "9", strings.Repeat("a", 128), "console", "nulls.x", "a.con"} {
		assert.NilError(t, receipt.CheckName(name))
	}
	types := map[string]bool{}
	for _, k := range receipt.Kinds() {
		got, err := receipt.ParseKind(string(k))
		assert.NilError(t, err)
		assert.Equal(t, got, k)
		assert.Assert(t, !types[k.PredicateType()], "%s has the predicate type of another kind", k)
		types[k.PredicateType()] = true
	}
	assert.Assert(t, slices.IsSorted(receipt.Kinds()))
	_, err := receipt.ParseKind("Deploy")
	assert.ErrorContains(t, err, `unknown kind of receipt "Deploy", want one of adr, archive, audit, `)
	var reserved []receipt.Kind
	for _, k := range receipt.Kinds() {
		if k.Reserved() {
			reserved = append(reserved, k)
		}
	}
	assert.DeepEqual(t, reserved, []receipt.Kind{
		receipt.Archive, receipt.FederationMerge, receipt.KeyRotation, receipt.Observed, receipt.PolicyChange, receipt.Snapshot,
	})
	for _, bad := range []string{"", strings.Repeat("a", 63), strings.Repeat("A", 64), strings.Repeat("g", 64), strings.Repeat("a", 66)} {
		_, err := receipt.ParseID(bad)
		assert.Error(t, err, fmt.Sprintf("receipt id %q: want 64 lower-case hex digits", bad))
	}
}

// Anyone can verify a receipt file with a shell and stock gpgv.
func TestAReceiptVerifiesByHand(t *testing.T) {
	for _, tool := range []string{"bash", "gpgv"} {
		_, err := exec.LookPath(tool)
		assert.NilError(t, err, "this test needs %s", tool)
	}
	r, s := example(t), signer(t, "issuer")
	dir := t.TempDir()
	write := func(name string, data []byte) {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	write("R", r.Bytes())
	write("R.asc", openpgp.Armor(sign(t, r, "issuer").Packet))
	write("k.gpg", s.Public().Binary())
	byHand := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c",
			`set -o pipefail; { printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(wc -c <R)"; cat R; } | gpgv --keyring ./k.gpg --status-fd 1 R.asc -`)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C", "GNUPGHOME="+dir)
		out, err := cmd.Output()
		return string(out), err
	}
	out, err := byHand()
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(out, "[GNUPG:] VALIDSIG "+string(s.Fingerprint())+" "), "%s", out)

	for name, change := range map[string][]byte{
		"a letter":  bytes.Replace(r.Bytes(), []byte("app.tar.gz"), []byte("app.tar.xz"), 1),
		"a newline": append(bytes.Clone(r.Bytes()), '\n'),
		"less":      r.Bytes()[:len(r.Bytes())-1],
	} {
		write("R", change)
		out, err := byHand()
		var exit *exec.ExitError
		assert.Assert(t, errors.As(err, &exit), name)
		assert.Assert(t, !strings.Contains(out, "VALIDSIG") && strings.Contains(out, "BADSIG"), "%s", out)
	}
}

// values are what a predicate may hold.
func values(depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Map(rapid.Int64Range(-(1<<53-1), 1<<53-1), func(n int64) any { return n }),
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Just[any](nil),
	}
	if depth > 0 {
		leaves = append(leaves,
			rapid.Map(rapid.SliceOfN(values(depth-1), 0, 4), func(s []any) any { return s }),
			rapid.Map(rapid.MapOfN(rapid.String(), values(depth-1), 0, 4), func(m map[string]any) any { return m }),
		)
	}
	return rapid.OneOf(leaves...)
}

func TestWhatNewMakesParseReads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := receipt.Statement{
			Kind:      rapid.SampledFrom(receipt.Kinds()).Draw(rt, "kind"),
			Issuer:    openpgp.Fingerprint(rapid.StringMatching(`[0-9A-F]{40}|[0-9A-F]{64}`).Draw(rt, "issuer")),
			Name:      rapid.StringMatching(`([A-Za-z0-9][A-Za-z0-9_+-]{0,20}(\.[A-Za-z0-9_+-]{1,5}){0,3})?`).Draw(rt, "name"),
			Issued:    time.Unix(rapid.Int64Range(0, 1<<37).Draw(rt, "issued"), rapid.Int64Range(0, 999_999_999).Draw(rt, "fraction")),
			Subjects:  []receipt.Subject{{Name: "s" + rapid.String().Draw(rt, "subject"), SHA256: rapid.StringMatching(`[0-9a-f]{64}`).Draw(rt, "sha256")}},
			Predicate: rapid.MapOfN(rapid.String(), values(3), 0, 6).Draw(rt, "predicate"),
		}
		given := maps.Clone(s.Predicate)
		r, err := receipt.New(s)
		if err != nil {
			if s.Name != "" && receipt.CheckName(s.Name) != nil {
				return
			}
			rt.Fatal(err)
		}
		assert.DeepEqual(rt, s.Predicate, given)
		back, err := receipt.Parse(r.Bytes())
		assert.NilError(rt, err)
		assert.Equal(rt, back.ID(), r.ID())
		assert.Equal(rt, back.Kind(), s.Kind)
		assert.Equal(rt, back.Issuer(), s.Issuer)
		assert.Equal(rt, back.Name(), s.Name)
		assert.Assert(rt, back.Issued().Equal(s.Issued.Truncate(time.Second)))
		assert.DeepEqual(rt, back.Subjects(), s.Subjects)
		// The values come back as they were given.
		want, err := receipt.Canonical(given)
		assert.NilError(rt, err)
		var got map[string]json.RawMessage
		assert.NilError(rt, json.Unmarshal(back.Predicate(), &got))
		for _, own := range []string{"vaultmesh_issuer", "vaultmesh_issued", "vaultmesh_name"} {
			delete(got, own)
		}
		again, err := receipt.Canonical(got)
		assert.NilError(rt, err)
		assert.Equal(rt, string(again), string(want))
	})
}

func TestNoFlippedBitVerifies(t *testing.T) {
	line := goldenLine(t)
	keys := keyring(t, "issuer", "endorser")
	for i := range line {
		flipped := bytes.Clone(line)
		flipped[i] ^= 1 << (i % 8)
		e, err := receipt.ParseLine(flipped)
		if err != nil {
			continue
		}
		if _, err := e.Verify(keys, now); err == nil {
			t.Fatalf("bit %d of byte %d (%q) flipped, and it verifies", i%8, i, line[i])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example(f).Bytes())
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"x","subject":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := receipt.Parse(data)
		if err != nil {
			assert.Assert(t, r == nil)
			return
		}
		assert.DeepEqual(t, r.Bytes(), data)
		// The statement made of the parts that were read is the statement.
		var parts struct {
			Predicate map[string]any `json:"predicate"`
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		assert.NilError(t, dec.Decode(&parts))
		back, err := receipt.New(receipt.Statement{
			Kind: r.Kind(), Issuer: r.Issuer(), Name: r.Name(), Issued: r.Issued(), Subjects: r.Subjects(), Predicate: parts.Predicate,
		})
		assert.NilError(t, err)
		assert.Equal(t, string(back.Bytes()), string(data))
	})
}

func FuzzParseLine(f *testing.F) {
	f.Add(goldenLine(f))
	f.Add([]byte(`{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[]}`))
	keys := keyring(f, "issuer", "endorser")
	id := example(f).ID()
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := receipt.ParseLine(line)
		if err != nil {
			assert.Assert(t, e.Receipt == nil && e.Signatures == nil)
			return
		}
		assert.DeepEqual(t, e.Line(), line)
		again, err := receipt.NewEntry(e.Receipt, e.Signatures...)
		assert.NilError(t, err)
		assert.DeepEqual(t, again.Line(), line)
		// Nobody but the holders of the keys can make a line that verifies.
		if issued, err := e.Verify(keys, now); err == nil && issued {
			assert.Equal(t, e.Receipt.ID(), id)
		}
	})
}
