package bench

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/verification"
	"golang.org/x/mod/modfile"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"github.com/vaultmesh/remembrancer/pkg/timestamp"
)

// What a verifier says of a token.
const (
	accepts = "accepts"
	refuses = "refuses"
	panics  = "PANICS"
	unasked = "-" // it has no way to be told what the case is about
)

// trial is one of those that pkg/timestamp's tests minted, with its options.
type trial struct {
	name     string
	good     bool
	response []byte
	at       time.Time // that the token states
	opts     timestamp.Options
}

// readTrials returns the trials and the data that they are of.
func readTrials(t testing.TB) (data []byte, trials []trial) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "pkg", "timestamp", "testdata", "trials.json"))
	assert.NilError(t, err)
	var file struct {
		Data         []byte   `json:"data"`
		Certificates [][]byte `json:"certificates"`
		Trials       []struct {
			Name      string    `json:"name"`
			Refusal   string    `json:"refusal"`
			Response  []byte    `json:"response"`
			Time      time.Time `json:"time"`
			Roots     []int     `json:"roots"`
			Untrusted []int     `json:"untrusted"`
			Nonce     int64     `json:"nonce"`
			Policy    string    `json:"policy"`
			Pins      []struct {
				SPKI  []byte    `json:"spki"`
				From  time.Time `json:"from"`
				Until time.Time `json:"until"`
			} `json:"pins"`
			Now time.Time `json:"now"`
		} `json:"trials"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	assert.NilError(t, dec.Decode(&file))
	certificates := func(numbers []int) []*x509.Certificate {
		var list []*x509.Certificate
		for _, n := range numbers {
			c, err := x509.ParseCertificate(file.Certificates[n])
			assert.NilError(t, err)
			list = append(list, c)
		}
		return list
	}
	for _, f := range file.Trials {
		tr := trial{
			name: f.Name, good: f.Refusal == "", response: f.Response, at: f.Time,
			opts: timestamp.Options{Roots: certificates(f.Roots), Untrusted: certificates(f.Untrusted), Now: f.Now},
		}
		if f.Nonce != 0 {
			tr.opts.Nonce = big.NewInt(f.Nonce)
		}
		if f.Policy != "" {
			for part := range strings.SplitSeq(f.Policy, ".") {
				n, err := strconv.Atoi(part)
				assert.NilError(t, err)
				tr.opts.Policy = append(tr.opts.Policy, n)
			}
		}
		for _, p := range f.Pins {
			tr.opts.Pins = append(tr.opts.Pins, timestamp.Pin{SPKI: [sha256.Size]byte(p.SPKI), From: p.From, Until: p.Until})
		}
		trials = append(trials, tr)
	}
	return file.Data, trials
}

// asked reports whether a trial can be put to a verifier that knows roots, nonce
// and policy: neither of the others has dated pins or takes a time of now that
// a token may not be after.
func (tr trial) asked() bool { return len(tr.opts.Pins) == 0 && !tr.opts.Now.IsZero() }

func verdict(err error) string {
	if err == nil {
		return accepts
	}
	return refuses
}

func (tr trial) sigstore(data []byte) (said string) {
	if !tr.asked() {
		return unasked
	}
	defer func() {
		if recover() != nil {
			said = panics
		}
	}()
	opts := verification.VerifyOpts{Roots: tr.opts.Roots, Intermediates: tr.opts.Untrusted, Nonce: tr.opts.Nonce, OID: tr.opts.Policy}
	if len(tr.opts.Untrusted) > 0 {
		opts.TSACertificate = tr.opts.Untrusted[0]
	}
	_, err := verification.VerifyTimestampResponse(tr.response, bytes.NewReader(data), opts)
	return verdict(err)
}

// openssl asks as a careful script would: at the time that the token states,
// and with a request where a nonce or a policy is to be held to.
func (tr trial) openssl(t *testing.T, data []byte) string {
	t.Helper()
	if !tr.asked() {
		return unasked
	}
	dir := t.TempDir()
	write := func(name string, b []byte) {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	bundle := func(list []*x509.Certificate) (b []byte) {
		for _, c := range list {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		return b
	}
	write("tsr", tr.response)
	write("data", data)
	write("roots.pem", bundle(tr.opts.Roots))
	args := []string{"ts", "-verify", "-in", "tsr", "-CAfile", "roots.pem", "-attime", strconv.FormatInt(tr.at.Unix(), 10)}
	if len(tr.opts.Untrusted) > 0 {
		write("untrusted.pem", bundle(tr.opts.Untrusted))
		args = append(args, "-untrusted", "untrusted.pem")
	}
	if tr.opts.Nonce == nil && tr.opts.Policy == nil {
		args = append(args, "-data", "data")
	} else {
		sum := sha256.Sum256(data)
		query, err := timestamp.Request{Hash: crypto.SHA256, Digest: sum[:], Nonce: tr.opts.Nonce, Policy: asn1.ObjectIdentifier(tr.opts.Policy)}.Marshal()
		assert.NilError(t, err)
		write("tsq", query)
		args = append(args, "-queryfile", "tsq")
	}
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	said := verdict(err)
	// A status without its words would be a crash or a wrong command line.
	words := map[string]string{accepts: "Verification: OK", refuses: "Verification: FAILED"}[said]
	assert.Assert(t, strings.Contains(string(out), words) || strings.Contains(string(out), "unable to load") || strings.Contains(string(out), "asn1"),
		"%s: %v\n%s", tr.name, err, out)
	return said
}

// TestDefectMatrix puts every token of pkg/timestamp's tests, good ones and ones
// with a single defect, to three verifiers. Ours must be wrong on none. What all
// of them say is testdata/matrix.golden, which -update writes.
//
// The cases and the wanted verdicts are this project's own, and some defects are
// matters of policy. The table shows which checks a verifier has; it is no
// ranking.
func TestDefectMatrix(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "openssl", "version").Output()
	assert.NilError(t, err)
	version := strings.Fields(string(out))[1]
	if i := strings.LastIndexByte(version, '.'); i > 0 {
		version = version[:i]
	}
	data, trials := readTrials(t)
	var table strings.Builder
	row := func(name, ours, openssl, sigstore string) {
		fmt.Fprintln(&table, strings.TrimRight(fmt.Sprintf("%-34s %-10s %-12s %s", name, ours, openssl, sigstore), " "))
	}
	wrong := map[string]int{}
	var good, defective int
	section := func(title string, wantGood bool, wanted string) (rows int) {
		row(title, "ours", "openssl", "sigstore")
		mark := func(who, said string) string {
			if said != wanted && said != unasked {
				wrong[who]++
				return said + " x"
			}
			return said
		}
		for _, tr := range trials {
			if tr.good != wantGood {
				continue
			}
			rows++
			_, err := timestamp.Verify(tr.response, bytes.NewReader(data), tr.opts)
			ours := verdict(err)
			assert.Check(t, ours == wanted, "%s: %v", tr.name, err)
			row("  "+tr.name, mark("ours", ours), mark("openssl", tr.openssl(t, data)), mark("sigstore", tr.sigstore(data)))
		}
		return rows
	}
	fmt.Fprintf(&table, "openssl: OpenSSL %s, ts -verify -attime; sigstore: timestamp-authority/v2 %s, pkg/verification\n", version, sigstoreVersion(t))
	fmt.Fprint(&table, "x: a wrong verdict; -: it cannot be told what the case is about\n\n")
	good = section("good", true, accepts)
	fmt.Fprintln(&table)
	defective = section("defective", false, refuses)
	fmt.Fprintln(&table)
	count := func(who string) string { return strconv.Itoa(wrong[who]) }
	row(fmt.Sprintf("wrong of %d", good+defective), count("ours"), count("openssl"), count("sigstore"))
	t.Logf("\n%s", table.String())
	assert.Equal(t, wrong["ours"], 0)
	assert.Assert(t, good > 0 && defective > 40, "%d good, %d defective", good, defective)
	golden.Assert(t, table.String(), "matrix.golden")

	page, err := os.ReadFile(filepath.Join("..", "docs", "RELEASES.md"))
	assert.NilError(t, err)
	cited := fmt.Sprintf("Of %d tokens made for the purpose, %d good and %d with one defect each, ours is wrong on %d, openssl on %d, sigstore on %d",
		good+defective, good, defective, wrong["ours"], wrong["openssl"], wrong["sigstore"])
	assert.Assert(t, strings.Contains(string(page), cited), "docs/RELEASES.md does not say: %s", cited)
}

// sigstoreVersion returns the version that go.mod asks for.
func sigstoreVersion(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("go.mod")
	assert.NilError(t, err)
	file, err := modfile.Parse("go.mod", b, nil)
	assert.NilError(t, err)
	for _, r := range file.Require {
		if r.Mod.Path == "github.com/sigstore/timestamp-authority/v2" {
			return r.Mod.Version
		}
	}
	t.Fatal("go.mod does not require timestamp-authority")
	return ""
}
