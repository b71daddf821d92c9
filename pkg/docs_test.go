package pkg_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/checkpoint"
	"github.com/vaultmesh/remembrancer/pkg/covenant"
	"github.com/vaultmesh/remembrancer/pkg/ledger"
	"github.com/vaultmesh/remembrancer/pkg/openpgp"
	"github.com/vaultmesh/remembrancer/pkg/proof"
	"github.com/vaultmesh/remembrancer/pkg/publish"
	"github.com/vaultmesh/remembrancer/pkg/receipt"
	"github.com/vaultmesh/remembrancer/pkg/smoke"
	"github.com/vaultmesh/remembrancer/pkg/snapshot"
)

const (
	origin     = "github.com/vaultmesh/example"
	formatsDoc = "../docs/FORMATS.md"
)

var now = time.Date(2025, 10, 22, 18, 0, 0, 0, time.UTC)

// tree is a commit's tree in memory.
type tree struct{ fstest.MapFS }

func (t tree) put(path string, data []byte) { t.MapFS[path] = &fstest.MapFile{Data: data, Mode: 0o644} }

func (t tree) text(path string) string { return string(t.MapFS[path].Data) }

func (t tree) Blob(path string) ([]byte, error) { return fs.ReadFile(t.MapFS, path) }

func (t tree) Walk(folder string, fn func(string, fs.FileMode, string) error) error {
	for _, p := range slices.Sorted(maps.Keys(t.MapFS)) {
		if folder == "" || strings.HasPrefix(p, folder+"/") {
			if err := fn(p, t.MapFS[p].Mode, digest(t.MapFS[p].Data)); err != nil {
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

func signer(t *testing.T, name string) openpgp.Signer {
	t.Helper()
	secret, err := os.ReadFile("receipt/testdata/" + name + ".sec.asc")
	assert.NilError(t, err)
	s, err := openpgp.FromArmored(secret, nil, func() time.Time { return now })
	assert.NilError(t, err)
	return s
}

// example is a small repository under the covenant, and what the page shows of
// it: the text of each code block by its name.
func example(t *testing.T) (repo tree, blocks map[string]string) {
	t.Helper()
	repo, blocks = tree{fstest.MapFS{}}, map[string]string{}
	layout := covenant.DefaultLayout()
	issuer, endorser := signer(t, "issuer"), signer(t, "endorser")
	entry := func(r *receipt.Receipt, s openpgp.Signer) receipt.Entry {
		sig, err := receipt.Sign(context.Background(), r, s)
		assert.NilError(t, err)
		e, err := receipt.NewEntry(r, sig)
		assert.NilError(t, err)
		if r.File() != "" {
			repo.put(layout.Receipt(r.File()), r.Bytes())
			repo.put(layout.Receipt(r.SignatureFile(s.Fingerprint())), openpgp.Armor(sig.Packet))
		}
		return e
	}
	statement := func(s receipt.Statement) *receipt.Receipt {
		s.Issuer = issuer.Fingerprint()
		r, err := receipt.New(s)
		assert.NilError(t, err)
		return r
	}

	deploy := statement(receipt.Statement{
		Kind: receipt.Deploy, Name: "app-v1.0.0", Issued: now,
		Subjects:  []receipt.Subject{{Name: "app.tar.gz", SHA256: digest([]byte("the artifact"))}},
		Predicate: map[string]any{"component": "app", "version": "v1.0.0"},
	})
	const commit = "5e1c309dae7f45e0f39b1bf3ac3cd9db12e7d689"
	exit := 0
	report := smoke.Judge(smoke.Execution{
		Command: "./SMOKE_TEST.sh", Started: now, Finished: now.Add(5 * time.Second), ExitCode: &exit,
		OutputSHA256: digest([]byte("output")), OutputBytes: 6,
	}, smoke.Counts{Passed: 27, Total: 27, Format: "smoke-json"}, smoke.Expect{Total: 27})
	report.Commit = commit
	reportText, err := smoke.EncodeReport(report)
	assert.NilError(t, err)
	observed := statement(receipt.Statement{
		Kind: receipt.Observed, Issued: now.Add(time.Minute), Subjects: []receipt.Subject{{Name: "commit", Commit: commit}},
		Predicate: map[string]any{
			"vaultmesh_observed": map[string]any{
				"commit": commit, "workflow": ".github/workflows/covenant-enforce.yml", "workflow_blob": "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
				"run_id": 18722334455, "run_attempt": 1, "event": "push", "conclusion": "success",
			},
			"vaultmesh_reported": map[string]any{"type": "smoke", "sha256": digest(reportText), "text": string(reportText)},
		},
	})
	entries := []receipt.Entry{entry(deploy, issuer), entry(observed, issuer), entry(deploy, endorser)}
	var lines [][]byte
	for _, e := range entries {
		lines = append(lines, e.Line())
	}

	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	pub := append([]byte{1}, key.Public().(ed25519.PublicKey)...)
	hash := sha256.Sum256(append([]byte(origin+"\n"), pub...))
	logKey, err := checkpoint.NewSigner(fmt.Sprintf("PRIVATE+KEY+%s+%x+%s", origin, hash[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, key.Seed()...))))
	assert.NilError(t, err)
	first := grow(t, lines[:1])
	all := grow(t, lines)
	body := all.State.Body()
	note, err := logKey.Sign(body)
	assert.NilError(t, err)
	for _, f := range all.Files(note) {
		repo.put(layout.Ledger(f.Path), f.Data)
	}
	repo.put(layout.Ledger(ledger.PolicyPath), checkpoint.NewPolicy(logKey.VerifierKey()))
	repo.put("ops/certs/endorser.asc", endorser.Public().Armored())
	repo.put("ops/certs/issuer.asc", issuer.Public().Armored())
	doc, err := covenant.WithRoot(nil, body.Root)
	assert.NilError(t, err)
	repo.put(layout.Docs, doc)
	for name, data := range covenant.StatusFiles(entries, publish.Badge) {
		repo.put(layout.Status(name), data)
	}
	audit := covenant.Audit(repo, covenant.Options{Layout: layout, Badge: publish.Badge, Now: now})
	assert.Equal(t, audit.Status(), covenant.Pass, "%+v", audit.Findings)

	tampered := tree{maps.Clone(repo.MapFS)}
	tampered.put(layout.Docs, []byte("Merkle Root: "+strings.Repeat("0", 64)+"\n"))
	findings, err := json.MarshalIndent(covenant.Audit(tampered, covenant.Options{Layout: layout, Now: now}).Findings[5:7], "", "  ")
	assert.NilError(t, err)

	leaves := make([]checkpoint.Hash, len(lines))
	for i, l := range lines {
		leaves[i] = ledger.RecordHash(l)
	}
	inclusion, err := ledger.NewTree(leaves).Inclusion(3, 0)
	assert.NilError(t, err)
	consistency, err := ledger.NewTree(leaves).Consistency(1, 3)
	assert.NilError(t, err)
	trust, err := covenant.LoadTrust(repo, layout)
	assert.NilError(t, err)
	fingerprints := trust.Keys.Fingerprints()
	trusted, err := receipt.Canonical(map[string]any{
		"issuers": []any{string(fingerprints[0]), string(fingerprints[1])}, "log_policy": repo.text("ops/ledger/policy"),
		"roots": map[string]any{"fingerprints": []any{}, "threshold": 0}, "tsa": []any{},
	})
	assert.NilError(t, err)
	var kinds strings.Builder
	for _, k := range receipt.Kinds() {
		star := ""
		if k.Reserved() {
			star = " *"
		}
		fmt.Fprintf(&kinds, "%-18s %s\n", string(k)+star, k.PredicateType())
	}
	var many [][]byte
	for i := range 3*ledger.SegmentSize + 1 {
		many = append(many, fmt.Appendf(nil, "entry %d", i))
	}
	var paths strings.Builder
	for _, p := range slices.Sorted(maps.Keys(repo.MapFS)) {
		fmt.Fprintln(&paths, p)
	}

	firstNote, err := logKey.Sign(first.State.Body())
	assert.NilError(t, err)
	firstHead, err := trust.Policy.Open(firstNote)
	assert.NilError(t, err)
	head, err := trust.Policy.Open(note)
	assert.NilError(t, err)
	before, err := snapshot.New(now, firstHead, audit.PolicyID, entries[:1], nil)
	assert.NilError(t, err)
	after, err := snapshot.New(now.AddDate(0, 0, 2), head, audit.PolicyID, entries, &snapshot.Previous{Snapshot: before, Data: before.Marshal()})
	assert.NilError(t, err)

	blocks["snapshot"] = string(after.Marshal())
	blocks["files"] = paths.String()
	blocks["statement"] = string(deploy.Bytes())
	blocks["kinds"] = kinds.String()
	blocks["observed"] = string(observed.Bytes())
	blocks["id"] = deploy.ID().String()
	blocks["signature"] = repo.text(layout.Receipt(deploy.SignatureFile(issuer.Fingerprint())))
	blocks["line"] = string(lines[0])
	blocks["root"] = fmt.Sprintf("%d %x", body.Size, body.Root[:])
	blocks["edge"] = string(grow(t, many).State.Edge().Data)
	blocks["checkpoint"] = string(note)
	blocks["root-line"] = string(doc)
	blocks["policy"] = repo.text("ops/ledger/policy")
	blocks["policy-id-input"] = string(trusted)
	blocks["policy-id"] = audit.PolicyID
	assert.Equal(t, digest(append([]byte("remembrancer/policy/v1\n"), trusted...)), audit.PolicyID)
	blocks["proof"] = string(proof.Marshal(lines[0], issuer.Public(), 0, inclusion, note))
	blocks["commit"] = publish.Message(first.State.Body(), body, consistency)
	blocks["report"] = string(reportText)
	blocks["badge"] = repo.text("ops/status/badge.json")
	blocks["shields"] = repo.text("ops/status/badge.shields.json")
	blocks["findings"] = string(findings)
	for name, text := range blocks {
		blocks[name] = cut(text)
	}
	return repo, blocks
}

func grow(t *testing.T, lines [][]byte) *ledger.Update {
	t.Helper()
	nothing := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	state, _, err := ledger.Load(nothing, ledger.Empty(origin))
	assert.NilError(t, err)
	u, err := state.Append(lines...)
	assert.NilError(t, err)
	return u
}

// cut shortens lines that are too long to read, such as base64, and ends the
// text in a newline.
func cut(text string) string {
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, l := range all {
		if r := []rune(l); len(r) > 900 {
			all[i] = string(r[:300]) + "…"
		}
	}
	return strings.Join(all, "\n") + "\n"
}

var block = regexp.MustCompile("(?ms)^```(\\w+) ([\\w.-]+)\n(.*?)^```$")

// commands are the blocks that a reader is to run; other tests run them.
var commands = []string{"id-by-hand", "keyring", "gpgv", "root.py", "openssl"}

func TestThePageShowsWhatTheCodeWrites(t *testing.T) {
	page, err := os.ReadFile(formatsDoc)
	assert.NilError(t, err)
	_, blocks := example(t)
	seen := map[string]bool{}
	updated := block.ReplaceAllStringFunc(string(page), func(whole string) string {
		m := block.FindStringSubmatch(whole)
		name := m[2]
		assert.Assert(t, !seen[name], "two blocks %s", name)
		seen[name] = true
		if slices.Contains(commands, name) {
			return whole
		}
		want, ok := blocks[name]
		assert.Assert(t, ok, "nothing writes the block %s", name)
		return "```" + m[1] + " " + name + "\n" + want + "```"
	})
	for _, name := range append(slices.Collect(maps.Keys(blocks)), commands...) {
		assert.Assert(t, seen[name], "the page has no block %s", name)
	}
	assert.Equal(t, strings.Count(string(page), "\n```")/2, len(seen), "a block without a name")
	if golden.FlagUpdate() {
		assert.NilError(t, os.WriteFile(formatsDoc, []byte(updated), 0o644))
		return
	}
	assert.Equal(t, string(page), updated, "go test ./pkg -update writes the page's examples again")
}

// command returns a block that a reader is to run.
func command(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile(formatsDoc)
	assert.NilError(t, err)
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		if m[2] == name {
			return m[3]
		}
	}
	t.Fatalf("the page has no block %s", name)
	return ""
}

// bash runs a block in a folder.
func bash(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -eo pipefail\n"+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GNUPGHOME="+dir)
	out, err := cmd.Output()
	return string(out), err
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	assert.NilError(t, os.WriteFile(path, data, 0o600))
}

func TestIDAndSignatureCanBeCheckedByHand(t *testing.T) {
	repo, blocks := example(t)
	dir := t.TempDir()
	name := "ops/receipts/deploy/app-v1.0.0.receipt"
	issuer := signer(t, "issuer")
	write(t, dir, "R", []byte(repo.text(name)))
	write(t, dir, "R.asc", []byte(repo.text(name+"."+string(issuer.Fingerprint())+".asc")))
	write(t, dir, "issuer.asc", []byte(repo.text("ops/certs/issuer.asc")))
	_, err := bash(t, dir, command(t, "keyring"))
	assert.NilError(t, err)
	out, err := bash(t, dir, command(t, "id-by-hand"))
	assert.NilError(t, err)
	assert.Equal(t, strings.Fields(out)[0]+"\n", blocks["id"])
	out, err = bash(t, dir, command(t, "gpgv"))
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(out, "[GNUPG:] VALIDSIG "+string(issuer.Fingerprint())+" "), "%s", out)

	write(t, dir, "R", []byte(strings.Replace(repo.text(name), "v1.0.0", "v1.0.1", 1)))
	_, err = bash(t, dir, command(t, "gpgv"))
	assert.Assert(t, err != nil)
}

// Python is not needed to build or test this project, so its absence fails
// nothing here: the test fails where python3 is and disagrees. The root itself
// is held to RFC 6962 by the ledger's own tests.
func TestTheRootCanBeRecomputedInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Log("python3 is not installed: the script was not run")
		return
	}
	repo, blocks := example(t)
	var many [][]byte
	for i := range 2*ledger.SegmentSize + 77 {
		many = append(many, fmt.Appendf(nil, "entry %d", i))
	}
	large := grow(t, many)
	root := large.State.Body().Root
	for _, c := range []struct {
		files []ledger.File
		want  string
	}{
		{nil, "0 " + digest(nil) + "\n"},
		{[]ledger.File{{Path: ledger.SegmentPath(0), Data: []byte(repo.text("ops/ledger/log/00/00/00.jsonl"))}}, blocks["root"]},
		{large.Segments, fmt.Sprintf("%d %x\n", len(many), root[:])},
	} {
		dir := t.TempDir()
		write(t, dir, "root.py", []byte(command(t, "root.py")))
		for _, f := range c.files {
			write(t, dir, f.Path, f.Data)
		}
		cmd := exec.CommandContext(t.Context(), python, "root.py", ".")
		cmd.Dir = dir
		out, err := cmd.Output()
		assert.NilError(t, err)
		assert.Equal(t, string(out), c.want)
	}
}

// OpenSSL is no more needed than Python; see above. The signature itself is
// held to the specification by the checkpoint's own tests.
func TestTheCheckpointCanBeVerifiedWithOpenSSL(t *testing.T) {
	version, err := exec.CommandContext(t.Context(), "openssl", "version").Output()
	if err != nil || !strings.HasPrefix(string(version), "OpenSSL 3") {
		t.Log("OpenSSL 3 is not installed: the commands were not run")
		return
	}
	repo, _ := example(t)
	dir := t.TempDir()
	write(t, dir, "policy", []byte(repo.text("ops/ledger/policy")))
	write(t, dir, "checkpoint", []byte(repo.text("ops/ledger/checkpoint")))
	out, err := bash(t, dir, command(t, "openssl"))
	assert.NilError(t, err)
	assert.Equal(t, out, "Signature Verified Successfully\n")

	write(t, dir, "checkpoint", []byte(strings.Replace(repo.text("ops/ledger/checkpoint"), "\n3\n", "\n4\n", 1)))
	_, err = bash(t, dir, command(t, "openssl"))
	assert.Assert(t, err != nil)
}
