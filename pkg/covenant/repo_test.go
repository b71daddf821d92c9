package covenant_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
)

const origin = "github.com/vaultmesh/example"

var (
	now    = time.Date(2025, 10, 22, 18, 0, 0, 0, time.UTC)
	layout = covenant.DefaultLayout()
)

// tree is a commit's tree in memory. Paths in broken are named but not at hand,
// as blobs of a partial clone are.
type tree struct {
	files  map[string]node
	broken map[string]error
}

type node struct {
	data []byte
	mode fs.FileMode
}

var errGone = errors.New("object is missing from the repository")

func newTree() *tree { return &tree{map[string]node{}, map[string]error{}} }

func (t *tree) clone() *tree { return &tree{maps.Clone(t.files), maps.Clone(t.broken)} }

func (t *tree) put(path, data string) { t.files[path] = node{[]byte(data), 0o644} }

func (t *tree) link(path, to string) { t.files[path] = node{[]byte(to), fs.ModeSymlink} }

func (t *tree) submodule(path string) { t.files[path] = node{[]byte("commit"), fs.ModeIrregular} }

func (t *tree) remove(path string) { delete(t.files, path) }

func (t *tree) edit(path, old, replacement string) {
	data := string(t.files[path].data)
	if !strings.Contains(data, old) {
		panic(fmt.Sprintf("%s does not hold %q", path, old))
	}
	t.put(path, strings.Replace(data, old, replacement, 1))
}

func (t *tree) text(path string) string { return string(t.files[path].data) }

func (t *tree) Blob(path string) ([]byte, error) {
	if err := t.broken[path]; err != nil {
		return nil, err
	}
	n, ok := t.files[path]
	switch {
	case !ok:
		return nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
	case !n.mode.IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return n.data, nil
}

func (t *tree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(t.files)) {
		if folder == "" || p == folder || strings.HasPrefix(p, folder+"/") {
			if err := t.broken["walk "+folder]; err != nil {
				return err
			}
			n := t.files[p]
			if err := fn(p, n.mode, digest(n.data)); err != nil {
				return err
			}
		}
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// signer returns the signer of a test key: issuer or endorser.
var signer = func() func(t testing.TB, name string) openpgp.Signer {
	made := map[string]openpgp.Signer{}
	var mu sync.Mutex
	return func(t testing.TB, name string) openpgp.Signer {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if made[name] == nil {
			secret, err := os.ReadFile("../receipt/testdata/" + name + ".sec.asc")
			assert.NilError(t, err)
			made[name], err = openpgp.FromArmored(secret, nil, func() time.Time { return now })
			assert.NilError(t, err)
		}
		return made[name]
	}
}()

// logKey derives the signing key of a log from one byte.
func logKey(t testing.TB, name string, seed byte) *checkpoint.Signer {
	t.Helper()
	s, err := checkpoint.NewSigner(logSecret(name, seed))
	assert.NilError(t, err)
	return s
}

func logSecret(name string, seed byte) string {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	pub := append([]byte{1}, key.Public().(ed25519.PublicKey)...)
	hash := sha256.Sum256(append([]byte(name+"\n"), pub...))
	return fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", name, hash[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...)))
}

func statement(t testing.TB, kind receipt.Kind, name string, fields map[string]any, subjects ...receipt.Subject) *receipt.Receipt {
	t.Helper()
	if subjects == nil {
		subjects = []receipt.Subject{{Name: "artifact", SHA256: digest([]byte(name))}}
	}
	r, err := receipt.New(receipt.Statement{
		Kind: kind, Issuer: signer(t, "issuer").Fingerprint(), Name: name,
		Issued: now.Add(-time.Hour), Subjects: subjects, Predicate: fields,
	})
	assert.NilError(t, err)
	return r
}

func entry(t testing.TB, r *receipt.Receipt, signers ...string) receipt.Entry {
	t.Helper()
	var sigs []receipt.Signature
	for _, name := range signers {
		s, err := receipt.Sign(context.Background(), r, signer(t, name))
		assert.NilError(t, err)
		sigs = append(sigs, s)
	}
	e, err := receipt.NewEntry(r, sigs...)
	assert.NilError(t, err)
	return e
}

// badge is the rule of these tests by which the log implies status files.
func badge(e receipt.Entry) (map[string][]byte, bool) {
	if e.Receipt.Kind() != receipt.Smoke {
		return nil, false
	}
	return map[string][]byte{
		covenant.BadgeFile:   []byte("badge of " + e.Receipt.ID().String() + "\n"),
		covenant.ShieldsFile: []byte("shield of " + e.Receipt.ID().String() + "\n"),
	}, true
}

// entries are those of a repository that uses everything once.
var entries = sync.OnceValue(func() []receipt.Entry {
	t := &testing.T{} // these receipts are right; a mistake here panics
	app := statement(t, receipt.Deploy, "app-v1", map[string]any{"component": "app"})
	return []receipt.Entry{
		entry(t, app, "issuer"),
		entry(t, statement(t, receipt.ADR, "adr-001", nil), "issuer", "endorser"),
		entry(t, statement(t, receipt.Smoke, "", map[string]any{"result": "PASSED"}), "issuer"),
		entry(t, app, "endorser"),
		entry(t, statement(t, receipt.Incident, "incident-1", nil), "issuer"),
	}
})

func lines(entries []receipt.Entry) [][]byte {
	var all [][]byte
	for _, e := range entries {
		all = append(all, e.Line())
	}
	return all
}

// seal writes a ledger of these lines as the publisher would, with any key.
func (t *tree) seal(tb testing.TB, key *checkpoint.Signer, lines [][]byte) {
	tb.Helper()
	for p := range t.files {
		if strings.HasPrefix(p, "ops/ledger/log/") {
			t.remove(p)
		}
	}
	body := ledger.Empty(key.Origin())
	t.remove("ops/ledger/edge")
	t.remove("ops/ledger/checkpoint")
	if len(lines) > 0 {
		state, _, err := ledger.Load(layout.LedgerReader(newTree()), body)
		assert.NilError(tb, err)
		u, err := state.Append(lines...)
		assert.NilError(tb, err)
		body = u.State.Body()
		for _, f := range u.Files(note(tb, key, body)) {
			t.put(layout.Ledger(f.Path), string(f.Data))
		}
	}
	doc, err := covenant.WithRoot([]byte("# Index\n"), body.Root)
	assert.NilError(tb, err)
	t.put(layout.Docs, string(doc))
}

func note(tb testing.TB, key *checkpoint.Signer, body checkpoint.Body) []byte {
	tb.Helper()
	signed, err := key.Sign(body)
	assert.NilError(tb, err)
	return signed
}

// repo is a sound repository of these entries.
func repo(tb testing.TB, entries []receipt.Entry) *tree {
	tb.Helper()
	t := newTree()
	key := logKey(tb, origin, 1)
	t.put("ops/ledger/policy", string(checkpoint.NewPolicy(key.VerifierKey())))
	for _, name := range []string{"issuer", "endorser"} {
		t.put("ops/certs/"+name+".asc", string(signer(tb, name).Public().Armored()))
	}
	t.seal(tb, key, lines(entries))
	for _, e := range entries {
		if file := e.Receipt.File(); file != "" {
			t.put(layout.Receipt(file), string(e.Receipt.Bytes()))
			for _, s := range e.Signatures {
				t.put(layout.Receipt(e.Receipt.SignatureFile(s.Fingerprint)), string(openpgp.Armor(s.Packet)))
			}
		}
	}
	for name, data := range covenant.StatusFiles(entries, badge) {
		if data != nil {
			t.put(layout.Status(name), string(data))
		}
	}
	t.put(".gitattributes", "*.png binary\n"+covenant.Attributes(layout)+"\n")
	t.put("main.go", "package main\n")
	t.put(".github/workflows/gate.yml", "on: push\n")
	t.put("SMOKE_TEST.sh", "true\n")
	return t
}

// sound is repo(entries()), made once.
var sound = func() func(tb testing.TB) *tree {
	var once sync.Once
	var made *tree
	return func(tb testing.TB) *tree {
		tb.Helper()
		once.Do(func() { made = repo(tb, entries()) })
		return made.clone()
	}
}()

// further does one more step to a tree, unless it cannot be done any more or
// would undo a step before it: that is no further evil. done holds the paths
// that were changed so far.
func further(r *tree, done map[string]bool, step func()) bool {
	before := maps.Clone(r.files)
	fine := func() (ok bool) {
		defer func() { ok = recover() == nil }()
		step()
		return
	}()
	var changed []string
	for p := range union(before, r.files) {
		a, hasA := before[p]
		b, hasB := r.files[p]
		if hasA != hasB || a.mode != b.mode || !bytes.Equal(a.data, b.data) {
			changed = append(changed, p)
			fine = fine && !done[p]
		}
	}
	if !fine {
		r.files = before
		return false
	}
	for _, p := range changed {
		done[p] = true
	}
	return true
}

func union(a, b map[string]node) map[string]node {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// quiet makes a step that fails panic.
type quiet struct{ testing.TB }

func (quiet) Helper()      {}
func (quiet) FailNow()     { panic("cannot be done") }
func (quiet) Log(...any)   {}
func (quiet) Fail()        { panic("cannot be done") }
func (quiet) Error(...any) { panic("cannot be done") }

func options() covenant.Options {
	return covenant.Options{Layout: layout, Badge: badge, Now: now}
}

// letters writes a report's outcomes as one letter a check: P, F or E.
func letters(r *covenant.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		b.WriteByte(strings.ToUpper(f.Status)[0])
	}
	return b.String()
}

func finding(t testing.TB, r *covenant.Report, check int) covenant.Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("no finding of check %d", check)
	return covenant.Finding{}
}

func outcome(letters string) covenant.Status {
	switch {
	case strings.Contains(letters, "F"):
		return covenant.Fail
	case strings.Contains(letters, "E"):
		return covenant.Error
	}
	return covenant.Pass
}

func clock() time.Time { return now }

// zeros is a source of randomness for keys that only tests see.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func witness(t testing.TB) *checkpoint.Cosigner {
	t.Helper()
	w, err := checkpoint.NewCosigner("witness.example", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)))
	assert.NilError(t, err)
	return w
}

const goldenPolicyID = "aac24220fd4208644113b4e45295b98a5f5ee2bd3706313f2b953c7f1d7b6b28"
