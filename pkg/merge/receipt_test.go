package merge_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/merge"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/set"
)

func TestFormatsAreFrozen(t *testing.T) {
	// Ed25519 signatures are deterministic, so the file is too.
	r, file, sidecar := newExample(t).receipt(t)
	golden.AssertBytes(t, file, "merge.golden.receipt")
	golden.AssertBytes(t, sidecar, "merge.golden.receipt.ids")
	body, err := r.Body.Bytes()
	assert.NilError(t, err)
	golden.AssertBytes(t, body, "body.golden.json")
	golden.AssertBytes(t, merge.PAE(body), "pae.golden")
}

func TestAFrozenReceiptParsesAndVerifies(t *testing.T) {
	file, sidecar := golden.Get(t, "merge.golden.receipt"), golden.Get(t, "merge.golden.receipt.ids")
	want, _, _ := newExample(t).receipt(t)
	r, err := merge.Parse(file)
	assert.NilError(t, err)
	assert.DeepEqual(t, r, want)
	v := merge.Verify(file, sidecar, keyring(t, "a", "b"), nil)
	golden.Assert(t, v.String(), "verdict.golden.txt")
	assert.Equal(t, v.Outcome(), "PASS")

	body, err := r.Body.Bytes()
	assert.NilError(t, err)
	b, err := merge.ParseBody(body)
	assert.NilError(t, err)
	assert.DeepEqual(t, b, r.Body)
	sum, err := b.Digest()
	assert.NilError(t, err)
	assert.Equal(t, sum, digest(body))
}

// The keys that people know, in the order that they know them.
func TestTheReceiptHasTheKeysThatPeopleKnow(t *testing.T) {
	_, file, _ := newExample(t).receipt(t)
	last := -1
	for _, key := range []string{
		`"type": "federation_merge"`, `"version": "1.0"`, `"timestamp": "2025-11-26T12:00:00Z"`,
		`"node_a": {`, `"endpoint": "http://localhost:8001/mcp"`, `"merkle_root_before": "`, `"receipt_count": 6`, `"signature": "`, `"key_id": "`,
		`"node_b": {`, `"endpoint": "http://localhost:8002/mcp"`, `"merkle_root_before": "`, `"receipt_count": 5`, `"signature": "`, `"key_id": "`,
		`"merge_result": {`, `"merged_root": "`, `"total_receipts": 8`, `"new_receipts_from_peer": 2`, `"deterministic": true`,
		`"verification": "Both nodes independently compute same merged_root"`,
		`"operator_signature": "`, `"operator_key": "`, `"protocol_version": "v4.0-federation-phase2"`,
	} {
		at := bytes.Index(file[last+1:], []byte(key))
		assert.Assert(t, at >= 0, key)
		last += 1 + at
	}
}

// What is signed can be had from the file with nothing but a JSON tool.
func TestTheSignedBytesAreTheFileWithoutItsSignatures(t *testing.T) {
	r, file, _ := newExample(t).receipt(t)
	var v map[string]any
	dec := json.NewDecoder(bytes.NewReader(file))
	dec.UseNumber()
	assert.NilError(t, dec.Decode(&v))
	delete(v, "operator_signature")
	delete(v["node_a"].(map[string]any), "signature")
	delete(v["node_b"].(map[string]any), "signature")
	canon, err := receipt.Canonical(v)
	assert.NilError(t, err)
	body, err := r.Body.Bytes()
	assert.NilError(t, err)
	assert.Equal(t, string(canon), string(body))
}

// Anyone can verify the signatures with a shell and stock gpgv.
func TestASignatureVerifiesByHand(t *testing.T) {
	for _, tool := range []string{"bash", "gpgv"} {
		_, err := exec.LookPath(tool)
		assert.NilError(t, err, "this test needs %s", tool)
	}
	r, file, _ := newExample(t).receipt(t)
	dir := t.TempDir()
	write := func(name string, data []byte) {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	body, err := r.Body.Bytes()
	assert.NilError(t, err)
	var shown struct {
		B struct {
			Signature []byte `json:"signature"`
		} `json:"node_b"`
	}
	assert.NilError(t, json.Unmarshal(file, &shown))
	write("B", body)
	write("B.asc", openpgp.Armor(shown.B.Signature))
	write("k.gpg", public(t, "b").Binary())
	byHand := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), "bash", "-c",
			`set -o pipefail; { printf 'DSSEv1 47 application/vnd.vaultmesh.federation-merge+json %d ' "$(wc -c <B)"; cat B; } | gpgv --keyring ./k.gpg --status-fd 1 B.asc -`)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "LC_ALL=C", "GNUPGHOME="+dir)
		out, err := cmd.Output()
		return string(out), err
	}
	out, err := byHand()
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(out, "[GNUPG:] VALIDSIG "+string(public(t, "b").Fingerprint())+" "), "%s", out)

	write("B", bytes.Replace(body, []byte(`"total_receipts":8`), []byte(`"total_receipts":9`), 1))
	out, err = byHand()
	var exit *exec.ExitError
	assert.Assert(t, errors.As(err, &exit))
	assert.Assert(t, !strings.Contains(out, "VALIDSIG") && strings.Contains(out, "BADSIG"), "%s", out)
}

func TestFilesAreRefused(t *testing.T) {
	r, golden, _ := newExample(t).receipt(t)
	file := string(golden)
	with := func(old, replacement string) string {
		assert.Assert(t, strings.Contains(file, old), old)
		return strings.Replace(file, old, replacement, 1)
	}
	a := string(signer(t, "a").Fingerprint())
	sigA := base64.StdEncoding.EncodeToString(r.SigA)
	const notItself = "merge receipt: file does not encode back to itself: want these keys in this order, two spaces of indent, and a newline at the end"
	for _, c := range []struct{ name, file, err string }{
		{"nothing", "", "merge receipt: EOF"},
		{"a list", "[]", "merge receipt: json: cannot unmarshal array into Go value of type merge.wireReceipt"},
		{"null", "null", `merge receipt: type is "", want "federation_merge"`},
		{"too long", strings.Repeat(" ", merge.MaxReceipt) + "{", "merge receipt is 524289 bytes, want at most 524288"},
		{"bytes after it", file + "{}", "merge receipt: has bytes after its JSON value"},
		{"a newline after it", file + "\n", notItself},
		{"no newline", strings.TrimSuffix(file, "\n"), notItself},
		{"another indent", with("  \"type\"", "\t\"type\""), notItself},
		{"CRLF", strings.ReplaceAll(file, "\n", "\r\n"), notItself},
		{"an unknown key", with(`"type"`, `"x": 1, "type"`), `merge receipt: json: unknown field "x"`},
		{"a key in another case", with(`"type"`, `"Type"`), notItself},
		{"a key twice", with(`"type"`, `"type": "x", "type"`), notItself},
		{"an escaped letter", with("localhost", `\u006cocalhost`), notItself},
		{"another type", with("federation_merge", "federation"), `merge receipt: type is "federation", want "federation_merge"`},
		{"another version", with(`"1.0"`, `"1.1"`), `merge receipt: version is "1.1", want "1.0"`},
		{"another protocol", with("phase2", "phase3"), `merge receipt: protocol_version is "v4.0-federation-phase3", want "v4.0-federation-phase2"`},
		{"not deterministic", with("true", "false"), `merge receipt: deterministic is "false", want "true"`},
		{"another claim", with("independently", "never"), `merge receipt: verification is "Both nodes never compute same merged_root", want "Both nodes independently compute same merged_root"`},
		{"a time with an offset", with("12:00:00Z", "12:00:00+00:00"), `merge receipt: timestamp "2025-11-26T12:00:00+00:00": want an RFC 3339 time in UTC with whole seconds, as 2006-01-02T15:04:05Z`},
		{"no time", with("2025-11-26T12:00:00Z", "now"), `merge receipt: timestamp "now": want an RFC 3339 time in UTC with whole seconds, as 2006-01-02T15:04:05Z`},
		{"a root in capitals", with(r.Body.Merged.String(), strings.ToUpper(r.Body.Merged.String())), ""},
		{"a short root", with(r.Body.A.RootBefore.String(), "00"), ""},
		{"a count below nothing", with(`"receipt_count": 6`, `"receipt_count": -6`), "merge receipt: node_a: receipt_count is -6, want 0 to 2^53-1"},
		{"a count that is rounded", with(`"receipt_count": 6`, `"receipt_count": 9007199254740992`), "merge receipt: node_a: receipt_count is 9007199254740992, want 0 to 2^53-1"},
		{"a count with a fraction", with(`"receipt_count": 6`, `"receipt_count": 6.0`), ""},
		{"a total below nothing", with(`"total_receipts": 8`, `"total_receipts": -8`), "merge receipt: total_receipts is -8, want 0 to 2^53-1"},
		{"a key in small letters", with(a, strings.ToLower(a)), `merge receipt: node_a: key_id "` + strings.ToLower(a) + `": want upper-case hex digits without spaces`},
		{"a short key", with(a, a[24:]), ""},
		{"one key for both", strings.ReplaceAll(file, string(signer(t, "b").Fingerprint()), a), "merge receipt: both sides have the key " + a + ": one node alone cannot vouch for a merge"},
		{"no node", with("local/node-a\"", "\""), `merge receipt: node_a: node_id: origin "": want a schema-less URL such as github.com/owner/name`},
		{"a node with a space", with("local/node-a\"", "local node\""), `merge receipt: node_a: node_id: origin "local node": want a schema-less URL such as github.com/owner/name`},
		{"an endpoint that steers", with("http://localhost:8001/mcp", `\u001b[2J`), `merge receipt: node_a: endpoint "\x1b[2J": want a URL of printable ASCII, or nothing`},
		{"a log key that adds a line", with(r.Body.A.Log, `x\nwitness`), `merge receipt: node_a: log: note key "x\nwitness": want a signed-note verifier key <name>+<hash>+<base64>`},
		{"a set key that is none", with(r.Body.B.Set, "x"), `merge receipt: node_b: set_key: note key "x": want a signed-note verifier key <name>+<hash>+<base64>`},
		{"a short nonce", with(r.Body.A.Nonce, "00"), `merge receipt: node_a: nonce "00": want 64 lower-case hex digits`},
		{"a trust state that is none", with(r.Body.Trust+"\",\n  \"prev", "\",\n  \"prev"), `merge receipt: trust_state "": want 64 lower-case hex digits`},
		{"a merge before it that is none", with(`"previous": ""`, `"previous": "x"`), `merge receipt: previous "x": want 64 lower-case hex digits`},
		{"no ids", with(r.Body.IDs, ""), `merge receipt: ids_sha256 "": want 64 lower-case hex digits`},
		{"no signature", with(sigA, ""), "merge receipt: node_a: signature: want the base64 of a binary OpenPGP signature"},
		{"no key of a signature", with(`"signature": "`+sigA+`",`, ""), "merge receipt: node_a: signature: want the base64 of a binary OpenPGP signature"},
		{"a signature that is not base64", with(sigA, "*"), "merge receipt: node_a: signature: want the base64 of a binary OpenPGP signature"},
		{"a signature with a newline", with(sigA, sigA[:8]+`\n`+sigA[8:]), notItself},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := merge.Parse([]byte(c.file))
			assert.Assert(t, got == nil)
			if c.err == "" {
				assert.ErrorContains(t, err, "merge receipt: ")
			} else {
				assert.Error(t, err, c.err)
			}
			v := merge.Verify([]byte(c.file), nil, keyring(t, "a", "b"), nil)
			assert.Equal(t, v.Outcome(), "FAIL")
		})
	}
}

func TestBodiesAreRefused(t *testing.T) {
	x := newExample(t)
	r, file, _ := x.receipt(t)
	body, err := r.Body.Bytes()
	assert.NilError(t, err)
	for name, data := range map[string][]byte{
		"a file": file, "a space": append(bytes.Clone(body), ' '), "nothing": nil,
		"other order": bytes.Replace(body, []byte(`{"ids_sha256":"`+r.Body.IDs+`",`), []byte(`{`), 1),
	} {
		_, err := merge.ParseBody(data)
		assert.ErrorContains(t, err, "merge receipt: ", name)
	}
	for name, edit := range map[string]func(b *merge.Body){
		"a year that has no four digits": func(b *merge.Body) { b.Time = time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no operator":                    func(b *merge.Body) { b.Operator = "" },
		"no trust state":                 func(b *merge.Body) { b.Trust = "" },
		"a note that is not UTF-8":       func(b *merge.Body) { b.A.SetNote = "\xff" },
		"a note that is too long":        func(b *merge.Body) { b.B.Checkpoint = strings.Repeat("x", 64<<10+1) },
		"one key":                        func(b *merge.Body) { b.B.Fingerprint = b.A.Fingerprint },
	} {
		b := r.Body
		edit(&b)
		_, err := b.Bytes()
		assert.ErrorContains(t, err, "merge receipt: ", name)
		_, err = b.Digest()
		assert.ErrorContains(t, err, "merge receipt: ", name)
		_, err = (&merge.Receipt{Body: b, SigA: r.SigA, SigB: r.SigB, SigOperator: r.SigOperator}).Marshal()
		assert.ErrorContains(t, err, "merge receipt: ", name)
	}
	_, err = (&merge.Receipt{Body: r.Body, SigA: r.SigA, SigB: r.SigB}).Marshal()
	assert.Error(t, err, "merge receipt: want the signatures of both sides and of the operator")

	// The wall clock of the signer may be anywhere and finer than it is written.
	b := r.Body
	b.Time = b.Time.Add(999).In(time.FixedZone("CET", 3600))
	again, err := b.Bytes()
	assert.NilError(t, err)
	assert.Equal(t, string(again), string(body))
}

func FuzzWhatParsesAsReceiptEncodesToTheSameBytes(f *testing.F) {
	f.Add(readFile(f, "merge.golden.receipt"))
	f.Add(readFile(f, "body.golden.json"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := merge.Parse(data); err == nil {
			back, err := r.Marshal()
			assert.NilError(t, err)
			assert.Assert(t, bytes.Equal(back, data))
		} else {
			assert.Assert(t, r == nil)
		}
		if b, err := merge.ParseBody(data); err == nil {
			back, err := b.Bytes()
			assert.NilError(t, err)
			assert.Assert(t, bytes.Equal(back, data))
		}
	})
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	assert.NilError(t, err)
	return data
}

func TestSetNotesAreRefused(t *testing.T) {
	state := strings.Repeat("0", 64)
	good := string(merge.SetNoteText("local/x", state, 12, set.Empty))
	golden.Assert(t, good, "setnote.golden.txt")
	n, err := merge.ParseSetNote([]byte(good))
	assert.NilError(t, err)
	assert.DeepEqual(t, n, merge.SetNote{Node: "local/x", Trust: state, Count: 12, Root: set.Empty})
	for name, c := range map[string]struct{ old, replacement, err string }{
		"another kind":    {"set/v1", "set/v2", "set note: want the five lines remembrancer/set/v1, node, trust state, count and root"},
		"a line more":     {"\n12", "\n\n12", "set note: want the five lines remembrancer/set/v1, node, trust state, count and root"},
		"no node":         {"local/x", "", `set note: node: origin "": want a schema-less URL such as github.com/owner/name`},
		"a short trust":   {state, "00", `set note: trust state "00": want 64 lower-case hex digits`},
		"zeroes":          {"12", "012", `set note: count "012": want a decimal number without leading zeroes`},
		"a plus":          {"12", "+12", `set note: count "+12": want a decimal number without leading zeroes`},
		"below nothing":   {"12", "-1", `set note: count "-1": want a decimal number without leading zeroes`},
		"a count of 2^53": {"12", "9007199254740992", `set note: count "9007199254740992": want a decimal number without leading zeroes`},
		"a root in capitals": {
			hex.EncodeToString(set.Empty[:]), strings.ToUpper(set.Empty.String()), "set note: root: ",
		},
	} {
		assert.Assert(t, strings.Contains(good, c.old))
		_, err := merge.ParseSetNote([]byte(strings.Replace(good, c.old, c.replacement, 1)))
		assert.ErrorContains(t, err, c.err, name)
	}
	_, err = merge.ParseSetNote([]byte(strings.TrimSuffix(good, "\n")))
	assert.ErrorContains(t, err, "five lines")
}

func FuzzWhatParsesAsSetNoteEncodesToTheSameBytes(f *testing.F) {
	f.Add(merge.SetNoteText("local/x", strings.Repeat("0", 64), 12, set.Empty))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := merge.ParseSetNote(data)
		if err == nil {
			assert.Equal(t, string(merge.SetNoteText(n.Node, n.Trust, n.Count, n.Root)), string(data))
		}
	})
}
